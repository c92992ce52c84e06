#include "workers/rank_memory.h"

#include <math.h>

#include "workers/cuda/device_matrix.h"
#include "workers/cuda/forward.h"
#include "workers/hop.h"

#define VALUE       4.0 // bytes of what is no matrix, the router included
#define CACHE_ALIGN 128 // bytes of a head's part of a block

/* --- forms -------------------------------------------------------------------------------------- */

static bool makes_integers(const struct rank_memory_config *c)
{
    return c->weight_bits == 8 || c->weight_bits == 4;
}

static enum arch_dtype kept(const struct rank_memory_config *c, enum arch_dtype stored)
{
    return c->weight_bits == 16 ? ARCH_BF16 : stored == ARCH_F16 ? ARCH_F32 : stored;
}

static enum arch_dtype kept_in_layer(const struct rank_memory_config *c, enum arch_dtype stored)
{
    return c->weight_bits == 8 ? ARCH_INT8 : c->weight_bits == 4 ? ARCH_INT4 : kept(c, stored);
}

/* Of a matrix's columns, of which the rank has some: where they part what shares a factor, BF16. */
static enum arch_dtype kept_in_columns(const struct rank_memory_config *c, enum arch_dtype stored,
                                       int n_cols)
{
    const enum arch_dtype dtype = kept_in_layer(c, stored);
    const int unit = dtype == ARCH_FP8     ? DEVICE_MATRIX_FP8_BLOCK
                     : dtype == ARCH_MXFP4 ? DEVICE_MATRIX_GROUP
                                           : 1;
    return c->shard.size == 1 || n_cols % unit == 0 ? dtype : ARCH_BF16;
}

/* Rows are padded to whole chunks. FP8: 128 rows share factors, as nearly all do. */
static double matrix_bytes(double n_rows, int n_cols, enum arch_dtype dtype)
{
    const double each = dtype == ARCH_FP8 ? DEVICE_MATRIX_FP8_BLOCK : 1;
    return n_rows * ((double)device_matrix_row_bytes(dtype, n_cols) +
                     (double)device_matrix_factor_bytes(dtype, n_cols) / each);
}

static bool is_wide(const struct rank_memory_config *c)
{
    return kept_in_layer(c, c->arch->linear_dtype) == ARCH_F32;
}

/* --- weights ------------------------------------------------------------------------------------ */

static double qkv_rows(const struct rank_memory_config *c)
{
    const struct arch *a = c->arch;
    return (double)c->shard.heads.n * a->head_dim +
           (double)c->shard.kv_heads.n * (a->head_dim + a->v_dim);
}

static double latent_bytes(const struct rank_memory_config *c)
{
    const struct arch *a = c->arch;
    const int rank = a->latent.kv_rank, q_rank = a->latent.q_rank;
    const double heads = c->shard.heads.n;
    const enum arch_dtype narrow = kept_in_layer(c, a->linear_dtype);
    const enum arch_dtype floats =
        kept(c, a->linear_dtype) == ARCH_F32 ? ARCH_F32 : ARCH_BF16; // single heads' products
    return matrix_bytes(q_rank + rank + a->rope_dim, a->hidden, narrow) +
           matrix_bytes(heads * a->head_dim, q_rank > 0 ? q_rank : a->hidden, narrow) +
           matrix_bytes(heads * rank, a->latent.nope_dim, floats) +
           matrix_bytes(heads * a->v_dim, rank, floats) + VALUE * (q_rank + rank);
}

static double attention_bytes(const struct rank_memory_config *c)
{
    const struct arch *a = c->arch;
    const int cols = c->shard.heads.n * a->v_dim;
    const double vectors = (a->qkv_bias ? qkv_rows(c) : 0) +
                           (a->o_bias && c->shard.rank == 0 ? a->hidden : 0) +
                           (a->attn_sinks ? c->shard.heads.n : 0) +
                           (a->post_norms ? 4.0 : 2.0) * a->hidden; // the MLP's norms, too
    const double in = arch_is_latent(a)
                          ? latent_bytes(c)
                          : matrix_bytes(qkv_rows(c), a->hidden, kept_in_layer(c, a->linear_dtype));
    return in + matrix_bytes(a->hidden, cols, kept_in_columns(c, a->linear_dtype, cols)) +
           VALUE * vectors;
}

