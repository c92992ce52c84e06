#include "cli/bench_cases.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "cli/status_line.h"
#include "core/mem.h"

#define MAX_TOKENS (1u << 20)
#define MAX_BATCH  4096

struct numbers {
    uint32_t v[BENCH_CASES_LIST];
    int n;
};

/* --- values ----------------------------------------------------------------------------------- */

static int parse_numbers(const char *flag, const char *text, uint32_t lo, uint32_t hi,
                         struct numbers *out, struct err *e)
{
    *out = (struct numbers){0};
    for (const char *p = text;;) {
        char *end;
        errno = 0;
        const long v = strtol(p, &end, 10);
        if (errno || end == p || (*end && *end != ',') || v < (long)lo || v > (long)hi) {
            return err_set(e, ERR_INPUT, "%s: '%.60s' is not a list of whole numbers from %u to %u",
                           flag, text, lo, hi);
        }
        if (out->n == BENCH_CASES_LIST) {
            return err_set(e, ERR_INPUT, "%s: at most %d numbers", flag, BENCH_CASES_LIST);
        }
        out->v[out->n++] = (uint32_t)v;
        if (!*end) {
            return 0;
        }
        p = end + 1;
    }
}

int bench_cases_number(const char *flag, const char *text, uint32_t lo, uint32_t hi, uint32_t *out,
                       struct err *e)
{
    struct numbers one;
    if (parse_numbers(flag, text, lo, hi, &one, e)) {
        return -1;
    }
    if (one.n != 1) {
        return err_set(e, ERR_INPUT, "%s: one number from %u to %u, not a list", flag, lo, hi);
    }
    *out = one.v[0];
    return 0;
}

static void add_case(struct bench_cases *c, bool is_prompt, uint32_t n, uint32_t batch,
                     uint32_t depth)
{
    if (n > 0) { // a length of 0 asks for nothing
        c->v[c->n++] = (struct bench_case){is_prompt, n, batch, depth, c->n_repeats};
    }
}

static void make_cases(struct bench_cases *c, const struct numbers *prompts,
                       const struct numbers *gens, const struct numbers *batches,
                       const struct numbers *depths)
{
    for (int i = 0; i < prompts->n * depths->n; i++) {
        add_case(c, true, prompts->v[i / depths->n], 1, depths->v[i % depths->n]);
    }
    for (int i = 0; i < gens->n * batches->n * depths->n; i++) {
        const int at = i / depths->n;
        add_case(c, false, gens->v[at / batches->n], batches->v[at % batches->n],
                 depths->v[i % depths->n]);
    }
}

int bench_cases_parse(struct bench_cases *c, const struct bench_cases_ask *ask, struct err *e)
{
    struct numbers prompts, gens, batches, depths;
    uint32_t n_repeats;
    if (parse_numbers("--prompt", ask->prompt, 0, MAX_TOKENS, &prompts, e) ||
        parse_numbers("--gen", ask->gen, 0, MAX_TOKENS, &gens, e) ||
        parse_numbers("--batch", ask->batch, 1, MAX_BATCH, &batches, e) ||
        parse_numbers("--depth", ask->depth, 0, MAX_TOKENS, &depths, e) ||
        bench_cases_number("--repeats", ask->repeats, 1, BENCH_MAX_REPEATS, &n_repeats, e)) {
        return -1;
    }
    *c = (struct bench_cases){.n_repeats = (int)n_repeats};
    make_cases(c, &prompts, &gens, &batches, &depths);
    return c->n > 0
               ? 0
               : err_set(e, ERR_INPUT, "--prompt and --gen: nothing to measure, all lengths are 0");
}

/* --- running ---------------------------------------------------------------------------------- */

const char *bench_cases_name(const struct bench_case *c, char *buf, size_t cap)
{
    char at[24] = "";
    if (c->depth > 0) {
        snprintf(at, sizeof at, " at %u", c->depth);
    }
    if (c->is_prompt) {
        snprintf(buf, cap, "prompt %u%s", c->n, at);
    } else {
        snprintf(buf, cap, "gen %u x %u%s", c->n, c->batch, at);
    }
    return buf;
}

/* A run that does not count, then those that do; runs (n_repeats). */
static int run_case(const struct bench_case *c, struct bench *b, const char *whose,
                    struct bench_time *runs, struct err *e)
{
    char what[64];
    bench_cases_name(c, what, sizeof what);
    status_line_show("%s%s, warming up", whose, what);
    if (bench_begin(b, c, e)) {
        return -1;
    }
    for (int r = 0; r < c->n_repeats; r++) {
        status_line_show("%s%s, run %d of %d", whose, what, r + 1, c->n_repeats);
        if (bench_once(b, c, &runs[r], e)) {
            return -1;
        }
    }
    return bench_look(b, e);
}

int bench_cases_run(const struct bench_cases *c, struct bench *b, const char *whose,
                    struct bench_result *out, struct err *e)
{
    const size_t n_repeats = (size_t)c->n_repeats;
    struct bench_time *runs = xcalloc((size_t)c->n * n_repeats, sizeof *runs);
    int rc = 0;
    for (int i = 0; i < c->n && rc == 0; i++) {
        rc = run_case(&c->v[i], b, whose, runs + (size_t)i * n_repeats, e);
    }
    for (int i = 0; i < c->n && rc == 0; i++) { // by the best ceilings of all looks
        bench_sum(b, &c->v[i], runs + (size_t)i * n_repeats, &out[i]);
    }
    status_line_clear();
    free(runs);
    return rc;
}
