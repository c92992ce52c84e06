/*
 * tidemark bench: how fast a model is on this machine, and what share that is of what the machine
 * can do, both measured in this process.
 */
#include <jansson.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/bench_cases.h"
#include "cli/bench_forms.h"
#include "cli/bench_quality.h"
#include "cli/command.h"
#include "cli/status_line.h"
#include "core/mem.h"
#include "model/sizes.h"
#include "workers/bench.h"

#define MAX_THREADS 1024
#define MAX_CHUNKS  (1u << 20)
#define MAX_CONTEXT (1u << 24)
#define BENCH_WIRE  "tidemark.bench/1"

struct bench_args {
    const char *model, *backend, *prompt, *gen, *batch, *threads, *kernels, *weights, *kv;
    const char *repeats, *quality, *context, *chunks, *format;
};

/* --- options ---------------------------------------------------------------------------------- */

static int make_config(const struct bench_args *a, const struct bench_cases *cases,
                       struct bench_config *cfg, struct err *e)
{
    *cfg = (struct bench_config){
        .model = a->model,
        .kernels = a->kernels,
        .max_prompt = cases->max_prompt,
        .max_gen = cases->max_gen,
        .max_batch = cases->max_batch,
    };
    if (!a->threads) {
        long n = sysconf(_SC_NPROCESSORS_ONLN);
        cfg->n_threads = n < 1 ? 1 : n > MAX_THREADS ? MAX_THREADS : (int)n;
        return 0;
    }
    uint32_t n;
    if (bench_cases_number("--threads", a->threads, 1, MAX_THREADS, &n, e)) {
        return -1;
    }
    cfg->n_threads = (int)n;
    return 0;
}

static int check_args(const struct bench_args *a, int n_rest, struct err *e)
{
    if (n_rest > 0 || !a->model) {
        return err_set(e, ERR_INPUT,
                       n_rest > 0 ? "bench: takes no arguments besides its options"
                                  : "bench: needs --model");
    }
    if (strcmp(a->backend, "cpu") != 0) {
        return err_set(e, ERR_INPUT, "--backend: '%.40s': only cpu can be measured", a->backend);
    }
    if (!a->quality && a->context) {
        return err_set(e, ERR_INPUT, "--context: cuts the text of --quality, which is not there");
    }
    return 0;
}

/* --- output ----------------------------------------------------------------------------------- */

/* What was measured, in one form. */
struct measured {
    const struct bench *b;
    const struct bench_config *cfg;
    struct bench_form form;
    const struct bench_cases *cases;
    struct bench_result *results; // (cases.n)
};