/* n MLPs of `inner` dimensions each. */
static double mlp_bytes(const struct rank_memory_config *c, double n, int inner,
                        enum arch_dtype stored)
{
    const int h = c->arch->hidden;
    return inner > 0 ? matrix_bytes(n * 2 * inner, h, kept_in_layer(c, stored)) +
                           matrix_bytes(n * h, inner, kept_in_columns(c, stored, inner))
                     : 0;
}

static double layer_bytes(const struct rank_memory_config *c, int layer)
{
    const struct arch *a = c->arch;
    const double n = a->moe.n_experts, h = a->hidden;
    if (!arch_is_moe(a, layer)) {
        return attention_bytes(c) + mlp_bytes(c, 1, c->shard.mlp.n, a->linear_dtype);
    }
    const double sums = c->shard.rank == 0 ? h : 0; // biases of partial sums are with one rank
    const double biases = a->moe.bias ? n * (1 + 2 * c->shard.expert.n + sums) : 0;
    const double corrections = a->moe.router == ARCH_ROUTER_GROUPS ? n : 0;
    return attention_bytes(c) + mlp_bytes(c, n, c->shard.expert.n, a->expert_dtype) +
           mlp_bytes(c, 1, c->shard.shared.n, a->linear_dtype) +
           VALUE * (n * h + biases + corrections);
}

/* Embedding and head; a table that they share is as the head's. */
static double vocab_bytes(const struct rank_memory_config *c)
{
    const struct layers_part *p = &c->part;
    const bool tied = c->arch->tied_embedding;
    const double n = c->shard.vocab.n;
    const int h = c->arch->hidden;
    const enum arch_dtype plain = kept(c, c->arch->dtype);
    const enum arch_dtype head = makes_integers(c) ? ARCH_INT8 : plain;
    return (p->has_embed ? matrix_bytes(n, h, tied ? head : plain) : 0) +
           (p->has_head && !(tied && p->has_embed) ? matrix_bytes(n, h, head) : 0);
}

static double weight_bytes(const struct rank_memory_config *c)
{
    const struct layers_part *p = &c->part;
    double n = vocab_bytes(c) + (p->has_head ? VALUE * c->arch->hidden : 0);
    for (int i = 0; i < p->n_layers; i++) {
        n += layer_bytes(c, p->first_layer + i);
    }
    return n;
}

/* --- the largest batch -------------------------------------------------------------------------- */

/* Per token, in the layers. */
static double token_bytes(const struct rank_memory_config *c)
{
    const struct arch *a = c->arch;
    const bool is_latent = arch_is_latent(a), is_moe = a->moe.n_experts > 0;
    const double h = a->hidden, heads = c->shard.heads.n, x = sizeof(float);
    const double in = is_wide(c) ? 4 : 2, q = c->kv_dtype == ARCH_F32 ? 4 : 2;
    const double key = is_latent ? a->latent.kv_rank + a->rope_dim : a->head_dim;
    const double value = is_latent ? a->latent.kv_rank : a->v_dim;
    const double latents = a->latent.q_rank + a->latent.kv_rank + a->rope_dim;
    const double rows = is_latent ? heads * a->head_dim : qkv_rows(c);
    const double inner =
        fmax(a->moe.first_layer > 0 || !is_moe ? c->shard.mlp.n : 0, c->shard.shared.n);
    const double mixed = is_moe ? (double)a->moe.top_k : 0, expert = c->shard.expert.n;
    const double plain = h * x + (a->post_norms || c->shard.size > 1 ? h * x : 0) +
                         h * (is_moe ? x : in) + rows * x + heads * key * q + heads * value * in +
                         inner * in;
    const double latent = is_latent ? latents * x + a->latent.q_rank * in +
                                          heads * (value + a->v_dim) * x +
                                          heads * fmax(a->head_dim, a->v_dim) * 2
                                    : 0;
    return plain + latent + fmax(2 * inner, mixed * 2 * expert) * x + a->moe.n_experts * x +
           mixed * (expert * in + h * x);
}

