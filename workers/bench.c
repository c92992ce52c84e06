#include "workers/bench.h"

#include "core/clock.h"
#include "core/cores.h"
#include "core/mem.h"
#include "model/sizes.h"
#include "workers/backend.h"
#include "workers/batch.h"
#include "workers/cpu/cache.h"
#include "workers/cpu/kernels.h"
#include "workers/kv.h"
#include "workers/sim/costs.h"

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
    struct ceilings best;
    int32_t *ids;                  // (max_rows)
    float *logits;                 // (text_rows, vocab) or NULL
    int *cpus;                     // (n_threads)
    uint32_t max_tokens, max_rows; // of a batch
    uint32_t text_rows;            // positions of a text that are read for their logits at once
    uint32_t n_slots, slot_blocks, n_blocks; // the tables' size, and the pool's
    uint32_t *given;                         // (n_slots) blocks that a slot has got
    uint32_t stride; // between two requests' first blocks, in the case at hand
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

/* Blocks of one request. */
static uint32_t case_blocks(const struct bench_case *c)
{
    return blocks_for(c->depth + c->n);
}

/* --- opening ---------------------------------------------------------------------------------- */

static int check(const struct bench *b, struct err *e)
{
    uint32_t longest = b->cfg.max_text;
    for (int i = 0; i < b->cfg.n_cases; i++) {
        longest = most(longest, b->cfg.cases[i].depth + b->cfg.cases[i].n);
    }
    if (longest > (uint32_t)b->arch.max_context) {
        return err_set(e, ERR_INPUT, "%u tokens do not fit the context of %s: at most %d", longest,
                       b->cfg.model, b->arch.max_context);
    }
    return 0;
}

static int open_backend(struct bench *b, struct err *e)
{
    const struct bench_config *c = &b->cfg;
    const struct backend_config cfg = {
        .backend = c->backend,
        .model = c->model,
        .arch = &b->arch,
        .n_layers = b->arch.n_layers,
        .has_embed = true,
        .has_head = true,
        .max_tokens = b->max_tokens,
        .max_rows = b->max_rows,
        .n_slots = b->n_slots,
        .slot_blocks = b->slot_blocks,
        .n_blocks = b->n_blocks,
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
    return kv_tables_init(&b->tables, b->n_slots, b->slot_blocks, e) ||
                   batch_create(&b->batch, &limits, e)
               ? -1
               : 0;
}

/* What the largest of everything takes: cases come one after the other, and share the pool. */
static void plan_sizes(struct bench *b)
{
    const struct bench_config *c = &b->cfg;
    uint32_t longest = c->max_text; // of what is read in one go
    b->text_rows = least(c->max_text, BENCH_TEXT_ROWS);
    b->n_slots = 1;
    b->slot_blocks = b->n_blocks = blocks_for(c->max_text);
    for (int i = 0; i < c->n_cases; i++) {
        const struct bench_case *one = &c->cases[i];
        longest = most(longest, most(one->is_prompt ? one->n : 0, one->depth));
        b->n_slots = most(b->n_slots, one->batch);
        b->slot_blocks = most(b->slot_blocks, case_blocks(one));
        b->n_blocks = most(b->n_blocks, one->batch * case_blocks(one));
    }
    b->max_rows = most(b->n_slots, b->text_rows);
    b->max_tokens = most(least(longest, MAX_STEP_TOKENS), b->max_rows);
}

static int open_logits(struct bench *b, struct err *e)
{
    const size_t n = (size_t)b->text_rows * (size_t)b->arch.vocab;
    b->logits = n > 0 ? malloc(n * sizeof *b->logits) : NULL;
    return n > 0 && !b->logits
               ? err_set(e, ERR_ENV, "no memory: %zu bytes of logits", n * sizeof *b->logits)
               : 0;
}

int bench_open(struct bench **out, const struct bench_config *cfg, struct err *e)
{
    struct bench *b = xcalloc(1, sizeof *b);
    b->cfg = *cfg;
    plan_sizes(b);
    b->ids = xcalloc(b->max_rows, sizeof *b->ids);
    b->given = xcalloc(b->n_slots, sizeof *b->given);
    b->cpus = xcalloc((size_t)cfg->n_threads, sizeof *b->cpus);
    bool pinned;
    if (arch_open(cfg->model, &b->arch, e) || check(b, e) ||
        cores_plan(b->cpus, 0, cfg->n_threads, cfg->n_threads, &pinned, e) || open_backend(b, e) ||
        open_logits(b, e) || bench_look(b, e)) {
        bench_close(b);
        return -1;
    }
    b->cfg.cases = NULL;
    *out = b;
    return 0;
}

void bench_close(struct bench *b)
{
    if (!b) {
        return;
    }
    backend_destroy(b->backend);
    batch_destroy(b->batch);
    kv_tables_free(&b->tables);
    free(b->ids);
    free(b->logits);
    free(b->given);
    free(b->cpus);
    free(b);
}

const struct arch *bench_arch(const struct bench *b)
{
    return &b->arch;
}

void bench_about(const struct bench *b, struct engine *out)
{
    backend_about(b->backend, out);
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
    return &b->best;
}

int bench_look(struct bench *b, struct err *e)
{
    return b->cfg.has_ceilings ? backend_ceilings(b->backend, &b->best, e) : 0;
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
    return b->cfg.weight_bits == 16 ? ARCH_BF16 : backend_keeps(b->backend, stored);
}

/* Bytes of a value as kept over those of it as stored. */
static double growth(enum arch_dtype kept, enum arch_dtype stored)
{
    return sizes_value_bytes(kept) / sizes_value_bytes(stored);
}

/* What a layer's matrix is kept in. */
static enum arch_dtype layer_kept(const struct bench *b, enum arch_dtype stored)
{
    const int bits = integer_bits(b);
    return bits == 8 ? ARCH_INT8 : bits == 4 ? ARCH_INT4 : kept(b, stored);
}

static double layer_growth(const struct bench *b, enum arch_dtype stored)
{
    return growth(layer_kept(b, stored), stored);
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
        w.flops += l.pair_flops * costs_pairs(pos, n, window) * rows;
        w.bytes += (double)l.kv_values * sizes_value_bytes(b->cfg.kv_dtype) * rows *
                   (window > 0 ? fmin(reach, window + n - 1) : reach);
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
        struct work w = step_work(b, c->depth + at, n, c->batch, samples ? c->batch : 0);
        all.bytes += w.bytes;
        all.flops += w.flops;
    }
    return all;
}

