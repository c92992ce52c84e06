/*
 * tidemark model inspect: what a model weighs, its best split, its rooflines, the requests it holds.
 * tidemark model plan: traffic through a simulated replica on a virtual clock.
 * tidemark model make: a model with random weights, as files.
 */
#include <jansson.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/command.h"
#include "cli/inspect.h"
#include "cli/inspect_run.h"
#include "cli/make_model.h"
#include "cli/plan_traffic.h"
#include "cli/run_config.h"
#include "core/config.h"
#include "core/mem.h"
#include "core/opt.h"
#include "core/str.h"
#include "core/units.h"

#define MIN_MEMORY_BYTES 1000000
#define INPUT_TOKENS     "256"
#define OUTPUT_TOKENS    "256"

struct model_args {
    const char *format;
    const char *pipeline, *tensor, *gpus, *gpu_memory, *memory_share, *context, *requests;
    const char *hardware, *costs, *save_costs, *read_share, *compute_share;
    bool measure;
    const char *edges, *input_tokens, *output_tokens;
    const char *arch, *preset, *out, *seed;
};

/* --- values ----------------------------------------------------------------------------------------- */

static int parse_count(const char *flag, const char *text, double lo, double hi, double *out,
                       struct err *e)
{
    struct err unread = {0};
    double x = 0;
    if (units_parse_number(text, &x, &unread) || x < lo || x > hi || x != (double)(int64_t)x) {
        return err_set(e, ERR_INPUT, "%s: '%.40s' is not a whole number from %.0f to %.0f", flag,
                       text, lo, hi);
    }
    *out = x;
    return 0;
}

static int parse_int(const char *flag, const char *text, int hi, int *out, struct err *e)
{
    double x = 0;
    if (text && parse_count(flag, text, 1, hi, &x, e)) {
        return -1;
    }
    *out = (int)x;
    return 0;
}

static int parse_share(const char *flag, const char *text, double *out, struct err *e)
{
    struct err unread = {0};
    return units_parse_share(text, out, &unread) || !(*out > 0)
               ? err_set(e, ERR_INPUT, "%s: '%.40s' is not a share above 0 and up to 1 (0.9, 90%%)",
                         flag, text)
               : 0;
}

static int parse_context(const char *flag, const char *text, double *out, struct err *e)
{
    return parse_count(flag, text, 1, 1 << 24, out, e);
}

static int parse_list(const char *flag, const char *text,
                      int (*parse)(const char *, const char *, double *, struct err *),
                      struct inspect_list *out, struct err *e)
{
    char *copy = text ? xstrdup(text) : NULL, *rest = copy, *item;
    int rc = 0;
    out->n = 0;
    while (rc == 0 && (item = strsep(&rest, ",")) != NULL) {
        if (out->n == INSPECT_MAX_LIST) {
            rc = err_set(e, ERR_INPUT, "%s: at most %d values", flag, INSPECT_MAX_LIST);
        } else {
            rc = parse(flag, item, &out->v[out->n++], e);
        }
    }
    free(copy);
    return rc;
}

static int parse_memory(const char *text, double *out, struct err *e)
{
    int64_t bytes = 0;
    if (text && units_parse_bytes(text, &bytes, e)) {
        return err_wrap(e, "--gpu-memory");
    }
    if (text && bytes < MIN_MEMORY_BYTES) {
        return err_set(e, ERR_INPUT, "--gpu-memory: '%.40s' is below 1 MB; 80GB has a unit", text);
    }
    *out = (double)bytes;
    return 0;
}

/* --- inspect ---------------------------------------------------------------------------------------- */

/* What belongs to edges only, or does not go with them. */
static int check_edges(const struct command_args *args, const struct model_args *a, struct err *e)
{
    if (a->edges && (a->gpus || a->measure)) {
        return err_set(e, ERR_INPUT,
                       "--edges: the ranks of its file are the devices, --costs FILE what was "
                       "measured; %s does not go with it",
                       a->gpus ? "--gpus" : "--measure");
    }
    if (!a->edges && (args->n > 2 || a->input_tokens || a->output_tokens)) {
        return err_set(e, ERR_INPUT, "%s: belongs to --edges, which is not there",
                       args->n > 2       ? args->positional[2]
                       : a->input_tokens ? "--input-tokens"
                                         : "--output-tokens");
    }
    return 0;
}

