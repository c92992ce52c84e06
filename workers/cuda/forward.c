#include "workers/cuda/forward.h"

#include <stdlib.h>
#include <string.h>

#include "core/mem.h"
#include "workers/cuda/forward_impl.h"
#include "workers/cuda/narrow.h"

/* --- what it takes -------------------------------------------------------------------------------- */

static int check_multiple(const char *what, int n, int of, struct err *e)
{
    return n % of == 0 ? 0
                       : err_set(e, ERR_INPUT, "backend cuda: %s is %d, it takes multiples of %d",
                                 what, n, of);
}

/* Kernels load 16 bytes at a time: of a head's numbers 8, of a row's as many as the weights' inputs have in them. */
static int check_arch(const struct arch *a, const struct shard *s, struct err *e)
{
    const int row = a->dtype == ARCH_F32 && a->linear_dtype == ARCH_F32 ? 4 : 8, head = 8;
    const struct {
        const char *what;
        int n, of;
    } dims[] = {
        {"hidden_size", a->hidden, row},
        {"head_dim", arch_is_latent(a) ? 0 : a->head_dim, head},
        {"v_head_dim", a->v_dim, head},
        {"q_lora_rank", a->latent.q_rank, head},
        {"kv_lora_rank", a->latent.kv_rank, head},
        {"qk_nope_head_dim", a->latent.nope_dim, head},
        {"qk_rope_head_dim", arch_is_latent(a) ? a->rope_dim : 0, head},
        {"intermediate_size", a->intermediate, row},
        {"moe_intermediate_size", a->moe.intermediate, row},
        {"a rank's part of intermediate_size", s->mlp.n, row},
        {"a rank's part of the shared expert", s->shared.n, row},
        {"a rank's part of moe_intermediate_size", s->expert.n, row},
    };
    for (size_t i = 0; i < sizeof dims / sizeof *dims; i++) {
        if (check_multiple(dims[i].what, dims[i].n, dims[i].of, e)) {
            return -1;
        }
    }
    const bool fits = arch_is_latent(a)
                          ? a->latent.kv_rank <= 512 && a->latent.kv_rank + a->rope_dim <= 576
                          : a->head_dim <= 256 && a->head_dim == a->v_dim;
    if (!fits) {
        return err_set(e, ERR_INPUT,
                       "backend cuda: heads of %d are more than it takes (256; "
                       "latents of 512 with 64 that rotate)",
                       a->head_dim);
    }
    if (a->vocab > SAMPLE_MAX_VOCAB) {
        return err_set(e, ERR_INPUT, "backend cuda: vocab_size is %d, it takes up to %d", a->vocab,
                       SAMPLE_MAX_VOCAB);
    }
    return a->moe.top_k <= MATMUL_MIX_MOST
               ? 0
               : err_set(e, ERR_INPUT, "backend cuda: %d experts a token, it takes up to %d",
                         a->moe.top_k, MATMUL_MIX_MOST);
}

/* --- life ----------------------------------------------------------------------------------------- */

static void look_at_windows(struct forward *f)
{
    for (int i = 0; i < f->cfg.part.n_layers; i++) {
        const int window = arch_window(f->arch, f->cfg.part.first_layer + i);
        int k = 0;
        while (k < f->n_windows && f->windows[k] != window) {
            k++;
        }
        if (k == f->n_windows) {
            CHECK(f->n_windows < FORWARD_WINDOWS);
            f->windows[f->n_windows++] = window;
        }
    }
}

static void look_at_cache(struct forward *f)
{
    const struct arch *a = f->arch;
    const bool is_latent = arch_is_latent(a);
    const int key_dim = is_latent ? a->latent.kv_rank + a->rope_dim : a->head_dim;
    const int value_dim = is_latent ? a->latent.kv_rank : a->v_dim;
    cache_layout_init(&f->layout, f->cfg.kv_dtype, key_dim, value_dim,
                      is_latent ? 1 : a->n_kv_heads, is_latent);
    f->shape = (struct attention_shape){
        .layout = f->layout,
        .n_heads = a->n_heads,
        .n_sms = gpu_info(f->gpu)->n_processors,
    };
    f->positions = f->cfg.slot_blocks * BATCH_KV_BLOCK;
    if (f->positions > (uint32_t)a->max_context) {
        f->positions = (uint32_t)a->max_context;
    }
}

/* A grid has 65,535 of its second dimension, for the batch's tokens and the tiles of its experts. */
#define MAX_TOKENS 32768

