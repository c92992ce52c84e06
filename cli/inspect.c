#include "cli/inspect.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/inspect_edges.h"
#include "cli/machine.h"
#include "core/mem.h"
#include "core/str.h"
#include "model/sizes.h"
#include "workers/capacity.h"
#include "workers/sim/timing.h"

#define PROMPT_TOKENS 512
#define LAYER_NS      5000.0 // of a device's roofline; a host starts no kernels
#define MAX_SPLITS    64
#define HOST_DEVICES  8 // that the links of struct hardware join

static const struct kv {
    const char *name;
    double value_bytes;
} kvs[] = {{"bf16", 2}, {"fp8", 1}};
enum {
    N_KVS = sizeof kvs / sizeof kvs[0]
};

struct kind { // layers that are alike
    int n, first;
    struct sizes_layer size;
    double decode_ns, prompt_ns;
};

struct room {
    double context, share;
    int64_t n[N_KVS], n_on_best[N_KVS];
};

struct inspect {
    const struct inspect_options *o;
    struct inspect_list contexts;
    struct arch arch;
    struct hardware device;
    struct costs_shares shares;
    struct costs costs[INSPECT_MAX_COSTS]; // of one device, then of those that share a stage
    int n_costs;
    int n_devices;
    struct kind kinds[COSTS_N_KINDS]; // by costs_kind; n 0: the model has none
    double decode_ns, prompt_ns;      // of the whole model on one device
    struct capacity_split *splits;    // (n_splits)
    double *held;                     // (n_splits) requests that the row is for
    int n_splits, best;               // -1: none fits
    struct room *rooms;               // (n_rooms)
    size_t n_rooms;
    struct inspect_edges *edges; // instead of splits and rooms; NULL: not asked for
};

/* --- the machine ---------------------------------------------------------------------------------- */

static int choose_device(struct inspect *in, struct err *e)
{
    const struct inspect_options *o = in->o;
    in->shares = (struct costs_shares){o->read_share, o->compute_share, LAYER_NS};
    if (o->hardware) {
        if (hardware_find(o->hardware, &in->device, e)) {
            return -1;
        }
    } else {
        if (machine_measure(&in->device, e)) {
            return -1;
        }
        in->shares = (struct costs_shares){1, 1, 0}; // what was measured is reached
    }
    if (o->memory_bytes > 0) {
        in->device.memory_bytes = o->memory_bytes;
    }
    return 0;
}

static bool is_measured(const struct inspect *in)
{
    return in->o->costs || in->o->measure;
}

static int costs_at(const struct inspect *in, int tensor, struct costs *out, struct err *e)
{
    if (!is_measured(in)) {
        costs_of_hardware(&in->device, &in->shares, tensor, &in->arch, out);
        return 0;
    }
    if (tensor != 1) {
        return err_set(e, ERR_INPUT, "--tensor %d: measured costs are of one device a stage",
                       tensor);
    }
    *out = in->costs[0];
    return 0;
}

/* FILE,.. : of one device with a stage to itself, then of T that share one, each T once. */
static int check_costs(const struct inspect *in, struct err *e)
{
    const int n = in->n_costs - 1;
    if (n == 0) {
        return costs_check_whole(&in->costs[0], e);
    }
    for (int i = 0; i < n; i++) {
        if (in->costs[i].tensor == in->costs[n].tensor) {
            return err_set(e, ERR_INPUT, "costs of %d ranks that share a stage, as another file's",
                           in->costs[n].tensor);
        }
    }
    if (in->costs[n].n_threads != in->costs[0].n_threads) {
        return err_set(
            e, ERR_INPUT,
            "costs of ranks with %d threads each, but the first file's have %d: measure each "
            "file on the cores that its ranks are to have (taskset -c LIST)",
            in->costs[n].n_threads, in->costs[0].n_threads);
    }
    return 0;
}