/* cost.* as `run` takes them. */
static int parse_cost(const struct command_args *args, struct cost_config *c, struct err *e)
{
    json_t *root = json_object();
    int rc = 0;
    opt_defaults(cost_options, c);
    for (int i = 2; i < args->n && rc == 0; i++) {
        rc = config_override(root, args->positional[i], e);
    }
    rc = rc || config_check_sections(root, "cost", e) || opt_apply(cost_options, c, root, e);
    json_decref(root);
    return rc ? -1 : 0;
}

static int parse_request(const struct model_args *a, struct inspect_options *o, struct err *e)
{
    return parse_count("--input-tokens", a->input_tokens ? a->input_tokens : INPUT_TOKENS, 1,
                       1 << 20, &o->n_in, e) ||
                   parse_count("--output-tokens",
                               a->output_tokens ? a->output_tokens : OUTPUT_TOKENS, 1, 1 << 20,
                               &o->n_out, e)
               ? -1
               : 0;
}

static int parse_inspect(const struct model_args *a, struct inspect_options *o, struct err *e)
{
    o->edges = a->edges;
    o->hardware = a->hardware;
    o->costs = a->costs;
    o->save = a->save_costs;
    o->measure = a->measure;
    o->json = strcmp(a->format, "json") == 0;
    return parse_int("--pipeline", a->pipeline, RECORD_MAX_STAGES, &o->pipeline, e) ||
                   parse_int("--tensor", a->tensor, 64, &o->tensor, e) ||
                   parse_int("--gpus", a->gpus, 4096, &o->n_devices, e) ||
                   parse_memory(a->gpu_memory, &o->memory_bytes, e) ||
                   parse_share("--read-share", a->read_share, &o->read_share, e) ||
                   parse_share("--compute-share", a->compute_share, &o->compute_share, e) ||
                   parse_count("--requests", a->requests, 1, 1 << 20, &o->n_requests, e) ||
                   parse_list("--memory-share", a->memory_share, parse_share, &o->shares, e) ||
                   parse_list("--context", a->context, parse_context, &o->contexts, e)
               ? -1
               : 0;
}

/* "inspect CONFIG.yaml key=value ...": the config says how the model is split. */
static int run_inspect_config(const struct command_args *args, const struct model_args *a,
                              struct err *e)
{
    const struct {
        const char *flag, *value, *instead;
    } refused[] = {
        {"--pipeline", a->pipeline, "target.pipeline=P"},
        {"--tensor", a->tensor, "target.tensor=T"},
        {"--gpus", a->gpus, "target.pipeline, target.tensor and target.replicas"},
        {"--edges", a->edges, "the model's name in the config's place"},
        {"--costs", a->costs, "the model's name in the config's place"},
        {"--measure", a->measure ? "" : NULL, "the model's name in the config's place"},
        {"--save-costs", a->save_costs, "the model's name in the config's place"},
        {"--input-tokens", a->input_tokens, "load.input_tokens=N"},
        {"--output-tokens", a->output_tokens, "load.output_tokens=N"},
    };
    struct inspect_run_options o = {
        .config = args->positional[1],
        .assignments = (const char *const *)args->positional + 2,
        .n_assignments = args->n - 2,
        .hardware = a->hardware,
        .json = strcmp(a->format, "json") == 0,
    };
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
        if (refused[i].value) {
            return err_set(e, ERR_INPUT, "%s: does not go with a run's config; %s", refused[i].flag,
                           refused[i].instead);
        }
    }
    return parse_memory(a->gpu_memory, &o.memory_bytes, e) || inspect_run_print(&o, e) ? -1 : 0;
}

static int run_inspect(const struct command_args *args, const struct model_args *a, struct err *e)
{
    struct cost_config cost = {0};
    if (args->n >= 2 && inspect_run_is_config(args->positional[1])) {
        return run_inspect_config(args, a, e);
    }
    if (args->n < 2 || (args->n > 2 && !strchr(args->positional[2], '='))) {
        return err_set(e, ERR_INPUT, "model inspect: the form is `model inspect M`");
    }
    struct inspect_options o = {.model = args->positional[1], .cost = &cost};
    int rc = check_edges(args, a, e) || parse_cost(args, &cost, e) || parse_inspect(a, &o, e) ||
                     parse_request(a, &o, e) || inspect_print(&o, e)
                 ? -1
                 : 0;
    opt_free(cost_options, &cost);
    return rc;
}