static int check_tokens(uint32_t max_tokens, struct err *e)
{
    return max_tokens <= MAX_TOKENS
               ? 0
               : err_set(e, ERR_INPUT,
                         "backend cuda: target.max_batch_tokens is %u, it takes up to %d",
                         max_tokens, MAX_TOKENS);
}

static int check_shared(const struct forward *f, struct err *e)
{
    const uint32_t wanted = attention_large_shared_bytes(&f->shape);
    const struct gpu_info *i = gpu_info(f->gpu);
    return wanted <= (uint32_t)i->shared_bytes
               ? 0
               : err_set(
                     e, ERR_INPUT,
                     "backend cuda: attention over %d numbers a key takes %u bytes of shared memory; a "
                     "block of this GPU (%s) may have %d",
                     f->layout.key_dim, wanted, i->name, i->shared_bytes);
}

int forward_create(struct forward **out, const struct forward_config *cfg, struct err *e)
{
    struct shard shard;
    if (shard_init(&shard, cfg->arch, cfg->group.rank, cfg->group.size, e) ||
        check_arch(cfg->arch, &shard, e) || check_tokens(cfg->max_tokens, e)) {
        return -1;
    }
    struct forward *f = xcalloc(1, sizeof *f);
    f->cfg = *cfg;
    f->gpu = cfg->gpu;
    f->own_arch = *cfg->arch;
    f->own_arch.n_heads = shard.heads.n;
    f->own_arch.n_kv_heads = shard.kv_heads.n;
    f->arch = &f->own_arch;
    f->shard = shard;
    look_at_windows(f);
    look_at_cache(f);
    if (check_shared(f, e)) {
        free(f);
        return -1;
    }
    f->max_entries = cfg->max_rows * cfg->slot_blocks;
    f->rows = xcalloc(cfg->max_rows, sizeof *f->rows);
    const uint32_t n_single = cfg->max_rows < cfg->max_tokens ? cfg->max_rows : cfg->max_tokens;
    if ((gemm_open(&f->gemm, GEMM_SCRATCH_BYTES, e) && gpu_blame(f->gpu, e)) ||
        forward_group_take(f, e) || forward_slate_take(f, &f->mixed, cfg->max_tokens, e) ||
        forward_slate_take(f, &f->single, n_single, e) || forward_room_take(f, e)) {
        forward_destroy(f);
        return -1;
    }
    *out = f;
    return 0;
}

void forward_destroy(struct forward *f)
{
    if (!f) {
        return;
    }
    forward_graphs_free(f);
    forward_group_end(f);
    if (!gpu_is_left(f->gpu)) {
        gemm_close(f->gemm);
    }
    free(f->rows);
    free(f);
}

int64_t forward_block_bytes(const struct forward *f)
{
    return (int64_t)f->layout.block_bytes * f->cfg.part.n_layers;
}

int64_t forward_busy_ns(const struct forward *f)
{
    return f->busy_ns;
}

/* --- a batch -------------------------------------------------------------------------------------- */

/* Whether every row has one token, and there is a graph for so many. */
static uint32_t rows_of_graph(const struct forward *f)
{
    const struct batch *b = f->io->batch;
    return b->n_tokens == b->n_rows ? forward_graphs_rows(f, b->n_rows) : 0;
}

/* Where hidden states are as they travel, when they come from the host, or go there. */
static void *carried(struct forward *f)
{
    return f->room.carried ? (void *)f->room.carried : (void *)f->room.x;
}

/* What this rank gets and sends of them. */
static struct shard_slice slice_of(const struct forward *f)
{
    return shard_hidden(f->arch, f->io->batch->n_tokens, f->shard.rank, f->shard.size);
}

/* Where all of them are on the device as they came. */
static int arrive(struct forward *f, const void **at, struct err *e)
{
    const struct shard_slice s = slice_of(f);
    *at = f->io->in;
    if (!f->io->in_on_device) {
        memcpy(f->staged.hidden, f->io->in, s.n_bytes);
        *at = carried(f);
        if (gpu_copy_in(f->gpu, carried(f), f->staged.hidden, s.n_bytes, e)) {
            return -1;
        }
    }
    if (forward_is_shared(f)) {
        forward_group_hidden(f, *at, s.each_bytes);
        *at = f->room.arrived;
    }
    return 0;
}