static int read_costs(struct inspect *in, struct err *e)
{
    char *names = xstrdup(in->o->costs), *rest = names;
    int rc = 0;
    in->n_costs = 0;
    for (char *name; rc == 0 && (name = strsep(&rest, ","));) {
        if (in->n_costs == INSPECT_MAX_COSTS) {
            rc = err_set(e, ERR_INPUT, "--costs: at most %d files", INSPECT_MAX_COSTS);
            break;
        }
        rc = costs_read(name, &in->arch, &in->costs[in->n_costs++], e);
        if (rc == 0 && check_costs(in, e)) {
            rc = err_wrap(e, "--costs: %s", name);
        }
    }
    free(names);
    return rc;
}

/* Each rank has its part of the cores. */
static int measure_costs(struct inspect *in, struct err *e)
{
    const int n_cores = machine_cores(), tensor = in->o->tensor > 1 ? in->o->tensor : 1;
    const struct timing_config timing = {in->o->model, &in->arch, tensor, n_cores / tensor};
    if (tensor > n_cores) {
        return err_set(e, ERR_INPUT, "--measure --tensor %d: at most the %d cores that there are",
                       tensor, n_cores);
    }
    return timing_measure(&timing, in->costs, e);
}

static int find_costs(struct inspect *in, struct err *e)
{
    in->n_costs = 1;
    if (in->o->measure) {
        return measure_costs(in, e);
    }
    return in->o->costs ? read_costs(in, e) : costs_at(in, 1, in->costs, e);
}

static int save_costs(const struct inspect *in, struct err *e)
{
    json_t *root = costs_json(in->costs, &in->arch);
    int rc = json_dump_file(root, in->o->save, JSON_INDENT(1) | JSON_REAL_PRECISION(17));
    json_decref(root);
    return rc == 0 ? 0 : err_set(e, ERR_ENV, "--save-costs: cannot write %s", in->o->save);
}

/* Of ranks that share a stage, which say nothing of a split but with edges: they are kept, and that is all. */
static int measure_shard(struct inspect *in, struct err *e)
{
    const struct inspect_options *o = in->o;
    if (!o->save || o->json) {
        return err_set(
            e, ERR_INPUT,
            "--measure --tensor %d: with --save-costs FILE only, for --edges and --costs",
            o->tensor);
    }
    if (find_costs(in, e) || save_costs(in, e)) {
        return -1;
    }
    printf("%s: %s\n", o->save, in->costs[0].source);
    return 0;
}

/* What is usual and within the model's context. */
static void choose_contexts(struct inspect *in)
{
    static const double usual[] = {4096, 32768, 131072};
    in->contexts = in->o->contexts;
    for (size_t i = 0; in->o->contexts.n == 0 && i < sizeof usual / sizeof *usual; i++) {
        if (usual[i] <= in->arch.max_context || i == 0) {
            in->contexts.v[in->contexts.n++] = usual[i];
        }
    }
}

/* --- what there is to say ------------------------------------------------------------------------- */

static void weigh(struct inspect *in)
{
    const struct arch *a = &in->arch;
    const struct costs_load one = costs_load_decode(a, 1, in->contexts.v[0]);
    const struct costs_load prompt = costs_load_prompt(a, PROMPT_TOKENS);
    for (int i = 0; i < a->n_layers; i++) {
        struct kind *k = &in->kinds[costs_kind_of(a, i)];
        if (k->n++ == 0) {
            k->first = i;
            k->size = sizes_layer(a, i);
            k->decode_ns = costs_layer_ns(in->costs, a, i, &one);
            k->prompt_ns = costs_layer_ns(in->costs, a, i, &prompt);
        }
    }
    in->decode_ns = costs_stage_ns(in->costs, a, 0, a->n_layers, true, true, &one);
    in->prompt_ns = costs_stage_ns(in->costs, a, 0, a->n_layers, true, true, &prompt);
}

static struct capacity_machine machine_of(const struct inspect *in, double share)
{
    return (struct capacity_machine){in->device.memory_bytes, share};
}

