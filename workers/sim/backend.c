#include "workers/sim/backend.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/clock.h"
#include "core/mem.h"
#include "model/sizes.h"
#include "workers/backend.h"
#include "workers/kv.h"
#include "workers/sampler.h"
#include "workers/sim/costs.h"
#include "workers/tally.h"

struct sim {
    struct backend base;
    struct arch arch;
    struct costs costs;
    int first_layer, n_layers;
    bool has_embed, has_head;
    uint64_t *cache;  // (n_blocks, BATCH_KV_BLOCK) hash of all ids up to there; NULL without embed
    uint64_t *states; // (max_tokens) of the batch
    uint32_t n_blocks;
    enum arch_dtype kv_dtype;
    int64_t t_begin_ns, t_end_ns; // clock_now_ns
};

/* --- hashes -------------------------------------------------------------------------------------- */

/* Two numbers into one, by the finaliser of splitmix64. */
static uint64_t mix(uint64_t a, uint64_t b)
{
    uint64_t x = (a ^ 0x9e3779b97f4a7c15u) + b * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

static uint64_t through_layers(uint64_t x, int first_layer, int n_layers)
{
    for (int i = 0; i < n_layers; i++) {
        x = mix(x, (uint64_t)(first_layer + i));
    }
    return x;
}

static int32_t id_of(uint64_t x, int vocab)
{
    return (int32_t)((x >> 32) * (uint64_t)vocab >> 32);
}

int32_t backend_sim_next(const int32_t *ids, uint32_t n, int n_layers, int vocab)
{
    uint64_t x = 0;
    for (uint32_t i = 0; i < n; i++) {
        x = mix(x, (uint64_t)ids[i]);
    }
    return id_of(through_layers(x, 0, n_layers), vocab);
}

/* Where the cache has position pos of a slot. */
static uint64_t *cached(const struct sim *b, const struct kv_tables *t, uint32_t slot, uint32_t pos)
{
    size_t block = t->blocks[(size_t)slot * t->max_blocks + pos / BATCH_KV_BLOCK];
    return &b->cache[block * BATCH_KV_BLOCK + pos % BATCH_KV_BLOCK];
}

static void embed(struct sim *b, const struct batch *batch, const struct kv_tables *tables)
{
    for (uint32_t i = 0; i < batch->n_rows; i++) {
        const struct batch_row *r = &batch->rows[i];
        uint64_t x = r->pos > 0 ? *cached(b, tables, r->slot, r->pos - 1) : 0;
        for (uint32_t k = 0; k < r->n_tokens; k++) {
            x = mix(x, (uint64_t)batch->tokens[r->first + k]);
            *cached(b, tables, r->slot, r->pos + k) = x;
            b->states[r->first + k] = x;
        }
    }
}

static void sample(const struct sim *b, const struct batch *batch, int32_t *ids)
{
    for (uint32_t i = 0; i < batch->n_rows; i++) {
        const struct batch_row *r = &batch->rows[i];
        ids[i] = r->flags & BATCH_SAMPLE
                     ? id_of(b->states[r->first + r->n_tokens - 1], b->arch.vocab)
                     : -1;
    }
}

static bool is_banned(const struct sampler_job *j, int32_t id)
{
    bool found = false;
    for (uint32_t i = 0; i < j->n_banned; i++) {
        found |= j->banned[i] == id;
    }
    return found;
}

/* There is one id that can come, but for those that may not; it has all the probability. */
static void run_job(const struct sim *b, struct sampler_job *j, int32_t *ids)
{
    int32_t id = ids[j->row];
    for (int tries = 0; tries < b->arch.vocab && is_banned(j, id); tries++) {
        id = (id + 1) % b->arch.vocab;
    }
    ids[j->row] = j->id = id;
    j->logprob = 0;
    j->n_top = j->how->logprobs > 1;
    j->top[0] = (struct wire_logprob){.id = id};
}

static void pass(struct sim *b, const struct batch *batch, const struct kv_tables *tables,
                 const void *in, void *out, int32_t *ids)
{
    if (b->has_embed) {
        embed(b, batch, tables);
    }
    for (uint32_t i = 0; i < batch->n_tokens; i++) {
        if (!b->has_embed) {
            memcpy(&b->states[i], (const char *)in + arch_carried_bytes(&b->arch, i),
                   sizeof b->states[i]);
        }
        b->states[i] = through_layers(b->states[i], b->first_layer, b->n_layers);
        if (!b->has_head) {
            memcpy((char *)out + arch_carried_bytes(&b->arch, i), &b->states[i],
                   sizeof b->states[i]);
        }
    }
    if (b->has_head) {
        sample(b, batch, ids);
    }
}

/* --- the interface -------------------------------------------------------------------------------- */

static struct sim *sim_of(struct backend *b)
{
    return (struct sim *)(void *)b;
}

static const struct sim *sim_of_const(const struct backend *b)
{
    return (const struct sim *)(const void *)b;
}

static int create(struct backend **out, const struct backend_config *cfg, struct err *e)
{
    CHECK(cfg->timing && arch_carried_bytes(cfg->arch, 1) >= sizeof(uint64_t) &&
          cfg->max_tokens >= 1 && cfg->n_blocks >= 1);
    struct sim *b = xcalloc(1, sizeof *b);
    *b = (struct sim){
        .base.ops = &backend_sim,
        .arch = *cfg->arch,
        .costs = *cfg->timing,
        .first_layer = cfg->first_layer,
        .n_layers = cfg->n_layers,
        .has_embed = cfg->has_embed,
        .has_head = cfg->has_head,
        .states = xcalloc(cfg->max_tokens, sizeof *b->states),
        .n_blocks = cfg->n_blocks,
        .kv_dtype = cfg->kv_dtype,
    };
    if (cfg->has_embed) {
        b->cache = calloc((size_t)cfg->n_blocks * BATCH_KV_BLOCK, sizeof *b->cache);
        if (!b->cache) {
            free(b->states);
            free(b);
            return err_set(e, ERR_ENV, "no memory for a simulated cache of %u blocks",
                           cfg->n_blocks);
        }
    }
    *out = &b->base;
    return 0;
}

static void submit(struct backend *base, const struct batch *batch, const struct kv_tables *tables,
                   const void *in, void *out, int32_t *ids, const struct sampler_jobs *jobs)
{
    struct sim *b = sim_of(base);
    b->t_begin_ns = clock_now_ns();
    struct costs_load load = costs_load_batch(&b->arch, batch);
    double ns = costs_stage_ns(&b->costs, &b->arch, b->first_layer, b->n_layers, b->has_embed,
                               b->has_head, &load);
    b->t_end_ns = b->t_begin_ns + (int64_t)ns;
    pass(b, batch, tables, in, out, ids);
    for (uint32_t i = 0; b->has_head && jobs && i < jobs->n; i++) {
        run_job(b, &jobs->v[i], ids);
    }
}

static bool poll(struct backend *b)
{
    return clock_now_ns() >= sim_of(b)->t_end_ns;
}

static void times(const struct backend *b, int64_t *t_begin_ns, int64_t *t_end_ns)
{
    *t_begin_ns = sim_of_const(b)->t_begin_ns;
    *t_end_ns = sim_of_const(b)->t_end_ns;
}

static const char *kernels(const struct backend *b)
{
    return b->ops->name;
}

static bool idle_class(const struct backend *b)
{
    (void)b;
    return false; // computes in no thread
}

/* The part of the model that it stands for, in the formats that the model has. */
static void tally_part(const struct sim *b, struct tally *t, int64_t *n_weights)
{
    const struct arch *a = &b->arch;
    const bool shared = a->tied_embedding && b->has_embed && b->has_head; // one table
    *n_weights = 0;
    for (int i = b->first_layer; i < b->first_layer + b->n_layers; i++) {
        const struct sizes_layer l = sizes_layer(a, i);
        const double experts = arch_is_moe(a, i) ? l.expert_bytes * a->moe.n_experts : 0;
        tally_add(t, a->expert_dtype, (int64_t)experts);
        tally_add(t, a->linear_dtype, (int64_t)(l.bytes - experts));
        *n_weights += l.params;
    }
    if (b->has_embed && !shared) {
        tally_add(t, a->dtype, (int64_t)sizes_embed_bytes(a));
        *n_weights += (int64_t)a->vocab * a->hidden;
    }
    if (b->has_head) {
        tally_add(t, a->dtype, (int64_t)sizes_head_bytes(a));
        *n_weights += sizes_head_params(a);
    }
}

static double kv_bytes_per_token(const struct sim *b)
{
    double n_values = 0;
    for (int i = b->first_layer; i < b->first_layer + b->n_layers; i++) {
        n_values += (double)sizes_layer(&b->arch, i).kv_values;
    }
    return n_values * sizes_value_bytes(b->kv_dtype);
}

static void about(const struct backend *base, struct engine *out)
{
    const struct sim *b = sim_of_const(base);
    struct tally t = {0};
    tally_part(b, &t, &out->n_weights);
    out->weight_bytes = tally_bytes(&t);
    tally_text(&t, out->weights, sizeof out->weights);
    tally_text(&t, out->weights_stored, sizeof out->weights_stored);
    snprintf(out->device, sizeof out->device, "simulated: %s", b->costs.source);
    out->kv_bytes_per_token = kv_bytes_per_token(b);
    // Costs count distinct experts of tokens that choose at random.
    const struct moe_routing at_random = {.kind = ROUTER_UNIFORM};
    backend_about_model(out, &b->arch, b->kv_dtype, b->n_blocks, &at_random);
}

static void destroy(struct backend *base)
{
    struct sim *b = sim_of(base);
    free(b->cache);
    free(b->states);
    free(b);
}

const struct backend_ops backend_sim = {
    .name = "sim",
    .create = create,
    .submit = submit,
    .poll = poll,
    .times = times,
    .kernels = kernels,
    .about = about,
    .idle_class = idle_class,
    .destroy = destroy,
};