/* --- plan ------------------------------------------------------------------------------------------- */

/* "plan [CONFIG] key=value ...": a run's config, with the simulated backend unless it says so. */
static int run_plan(const struct command_args *args, const struct model_args *a, struct err *e)
{
    struct run_config c = {0};
    const char **set = xcalloc((size_t)args->n + 1, sizeof *set);
    const char *path = NULL;
    int n = 0, rc = 0;
    set[n++] = "target.backend=sim";
    for (int i = 1; i < args->n && rc == 0; i++) {
        const char *arg = args->positional[i];
        if (strchr(arg, '=')) {
            set[n++] = arg;
        } else if (!path) {
            path = arg;
        } else {
            rc = err_set(e, ERR_INPUT, "%s: one config file only; settings have the form key=value",
                         arg);
        }
    }
    rc = rc == 0 ? run_config_load(&c, path, set, n, e) : rc;
    if (rc == 0) {
        rc = plan_traffic_print(&c, strcmp(a->format, "json") == 0, e);
        run_config_free(&c);
    }
    free(set);
    return rc;
}

/* --- make ------------------------------------------------------------------------------------------- */

static int run_make(const struct command_args *args, const struct model_args *a, struct err *e)
{
    double seed = 0;
    if (args->n != 1 || !a->preset || !a->out) {
        return err_set(e, ERR_INPUT,
                       "model make: the form is `model make --preset NAME --out DIR`; "
                       "--arch and --seed may be given");
    }
    if (parse_count("--seed", a->seed, 0, 1e15, &seed, e)) {
        return -1;
    }
    const struct make_model_options o = {a->arch, a->preset, a->out, (uint64_t)seed};
    return make_model_write(&o, e);
}

/* --- all --------------------------------------------------------------------------------------------- */

static int run_what(const struct command_args *args, const struct model_args *a, struct err *e)
{
    int what = args->n > 0 ? str_choice("inspect|plan|make", args->positional[0]) : -1;
    switch (what) {
    case 0:
        return run_inspect(args, a, e);
    case 1:
        return run_plan(args, a, e);
    case 2:
        return run_make(args, a, e);
    default:
        return err_set(
            e, ERR_INPUT,
            "model: the form is `model inspect M`, `model plan [CONFIG] [key=value ...]` "
            "or `model make --preset NAME --out DIR`");
    }
}

static int run(int argc, char **argv, struct err *e)
{
    struct command_args args;
    struct model_args a = {0};
    if (command_parse(&cmd_model, argc, argv, &a, &args, e)) {
        return e->code;
    }
    int rc = run_what(&args, &a, e);
    command_args_free(&args);
    return rc ? (int)e->code : 0;
}

#define FLAG(field) offsetof(struct model_args, field)

static const struct command_flag flags[] = {
    {"--format", "-f", "text|json", "text", "inspect, plan: JSON for programs", FLAG(format)},
    {"--pipeline", NULL, "P", NULL, "stages (default: all numbers that fill the devices)",
     FLAG(pipeline)},
    {"--tensor", NULL, "T", NULL,
     "devices that share a stage (default: all numbers up to 8, a host's)", FLAG(tensor)},
    {"--gpus", NULL, "N", NULL, "devices in all (default: P x T)", FLAG(gpus)},
    {"--gpu-memory", NULL, "BYTES", NULL, "of a device (default: the hardware's)",
     FLAG(gpu_memory)},
    {"--memory-share", NULL, "LIST", "0.9", "of it for weights and KV cache", FLAG(memory_share)},
    {"--context", NULL, "LIST", "4096,32768,131072", "tokens of a request; times are for the first",
     FLAG(context)},
    {"--requests", NULL, "N", "64", "decoding together, where the memory holds them",
     FLAG(requests)},
    {"--hardware", NULL, "NAME", NULL,
     "a100-40g, a100-80g, h100-sxm, h100-pcie, h200, b200, l4, l40s, mi300x (default: this machine)",
     FLAG(hardware)},
    {"--read-share", NULL, "SHARE", "0.8", "of the hardware's bandwidth that is reached",
     FLAG(read_share)},
    {"--compute-share", NULL, "SHARE", "0.6", "of its bf16 peak", FLAG(compute_share)},
    {"--costs", NULL, "FILE,..", NULL, "measured costs of the model's parts instead of a roofline",
     FLAG(costs)},
    {"--measure", NULL, NULL, NULL,
     "measure those costs on this host's cores; with --tensor T of T ranks, with sums",
     FLAG(measure)},
    {"--save-costs", NULL, "FILE", NULL, "write the parts' costs, for target.sim.costs",
     FLAG(save_costs)},
    {"--edges", NULL, "FILE", NULL,
     "of `bench --edges`: rank every split T x P x R over its ranks and hosts", FLAG(edges)},
    {"--input-tokens", NULL, "N", NULL, "edges: of a request (default " INPUT_TOKENS ")",
     FLAG(input_tokens)},
    {"--output-tokens", NULL, "N", NULL, "edges: of a request (default " OUTPUT_TOKENS ")",
     FLAG(output_tokens)},
    {"--preset", NULL, "NAME", NULL, "make: which shape", FLAG(preset)},
    {"--arch", NULL, "llama|qwen2|gemma2|gpt_oss|deepseek_v3", NULL,
     "make: its family must be this one; of `tiny` the one of that family", FLAG(arch)},
    {"--out", "-o", "DIR", NULL, "make: the folder, a new or empty one", FLAG(out)},
    {"--seed", NULL, "N", "0", "make: other values than preset:NAME has, which are those of 0",
     FLAG(seed)},
};

