#include "cli/inspect_run.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "cli/run_config.h"
#include "workers/rank_memory.h"
#include "workers/sim/hardware.h"

struct stage {
    int first_layer, n_layers;
    struct rank_memory memory; // of its rank with the least room
    double n_tokens;
};

struct inspect_run {
    const struct inspect_run_options *o;
    struct run_config config;
    struct arch arch;
    double memory_bytes;                    // of a GPU
    struct stage stages[RECORD_MAX_STAGES]; // (target.pipeline)
    double n_tokens;                        // of the stage with the least room
    int64_t pool_tokens;                    // 0: it does not fit
};

bool inspect_run_is_config(const char *name)
{
    const char *dot = strrchr(name, '.');
    return dot && (strcmp(dot, ".yaml") == 0 || strcmp(dot, ".yml") == 0);
}

/* --- what is asked ------------------------------------------------------------------------------ */

static int find_memory(struct inspect_run *in, struct err *e)
{
    struct hardware h;
    in->memory_bytes = in->o->memory_bytes;
    if (!in->o->hardware) {
        return in->memory_bytes > 0
                   ? 0
                   : err_set(e, ERR_INPUT,
                             "model inspect %s: how much memory has a GPU? --hardware NAME or "
                             "--gpu-memory BYTES",
                             in->o->config);
    }
    if (hardware_find(in->o->hardware, &h, e)) {
        return -1;
    }
    in->memory_bytes = in->memory_bytes > 0 ? in->memory_bytes : h.memory_bytes;
    return 0;
}

static int open_run(struct inspect_run *in, struct err *e)
{
    struct target_config *t = &in->config.target;
    if (run_config_load(&in->config, in->o->config, in->o->assignments, in->o->n_assignments, e)) {
        return -1;
    }
    if (t->kind != TARGET_STAGES ||
        (t->backend != TARGET_BACKEND_AUTO && t->backend != TARGET_BACKEND_CUDA)) {
        return err_set(e, ERR_INPUT,
                       "model inspect %s: its target has no GPUs of its own; target.kind: stages, "
                       "target.backend: cuda or auto",
                       in->o->config);
    }
    t->backend = TARGET_BACKEND_CUDA;
    return arch_open(t->model, &in->arch, e) || target_check(t, &in->arch, e) ? -1 : 0;
}

/* --- what there is to say ----------------------------------------------------------------------- */

static void weigh_stage(struct inspect_run *in, const int *first, int s)
{
    const struct target_config *t = &in->config.target;
    const struct sched_config sched = target_sched(t, &in->arch);
    struct stage *stage = &in->stages[s];
    stage->first_layer = first[s];
    stage->n_layers = first[s + 1] - first[s];
    stage->n_tokens = HUGE_VAL;
    for (int rank = 0; rank < t->tensor; rank++) {
        struct err never;
        struct rank_memory m;
        struct rank_memory_config c = {
            .arch = &in->arch,
            .part = {first[s], stage->n_layers, s == 0, s == t->pipeline - 1},
            .weight_bits = target_weight_bits(t),
            .kv_dtype = target_kv_dtype(t, &in->arch),
            .limits = sched_batch_limits(&sched),
            .hops_on_device = t->transport != TARGET_TRANSPORT_MPI,
        };
        CHECK(shard_init(&c.shard, &in->arch, rank, (int)t->tensor, &never) == 0);
        rank_memory_find(&c, &m);
        const double n = rank_memory_tokens(&m, in->memory_bytes * t->memory_fraction);
        if (n < stage->n_tokens) {
            stage->memory = m;
            stage->n_tokens = n;
        }
    }
}

static int weigh(struct inspect_run *in, struct err *e)
{
    int first[RECORD_MAX_STAGES + 1];
    if (target_split(&in->config.target, &in->arch, first, e)) {
        return -1;
    }
    in->n_tokens = HUGE_VAL;
    for (int s = 0; s < in->config.target.pipeline; s++) {
        weigh_stage(in, first, s);
        in->n_tokens = fmin(in->n_tokens, in->stages[s].n_tokens);
    }
    return 0;
}

static double taken(const struct rank_memory *m)
{
    return m->weight_bytes + m->batch_bytes + m->fixed_bytes;
}

