/*
 * tidemark bench: how fast a model is on this machine, and what share that is of what the machine
 * can do, both measured in this process; or what the edges between ranks are.
 */
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/bench_cases.h"
#include "cli/bench_edges.h"
#include "cli/bench_forms.h"
#include "cli/bench_quality.h"
#include "cli/bench_report.h"
#include "cli/command.h"
#include "cli/machine.h"
#include "cli/status_line.h"
#include "core/comm.h"
#include "core/mem.h"
#include "core/str.h"
#include "workers/backend.h"
#include "workers/bench.h"
#include "workers/edges_file.h"

#define MAX_THREADS 1024
#define MAX_CHUNKS  (1u << 20)
#define MAX_CONTEXT (1u << 24)

struct bench_args {
    const char *model, *backend, *prompt, *gen, *batch, *depth, *threads, *kernels;
    const char *weights, *kv, *repeats, *quality, *context, *chunks, *format;
    bool edges;
    const char *ranks, *seconds, *max_size, *hostfile, *output, *heatmap, *costs;
};

/* --- options ---------------------------------------------------------------------------------- */

/* --backend; of auto, what there is. */
static int choose_backend(const struct bench_args *a, const char **out, struct err *e)
{
    char why[256];
    *out = a->backend;
    if (str_choice("cpu|cuda|auto", a->backend) < 0) {
        return err_set(e, ERR_INPUT, "--backend: '%.40s' is not one of cpu, cuda, auto",
                       a->backend);
    }
    if (strcmp(a->backend, "auto") == 0) {
        *out = backend_auto(why, sizeof why);
        if (strcmp(*out, "cpu") == 0) {
            fprintf(stderr, "tidemark: backend auto: cpu (%s)\n", why);
        }
    }
    if (strcmp(*out, "cpu") != 0 && strcmp(a->kernels, "auto") != 0) {
        return err_set(e, ERR_INPUT,
                       "--kernels: '%.40s': instruction sets are the CPU's; backend %s "
                       "has its own kernels",
                       a->kernels, *out);
    }
    return 0;
}