const struct command cmd_model = {
    .name = "model",
    .summary =
        "what a model weighs, holds and could do: splits, rooflines, traffic on a virtual clock",
    .usage =
        "model inspect M [--gpus N] [--hardware NAME] [--context LIST] [--format text|json]\n"
        "model inspect CONFIG.yaml [key=value ...] --hardware NAME | --gpu-memory BYTES\n"
        "model inspect M --edges FILE [--hardware NAME | --costs FILE,..] [--input-tokens N]\n"
        "    [--output-tokens N] [--requests N] [cost.instance=NAME ...] [--format text|json]\n"
        "model plan [CONFIG] [key=value ...] [--format text|json]\n"
        "model make --preset NAME --out DIR [--arch A] [--seed N]",
    .details =
        "inspect: M is a folder in Hugging Face layout or preset:NAME; its weights are not read.\n"
        "Parameters, bytes, KV cache per token and what each kind of layer takes; the best split over\n"
        "P stages x T devices; how many requests the memory holds. Bounds, not promises.\n"
        "inspect CONFIG.yaml: whether a run's workers fit their GPUs: by stage what weights, the largest\n"
        "batch and a token in the KV cache take of a rank's memory, and the pool that is left.\n"
        "inspect --edges: each rank of the file is one such device (without --hardware, the ranks of a\n"
        "host share this machine; --costs FILE,.. are those of one rank, then those that --measure\n"
        "--tensor T saved of T ranks, on as many cores for each (taskset -c LIST); where there are none, of all divided by T). Ranked by output tokens/s at\n"
        "saturation, with TTFT, TPOT and, where cost.instance is given, USD per million tokens: T ranks\n"
        "of one host share each stage and add up by a ring over their slowest edge, P stages pass\n"
        "hidden states over the edges between them, R replicas as there are ranks.\n"
        "plan: the traffic of a run's config (target.*, load.*) through the real scheduler, over\n"
        "stages that take what target.sim says, on a virtual clock: latencies and queues at each rate,\n"
        "in a thousandth of the time or less. The same seed offers what `run` would offer.\n"
        "make: config.json and safetensors with the random weights of a preset, which any engine that\n"
        "reads Hugging Face folders can load; preset:NAME and the folder compute the same.\n",
    .flags = flags,
    .n_flags = sizeof flags / sizeof flags[0],
    .config_parts = RUN_CONFIG_TARGET | RUN_CONFIG_LOAD | RUN_CONFIG_DATASET | RUN_CONFIG_COST,
    .example = "model inspect configs/gpu-16.yaml --hardware h100-sxm\n"
               "model inspect preset:tiny --gpus 16 --hardware h100-sxm --context 4096,131072\n"
               "model inspect preset:llama-3.1-405b --edges edges.json --hardware h100-sxm\n"
               "model plan target.model=preset:tiny target.pipeline=4 load.rates=1,2,4\n"
               "model make --preset llama-1b --out llama-1b",
    .run = run,
};