/* One row: for the requests asked for, or as many as its memory holds. */
static int add_split(struct inspect *in, int pipeline, int tensor, struct err *e)
{
    const double context = in->contexts.v[0], value_bytes = kvs[0].value_bytes;
    const struct capacity_machine m = machine_of(in, in->o->shares.v[0]);
    struct capacity_split *s = &in->splits[in->n_splits];
    struct costs costs;
    double n = in->o->n_requests;
    if (costs_at(in, tensor, &costs, e)) {
        return -1;
    }
    capacity_find(&in->arch, &costs, &m, pipeline, tensor, n, context, s);
    if (s->fits) {
        double room = (double)capacity_requests_on(&in->arch, &m, s, value_bytes, context);
        s->fits = room >= 1;
        if (room >= 1 && room < n) {
            n = room;
            capacity_find(&in->arch, &costs, &m, pipeline, tensor, n, context, s);
        }
    }
    if (s->fits && (in->best < 0 || s->tokens_per_s > in->splits[in->best].tokens_per_s)) {
        in->best = in->n_splits;
    }
    in->held[in->n_splits++] = n;
    return 0;
}

static bool may_split(const struct inspect *in, int pipeline, int tensor)
{
    const struct inspect_options *o = in->o;
    return pipeline <= in->arch.n_layers && pipeline <= RECORD_MAX_STAGES &&
           in->arch.n_heads % tensor == 0 && (o->pipeline == 0 || o->pipeline == pipeline) &&
           (o->tensor == tensor || (o->tensor == 0 && tensor <= HOST_DEVICES)) &&
           in->n_splits < MAX_SPLITS;
}

static int find_splits(struct inspect *in, struct err *e)
{
    in->splits = xcalloc(MAX_SPLITS, sizeof *in->splits);
    in->held = xcalloc(MAX_SPLITS, sizeof *in->held);
    in->best = -1;
    for (int tensor = 1; tensor <= in->n_devices; tensor++) {
        int pipeline = in->n_devices / tensor;
        if (pipeline * tensor != in->n_devices || !may_split(in, pipeline, tensor)) {
            continue;
        }
        if (is_measured(in) && tensor > 1 && in->o->tensor == 0) {
            continue; // measured costs have nothing to say of it
        }
        if (add_split(in, pipeline, tensor, e)) {
            return -1;
        }
    }
    return in->n_splits > 0
               ? 0
               : err_set(e, ERR_INPUT,
                         "--gpus %d: no split of %d layers over P stages of T devices, P x T = %d, "
                         "T a divisor of the %d heads",
                         in->n_devices, in->arch.n_layers, in->n_devices, in->arch.n_heads);
}

static void find_rooms(struct inspect *in)
{
    const struct inspect_options *o = in->o;
    in->rooms = xcalloc(in->contexts.n * o->shares.n, sizeof *in->rooms);
    for (size_t c = 0; c < in->contexts.n; c++) {
        for (size_t s = 0; s < o->shares.n; s++) {
            struct room *r = &in->rooms[in->n_rooms++];
            struct capacity_machine m = machine_of(in, o->shares.v[s]);
            r->context = in->contexts.v[c];
            r->share = o->shares.v[s];
            for (int k = 0; k < N_KVS; k++) {
                r->n[k] =
                    capacity_requests(&in->arch, &m, in->n_devices, kvs[k].value_bytes, r->context);
                r->n_on_best[k] = in->best < 0
                                      ? 0
                                      : capacity_requests_on(&in->arch, &m, &in->splits[in->best],
                                                             kvs[k].value_bytes, r->context);
            }
        }
    }
}

/* What a rank of the edges' file has: named hardware, the costs' device, or its part of this machine. */
static int find_edges(struct inspect *in, struct err *e)
{
    const struct inspect_options *o = in->o;
    static struct inspect_edges_ask ask;
    ask = (struct inspect_edges_ask){
        .file = o->edges,
        .arch = &in->arch,
        .costs = in->costs,
        .n_costs = in->n_costs,
        .shares_costs = !o->hardware && !o->costs,
        .shares_memory = !o->hardware && o->memory_bytes <= 0,
        .memory_bytes = in->device.memory_bytes,
        .memory_share = o->shares.v[0],
        .is_cpu = !o->hardware,
        .tensor = o->tensor,
        .pipeline = o->pipeline,
        .n_in = o->n_in,
        .n_out = o->n_out,
        .n_requests = o->n_requests,
        .cost = o->cost,
    };
    return inspect_edges_open(&in->edges, &ask, e);
}