const struct ceiling *bench_peak(const struct bench *b)
{
    const enum arch_dtype dtype = layer_kept(b, b->arch.linear_dtype);
    const struct ceiling *peak = ceilings_find(&b->best, backend_peak(b->backend, dtype));
    CHECK(peak != NULL);
    return peak;
}

/* --- running ---------------------------------------------------------------------------------- */

/*
 * The slot's next n tokens, which the caller fills in, and blocks for `ahead` of them, as far as it has not got
 * them before: a run is repeated in the same ones.
 */
static int32_t *add_row(struct bench *b, uint32_t slot, uint32_t pos, uint32_t n, uint32_t ahead,
                        bool sample)
{
    struct batch *batch = b->batch;
    struct batch_row *r = &batch->rows[batch->n_rows++];
    const uint32_t has = pos == 0 ? 0 : b->given[slot];
    const uint32_t need = most(blocks_for(pos + ahead), has);
    *r = (struct batch_row){
        .slot = slot,
        .flags = (sample ? BATCH_SAMPLE : 0u) | (pos == 0 ? BATCH_BEGIN : 0u),
        .first = batch->n_tokens,
        .n_tokens = n,
        .pos = pos,
        .first_block = batch->n_blocks,
        .n_blocks = need - has,
    };
    for (uint32_t i = has; i < need; i++) {
        batch->blocks[batch->n_blocks++] = slot * b->stride + i;
    }
    b->given[slot] = need;
    batch->n_tokens += n;
    return batch->tokens + r->first;
}

static void add_made_up_row(struct bench *b, uint32_t slot, uint32_t pos, uint32_t n, bool sample)
{
    int32_t *tokens = add_row(b, slot, pos, n, n, sample);
    for (uint32_t i = 0; i < n; i++) {
        const uint32_t id = (pos + i) * 37 + slot * 101 + 11;
        tokens[i] = (int32_t)(id % (uint32_t)b->arch.vocab);
    }
}

/* Run the batch as it stands. */
static int step(struct bench *b, struct bench_time *t, struct err *e)
{
    kv_tables_apply(&b->tables, b->batch);
    backend_submit(b->backend, b->batch, &b->tables, NULL, NULL, b->ids, NULL);
    while (!backend_poll(b->backend)) {
        if (!backend_is_beside(b->backend)) {
            clock_sleep_until_ns(clock_local_ns() + 20 * NS_PER_US);
        }
    }
    int64_t begin_ns, end_ns;
    backend_times(b->backend, &begin_ns, &end_ns);
    t->steps_s += (double)(end_ns - begin_ns) / 1e9;
    t->busy_s += (double)backend_busy_ns(b->backend) / 1e9;
    b->batch->n_rows = b->batch->n_tokens = b->batch->n_blocks = 0;
    return backend_error(b->backend, e);
}

