#include "workers/target.h"

#include <math.h>
#include <stddef.h>
#include <stdlib.h>

#include "core/mem.h"
#include "model/split.h"
#include "results/record.h"
#include "workers/batch.h"
#include "workers/shard.h"
#include "workers/sim/costs.h"

#define CUDA_MOST_TENSOR 8 // ranks that add up in each other's memory (workers/cuda/group_sum.h)

#define MAX_LANES UINT8_MAX  // struct span keeps a lane in one byte
#define MAX_ROWS  UINT16_MAX // ... and the number of requests in two

#define ROW(key_, type_, def_, lo_, hi_, help_, field_)                                            \
    .key = (key_), .type = (type_), .def = (def_), .lo = (double)(lo_), .hi = (double)(hi_),       \
    .help = (help_), .offset = offsetof(struct target_config, field_)

static const struct opt rows[] = {
    {ROW("target.kind", OPT_CHOICE, "stages", 0, 0,
         "stages: this job's worker ranks; openai: an HTTP endpoint; null: answers at once, to measure "
         "tidemark itself",
         kind),
     .choices = "stages|openai|null"},
    {ROW(
        "target.model", OPT_STRING, NULL, 0, 0,
        "folder in Hugging Face layout, .gguf file, preset:NAME (random), or an endpoint's name for it",
        model)},
    {ROW("target.backend", OPT_CHOICE, "auto", 0, 0,
         "what computes in a stage; auto: cuda where every worker has a GPU, else cpu; sim: nothing, in "
         "the time that target.sim says",
         backend),
     .choices = "auto|cpu|cuda|sim"},
    {ROW("target.replicas", OPT_INT, "1", 1, 4096, "copies of the model", replicas)},
    {ROW("target.pipeline", OPT_INT, "1", 1, RECORD_MAX_STAGES, "stages the layers are split over",
         pipeline)},
    {ROW("target.tensor", OPT_INT, "1", 1, 64, "ranks each stage is split over", tensor)},
    {ROW("target.lanes", OPT_INT, "0", 0, MAX_LANES,
         "micro-batches in flight per replica; 0: as many as stages", lanes)},
    {ROW("target.layer_split", OPT_NUMBERS, NULL, 1, 100000,
         "layers of each stage, e.g. 9,9,8,6; empty: by cost", layer_split)},
    {ROW("target.threads", OPT_INT, "0", 0, 1024,
         "compute threads per worker; 0: this host's CPUs, or their time under a quota, over the "
         "workers on it; load ranks keep one each where that is at most a quarter",
         threads)},
    {ROW(
        "target.pin", OPT_BOOL, "true", 0, 0,
        "compute threads are pinned, where there is a CPU for each of them and each load rank; false "
        "where others compute on the same host",
        pin)},
    {ROW("target.max_running", OPT_INT, "64", 1, MAX_ROWS,
         "requests that hold KV blocks at a time, per replica", max_running)},
    {ROW("target.max_waiting", OPT_INT, "4096", 0, 1 << 20,
         "requests that may queue per replica; more are rejected", max_waiting)},
    {ROW("target.max_batch_tokens", OPT_INT, "256", 1, 65536,
         "tokens per micro-batch; prompts are cut into chunks to fit", max_batch_tokens)},
    {ROW(
        "target.kv_tokens", OPT_INT, "0", 0, 1e12,
        "tokens the KV pool holds; 0: a quarter context per running request, 2 contexts at least; on "
        "GPUs as many as fit, up to a context per running request",
        kv_tokens)},
    {ROW("target.memory_fraction", OPT_SHARE, "90%", 0, 0,
         "of its GPU's memory that each worker may take, the KV pool included; less where several "
         "workers share a GPU: 45% for two",
         memory_fraction)},
    {ROW("target.prefix_cache", OPT_BOOL, "false", 0, 0,
         "prompts that begin alike share KV blocks: off, so that nothing flatters the TTFT unseen",
         prefix_cache)},
    {ROW("target.routing", OPT_CHOICE, "least_tokens", 0, 0,
         "which replica gets a request; least_tokens: the one with the fewest prompt and output "
         "tokens still to come, of all load ranks; own_tokens: of the load rank that sends",
         routing),
     .choices = "least_tokens|round_robin|own_tokens"},
    {ROW("target.idle_class", OPT_BOOL, "true", 0, 0,
         "compute threads run SCHED_IDLE where ranks share cores", idle_class)},
    {ROW("target.transport", OPT_CHOICE, "auto", 0, 0,
         "what hidden states take from a stage to the next; auto: between GPUs that reach each other their "
         "memory (ipc), else nccl where all have it, else mpi, through the hosts' memory",
         transport),
     .choices = "auto|mpi|ipc|nccl"},
    {ROW("target.telemetry", OPT_CHOICE, "auto", 0, 0,
         "power and clocks of GPUs, at 10 Hz; auto: those that stages compute with, or of an endpoint on "
         "this host; on: those that this job sees, whatever computes",
         telemetry),
     .choices = "auto|on|off"},
    {ROW("target.weights", OPT_CHOICE, "stored", 0, 0,
         "the layers' matrices as stored, or as integers made at load, 32 of a row to a factor",
         weights),
     .choices = "stored|int8|int4"},
    {ROW("target.kv_cache", OPT_CHOICE, "auto", 0, 0,
         "how keys and values are stored; auto: f32 with float32 weights, else bf16", kv_cache),
     .choices = "auto|f32|bf16|fp8|int8"},
    {ROW("target.kernels", OPT_CHOICE, "auto", 0, 0,
         "what the CPU backend multiplies with; auto: the fastest set that each worker's CPU has",
         kernels),
     .choices = "auto|portable|avx2|avx512|avx512_bf16|amx"},
    {ROW("target.moe_routing", OPT_CHOICE, "model", 0, 0,
         "which experts a token takes: as the model's routers say, or drawn, for random weights",
         moe_routing),
     .choices = "model|uniform|zipf"},
    {ROW(
        "target.moe_zipf", OPT_NUMBER, "1", 1e-6, 10,
        "exponent of target.moe_routing=zipf: the expert of rank r is drawn in proportion to 1/r^s",
        moe_zipf)},
    {ROW("target.sim.hardware", OPT_STRING, "h100-sxm", 0, 0,
         "device whose roofline gives the times (`tidemark model inspect --help` lists them)",
         sim.hardware)},
    {ROW("target.sim.costs", OPT_STRING, NULL, 0, 0,
         "file of measured costs that gives the times instead", sim.costs)},
    {ROW("target.sim.read_share", OPT_SHARE, "80%", 0, 0,
         "share of the device's memory bandwidth that is reached", sim.read_share)},
    {ROW("target.sim.compute_share", OPT_SHARE, "60%", 0, 0,
         "share of the device's arithmetic peak that is reached", sim.compute_share)},
    {ROW("target.sim.layer_overhead", OPT_DURATION, "5us", 0, 1e9,
         "what each layer costs beside: starting its kernels", sim.layer_ns)},
    {ROW("target.sim.tensor", OPT_INT, "1", 1, 64,
         "devices that each simulated rank stands for: they share its part", sim.tensor)},
    {ROW("target.sim.scale", OPT_NUMBER, "1", 1e-6, 1e6,
         "all simulated times are multiplied by this", sim.scale)},
};