static void print_table(const struct measured *m)
{
    const struct bench *b = m->b;
    const int n_threads = m->cfg->n_threads, n_repeats = m->cases->n_repeats;
    const struct arch *arch = bench_arch(b);
    const struct ceilings *c = bench_ceilings(b);
    const double params = (double)sizes_params(arch), bytes = bench_weight_bytes(b);
    const char *name;
    const double peak = bench_peak(b, &name);
    printf("%s: %.3fG parameters, %.2f GB, %.2f bytes per weight (%s), cache %s\n", m->cfg->model,
           params / 1e9, bytes / 1e9, bytes / params, m->form.weights, m->form.kv);
    printf("cpu, %d thread%s, kernels %s, loaded in %.1f s\n", n_threads, n_threads > 1 ? "s" : "",
           bench_kernels(b), bench_load_s(b));
    printf("ceilings of %d thread%s: read %.1f GB/s, float32 %.0f GFLOP/s (%s)", n_threads,
           n_threads > 1 ? "s" : "", c->read_bytes_per_s / 1e9, c->f32_per_s / 1e9, c->f32_name);
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
           name, n_repeats, n_repeats > 1 ? "s" : "");
    printf("%-16s %22s %10s %8s %6s %9s %6s %9s\n", "test", "tokens/s (mean, sd)", "best", "GB/s",
           "share", "GFLOP/s", "share", "roofline");
    char what[64], rate[64];
    for (int i = 0; i < m->cases->n; i++) {
        const struct bench_result *r = &m->results[i];
        snprintf(rate, sizeof rate, "%.2f +- %.2f", r->mean, r->sd);
        printf("%-16s %22s %10.2f %8.2f %5.0f%% %9.1f %5.0f%% %8.0f%%\n",
               bench_cases_name(&m->cases->v[i], what, sizeof what), rate, r->best,
               r->read_bytes_per_s / 1e9, 100 * r->read_share, r->flops_per_s / 1e9,
               100 * r->peak_share, 100 * r->roofline_share);
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

static void print_json(const struct measured *m)
{
    const struct bench *b = m->b;
    json_t *results = json_array();
    for (int i = 0; i < m->cases->n; i++) {
        json_array_append_new(results, result_json(&m->cases->v[i], &m->results[i]));
    }
    const char *name;
    const double peak = bench_peak(b, &name), bytes = bench_weight_bytes(b);
    const int64_t params = sizes_params(bench_arch(b));
    json_t *o = json_pack("{s:s, s:s, s:s, s:s, s:i, s:s, s:s, s:I, s:f, s:f, s:f, s:o, s:o, s:o}",
                          "schema", BENCH_WIRE, "model", m->cfg->model, "backend", "cpu", "kernels",
                          bench_kernels(b), "threads", m->cfg->n_threads, "weights",
                          m->form.weights, "kv", m->form.kv, "params", (json_int_t)params,
                          "weight_bytes", bytes, "bytes_per_weight", bytes / (double)params,
                          "load_s", bench_load_s(b), "ceilings", ceilings_json(bench_ceilings(b)),
                          "peak", rate_json(peak, name), "results", results);
    json_dumpf(o, stdout, JSON_INDENT(1) | JSON_REAL_PRECISION(17));
    printf("\n");
    json_decref(o);
}

/* --- the command ------------------------------------------------------------------------------ */

static int measure(const struct bench_args *a, struct bench_config *cfg,
                   const struct bench_cases *cases, bool json, struct err *e)
{
    struct measured m = {.cfg = cfg, .cases = cases};
    struct bench *b;
    if (bench_forms_one(&m.form, a->weights, a->kv, e)) {
        return -1;
    }
    bench_forms_apply(&m.form, cfg);
    cfg->has_ceilings = true;
    status_line_show("loading the model, measuring ceilings");
    const int rc = bench_open(&b, cfg, e);
    status_line_clear();
    if (rc) {
        return -1;
    }
    m.b = b;
    m.results = xcalloc((size_t)cases->n, sizeof *m.results);
    bench_cases_run(cases, b, "", m.results);
    (json ? print_json : print_table)(&m);
    free(m.results);
    bench_close(b);
    return 0;
}

static int judge(const struct bench_args *a, const struct bench_config *cfg,
                 const struct bench_cases *cases, bool json, struct err *e)
{
    struct bench_quality_ask ask = {.file = a->quality, .weights = a->weights, .kv = a->kv};
    struct bench_quality *q = xcalloc(1, sizeof *q);
    int rc = bench_cases_number("--chunks", a->chunks, 0, MAX_CHUNKS, &ask.max_chunks, e);
    if (rc == 0 && a->context) {
        rc = bench_cases_number("--context", a->context, BENCH_TEXT_MIN_CONTEXT, MAX_CONTEXT,
                                &ask.context, e);
    }
    if (rc == 0) {
        rc = bench_quality_run(q, &ask, cfg, cases, e);
    }
    if (rc == 0) {
        (json ? bench_quality_json : bench_quality_table)(q);
        bench_quality_free(q);
    }
    free(q);
    return rc;
}

static int run(int argc, char **argv, struct err *e)
{
    struct bench_args a = {0};
    struct command_args rest;
    struct bench_config cfg;
    if (command_parse(&cmd_bench, argc, argv, &a, &rest, e)) {
        return (int)e->code;
    }
    const int n_rest = rest.n;
    command_args_free(&rest);
    struct bench_cases *cases = xcalloc(1, sizeof *cases);
    if (check_args(&a, n_rest, e) == 0 &&
        bench_cases_parse(cases, a.prompt, a.gen, a.batch, a.repeats, e) == 0 &&
        make_config(&a, cases, &cfg, e) == 0) {
        const bool json = strcmp(a.format, "json") == 0;
        int rc = a.quality ? judge(&a, &cfg, cases, json, e) : measure(&a, &cfg, cases, json, e);
        CHECK((rc == 0) == (e->code == ERR_NONE));
    }
    free(cases);
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
    {"--weights", NULL, "FORM,..", NULL,
     "as-is, bf16, int8 or int4; default: as-is, or all of them",
     offsetof(struct bench_args, weights)},
    {"--kv", NULL, "TYPE,..", NULL,
     "f32, bf16, fp8 or int8 for keys and values; default: f32, or all",
     offsetof(struct bench_args, kv)},
    {"--repeats", "-r", "N", "5", "runs of each test, 1 to 1000",
     offsetof(struct bench_args, repeats)},
    {"--quality", "-Q", "FILE", NULL, "judge forms by this text: UTF-8, or NAME.ids with token ids",
     offsetof(struct bench_args, quality)},
    {"--context", NULL, "N", NULL,
     "tokens of a chunk of the text, from 8; default: 512, or what the model takes",
     offsetof(struct bench_args, context)},
    {"--chunks", NULL, "N", "16", "chunks of the text that are read at most; 0: all",
     offsetof(struct bench_args, chunks)},
    {"--format", "-f", "table|json", "table",
     "JSON: schema " BENCH_WIRE ", with --quality " BENCH_QUALITY_WIRE,
     offsetof(struct bench_args, format)},
};

const struct command cmd_bench = {
    .name = "bench",
    .summary = "how fast the engine is on this machine, beside what the machine can do at most",
    .usage =
        "bench --model MODEL [--prompt N,..] [--gen N,..] [--batch N,..] [--threads N]\n"
        "    [--kernels SET] [--weights FORM] [--kv TYPE] [--repeats N] [--format table|json]\n"
        "bench --model MODEL --quality FILE [--context N] [--chunks N] [--weights FORM,..]\n"
        "    [--kv TYPE,..] and the other options of above",
    .details =
        "Measures prompts and decoding without scheduler or transport: tokens per second with\n"
        "their spread, the bytes and operations that moved, and each as a share of a ceiling\n"
        "measured in the same process by as many threads. Roofline: the time that bytes at full\n"
        "bandwidth or operations at peak would take, whichever is longer, over the time taken.\n"
        "Shares are of the best run, as the ceilings are the best seen.\n"
        "\n"
        "Weights are as stored, or made at load: bf16, or the layers' matrices integers of 8 or 4\n"
        "bits with a factor per 32 (the head then has 8 bits).\n"
        "\n"
        "With --quality it loads the model in one form after the other, all weights with all caches\n"
        "or those of the lists, and prints beside each one's speed and size what it costs: the\n"
        "perplexity of the text, that over the baseline's, the mean and the 99th percentile of the\n"
        "Kullback-Leibler divergence from the baseline's distributions, and how often both have the\n"
        "same likeliest token, with standard errors. The baseline is the model in bf16 with its\n"
        "cache in bf16. The text is cut into chunks of --context tokens, each read on its own and\n"
        "judged in its second half, as llama.cpp's perplexity does. A model without a tokenizer\n"
        "takes NAME.ids: whole numbers with white space between. The baseline's logits lie in\n"
        "TMPDIR meanwhile: 4 bytes x vocabulary x judged positions.\n",
    .flags = flags,
    .n_flags = sizeof flags / sizeof flags[0],
    .example = "bench --model preset:small --prompt 512 --gen 64 --batch 1,16\n"
               "bench --model DIR --quality wiki.txt --batch 1 --repeats 3",
    .run = run,
};