/* Fill the caches, several requests in a batch. */
static int fill(struct bench *b, const struct bench_case *c, struct err *e)
{
    struct bench_time unused = {0};
    for (uint32_t row = 0; row < c->batch; row++) {
        for (uint32_t at = 0, n; at < c->depth; at += n) {
            n = least(c->depth - at, b->max_tokens - b->batch->n_tokens);
            add_made_up_row(b, row, at, n, false);
            if (b->batch->n_tokens == b->max_tokens && step(b, &unused, e)) {
                return -1;
            }
        }
    }
    return b->batch->n_tokens > 0 ? step(b, &unused, e) : 0;
}

/* The first n tokens of a case. */
static int run(struct bench *b, const struct bench_case *c, uint32_t n_tokens, struct bench_time *t,
               struct err *e)
{
    const int64_t start_ns = clock_local_ns();
    for (uint32_t at = 0, n; at < n_tokens; at += n) {
        n = c->is_prompt ? least(n_tokens - at, MAX_STEP_TOKENS) : 1;
        for (uint32_t row = 0; row < c->batch; row++) {
            add_made_up_row(b, row, c->depth + at, n, !c->is_prompt || at + n == n_tokens);
        }
        if (step(b, t, e)) {
            return -1;
        }
    }
    t->wall_s = (double)(clock_local_ns() - start_ns) / 1e9;
    return 0;
}

int bench_begin(struct bench *b, const struct bench_case *c, struct err *e)
{
    struct bench_time unused = {0};
    b->stride = case_blocks(c);
    return fill(b, c, e) || run(b, c, c->is_prompt ? c->n : 1, &unused, e) ? -1 : 0;
}

int bench_once(struct bench *b, const struct bench_case *c, struct bench_time *out, struct err *e)
{
    *out = (struct bench_time){0};
    return run(b, c, c->n, out, e);
}

int bench_read(struct bench *b, const int32_t *text, uint32_t pos, uint32_t n, struct err *e)
{
    struct bench_time unused = {0};
    for (uint32_t end = pos + n; pos < end; pos += n) {
        n = least(end - pos, b->max_tokens);
        memcpy(add_row(b, 0, pos, n, n, false), text + pos, n * sizeof *text);
        if (step(b, &unused, e)) {
            return -1;
        }
    }
    return 0;
}

/* Logits come of a row's last token: each token is a row of its own, of the same request; the first brings the
 * blocks of all. */
int bench_logits(struct bench *b, const int32_t *text, uint32_t pos, uint32_t n,
                 const float **logits, struct err *e)
{
    struct bench_time unused = {0};
    CHECK(n <= b->text_rows);
    for (uint32_t i = 0; i < n; i++) {
        *add_row(b, 0, pos + i, 1, n - i, true) = text[pos + i];
    }
    backend_logits(b->backend, b->logits);
    const int rc = step(b, &unused, e);
    backend_logits(b->backend, NULL);
    *logits = b->logits;
    return rc;
}

/* --- results ---------------------------------------------------------------------------------- */

/* Mean and standard deviation of tokens per second; returns the best run. */
static const struct bench_time *rates(const struct bench_case *c, const struct bench_time *runs,
                                      struct bench_result *out)
{
    const double tokens = (double)c->n * c->batch, n = c->n_repeats;
    const struct bench_time *best = runs;
    double squares = 0;
    for (int i = 0; i < c->n_repeats; i++) {
        out->mean += tokens / runs[i].steps_s / n;
        best = runs[i].steps_s < best->steps_s ? &runs[i] : best;
    }
    for (int i = 0; i < c->n_repeats; i++) {
        const double off = tokens / runs[i].steps_s - out->mean;
        squares += off * off;
    }
    out->sd = n > 1 ? sqrt(squares / (n - 1)) : 0;
    out->best = tokens / best->steps_s;
    return best;
}

void bench_sum(const struct bench *b, const struct bench_case *c, const struct bench_time *runs,
               struct bench_result *out)
{
    const struct work w = case_work(b, c);
    *out = (struct bench_result){.bytes = w.bytes, .flops = w.flops};
    const struct bench_time *best = rates(c, runs, out);
    out->read_bytes_per_s = w.bytes / best->steps_s;
    out->flops_per_s = w.flops / best->steps_s;
    out->gap_share = fmax(0, 1 - best->busy_s / best->wall_s);
    out->launch_share = fmax(0, 1 - best->busy_s / best->steps_s);
    if (b->cfg.has_ceilings) {
        const double read = ceilings_rate(&b->best, "read"), peak = bench_peak(b)->per_s;
        out->read_share = out->read_bytes_per_s / read;
        out->peak_share = out->flops_per_s / peak;
        out->roofline_share = fmax(w.bytes / read, w.flops / peak) / best->steps_s;
    }
}