/* --- text ------------------------------------------------------------------------------------------ */

static const char *const kind_names[COSTS_N_KINDS] = {"dense", "dense, sliding", "experts",
                                                      "experts, sliding"};

static void print_model(const struct inspect *in)
{
    const struct arch *a = &in->arch;
    double params = (double)sizes_params(a), bytes = sizes_bytes(a);
    printf("%s: %s, %d layers, hidden %d, %d heads over %d, vocabulary %d, context %d\n",
           in->o->model, a->family, a->n_layers, a->hidden, a->n_heads, a->n_kv_heads, a->vocab,
           a->max_context);
    printf("  parameters    %.3f B, of which a token meets %.3f B\n", params / 1e9,
           (double)sizes_active_params(a) / 1e9);
    printf("  weights       %.3f GB, %.2f bytes each\n", bytes / 1e9, bytes / params);
    printf("  KV per token ");
    for (int k = 0; k < N_KVS; k++) {
        printf(" %.0f B in %s%s", sizes_kv_bytes(a, kvs[k].value_bytes), kvs[k].name,
               k + 1 < N_KVS ? "," : "\n");
    }
}

static void print_kinds(const struct inspect *in)
{
    const struct arch *a = &in->arch;
    const struct costs_load one = costs_load_decode(a, 1, 0);
    printf("\n  %-17s %4s %11s %9s %9s %11s %11s\n", "layers", "n", "parameters", "MB", "KV B/tok",
           "decode us", "prompt us");
    for (int k = 0; k < COSTS_N_KINDS; k++) {
        const struct kind *l = &in->kinds[k];
        if (l->n > 0) {
            printf("  %-17s %4d %9.1f M %9.1f %9lld %11.1f %11.1f\n", kind_names[k], l->n,
                   (double)l->size.params / 1e6, l->size.bytes / 1e6,
                   (long long)(2 * l->size.kv_values), l->decode_ns / 1e3, l->prompt_ns / 1e3);
        }
    }
    printf("  %-17s %4d %9.1f M %9.1f %9s %11.1f\n", "head", 1, (double)sizes_head_params(a) / 1e6,
           sizes_head_bytes(a) / 1e6, "", costs_head_ns(in->costs, &one) / 1e3);
}

static void print_machine(const struct inspect *in)
{
    const struct hardware *h = &in->device;
    if (is_measured(in)) {
        printf("\non %s: costs of %s\n", h->name, in->costs[0].source);
    } else if (in->o->hardware) {
        printf(
            "\non %s: a roofline of %.0f %% of %.0f GB/s and %.0f %% of %.1f bf16 TFLOP/s, 5 us a "
            "layer beside\n",
            h->name, 100 * in->shares.read, h->read_bytes_per_s / 1e9, 100 * in->shares.compute,
            h->bf16_flops / 1e12);
    } else {
        printf("\non this machine: %.1f GB/s read and %.3f bf16 TFLOP/s, both measured just now\n",
               h->read_bytes_per_s / 1e9, h->bf16_flops / 1e12);
    }
    printf("  decoding one request behind %.0f tokens: %.4g tokens/s at most\n", in->contexts.v[0],
           1e9 / in->decode_ns);
    printf("  a prompt of %d: %.4g tokens/s at most\n", PROMPT_TOKENS,
           PROMPT_TOKENS * 1e9 / in->prompt_ns);
}

static void put_layers(struct str *s, const struct capacity_split *p)
{
    for (int k = 0; k < p->pipeline; k++) {
        str_printf(s, "%s%d", k > 0 ? "," : "", p->first[k + 1] - p->first[k]);
    }
}

