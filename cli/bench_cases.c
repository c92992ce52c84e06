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

static uint32_t largest(const struct numbers *c)
{
    uint32_t m = 0;
    for (int i = 0; i < c->n; i++) {
        m = c->v[i] > m ? c->v[i] : m;
    }
    return m;
}

/* A length of 0 asks for nothing. */
static void make_cases(struct bench_cases *c, const struct numbers *prompts,
                       const struct numbers *gens, const struct numbers *batches)
{
    for (int i = 0; i < prompts->n; i++) {
        if (prompts->v[i]) {
            c->v[c->n++] = (struct bench_case){true, prompts->v[i], 1, c->n_repeats};
        }
    }
    for (int i = 0; i < gens->n * batches->n; i++) {
        const uint32_t n = gens->v[i / batches->n], batch = batches->v[i % batches->n];
        if (n) {
            c->v[c->n++] = (struct bench_case){false, n, batch, c->n_repeats};
        }
    }
}

int bench_cases_parse(struct bench_cases *c, const char *prompt, const char *gen, const char *batch,
                      const char *repeats, struct err *e)
{
    struct numbers prompts, gens, batches;
    uint32_t n_repeats;
    if (parse_numbers("--prompt", prompt, 0, MAX_TOKENS, &prompts, e) ||
        parse_numbers("--gen", gen, 0, MAX_TOKENS, &gens, e) ||
        parse_numbers("--batch", batch, 1, MAX_BATCH, &batches, e) ||
        bench_cases_number("--repeats", repeats, 1, BENCH_MAX_REPEATS, &n_repeats, e)) {
        return -1;
    }
    *c = (struct bench_cases){
        .n_repeats = (int)n_repeats,
        .max_prompt = largest(&prompts),
        .max_gen = largest(&gens),
        .max_batch = largest(&batches),
    };
    make_cases(c, &prompts, &gens, &batches);
    return c->n > 0
               ? 0
               : err_set(e, ERR_INPUT, "--prompt and --gen: nothing to measure, all lengths are 0");
}

/* --- running ---------------------------------------------------------------------------------- */

const char *bench_cases_name(const struct bench_case *c, char *buf, size_t cap)
{
    if (c->is_prompt) {
        snprintf(buf, cap, "prompt %u", c->n);
    } else {
        snprintf(buf, cap, "gen %u x %u", c->n, c->batch);
    }
    return buf;
}

void bench_cases_run(const struct bench_cases *c, struct bench *b, const char *whose,
                     struct bench_result *out)
{
    const size_t n_repeats = (size_t)c->n_repeats;
    double *runs_s = xcalloc((size_t)c->n * n_repeats, sizeof *runs_s);
    char what[64];
    for (int i = 0; i < c->n; i++) {
        const struct bench_case *one = &c->v[i];
        const struct bench_case warm = {one->is_prompt, one->is_prompt ? one->n : 1, one->batch, 1};
        bench_once(b, &warm);
        for (int r = 0; r < c->n_repeats; r++) {
            status_line_show("%s%s, run %d of %d", whose, bench_cases_name(one, what, sizeof what),
                             r + 1, c->n_repeats);
            runs_s[(size_t)i * n_repeats + (size_t)r] = bench_once(b, one);
        }
        bench_look(b);
    }
    for (int i = 0; i < c->n; i++) { // by the best ceilings of all looks
        bench_sum(b, &c->v[i], runs_s + (size_t)i * n_repeats, &out[i]);
    }
    status_line_clear();
    free(runs_s);
}
