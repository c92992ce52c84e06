/*
 * tidemark bench: how fast a model is on this machine, and what share that is of what the machine
 * can do, both measured in this process.
 */
#include <errno.h>
#include <jansson.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/command.h"
#include "core/mem.h"
#include "core/str.h"
#include "model/sizes.h"
#include "workers/bench.h"

#define MAX_LIST   16
#define MAX_TOKENS (1u << 20)
#define MAX_BATCH  4096
#define BENCH_WIRE "tidemark.bench/1"

struct bench_args {
    const char *model, *backend, *prompt, *gen, *batch, *threads, *kernels, *weights, *kv;
    const char *repeats, *format;
};

struct counts {
    uint32_t v[MAX_LIST];
    int n;
};

/* --- values ----------------------------------------------------------------------------------- */

static int parse_counts(const char *flag, const char *text, uint32_t lo, uint32_t hi,
                        struct counts *out, struct err *e)
{
    *out = (struct counts){0};
    for (const char *p = text;;) {
        char *end;
        errno = 0;
        const long v = strtol(p, &end, 10);
        if (errno || end == p || (*end && *end != ',') || v < (long)lo || v > (long)hi) {
            return err_set(e, ERR_INPUT, "%s: '%.60s' is not a list of whole numbers from %u to %u",
                           flag, text, lo, hi);
        }
        if (out->n == MAX_LIST) {
            return err_set(e, ERR_INPUT, "%s: at most %d numbers", flag, MAX_LIST);
        }
        out->v[out->n++] = (uint32_t)v;
        if (!*end) {
            return 0;
        }
        p = end + 1;
    }
}

static int parse_count(const char *flag, const char *text, uint32_t hi, int *out, struct err *e)
{
    struct counts one;
    if (parse_counts(flag, text, 1, hi, &one, e)) {
        return -1;
    }
    if (one.n != 1) {
        return err_set(e, ERR_INPUT, "%s: one number from 1 to %u, not a list", flag, hi);
    }
    *out = (int)one.v[0];
    return 0;
}

static int weight_bits(const char *weights)
{
    return strcmp(weights, "int8") == 0 ? 8 : strcmp(weights, "int4") == 0 ? 4 : 0;
}

static enum arch_dtype kv_dtype(const char *kv)
{
    return strcmp(kv, "bf16") == 0   ? ARCH_BF16
           : strcmp(kv, "fp8") == 0  ? ARCH_FP8
           : strcmp(kv, "int8") == 0 ? ARCH_INT8
                                     : ARCH_F32;
}

/* --- cases ------------------------------------------------------------------------------------ */

struct plan {
    struct counts prompts, gens, batches;
    int n_repeats, n_cases;
    struct bench_case cases[MAX_LIST + MAX_LIST * MAX_LIST];
    struct bench_result results[MAX_LIST + MAX_LIST * MAX_LIST];
};

static uint32_t largest(const struct counts *c)
{
    uint32_t m = 0;
    for (int i = 0; i < c->n; i++) {
        m = c->v[i] > m ? c->v[i] : m;
    }
    return m;
}

/* A length of 0 asks for nothing. */
static void make_cases(struct plan *p)
{
    for (int i = 0; i < p->prompts.n; i++) {
        if (p->prompts.v[i]) {
            p->cases[p->n_cases++] = (struct bench_case){true, p->prompts.v[i], 1, p->n_repeats};
        }
    }
    for (int i = 0; i < p->gens.n * p->batches.n; i++) {
        const uint32_t n = p->gens.v[i / p->batches.n], batch = p->batches.v[i % p->batches.n];
        if (n) {
            p->cases[p->n_cases++] = (struct bench_case){false, n, batch, p->n_repeats};
        }
    }
}