/* Hidden states of the stage before; zeros for rows that fill up. */
static int hidden_in(struct forward *f, struct err *e)
{
    const size_t hidden = (size_t)f->arch->hidden, n = f->io->batch->n_tokens;
    const void *at;
    if (f->cfg.part.has_embed) {
        return 0;
    }
    if (arrive(f, &at, e)) {
        return -1;
    }
    if (f->room.carried) {
        const struct narrow_back v = {.n = (int64_t)(n * hidden), .x = at, .out = f->room.x};
        narrow_back_queue(&v, gpu_stream(f->gpu));
        forward_ops_check(f, "hidden states from bfloat16");
    } else if (at != f->room.x &&
               gpu_copy_on(f->gpu, f->room.x, at, arch_carried_bytes(f->arch, n), e)) {
        return -1;
    }
    float *fill = f->room.x + n * hidden;
    return gpu_clear(f->gpu, fill, ((size_t)f->n - n) * hidden * sizeof *fill, e) || f->failed ? -1
                                                                                               : 0;
}

/* This rank's part of hidden states to where the next stage, or the host, can have it. */
static int hidden_out(struct forward *f, struct err *e)
{
    const struct shard_slice s = slice_of(f);
    float *x = f->room.x + s.first;
    void *to = f->io->out_on_device ? f->io->out : f->room.carried ? (void *)f->room.carried : x;
    if (f->room.carried) {
        const struct narrow_values v = {.n = (int64_t)s.n, .x = x, .out = to};
        narrow_queue(&v, gpu_stream(f->gpu));
        forward_ops_check(f, "hidden states to bfloat16");
    } else if (to != x && gpu_copy_on(f->gpu, to, x, s.n_bytes, e)) {
        return -1;
    }
    if (f->failed) {
        return -1;
    }
    return f->io->out_on_device ? 0 : gpu_copy_out(f->gpu, f->staged.hidden, to, s.n_bytes, e);
}

static int queue_layers(struct forward *f, struct err *e)
{
    if (f->slate == &f->single) {
        return forward_graphs_queue(f, e);
    }
    f->e = e;
    layers_forward(&forward_ops, f, f->arch, &f->cfg.part);
    return f->failed ? -1 : 0;
}

static int queue_end(struct forward *f, struct err *e)
{
    return f->cfg.part.has_head ? forward_head_queue(f, e) : hidden_out(f, e);
}

static int queue_all(struct forward *f, struct err *e)
{
    return gpu_begin(f->gpu, e) || forward_slate_queue(f, e) || forward_slate_queue_entries(f, e) ||
                   forward_slate_queue_drawn(f, e) || hidden_in(f, e) || queue_layers(f, e) ||
                   queue_end(f, e) || gpu_end(f->gpu, e)
               ? -1
               : 0;
}

int forward_run(struct forward *f, const struct forward_io *io, int64_t limit_ns, struct err *e)
{
    const struct batch *b = io->batch;
    CHECK(b->n_tokens <= f->cfg.max_tokens && b->n_rows <= f->cfg.max_rows && f->room.kv);
    f->io = io;
    f->e = e;
    f->failed = false;
    if (forward_group_join(f, e)) {
        return -1;
    }
    const int64_t deadline_ns = clock_local_ns() + limit_ns;
    const uint32_t rows = rows_of_graph(f);
    f->n = (int)(rows > 0 ? rows : b->n_tokens);
    f->slate = rows > 0 ? &f->single : &f->mixed;
    forward_slate_fill(f);
    if (queue_all(f, e) || forward_group_wait(f, deadline_ns, e) ||
        gpu_busy_ns(f->gpu, &f->busy_ns, e)) {
        return -1;
    }
    if (f->cfg.part.has_head) {
        forward_head_finish(f);
    } else if (!io->out_on_device) {
        memcpy(io->out, f->staged.hidden, slice_of(f).n_bytes);
    }
    return 0;
}

/* --- the cache ------------------------------------------------------------------------------------ */

void forward_give_cache(struct forward *f)
{
    forward_graphs_free(f);
    gpu_give(f->gpu, f->room.kv);
    f->room.kv = NULL;
}

int forward_take_cache(struct forward *f, uint32_t n_blocks, struct err *e)
{
    void *kv;
    forward_give_cache(f);
    if (gpu_take(f->gpu, (size_t)n_blocks * (size_t)forward_block_bytes(f), "the KV cache", &kv,
                 e)) {
        return -1;
    }
    f->room.kv = kv;
    f->n_blocks = n_blocks;
    return f->is_warm && forward_group_records(f) ? forward_graphs_record(f, e) : 0;
}