static void print_splits(const struct inspect *in)
{
    printf("\nsplits over %d device%s of %.4g GB, %.4g requests behind %.0f tokens (* is the "
           "fastest)\n"
           "   P x T   requests  slowest ms  max/mean  equal ms   TPOT ms   tokens/s  layers\n",
           in->n_devices, in->n_devices > 1 ? "s" : "", in->device.memory_bytes / 1e9,
           in->o->n_requests, in->contexts.v[0]);
    for (int i = 0; i < in->n_splits; i++) {
        const struct capacity_split *p = &in->splits[i];
        struct str layers = {0};
        if (!p->fits) {
            printf("  %3d x %-2d  does not fit\n", p->pipeline, p->tensor);
            continue;
        }
        put_layers(&layers, p);
        printf("%c %3d x %-2d  %9.0f %11.3f %9.3f %9.3f %9.3f %10.4g  %s\n",
               i == in->best ? '*' : ' ', p->pipeline, p->tensor, in->held[i], p->slowest_ns / 1e6,
               p->imbalance, p->equal_ns / 1e6, p->tpot_ns / 1e6, p->tokens_per_s, layers.data);
        str_free(&layers);
    }
}

static void print_rooms(const struct inspect *in)
{
    printf(
        "\nrequests that %d x %.4g GB hold beside the weights, all memory as one (on the split *)\n",
        in->n_devices, in->device.memory_bytes / 1e9);
    printf("   context   share");
    for (int k = 0; k < N_KVS; k++) {
        printf("  %16s", kvs[k].name);
    }
    for (size_t i = 0; i < in->n_rooms; i++) {
        const struct room *r = &in->rooms[i];
        printf("\n%10.0f %6.0f %%", r->context, 100 * r->share);
        for (int k = 0; k < N_KVS; k++) {
            printf("  %8lld (%5lld)", (long long)r->n[k], (long long)r->n_on_best[k]);
        }
    }
    printf("\n");
}

/* --- JSON ------------------------------------------------------------------------------------------ */

static json_t *kinds_json(const struct inspect *in)
{
    json_t *all = json_array();
    for (int k = 0; k < COSTS_N_KINDS; k++) {
        const struct kind *l = &in->kinds[k];
        if (l->n > 0) {
            json_array_append_new(
                all, json_pack("{s:s, s:i, s:i, s:I, s:I, s:f, s:I, s:f, s:f}", "kind",
                               kind_names[k], "layers", l->n, "first", l->first, "parameters",
                               (json_int_t)l->size.params, "active_parameters",
                               (json_int_t)l->size.active_params, "bytes", l->size.bytes,
                               "kv_values_per_token", (json_int_t)l->size.kv_values, "decode_ns",
                               l->decode_ns, "prompt_ns", l->prompt_ns));
        }
    }
    return all;
}

static json_t *split_json(const struct inspect *in, int i)
{
    const struct capacity_split *p = &in->splits[i];
    json_t *layers = json_array(), *stages = json_array();
    for (int k = 0; p->fits && k < p->pipeline; k++) {
        json_array_append_new(layers, json_integer(p->first[k + 1] - p->first[k]));
        json_array_append_new(stages, json_real(p->stage_ns[k]));
    }
    json_t *o = json_pack("{s:i, s:i, s:b, s:b, s:o, s:o}", "pipeline", p->pipeline, "tensor",
                          p->tensor, "fits", (int)p->fits, "best", (int)(i == in->best), "layers",
                          layers, "stage_ns", stages);
    if (p->fits) {
        json_t *more =
            json_pack("{s:f, s:f, s:f, s:f, s:f, s:f}", "requests", in->held[i], "slowest_ns",
                      p->slowest_ns, "imbalance", p->imbalance, "equal_split_slowest_ns",
                      p->equal_ns, "tpot_ns", p->tpot_ns, "tokens_per_s", p->tokens_per_s);
        json_object_update(o, more);
        json_decref(more);
    }
    return o;
}

static json_t *rooms_json(const struct inspect *in)
{
    json_t *all = json_array();
    for (size_t i = 0; i < in->n_rooms; i++) {
        const struct room *r = &in->rooms[i];
        for (int k = 0; k < N_KVS; k++) {
            json_array_append_new(
                all, json_pack("{s:f, s:f, s:s, s:I, s:I}", "context", r->context, "memory_share",
                               r->share, "kv_dtype", kvs[k].name, "requests", (json_int_t)r->n[k],
                               "requests_on_best_split", (json_int_t)r->n_on_best[k]));
        }
    }
    return all;
}