/* Of rows whose logits are wanted. */
static double logits_bytes(const struct rank_memory_config *c)
{
    const double rows = fmin(c->limits.max_rows, FORWARD_HEAD_ROWS);
    const double part = c->shard.size > 1 ? c->shard.vocab.n : 0;
    return c->part.has_head
               ? rows * (2.0 * c->arch->vocab + part) * sizeof(float) +
                     rows * c->arch->hidden * (kept(c, c->arch->dtype) == ARCH_F32 ? 4 : 2)
               : 0;
}

/* Sums of a stage's ranks: twice, so that one can be read while the next one is written. */
static double group_bytes(const struct rank_memory_config *c)
{
    const double rows = fmin(c->limits.max_rows, FORWARD_HEAD_ROWS);
    const double logits = c->part.has_head ? rows * shard_most_vocab(c->arch, c->shard.size) : 0;
    return c->shard.size > 1
               ? 2 * fmax((double)c->limits.max_tokens * c->arch->hidden, logits) * sizeof(float)
               : 0;
}

/* All of a batch's, and what of it goes by this rank's hops. */
static double hidden_bytes(const struct rank_memory_config *c)
{
    const struct layers_part *p = &c->part;
    const int n_hops = !p->has_embed + !p->has_head;
    const size_t n = c->limits.max_tokens;
    const double part = (double)shard_hidden(c->arch, n, c->shard.rank, c->shard.size).n_bytes;
    return (n_hops > 0 ? (double)arch_carried_bytes(c->arch, n) : 0) +
           (c->hops_on_device ? n_hops * HOP_DEPTH * part : 0);
}

static double tables_bytes(const struct rank_memory_config *c)
{
    const double context = c->arch->max_context;
    const double blocks = ceil(context / BATCH_KV_BLOCK);
    return (c->limits.n_slots + 3.0 * c->limits.max_rows) * blocks * sizeof(uint32_t) +
           context * c->arch->rope_dim * sizeof(float); // cosines and sines of half as many
}

/* --- the cache ---------------------------------------------------------------------------------- */

static double up(double n, double step)
{
    return ceil(n / step) * step;
}

/* A head's keys and values in units that kernels load (workers/cuda/cache.h). */
static double kv_token_bytes(const struct rank_memory_config *c)
{
    const struct arch *a = c->arch;
    const bool is_latent = arch_is_latent(a);
    const double code = c->kv_dtype == ARCH_F32 ? 4 : c->kv_dtype == ARCH_BF16 ? 2 : 1;
    const double keys = up(is_latent ? a->latent.kv_rank + a->rope_dim : a->head_dim, 16 / code);
    const double values = is_latent ? 0 : up(a->v_dim, c->kv_dtype == ARCH_F32 ? 1 : 32 / code);
    const double factors = code == 1 ? 2 * sizeof(float) : 0;
    const double block = up(BATCH_KV_BLOCK * ((keys + values) * code + factors), CACHE_ALIGN);
    return block / BATCH_KV_BLOCK * (is_latent ? 1 : c->shard.kv_heads.n) * c->part.n_layers;
}

void rank_memory_find(const struct rank_memory_config *cfg, struct rank_memory *out)
{
    *out = (struct rank_memory){
        .weight_bytes = weight_bytes(cfg),
        .batch_bytes = cfg->limits.max_tokens * token_bytes(cfg) + logits_bytes(cfg) +
                       group_bytes(cfg) + hidden_bytes(cfg) + tables_bytes(cfg),
        .fixed_bytes = (double)(RANK_MEMORY_CONTEXT_BYTES + RANK_MEMORY_PRODUCT_BYTES),
        .kv_token_bytes = kv_token_bytes(cfg),
    };
}

double rank_memory_tokens(const struct rank_memory *m, double bytes)
{
    return floor((bytes - m->weight_bytes - m->batch_bytes - m->fixed_bytes) / m->kv_token_bytes);
}