/* The pool, as the run would find it. ERR_INPUT: there is no room for one. */
static int find_pool(struct inspect_run *in, struct err *e)
{
    const struct target_config *t = &in->config.target;
    for (int s = 0; s < t->pipeline; s++) {
        const struct stage *stage = &in->stages[s];
        if (stage->n_tokens < 0) {
            return err_set(e, ERR_INPUT,
                           "%s: stage %d does not fit: its ranks take %.1f GB before any KV cache, "
                           "target.memory_fraction of a GPU, %.0f%%, is %.1f GB",
                           in->o->config, s, taken(&stage->memory) / 1e9, 100 * t->memory_fraction,
                           t->memory_fraction * in->memory_bytes / 1e9);
        }
    }
    if (target_kv_fit(t, &in->arch, (int64_t)(in->n_tokens / BATCH_KV_BLOCK), &in->pool_tokens,
                      e)) {
        e->code = ERR_INPUT;
        return err_wrap(e, "%s", in->o->config);
    }
    return 0;
}

/* --- text --------------------------------------------------------------------------------------- */

static void print_text(const struct inspect_run *in)
{
    const struct target_config *t = &in->config.target;
    printf("%s: %s as %lld x %lld x %lld (replicas x stages x tensor ranks)\n"
           "each of %lld workers has %.0f%% of a GPU's %.4g GB, cache in %s\n\n"
           "  stage  layers  weights GB  batch GB  other GB  left GB  KV B/token       tokens\n",
           in->o->config, t->model, (long long)t->replicas, (long long)t->pipeline,
           (long long)t->tensor, (long long)(t->replicas * t->pipeline * t->tensor),
           100 * t->memory_fraction, in->memory_bytes / 1e9,
           arch_dtype_name(target_kv_dtype(t, &in->arch)));
    for (int s = 0; s < t->pipeline; s++) {
        const struct stage *stage = &in->stages[s];
        const struct rank_memory *m = &stage->memory;
        printf("  %5d  %6d  %10.3f  %8.3f  %8.3f  %7.3f  %10.0f  %11.0f%s\n", s, stage->n_layers,
               m->weight_bytes / 1e9, m->batch_bytes / 1e9, m->fixed_bytes / 1e9,
               (t->memory_fraction * in->memory_bytes - taken(m)) / 1e9, m->kv_token_bytes,
               fmax(0, stage->n_tokens), stage->n_tokens < 0 ? "  does not fit" : "");
    }
    if (in->pool_tokens > 0) {
        printf("\nKV pool of a replica: %lld tokens, %.4g requests of the whole context (%d); of "
               "target.max_running %lld each has %.0f\n",
               (long long)in->pool_tokens, (double)in->pool_tokens / in->arch.max_context,
               in->arch.max_context, (long long)t->max_running,
               (double)in->pool_tokens / (double)t->max_running);
    }
}

/* --- JSON --------------------------------------------------------------------------------------- */

static json_t *stage_json(const struct stage *s)
{
    const struct rank_memory *m = &s->memory;
    return json_pack("{s:i, s:i, s:f, s:f, s:f, s:f, s:f, s:b}", "first_layer", s->first_layer,
                     "layers", s->n_layers, "weight_bytes", m->weight_bytes, "batch_bytes",
                     m->batch_bytes, "fixed_bytes", m->fixed_bytes, "kv_bytes_per_token",
                     m->kv_token_bytes, "tokens", s->n_tokens, "fits", s->n_tokens >= 0);
}

static void print_json(const struct inspect_run *in)
{
    const struct target_config *t = &in->config.target;
    json_t *stages = json_array();
    for (int s = 0; s < t->pipeline; s++) {
        json_array_append_new(stages, stage_json(&in->stages[s]));
    }
    json_t *root = json_pack(
        "{s:s, s:s, s:s, s:I, s:I, s:I, s:f, s:f, s:s, s:o, s:b, s:I}", "schema", "tidemark.fit/1",
        "config", in->o->config, "model", t->model, "replicas", (json_int_t)t->replicas, "pipeline",
        (json_int_t)t->pipeline, "tensor", (json_int_t)t->tensor, "gpu_memory_bytes",
        in->memory_bytes, "memory_fraction", t->memory_fraction, "kv_dtype",
        arch_dtype_name(target_kv_dtype(t, &in->arch)), "stages", stages, "fits",
        in->pool_tokens > 0, "kv_pool_tokens", (json_int_t)in->pool_tokens);
    json_dumpf(root, stdout, JSON_INDENT(1) | JSON_REAL_PRECISION(17));
    printf("\n");
    json_decref(root);
}

int inspect_run_print(const struct inspect_run_options *o, struct err *e)
{
    static struct inspect_run in;
    in = (struct inspect_run){.o = o};
    int rc = find_memory(&in, e) || open_run(&in, e) || weigh(&in, e) ? -1 : 0;
    if (rc == 0) {
        rc = find_pool(&in, e);
        (o->json ? print_json : print_text)(&in);
    }
    run_config_free(&in.config);
    return rc;
}