static json_t *model_json(const struct inspect *in)
{
    const struct arch *a = &in->arch;
    json_t *kv = json_object();
    for (int k = 0; k < N_KVS; k++) {
        json_object_set_new(kv, kvs[k].name, json_real(sizes_kv_bytes(a, kvs[k].value_bytes)));
    }
    return json_pack("{s:s, s:s, s:i, s:i, s:i, s:i, s:i, s:i, s:I, s:I, s:f, s:I, s:o, s:o}",
                     "name", in->o->model, "family", a->family, "layers", a->n_layers, "hidden",
                     a->hidden, "heads", a->n_heads, "kv_heads", a->n_kv_heads, "vocabulary",
                     a->vocab, "context", a->max_context, "parameters", (json_int_t)sizes_params(a),
                     "active_parameters", (json_int_t)sizes_active_params(a), "bytes",
                     sizes_bytes(a), "head_parameters", (json_int_t)sizes_head_params(a),
                     "kv_bytes_per_token", kv, "layer_kinds", kinds_json(in));
}

static json_t *machine_json(const struct inspect *in)
{
    const struct hardware *h = &in->device;
    return json_pack("{s:s, s:s, s:i, s:f, s:f, s:f, s:f, s:f}", "name", h->name, "costs",
                     in->costs[0].source, "devices", in->n_devices, "memory_bytes", h->memory_bytes,
                     "read_bytes_per_s", h->read_bytes_per_s, "bf16_flops_per_s", h->bf16_flops,
                     "read_share", in->shares.read, "compute_share", in->shares.compute);
}

static void print_json(const struct inspect *in)
{
    json_t *splits = json_array();
    for (int i = 0; i < in->n_splits; i++) {
        json_array_append_new(splits, split_json(in, i));
    }
    json_t *roofline = json_pack("{s:f, s:f, s:i, s:f}", "decode_tokens_per_s", 1e9 / in->decode_ns,
                                 "context", in->contexts.v[0], "prompt_tokens", PROMPT_TOKENS,
                                 "prompt_tokens_per_s", PROMPT_TOKENS * 1e9 / in->prompt_ns);
    json_t *root = json_pack("{s:s, s:o, s:o, s:o}", "schema", "tidemark.model/1", "model",
                             model_json(in), "machine", machine_json(in), "roofline", roofline);
    if (in->edges) {
        json_object_set_new(root, "edges", inspect_edges_json(in->edges));
        json_decref(splits);
    } else {
        json_object_set_new(root, "splits", splits);
        json_object_set_new(root, "concurrency", rooms_json(in));
    }
    json_dumpf(root, stdout, JSON_INDENT(1) | JSON_REAL_PRECISION(17));
    printf("\n");
    json_decref(root);
}

/* --- all of it ------------------------------------------------------------------------------------- */

static void print_text(const struct inspect *in)
{
    print_model(in);
    print_kinds(in);
    print_machine(in);
    if (in->edges) {
        inspect_edges_print(in->edges);
        return;
    }
    print_splits(in);
    print_rooms(in);
}

int inspect_print(const struct inspect_options *o, struct err *e)
{
    static struct inspect in;
    in = (struct inspect){.o = o};
    int p = o->pipeline > 0 ? o->pipeline : 1, t = o->tensor > 0 ? o->tensor : 1;
    in.n_devices = o->n_devices > 0 ? o->n_devices : p * t;
    if (arch_open(o->model, &in.arch, e)) {
        return -1;
    }
    if (o->measure && o->tensor > 1) {
        return measure_shard(&in, e);
    }
    int rc = choose_device(&in, e) || find_costs(&in, e) ? -1 : 0;
    if (rc == 0) {
        choose_contexts(&in);
        weigh(&in);
        rc = o->edges ? find_edges(&in, e) : find_splits(&in, e);
    }
    if (rc == 0) {
        if (!o->edges) {
            find_rooms(&in);
        }
        (o->json ? print_json : print_text)(&in);
        rc = o->save ? save_costs(&in, e) : 0;
    }
    if (in.edges) {
        inspect_edges_free(in.edges);
    }
    free(in.splits);
    free(in.held);
    free(in.rooms);
    return rc;
}