static int make_plan(const struct bench_args *a, struct plan *p, struct bench_config *cfg,
                     struct err *e)
{
    *p = (struct plan){0};
    if (parse_counts("--prompt", a->prompt, 0, MAX_TOKENS, &p->prompts, e) ||
        parse_counts("--gen", a->gen, 0, MAX_TOKENS, &p->gens, e) ||
        parse_counts("--batch", a->batch, 1, MAX_BATCH, &p->batches, e) ||
        parse_count("--repeats", a->repeats, BENCH_MAX_REPEATS, &p->n_repeats, e)) {
        return -1;
    }
    make_cases(p);
    if (p->n_cases == 0) {
        return err_set(e, ERR_INPUT, "--prompt and --gen: nothing to measure, all lengths are 0");
    }
    *cfg = (struct bench_config){
        .model = a->model,
        .kernels = a->kernels,
        .weight_bits = weight_bits(a->weights),
        .kv_dtype = kv_dtype(a->kv),
        .max_prompt = largest(&p->prompts),
        .max_gen = largest(&p->gens),
        .max_batch = largest(&p->batches),
    };
    if (!a->threads) {
        long n = sysconf(_SC_NPROCESSORS_ONLN);
        cfg->n_threads = n < 1 ? 1 : n > 1024 ? 1024 : (int)n;
        return 0;
    }
    return parse_count("--threads", a->threads, 1024, &cfg->n_threads, e);
}

static const char *describe(const struct bench_case *c, char *buf, size_t cap)
{
    if (c->is_prompt) {
        snprintf(buf, cap, "prompt %u", c->n);
    } else {
        snprintf(buf, cap, "gen %u x %u", c->n, c->batch);
    }
    return buf;
}

static void show_progress(const char *what, int run, int n_runs)
{
    if (isatty(STDERR_FILENO)) {
        fprintf(stderr, run < 0 ? "\r\033[K%s" : "\r\033[K%s, run %d of %d", what, run + 1, n_runs);
    }
}

static void end_progress(void)
{
    if (isatty(STDERR_FILENO)) {
        fputs("\r\033[K", stderr);
    }
}

static void run_cases(struct bench *b, struct plan *p)
{
    const size_t n_repeats = (size_t)p->n_repeats;
    double *runs_s = xcalloc((size_t)p->n_cases * n_repeats, sizeof *runs_s);
    char what[64];
    for (int i = 0; i < p->n_cases; i++) {
        const struct bench_case *c = &p->cases[i];
        const struct bench_case warm = {c->is_prompt, c->is_prompt ? c->n : 1, c->batch, 1};
        bench_once(b, &warm);
        for (int r = 0; r < p->n_repeats; r++) {
            show_progress(describe(c, what, sizeof what), r, p->n_repeats);
            runs_s[(size_t)i * n_repeats + (size_t)r] = bench_once(b, c);
        }
        bench_look(b);
    }
    for (int i = 0; i < p->n_cases; i++) { // by the best ceilings of all looks
        bench_sum(b, &p->cases[i], runs_s + (size_t)i * n_repeats, &p->results[i]);
    }
    end_progress();
    free(runs_s);
}

/* --- output ----------------------------------------------------------------------------------- */