static int make_config(const struct bench_args *a, const struct bench_cases *cases,
                       struct bench_config *cfg, struct err *e)
{
    *cfg = (struct bench_config){
        .model = a->model,
        .kernels = a->kernels,
        .cases = cases->v,
        .n_cases = cases->n,
    };
    if (choose_backend(a, &cfg->backend, e)) {
        return -1;
    }
    if (!a->threads) {
        const int n = machine_cores();
        cfg->n_threads = n > MAX_THREADS ? MAX_THREADS : n;
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
    if (n_rest > 0 || (!a->model && !a->edges)) {
        return err_set(e, ERR_INPUT,
                       n_rest > 0 ? "bench: takes no arguments besides its options"
                                  : "bench: needs --model");
    }
    if (a->edges && a->quality) {
        return err_set(e, ERR_INPUT, "--edges and --quality exclude each other");
    }
    const char *of_edges = a->ranks      ? "--ranks"
                           : a->hostfile ? "--hostfile"
                           : a->output   ? "--output"
                           : a->heatmap  ? "--heatmap"
                           : a->costs    ? "--costs"
                                         : NULL;
    if (!a->edges && of_edges) {
        return err_set(e, ERR_INPUT, "%s: belongs to --edges, which is not there", of_edges);
    }
    if (!a->quality && a->context) {
        return err_set(e, ERR_INPUT, "--context: cuts the text of --quality, which is not there");
    }
    return 0;
}

/* --- the command ------------------------------------------------------------------------------ */

static int measure(const struct bench_args *a, struct bench_config *cfg,
                   const struct bench_cases *cases, bool json, struct err *e)
{
    struct bench_form form;
    struct bench *b;
    if (bench_forms_one(&form, cfg->backend, a->weights, a->kv, e)) {
        return -1;
    }
    bench_forms_apply(&form, cfg);
    cfg->has_ceilings = true;
    status_line_show("loading the model, measuring ceilings");
    int rc = bench_open(&b, cfg, e);
    status_line_clear();
    if (rc) {
        return -1;
    }
    struct bench_result *results = xcalloc((size_t)cases->n, sizeof *results);
    rc = bench_cases_run(cases, b, "", results, e);
    if (rc == 0) {
        const struct bench_report report = {b, cfg->model, form, cases, results};
        (json ? bench_report_json : bench_report_table)(&report);
    }
    free(results);
    bench_close(b);
    return rc;
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

static int run_engine(const struct bench_args *a, struct err *e)
{
    struct bench_config cfg;
    struct bench_cases *cases = xcalloc(1, sizeof *cases);
    const struct bench_cases_ask ask = {a->prompt, a->gen, a->batch, a->depth, a->repeats};
    if (bench_cases_parse(cases, &ask, e) == 0 && make_config(a, cases, &cfg, e) == 0) {
        const bool json = strcmp(a->format, "json") == 0;
        int rc = a->quality ? judge(a, &cfg, cases, json, e) : measure(a, &cfg, cases, json, e);
        CHECK((rc == 0) == (e->code == ERR_NONE));
    }
    free(cases);
    return (int)e->code;
}

static int run(int argc, char **argv, struct err *e)
{
    struct bench_args a = {0};
    struct command_args rest;
    int rc = command_parse(&cmd_bench, argc, argv, &a, &rest, e);
    if (rc == 0) {
        rc = check_args(&a, rest.n, e);
        command_args_free(&rest);
    }
    if (rc) {
        if (comm_launched_rank() > 0) {
            *e = (struct err){0}; // rank 0 says it
        }
        return (int)e->code;
    }
    const struct bench_edges_ask edges = {
        .ranks = a.ranks,
        .seconds = a.seconds,
        .max_size = a.max_size,
        .hostfile = a.hostfile,
        .output = a.output,
        .heatmap = a.heatmap,
        .costs = a.costs,
        .model = a.model,
        .prompt = a.prompt,
        .batch = a.batch,
        .format = a.format,
        .backend = a.backend,
    };
    return a.edges ? bench_edges_run(&edges, argc, argv, e) : run_engine(&a, e);
}

static const struct command_flag flags[] = {
    {"--model", "-m", "MODEL", NULL,
     "a folder in Hugging Face layout, a .gguf file, or preset:NAME",
     offsetof(struct bench_args, model)},
    {"--backend", NULL, "cpu|cuda|auto", "cpu", "what computes; auto: a GPU where there is one",
     offsetof(struct bench_args, backend)},
    {"--prompt", "-p", "N,..", "512", "tokens of prompts, each measured alone; 0: none",
     offsetof(struct bench_args, prompt)},
    {"--gen", "-n", "N,..", "64", "output tokens, one after the other; 0: none",
     offsetof(struct bench_args, gen)},
    {"--batch", "-b", "N,..", "1,16", "requests that --gen decodes together",
     offsetof(struct bench_args, batch)},
    {"--depth", "-d", "N,..", "0", "positions that each request's cache holds before a test",
     offsetof(struct bench_args, depth)},
    {"--threads", "-t", "N", NULL, "that compute; default: one per core that it may use",
     offsetof(struct bench_args, threads)},
    {"--kernels", NULL, "SET", "auto",
     "auto, portable, avx2, avx512, avx512_bf16 or amx, as far as this CPU has them",
     offsetof(struct bench_args, kernels)},
    {"--weights", NULL, "FORM,..", NULL,
     "as-is, bf16, int8 or int4; default: as-is, or all of them",
     offsetof(struct bench_args, weights)},
    {"--kv", NULL, "TYPE,..", NULL,
     "f32, bf16, fp8 or int8 for keys and values; default: f32, of cuda bf16, or all",
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
    {"--edges", NULL, NULL, NULL, "measure the edges between the ranks of this job instead",
     offsetof(struct bench_args, edges)},
    {"--ranks", NULL, "N", NULL, "edges: start so many on this host, 2 to 64, without mpirun",
     offsetof(struct bench_args, ranks)},
    {"--hostfile", NULL, "FILE", NULL, "edges: hosts for them, one per line: NAME slots=N",
     offsetof(struct bench_args, hostfile)},
    {"--seconds", NULL, "N", BENCH_EDGES_SECONDS,
     "edges: all of them, 1 to 600; what does not fit is left out, large sizes first",
     offsetof(struct bench_args, seconds)},
    {"--max-size", NULL, "BYTES", BENCH_EDGES_SIZE, "edges: the largest message, 1KiB to 1GiB",
     offsetof(struct bench_args, max_size)},
    {"--costs", NULL, "FILE", NULL,
     "edges: measured costs of the model's parts, for a hop's share of a stage's time",
     offsetof(struct bench_args, costs)},
    {"--output", "-o", "FILE", NULL,
     "edges: write the JSON there, too, for `model inspect --edges FILE`",
     offsetof(struct bench_args, output)},
    {"--heatmap", NULL, "FILE.svg", NULL, "edges: draw latency and bandwidth of all pairs there",
     offsetof(struct bench_args, heatmap)},
    {"--format", "-f", "table|json", "table",
     "JSON: schema " BENCH_REPORT_WIRE ", with --quality " BENCH_QUALITY_WIRE
     ", with --edges " EDGES_FILE_WIRE,
     offsetof(struct bench_args, format)},
};

const struct command cmd_bench = {
    .name = "bench",
    .summary = "how fast the engine is, or the edges between ranks, beside what the machine can do",
    .usage =
        "bench --model MODEL [--prompt N,..] [--gen N,..] [--batch N,..] [--depth N,..]\n"
        "    [--threads N] [--kernels SET] [--weights FORM] [--kv TYPE] [--repeats N]\n"
        "    [--format table|json]\n"
        "bench --model MODEL --quality FILE [--context N] [--chunks N] [--weights FORM,..]\n"
        "    [--kv TYPE,..] and the other options of above\n"
        "bench --edges [--ranks N] [--seconds N] [--max-size BYTES] [--output FILE]\n"
        "    [--heatmap FILE.svg] [--model MODEL [--prompt N,..] [--batch N,..] [--costs FILE]]\n"
        "    [--format table|json]",
    .details =
        "Measures prompts and decoding without scheduler or transport: tokens per second with\n"
        "their spread, the bytes and operations that moved, and each as a share of a ceiling\n"
        "measured in the same process. Roofline: the time that bytes at full bandwidth or\n"
        "operations at peak would take, whichever is longer, over the time taken. Gap: the share of\n"
        "the time in which nothing was computed. Shares are of the best run, as the ceilings are\n"
        "the best seen. With --depth each test runs behind so many positions, which are put in\n"
        "each request's cache beforehand, untimed; reading them counts as bytes and operations.\n"
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
        "TMPDIR meanwhile: 4 bytes x vocabulary x judged positions.\n"
        "\n"
        "With --edges the ranks of this job (started by mpirun or srun, or by itself with --ranks)\n"
        "send each other messages of 8 bytes to --max-size, each ordered pair over each transport:\n"
        "`mpi` carries hidden states and sums, `messages` all that is said about them; with --backend\n"
        "cuda also `ipc` and `nccl`, between the ranks' GPUs where a pair has them. Pairs measure\n"
        "in rounds, as many at once as are disjoint, so that n ranks take n - 1 rounds; it says how\n"
        "many were at work beside. One way is the time until an answer of 8 bytes is back, less half\n"
        "of a ping-pong of 8 bytes (of 8 bytes: that half), with minimum, median and 99th percentile;\n"
        "bandwidth is the best of 1 MiB and more, beside a plain copy of that size in one process, or\n"
        "within one GPU's memory.\n"
        "Each edge is fitted by latency + bytes / bandwidth. An outlier takes more than 1.5 times the\n"
        "median of the edges of its kind, within a host or between hosts, and longer than their\n"
        "spreads explain. With --model it also says what a hop between stages takes for the batches of\n"
        "--batch (decoding) and --prompt: tokens x hidden x 2 bytes\n"
        "(4 where weights are float32).\n",
    .flags = flags,
    .n_flags = sizeof flags / sizeof flags[0],
    .example = "bench --model preset:small --prompt 512 --gen 64 --batch 1,16\n"
               "bench --model DIR --quality wiki.txt --batch 1 --repeats 3\n"
               "bench --edges --ranks 4 --output edges.json --heatmap edges.svg",
    .joins_with = "--edges",
    .run = run,
};