const struct opt_table target_options = {rows, sizeof rows / sizeof rows[0]};

int target_lanes(const struct target_config *t)
{
    return (int)(t->lanes > 0 ? t->lanes : t->pipeline);
}

int64_t target_kv_blocks(const struct target_config *t, const struct arch *a)
{
    int64_t n_tokens = t->chosen.kv_tokens > 0 ? t->chosen.kv_tokens : t->kv_tokens;
    if (n_tokens == 0) {
        n_tokens = (t->max_running > 8 ? t->max_running : 8) * a->max_context / 4;
    }
    return (n_tokens + BATCH_KV_BLOCK - 1) / BATCH_KV_BLOCK;
}

int target_kv_fit(const struct target_config *t, const struct arch *a, int64_t n_blocks,
                  int64_t *n_tokens, struct err *e)
{
    const int64_t context = (a->max_context + BATCH_KV_BLOCK - 1) / BATCH_KV_BLOCK;
    const int64_t asked = t->kv_tokens > 0 ? target_kv_blocks(t, a) : context;
    if (asked > n_blocks) {
        return err_set(
            e, ERR_ENV,
            "target.memory_fraction: %.0f%% of a GPU's memory leaves room for a KV pool of "
            "%lld tokens beside weights and activations; %s %lld",
            100 * t->memory_fraction, (long long)(n_blocks * BATCH_KV_BLOCK),
            t->kv_tokens > 0 ? "target.kv_tokens asks for" : "one context takes",
            (long long)(asked * BATCH_KV_BLOCK));
    }
    const int64_t most = context * t->max_running;
    *n_tokens =
        t->kv_tokens > 0 ? t->kv_tokens : (n_blocks < most ? n_blocks : most) * BATCH_KV_BLOCK;
    return 0;
}

