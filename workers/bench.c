#include "workers/bench.h"

#include "core/clock.h"
#include "core/cores.h"
#include "core/mem.h"
#include "core/pool.h"
#include "model/sizes.h"
#include "workers/backend.h"
#include "workers/batch.h"
#include "workers/cpu/cache.h"
#include "workers/cpu/kernels.h"
#include "workers/kv.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define MAX_STEP_TOKENS 2048u // of a prompt at once

struct bench {
    struct bench_config cfg;
    struct arch arch;
    struct backend *backend;
    struct kv_tables tables;
    struct batch *batch;
    struct cache cache; // one block's layout
    struct pool *pool;  // of the ceilings, or NULL; asleep while the backend's computes
    struct ceilings_meter *meter;
    int32_t *ids;                  // (max_rows)
    float *logits;                 // (text_rows, vocab) or NULL
    int *cpus;                     // (n_threads)
    uint32_t max_tokens, max_rows; // of a batch
    uint32_t text_rows;            // positions of a text that are read for their logits at once
    uint32_t slot_blocks;
    double load_s;
};

static uint32_t most(uint32_t a, uint32_t b)
{
    return a > b ? a : b;
}

static uint32_t least(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

static uint32_t blocks_for(uint32_t n_tokens)
{
    return (n_tokens + BATCH_KV_BLOCK - 1) / BATCH_KV_BLOCK;
}

/* --- opening ---------------------------------------------------------------------------------- */

static int check(const struct bench *b, struct err *e)
{
    const uint32_t longest = most(most(b->cfg.max_prompt, b->cfg.max_gen), b->cfg.max_text);
    if (longest > (uint32_t)b->arch.max_context) {
        return err_set(e, ERR_INPUT, "%u tokens do not fit the context of %s: at most %d", longest,
                       b->cfg.model, b->arch.max_context);
    }
    return 0;
}

static int open_backend(struct bench *b, struct err *e)
{
    const struct bench_config *c = &b->cfg;
    const uint32_t n_blocks = c->max_batch * b->slot_blocks;
    const struct backend_config cfg = {
        .model = c->model,
        .arch = &b->arch,
        .n_layers = b->arch.n_layers,
        .has_embed = true,
        .has_head = true,
        .max_tokens = b->max_tokens,
        .max_rows = b->max_rows,
        .n_blocks = n_blocks,
        .kv_dtype = c->kv_dtype,
        .weight_bits = c->weight_bits,
        .n_threads = c->n_threads,
        .cpus = b->cpus,
        .kernels = c->kernels,
    };
    const struct batch_limits limits = {
        .max_rows = b->max_rows,
        .max_tokens = b->max_tokens,
        .max_blocks = batch_max_blocks(b->max_rows, b->max_tokens) + 1,
        .n_stages = 1,
    };
    const int64_t start_ns = clock_local_ns();
    if (backend_create(&b->backend, &cfg, e)) {
        return -1;
    }
    b->load_s = (double)(clock_local_ns() - start_ns) / 1e9;
    return kv_tables_init(&b->tables, c->max_batch, b->slot_blocks, e) ||
                   batch_create(&b->batch, &limits, e)
               ? -1
               : 0;
}

static void plan_sizes(struct bench *b)
{
    const struct bench_config *c = &b->cfg;
    const uint32_t longest = most(c->max_prompt, c->max_text);
    b->text_rows = least(c->max_text, BENCH_TEXT_ROWS);
    b->max_rows = most(c->max_batch, b->text_rows);
    b->max_tokens = most(least(longest, MAX_STEP_TOKENS), b->max_rows);
    b->slot_blocks = blocks_for(most(longest, c->max_gen));
}

static int open_logits(struct bench *b, struct err *e)
{
    const size_t n = (size_t)b->text_rows * (size_t)b->arch.vocab;
    b->logits = n > 0 ? malloc(n * sizeof *b->logits) : NULL;
    return n > 0 && !b->logits
               ? err_set(e, ERR_ENV, "no memory: %zu bytes of logits", n * sizeof *b->logits)
               : 0;
}

static int open_ceilings(struct bench *b, struct err *e)
{
    if (!b->cfg.has_ceilings) {
        return 0;
    }
    b->pool = pool_create(b->cfg.n_threads, b->cpus, false);
    if (ceilings_open(&b->meter, b->pool, b->cfg.n_threads, e)) {
        return -1;
    }
    ceilings_look(b->meter);
    return 0;
}

int bench_open(struct bench **out, const struct bench_config *cfg, struct err *e)
{
    struct bench *b = xcalloc(1, sizeof *b);
    b->cfg = *cfg;
    plan_sizes(b);
    b->ids = xcalloc(b->max_rows, sizeof *b->ids);
    b->cpus = xcalloc((size_t)cfg->n_threads, sizeof *b->cpus);
    bool pinned;
    if (arch_open(cfg->model, &b->arch, e) || check(b, e) ||
        cache_init_for(&b->cache, &b->arch, cfg->kv_dtype, e) ||
        cores_plan(b->cpus, 0, cfg->n_threads, cfg->n_threads, &pinned, e) || open_backend(b, e) ||
        open_logits(b, e) || open_ceilings(b, e)) {
        bench_close(b);
        return -1;
    }
    *out = b;
    return 0;
}

void bench_close(struct bench *b)
{
    if (!b) {
        return;
    }
    ceilings_close(b->meter);
    pool_destroy(b->pool);
    backend_destroy(b->backend);
    batch_destroy(b->batch);
    kv_tables_free(&b->tables);
    free(b->ids);
    free(b->logits);
    free(b->cpus);
    free(b);
}

const struct arch *bench_arch(const struct bench *b)
{
    return &b->arch;
}

const char *bench_kernels(const struct bench *b)
{
    return backend_kernels(b->backend);
}

double bench_load_s(const struct bench *b)
{
    return b->load_s;
}

const struct ceilings *bench_ceilings(const struct bench *b)
{
    return ceilings_best(b->meter);
}

/* --- what is read and computed ---------------------------------------------------------------- */

/* What integers the layers' matrices and the head are made; 0: none. */
static int integer_bits(const struct bench *b)
{
    return b->cfg.weight_bits < 16 ? b->cfg.weight_bits : 0;
}

/* What a matrix is kept in that is no integers. */
static enum arch_dtype kept(const struct bench *b, enum arch_dtype stored)
{
    const bool is_read = stored != ARCH_FP8 && stored != ARCH_MXFP4;
    return is_read && b->cfg.weight_bits != 16 ? stored : ARCH_BF16;
}

/* Bytes of a value as kept over those of it as stored. */
static double growth(enum arch_dtype kept, enum arch_dtype stored)
{
    return sizes_value_bytes(kept) / sizes_value_bytes(stored);
}

static double layer_growth(const struct bench *b, enum arch_dtype stored)
{
    const int bits = integer_bits(b);
    return growth(bits == 8 ? ARCH_INT8 : bits == 4 ? ARCH_INT4 : kept(b, stored), stored);
}

/* Of one step's weights, for n tokens of which `samples` need logits. */
static double weight_bytes(const struct bench *b, double n, double samples)
{
    const struct arch *a = &b->arch;
    double bytes = 0;
    for (int i = 0; i < a->n_layers; i++) {
        const struct sizes_layer l = sizes_layer(a, i);
        bytes += l.common_bytes * layer_growth(b, a->linear_dtype);
        if (l.expert_bytes > 0) {
            bytes +=
                sizes_distinct_experts(a, n) * l.expert_bytes * layer_growth(b, a->expert_dtype);
        }
    }
    const enum arch_dtype head = integer_bits(b) ? ARCH_INT8 : kept(b, a->dtype);
    return bytes + (samples > 0 ? sizes_head_bytes(a) * growth(head, a->dtype) : 0);
}

double bench_weight_bytes(const struct bench *b)
{
    const struct arch *a = &b->arch;
    const double all = weight_bytes(b, 1e9, 1); // enough tokens for every expert
    return all +
           (a->tied_embedding ? 0 : sizes_embed_bytes(a) * growth(kept(b, a->dtype), a->dtype));
}

double bench_kv_bytes(const struct bench *b)
{
    return cache_token_bytes(&b->cache, &b->arch);
}

/* Pairs of a token and a position that it sees, of a step of n tokens from `pos` on, in a layer. */
static double pairs_seen(const struct arch *a, int layer, double pos, double n)
{
    const double window = arch_window(a, layer);
    if (window > 0 && pos + 1 > window) {
        return n * window;
    }
    return n * pos + n * (n + 1) / 2;
}

struct work {
    double bytes, flops;
};

/* A step of n tokens from `pos` on in each of `rows` requests; `samples` of all need logits. */
static struct work step_work(const struct bench *b, double pos, double n, double rows,
                             double samples)
{
    const struct arch *a = &b->arch;
    struct work w = {.bytes = weight_bytes(b, n * rows, samples)};
    for (int i = 0; i < a->n_layers; i++) {
        const struct sizes_layer l = sizes_layer(a, i);
        const double window = arch_window(a, i), reach = pos + n;
        w.flops += 2 * (double)l.active_params * n * rows;
        w.flops += l.pair_flops * pairs_seen(a, i, pos, n) * rows;
        w.bytes += (double)l.kv_values * sizes_value_bytes(b->cfg.kv_dtype) * rows *
                   (window > 0 && reach > window ? window + n : reach);
    }
    w.flops += 2 * (double)sizes_head_params(a) * samples;
    return w;
}

static struct work case_work(const struct bench *b, const struct bench_case *c)
{
    struct work all = {0};
    for (uint32_t at = 0, n; at < c->n; at += n) {
        n = c->is_prompt ? least(c->n - at, MAX_STEP_TOKENS) : 1;
        const bool samples = !c->is_prompt || at + n == c->n;
        struct work w = step_work(b, at, n, c->batch, samples ? c->batch : 0);
        all.bytes += w.bytes;
        all.flops += w.flops;
    }
    return all;
}

double bench_peak(const struct bench *b, const char **name)
{
    const struct ceilings *c = ceilings_best(b->meter);
    const enum arch_dtype dtype = integer_bits(b) ? ARCH_INT8 : kept(b, b->arch.linear_dtype);
    const bool floats = dtype == ARCH_F32 || dtype == ARCH_F16;
    if (matrix_is_grouped(dtype) && c->int8_per_s > 0) {
        *name = c->int8_name;
        return c->int8_per_s;
    }
    if (!floats && strcmp(bench_kernels(b), "amx") == 0) {
        *name = c->tile_name;
        return c->tile_per_s;
    }
    if (!floats && strcmp(bench_kernels(b), "avx512_bf16") == 0) {
        *name = c->bf16_name;
        return c->bf16_per_s;
    }
    *name = c->f32_name;
    return c->f32_per_s;
}

/* --- running ---------------------------------------------------------------------------------- */

/* The slot's next n tokens, which the caller fills in. */
static int32_t *add_row(struct bench *b, uint32_t slot, uint32_t pos, uint32_t n, bool sample)
{
    struct batch *batch = b->batch;
    struct batch_row *r = &batch->rows[batch->n_rows++];
    const uint32_t had = blocks_for(pos), need = blocks_for(pos + n);
    *r = (struct batch_row){
        .slot = slot,
        .flags = (sample ? BATCH_SAMPLE : 0u) | (pos == 0 ? BATCH_BEGIN : 0u),
        .first = batch->n_tokens,
        .n_tokens = n,
        .pos = pos,
        .first_block = batch->n_blocks,
        .n_blocks = need - had,
    };
    for (uint32_t i = had; i < need; i++) {
        batch->blocks[batch->n_blocks++] = slot * b->slot_blocks + i;
    }
    batch->n_tokens += n;
    return batch->tokens + r->first;
}

static void add_made_up_row(struct bench *b, uint32_t slot, uint32_t pos, uint32_t n, bool sample)
{
    int32_t *tokens = add_row(b, slot, pos, n, sample);
    for (uint32_t i = 0; i < n; i++) {
        const uint32_t id = (pos + i) * 37 + slot * 101 + 11;
        tokens[i] = (int32_t)(id % (uint32_t)b->arch.vocab);
    }
}

/* Run the batch as it stands; seconds of computing. */
static double step(struct bench *b)
{
    kv_tables_apply(&b->tables, b->batch);
    backend_submit(b->backend, b->batch, &b->tables, NULL, NULL, b->ids, NULL);
    while (!backend_poll(b->backend)) {
        clock_sleep_until_ns(clock_local_ns() + 20 * NS_PER_US);
    }
    int64_t begin_ns, end_ns;
    backend_times(b->backend, &begin_ns, &end_ns);
    b->batch->n_rows = b->batch->n_tokens = b->batch->n_blocks = 0;
    return (double)(end_ns - begin_ns) / 1e9;
}

double bench_once(struct bench *b, const struct bench_case *c)
{
    double took_s = 0;
    for (uint32_t at = 0, n; at < c->n; at += n) {
        n = c->is_prompt ? least(c->n - at, MAX_STEP_TOKENS) : 1;
        for (uint32_t row = 0; row < c->batch; row++) {
            add_made_up_row(b, row, at, n, !c->is_prompt || at + n == c->n);
        }
        took_s += step(b);
    }
    return took_s;
}

void bench_read(struct bench *b, const int32_t *text, uint32_t pos, uint32_t n)
{
    for (uint32_t end = pos + n; pos < end; pos += n) {
        n = least(end - pos, b->max_tokens);
        memcpy(add_row(b, 0, pos, n, false), text + pos, n * sizeof *text);
        step(b);
    }
}

/* Logits come of a row's last token: each token is a row of its own, of the same request. */
const float *bench_logits(struct bench *b, const int32_t *text, uint32_t pos, uint32_t n)
{
    CHECK(n <= b->text_rows);
    for (uint32_t i = 0; i < n; i++) {
        *add_row(b, 0, pos + i, 1, true) = text[pos + i];
    }
    backend_logits(b->backend, b->logits);
    step(b);
    backend_logits(b->backend, NULL);
    return b->logits;
}

void bench_look(struct bench *b)
{
    if (b->meter) {
        ceilings_look(b->meter);
    }
}

void bench_sum(const struct bench *b, const struct bench_case *c, const double *runs_s,
               struct bench_result *out)
{
    const double tokens = (double)c->n * c->batch;
    const struct work w = case_work(b, c);
    double sum = 0, squares = 0, best_s = runs_s[0];
    for (int i = 0; i < c->n_repeats; i++) {
        sum += tokens / runs_s[i];
        best_s = fmin(best_s, runs_s[i]);
    }
    const double mean = sum / c->n_repeats;
    for (int i = 0; i < c->n_repeats; i++) {
        squares += (tokens / runs_s[i] - mean) * (tokens / runs_s[i] - mean);
    }
    *out = (struct bench_result){
        .mean = mean,
        .sd = c->n_repeats > 1 ? sqrt(squares / (c->n_repeats - 1)) : 0,
        .best = tokens / best_s,
        .bytes = w.bytes,
        .flops = w.flops,
        .read_bytes_per_s = w.bytes / best_s,
        .flops_per_s = w.flops / best_s,
    };
    if (b->meter) {
        const char *name;
        const double read = ceilings_best(b->meter)->read_bytes_per_s, peak = bench_peak(b, &name);
        out->read_share = w.bytes / best_s / read;
        out->peak_share = w.flops / best_s / peak;
        out->roofline_share = fmax(w.bytes / read, w.flops / peak) / best_s;
    }
}