static void print_table(const struct bench *b, const struct bench_args *a,
                        const struct bench_config *cfg, const struct plan *p)
{
    const struct arch *arch = bench_arch(b);
    const struct ceilings *c = bench_ceilings(b);
    const double params = (double)sizes_params(arch), bytes = bench_weight_bytes(b);
    const char *name;
    const double peak = bench_peak(b, &name);
    printf("%s: %.3fG parameters, %.2f GB, %.2f bytes per weight (%s), cache %s\n", a->model,
           params / 1e9, bytes / 1e9, bytes / params, a->weights, a->kv);
    printf("cpu, %d thread%s, kernels %s, loaded in %.1f s\n", cfg->n_threads,
           cfg->n_threads > 1 ? "s" : "", bench_kernels(b), bench_load_s(b));
    printf("ceilings of %d thread%s: read %.1f GB/s, float32 %.0f GFLOP/s (%s)", cfg->n_threads,
           cfg->n_threads > 1 ? "s" : "", c->read_bytes_per_s / 1e9, c->f32_per_s / 1e9,
           c->f32_name);
    if (c->bf16_per_s > 0) {
        printf(", bfloat16 %.0f (%s)", c->bf16_per_s / 1e9, c->bf16_name);
    }
    if (c->tile_per_s > 0) {
        printf(", %.0f (%s)", c->tile_per_s / 1e9, c->tile_name);
    }
    if (c->int8_per_s > 0) {
        printf(", int8 %.0f (%s)", c->int8_per_s / 1e9, c->int8_name);
    }
    printf("\npeak below: %.0f GFLOP/s, %s; shares are of the best of %d run%s\n\n", peak / 1e9,
           name, p->n_repeats, p->n_repeats > 1 ? "s" : "");
    printf("%-16s %22s %10s %8s %6s %9s %6s %9s\n", "test", "tokens/s (mean, sd)", "best", "GB/s",
           "share", "GFLOP/s", "share", "roofline");
    char what[64], rate[64];
    for (int i = 0; i < p->n_cases; i++) {
        const struct bench_result *r = &p->results[i];
        snprintf(rate, sizeof rate, "%.2f +- %.2f", r->mean, r->sd);
        printf("%-16s %22s %10.2f %8.2f %5.0f%% %9.1f %5.0f%% %8.0f%%\n",
               describe(&p->cases[i], what, sizeof what), rate, r->best, r->read_bytes_per_s / 1e9,
               100 * r->read_share, r->flops_per_s / 1e9, 100 * r->peak_share,
               100 * r->roofline_share);
    }
}

static json_t *rate_json(double per_s, const char *name)
{
    return per_s > 0 ? json_pack("{s:f, s:s}", "per_s", per_s, "instruction", name) : json_null();
}

static json_t *ceilings_json(const struct ceilings *c)
{
    return json_pack("{s:f, s:o, s:o, s:o, s:o}", "read_bytes_per_s", c->read_bytes_per_s,
                     "float32", rate_json(c->f32_per_s, c->f32_name), "bfloat16",
                     rate_json(c->bf16_per_s, c->bf16_name), "bfloat16_tiles",
                     rate_json(c->tile_per_s, c->tile_name), "int8",
                     rate_json(c->int8_per_s, c->int8_name));
}

static json_t *result_json(const struct bench_case *c, const struct bench_result *r)
{
    return json_pack("{s:s, s:i, s:i, s:{s:f, s:f, s:f, s:i}, s:f, s:f, s:f, s:f, s:f, s:f, s:f}",
                     "test", c->is_prompt ? "prompt" : "gen", "tokens", (int)c->n, "batch",
                     (int)c->batch, "tokens_per_s", "mean", r->mean, "sd", r->sd, "best", r->best,
                     "n", c->n_repeats, "bytes", r->bytes, "flops", r->flops, "read_bytes_per_s",
                     r->read_bytes_per_s, "flops_per_s", r->flops_per_s, "read_share",
                     r->read_share, "peak_share", r->peak_share, "roofline_share",
                     r->roofline_share);
}

static void print_json(const struct bench *b, const struct bench_args *a,
                       const struct bench_config *cfg, const struct plan *p)
{
    json_t *results = json_array();
    for (int i = 0; i < p->n_cases; i++) {
        json_array_append_new(results, result_json(&p->cases[i], &p->results[i]));
    }
    const char *name;
    const double peak = bench_peak(b, &name), bytes = bench_weight_bytes(b);
    const int64_t params = sizes_params(bench_arch(b));
    json_t *o = json_pack("{s:s, s:s, s:s, s:s, s:i, s:s, s:s, s:I, s:f, s:f, s:f, s:o, s:o, s:o}",
                          "schema", BENCH_WIRE, "model", a->model, "backend", "cpu", "kernels",
                          bench_kernels(b), "threads", cfg->n_threads, "weights", a->weights, "kv",
                          a->kv, "params", (json_int_t)params, "weight_bytes", bytes,
                          "bytes_per_weight", bytes / (double)params, "load_s", bench_load_s(b),
                          "ceilings", ceilings_json(bench_ceilings(b)), "peak",
                          rate_json(peak, name), "results", results);
    json_dumpf(o, stdout, JSON_INDENT(1) | JSON_REAL_PRECISION(17));
    printf("\n");
    json_decref(o);
}