struct sched_config target_sched(const struct target_config *t, const struct arch *a)
{
    return (struct sched_config){
        .lanes = (uint32_t)target_lanes(t),
        .max_running = (uint32_t)t->max_running,
        .max_waiting = (uint32_t)t->max_waiting,
        .max_batch_tokens = (uint32_t)t->max_batch_tokens,
        .max_context = (uint32_t)a->max_context,
        .n_kv_blocks = (uint32_t)target_kv_blocks(t, a),
        .prefix_cache = t->prefix_cache,
        .vocab = (uint32_t)a->vocab,
        .eos_ids = a->eos_ids,
        .n_eos = a->n_eos,
    };
}

static int check_split(const struct target_config *t, const struct arch *a, struct err *e)
{
    const struct opt_numbers *split = &t->layer_split;
    if (split->n == 0) {
        return 0;
    }
    if ((int64_t)split->n != t->pipeline) {
        return err_set(e, ERR_INPUT,
                       "target.layer_split: names %zu stages, but target.pipeline is %lld",
                       split->n, (long long)t->pipeline);
    }
    double sum = 0;
    for (size_t i = 0; i < split->n; i++) {
        if (split->v[i] != floor(split->v[i])) {
            return err_set(e, ERR_INPUT, "target.layer_split: %g is not a whole number of layers",
                           split->v[i]);
        }
        sum += split->v[i];
    }
    if (sum != a->n_layers) {
        return err_set(e, ERR_INPUT, "target.layer_split: adds up to %g layers, the model has %d",
                       sum, a->n_layers);
    }
    return 0;
}

int target_check(const struct target_config *t, const struct arch *a, struct err *e)
{
    if (t->kind != TARGET_STAGES) {
        return 0;
    }
    if (t->model == NULL || t->model[0] == '\0') {
        return err_set(e, ERR_INPUT, "target.model: missing (a folder, or preset:NAME)");
    }
    struct shard shard;
    if (t->backend == TARGET_BACKEND_SIM && t->tensor != 1) {
        return err_set(e, ERR_INPUT,
                       "target.tensor: %lld, but the sim backend allows 1 only (target.sim.tensor "
                       "shares a stage)",
                       (long long)t->tensor);
    }
    if (t->backend == TARGET_BACKEND_SIM && t->kernels != 0) {
        return err_set(e, ERR_INPUT,
                       "target.kernels: %s, but the sim backend computes nothing: auto only",
                       target_kernels(t));
    }
    if (t->backend == TARGET_BACKEND_CUDA && t->tensor > CUDA_MOST_TENSOR) {
        return err_set(e, ERR_INPUT, "target.tensor: %lld, but the cuda backend allows 1 to %d",
                       (long long)t->tensor, CUDA_MOST_TENSOR);
    }
    if (t->backend == TARGET_BACKEND_CUDA && !(t->memory_fraction > 0)) {
        return err_set(e, ERR_INPUT, "target.memory_fraction must be above 0");
    }
    if (shard_init(&shard, a, 0, (int)t->tensor, e)) {
        return -1;
    }
    if (t->pipeline > a->n_layers) {
        return err_set(e, ERR_INPUT, "target.pipeline: %lld stages, but the model has %d layers",
                       (long long)t->pipeline, a->n_layers);
    }
    struct costs costs;
    if (t->backend == TARGET_BACKEND_SIM && target_costs(t, a, &costs, e)) {
        return -1;
    }
    int64_t n_blocks = target_kv_blocks(t, a);
    if (n_blocks > INT32_MAX) {
        return err_set(e, ERR_INPUT, "target.kv_tokens: %lld tokens, at most %lld are possible",
                       (long long)n_blocks * BATCH_KV_BLOCK, (long long)INT32_MAX * BATCH_KV_BLOCK);
    }
    return check_split(t, a, e);
}

enum arch_dtype target_kv_dtype(const struct target_config *t, const struct arch *a)
{
    switch ((enum target_kv_cache)t->kv_cache) {
    case TARGET_KV_F32:
        return ARCH_F32;
    case TARGET_KV_BF16:
        return ARCH_BF16;
    case TARGET_KV_FP8:
        return ARCH_FP8;
    case TARGET_KV_INT8:
        return ARCH_INT8;
    case TARGET_KV_AUTO:
        break;
    }
    return a->dtype == ARCH_F32 ? ARCH_F32 : ARCH_BF16;
}

int target_weight_bits(const struct target_config *t)
{
    return t->weights == TARGET_WEIGHTS_INT8 ? 8 : t->weights == TARGET_WEIGHTS_INT4 ? 4 : 0;
}

const char *target_backend_name(const struct target_config *t)
{
    static const char *const names[] = {"cpu", "cpu", "cuda", "sim"};
    return names[target_backend(t)];
}

const char *target_kernels(const struct target_config *t)
{
    static const char *const names[] = {
        // in the order of the choices
        "auto", "portable", "avx2", "avx512", "avx512_bf16", "amx",
    };
    return names[t->kernels];
}

int target_costs(const struct target_config *t, const struct arch *a, struct costs *c,
                 struct err *e)
{
    if (t->sim.costs && t->sim.costs[0]) {
        if (costs_read(t->sim.costs, a, c, e) || costs_check_whole(c, e)) {
            return err_wrap(e, "target.sim.costs");
        }
    } else {
        struct hardware h;
        const struct costs_shares shares = {t->sim.read_share, t->sim.compute_share,
                                            (double)t->sim.layer_ns};
        if (!(shares.read > 0) || !(shares.compute > 0)) {
            return err_set(e, ERR_INPUT,
                           "target.sim.read_share and target.sim.compute_share must be above 0");
        }
        if (hardware_find(t->sim.hardware, &h, e)) {
            return err_wrap(e, "target.sim.hardware");
        }
        costs_of_hardware(&h, &shares, (int)t->sim.tensor, a, c);
    }
    costs_scale(c, t->sim.scale);
    return 0;
}

static int split_by_costs(const struct target_config *t, const struct arch *a, double n_rows,
                          int *first, struct err *e)
{
    struct costs costs;
    if (target_costs(t, a, &costs, e)) {
        return -1;
    }
    const struct costs_load load = costs_load_decode(a, n_rows, 0);
    double *layer = xcalloc((size_t)a->n_layers, sizeof *layer);
    const struct split_costs c = costs_split(&costs, a, &load, layer);
    CHECK(split_layers(&c, NULL, (int)t->pipeline, first));
    free(layer);
    return 0;
}

int target_split(const struct target_config *t, const struct arch *a, int *first, struct err *e)
{
    double n_rows = ceil((double)t->max_running / target_lanes(t));
    if (t->layer_split.n == 0 && t->backend == TARGET_BACKEND_SIM) {
        return split_by_costs(t, a, n_rows, first, e);
    }
    if (t->layer_split.n == 0) {
        split_by_bytes(a, n_rows, (int)t->pipeline, first);
        return 0;
    }
    CHECK((int64_t)t->layer_split.n == t->pipeline);
    first[0] = 0;
    for (int s = 0; s < t->pipeline; s++) {
        first[s + 1] = first[s] + (int)t->layer_split.v[s];
    }
    return 0;
}