static int run(int argc, char **argv, struct err *e)
{
    struct bench_args a = {0};
    struct command_args rest;
    struct bench_config cfg;
    struct bench *b;
    struct plan *p = xcalloc(1, sizeof *p);
    if (command_parse(&cmd_bench, argc, argv, &a, &rest, e)) {
        goto free_plan;
    }
    const int n_rest = rest.n;
    command_args_free(&rest);
    if (n_rest > 0 || !a.model) {
        err_set(e, ERR_INPUT,
                n_rest > 0 ? "bench: takes no arguments besides its options"
                           : "bench: needs --model");
        goto free_plan;
    }
    if (strcmp(a.backend, "cpu") != 0) {
        err_set(e, ERR_INPUT, "--backend: '%.40s': only cpu can be measured", a.backend);
        goto free_plan;
    }
    if (make_plan(&a, p, &cfg, e)) {
        goto free_plan;
    }
    show_progress("loading the model, measuring ceilings", -1, 0);
    int rc = bench_open(&b, &cfg, e);
    end_progress();
    if (rc) {
        goto free_plan;
    }
    run_cases(b, p);
    (strcmp(a.format, "json") == 0 ? print_json : print_table)(b, &a, &cfg, p);
    bench_close(b);

free_plan:
    free(p);
    return (int)e->code;
}

static const struct command_flag flags[] = {
    {"--model", "-m", "MODEL", NULL,
     "a folder in Hugging Face layout, a .gguf file, or preset:NAME",
     offsetof(struct bench_args, model)},
    {"--backend", NULL, "cpu", "cpu", "what computes", offsetof(struct bench_args, backend)},
    {"--prompt", "-p", "N,..", "512", "tokens of prompts, each measured alone; 0: none",
     offsetof(struct bench_args, prompt)},
    {"--gen", "-n", "N,..", "64", "output tokens from an empty context on; 0: none",
     offsetof(struct bench_args, gen)},
    {"--batch", "-b", "N,..", "1,16", "requests that --gen decodes together",
     offsetof(struct bench_args, batch)},
    {"--threads", "-t", "N", NULL, "that compute; default: one per core of this machine",
     offsetof(struct bench_args, threads)},
    {"--kernels", NULL, "SET", "auto",
     "auto, portable, avx2, avx512, avx512_bf16 or amx, as far as this CPU has them",
     offsetof(struct bench_args, kernels)},
    {"--weights", NULL, "as-is|int8|int4", "as-is",
     "as stored, or the layers' made integers of 8 or 4 bits with a factor per 32",
     offsetof(struct bench_args, weights)},
    {"--kv", NULL, "f32|bf16|fp8|int8", "f32", "what keys and values are cached in",
     offsetof(struct bench_args, kv)},
    {"--repeats", "-r", "N", "5", "runs of each test, 1 to 1000",
     offsetof(struct bench_args, repeats)},
    {"--format", "-f", "table|json", "table", "JSON: schema " BENCH_WIRE,
     offsetof(struct bench_args, format)},
};

const struct command cmd_bench = {
    .name = "bench",
    .summary = "how fast the engine is on this machine, beside what the machine can do at most",
    .usage = "bench --model MODEL [--prompt N,..] [--gen N,..] [--batch N,..] [--threads N]\n"
             "    [--kernels SET] [--weights as-is|int8|int4] [--kv TYPE] [--repeats N]\n"
             "    [--format table|json]",
    .details =
        "Measures prompts and decoding without scheduler or transport: tokens per second with\n"
        "their spread, the bytes and operations that moved, and each as a share of a ceiling\n"
        "measured in the same process by as many threads. Roofline: the time that bytes at full\n"
        "bandwidth or operations at peak would take, whichever is longer, over the time taken.\n"
        "Shares are of the best run, as the ceilings are the best seen.\n",
    .flags = flags,
    .n_flags = sizeof flags / sizeof flags[0],
    .example = "bench --model preset:small --prompt 512 --gen 64 --batch 1,16",
    .run = run,
};
