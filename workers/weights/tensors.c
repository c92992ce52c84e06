#include "workers/weights/tensors.h"

#include "core/mem.h"

#include <stdio.h>
#include <string.h>

enum size { // which dimension of struct arch
    NONE,
    HIDDEN,
    Q_ROWS,
    K_ROWS,
    V_ROWS,
    O_COLS,
    INTERMEDIATE,
    VOCAB,
    HEADS,
    Q_RANK,
    KV_RANK,
    KV_A_ROWS,
    KV_B_ROWS,
    EXPERTS,
    EXPERT,
    SHARED,
};

enum kind {
    PLAIN,  // dtype of the model
    LINEAR, // matrices of the layers
    ROUTED, // of the experts
};

static const struct spec {
    const char *name;     // of huggingface/transformers; {} stands for the layer, then the expert
    enum size rows, cols; // rows NONE: a vector
    enum kind kind;
    bool is_norm;
} specs[WEIGHTS_N] = {
    [WEIGHTS_EMBED] = {"model.embed_tokens.weight", VOCAB, HIDDEN, PLAIN, false},
    [WEIGHTS_NORM] = {"model.norm.weight", NONE, HIDDEN, PLAIN, true},
    [WEIGHTS_HEAD] = {"lm_head.weight", VOCAB, HIDDEN, PLAIN, false},
#define L "model.layers.{}."
    [WEIGHTS_ATTN_NORM] = {L "input_layernorm.weight", NONE, HIDDEN, PLAIN, true},
    [WEIGHTS_POST_ATTN_NORM] = {L "post_attention_layernorm.weight", NONE, HIDDEN, PLAIN, true},
    [WEIGHTS_Q] = {L "self_attn.q_proj.weight", Q_ROWS, HIDDEN, LINEAR, false},
    [WEIGHTS_K] = {L "self_attn.k_proj.weight", K_ROWS, HIDDEN, LINEAR, false},
    [WEIGHTS_V] = {L "self_attn.v_proj.weight", V_ROWS, HIDDEN, LINEAR, false},
    [WEIGHTS_Q_BIAS] = {L "self_attn.q_proj.bias", NONE, Q_ROWS, PLAIN, false},
    [WEIGHTS_K_BIAS] = {L "self_attn.k_proj.bias", NONE, K_ROWS, PLAIN, false},
    [WEIGHTS_V_BIAS] = {L "self_attn.v_proj.bias", NONE, V_ROWS, PLAIN, false},
    [WEIGHTS_SINKS] = {L "self_attn.sinks", NONE, HEADS, PLAIN, false},
    [WEIGHTS_O] = {L "self_attn.o_proj.weight", HIDDEN, O_COLS, LINEAR, false},
    [WEIGHTS_O_BIAS] = {L "self_attn.o_proj.bias", NONE, HIDDEN, PLAIN, false},
    [WEIGHTS_Q_A] = {L "self_attn.q_a_proj.weight", Q_RANK, HIDDEN, LINEAR, false},
    [WEIGHTS_Q_A_NORM] = {L "self_attn.q_a_layernorm.weight", NONE, Q_RANK, PLAIN, true},
    [WEIGHTS_Q_B] = {L "self_attn.q_b_proj.weight", Q_ROWS, Q_RANK, LINEAR, false},
    [WEIGHTS_KV_A] = {L "self_attn.kv_a_proj_with_mqa.weight", KV_A_ROWS, HIDDEN, LINEAR, false},
    [WEIGHTS_KV_A_NORM] = {L "self_attn.kv_a_layernorm.weight", NONE, KV_RANK, PLAIN, true},
    [WEIGHTS_KV_B] = {L "self_attn.kv_b_proj.weight", KV_B_ROWS, KV_RANK, LINEAR, false},
    [WEIGHTS_MLP_NORM] = {L "post_attention_layernorm.weight", NONE, HIDDEN, PLAIN, true},
    [WEIGHTS_POST_MLP_NORM] = {L "post_feedforward_layernorm.weight", NONE, HIDDEN, PLAIN, true},
    [WEIGHTS_GATE] = {L "mlp.gate_proj.weight", INTERMEDIATE, HIDDEN, LINEAR, false},
    [WEIGHTS_UP] = {L "mlp.up_proj.weight", INTERMEDIATE, HIDDEN, LINEAR, false},
    [WEIGHTS_DOWN] = {L "mlp.down_proj.weight", HIDDEN, INTERMEDIATE, LINEAR, false},
    [WEIGHTS_ROUTER] = {L "mlp.gate.weight", EXPERTS, HIDDEN, PLAIN, false},
    [WEIGHTS_ROUTER_BIAS] = {L "mlp.router.bias", NONE, EXPERTS, PLAIN, false},
    [WEIGHTS_CORRECTION_BIAS] = {L "mlp.gate.e_score_correction_bias", NONE, EXPERTS, PLAIN, false},
    [WEIGHTS_EXPERT_GATE] = {L "mlp.experts.{}.gate_proj.weight", EXPERT, HIDDEN, ROUTED, false},
    [WEIGHTS_EXPERT_UP] = {L "mlp.experts.{}.up_proj.weight", EXPERT, HIDDEN, ROUTED, false},
    [WEIGHTS_EXPERT_DOWN] = {L "mlp.experts.{}.down_proj.weight", HIDDEN, EXPERT, ROUTED, false},
    [WEIGHTS_EXPERT_GATE_BIAS] = {L "mlp.experts.gate_up_proj_bias", NONE, EXPERT, PLAIN, false},
    [WEIGHTS_EXPERT_UP_BIAS] = {L "mlp.experts.gate_up_proj_bias", NONE, EXPERT, PLAIN, false},
    [WEIGHTS_EXPERT_DOWN_BIAS] = {L "mlp.experts.down_proj_bias", NONE, HIDDEN, PLAIN, false},
    [WEIGHTS_SHARED_GATE] = {L "mlp.shared_experts.gate_proj.weight", SHARED, HIDDEN, LINEAR,
                             false},
    [WEIGHTS_SHARED_UP] = {L "mlp.shared_experts.up_proj.weight", SHARED, HIDDEN, LINEAR, false},
    [WEIGHTS_SHARED_DOWN] = {L "mlp.shared_experts.down_proj.weight", HIDDEN, SHARED, LINEAR,
                             false},
#undef L
};

static int64_t size_of(const struct arch *a, enum size s)
{
    const int64_t heads = a->n_heads, kv_heads = a->n_kv_heads;
    switch (s) {
    case NONE:
        break;
    case HIDDEN:
        return a->hidden;
    case Q_ROWS:
        return heads * a->head_dim;
    case K_ROWS:
        return kv_heads * a->head_dim;
    case V_ROWS:
        return kv_heads * a->v_dim;
    case O_COLS:
        return heads * a->v_dim;
    case INTERMEDIATE:
        return a->intermediate;
    case VOCAB:
        return a->vocab;
    case HEADS:
        return heads;
    case Q_RANK:
        return a->latent.q_rank;
    case KV_RANK:
        return a->latent.kv_rank;
    case KV_A_ROWS:
        return (int64_t)a->latent.kv_rank + a->rope_dim;
    case KV_B_ROWS:
        return heads * (a->latent.nope_dim + a->v_dim);
    case EXPERTS:
        return a->moe.n_experts;
    case EXPERT:
        return a->moe.intermediate;
    case SHARED:
        return (int64_t)a->moe.n_shared * a->moe.intermediate;
    }
    return 1;
}

bool tensors_is_of_layer(enum weights_id id)
{
    return id >= WEIGHTS_ATTN_NORM;
}

bool tensors_is_of_expert(enum weights_id id)
{
    return id >= WEIGHTS_EXPERT_GATE && id <= WEIGHTS_EXPERT_DOWN_BIAS;
}

static bool has_attention(const struct arch *a, enum weights_id id)
{
    const bool latent = arch_is_latent(a), ranked = latent && a->latent.q_rank > 0;
    switch (id) {
    case WEIGHTS_Q:
        return !ranked;
    case WEIGHTS_K:
    case WEIGHTS_V:
        return !latent;
    case WEIGHTS_Q_BIAS:
    case WEIGHTS_K_BIAS:
    case WEIGHTS_V_BIAS:
        return a->qkv_bias;
    case WEIGHTS_SINKS:
        return a->attn_sinks;
    case WEIGHTS_O_BIAS:
        return a->o_bias;
    case WEIGHTS_Q_A:
    case WEIGHTS_Q_A_NORM:
    case WEIGHTS_Q_B:
        return ranked;
    case WEIGHTS_KV_A:
    case WEIGHTS_KV_A_NORM:
    case WEIGHTS_KV_B:
        return latent;
    case WEIGHTS_POST_ATTN_NORM:
    case WEIGHTS_POST_MLP_NORM:
        return a->post_norms;
    default:
        return true;
    }
}

static bool has_experts(const struct arch *a, enum weights_id id)
{
    switch (id) {
    case WEIGHTS_CORRECTION_BIAS:
        return a->moe.router == ARCH_ROUTER_GROUPS;
    case WEIGHTS_ROUTER_BIAS:
    case WEIGHTS_EXPERT_GATE_BIAS:
    case WEIGHTS_EXPERT_UP_BIAS:
    case WEIGHTS_EXPERT_DOWN_BIAS:
        return a->moe.bias;
    case WEIGHTS_SHARED_GATE:
    case WEIGHTS_SHARED_UP:
    case WEIGHTS_SHARED_DOWN:
        return a->moe.n_shared > 0;
    default:
        return true;
    }
}

bool tensors_has(const struct arch *a, enum weights_id id, int layer)
{
    if (id >= WEIGHTS_ROUTER) {
        return arch_is_moe(a, layer) && has_experts(a, id);
    }
    if (id >= WEIGHTS_GATE) {
        return !arch_is_moe(a, layer);
    }
    return id == WEIGHTS_HEAD ? !a->tied_embedding : has_attention(a, id);
}

struct tensors_shape tensors_shape(const struct arch *a, enum weights_id id)
{
    const struct spec *s = &specs[id];
    const bool is_vector = s->rows == NONE;
    return (struct tensors_shape){
        .n_rows = size_of(a, s->rows),
        .n_cols = size_of(a, s->cols),
        .is_vector = is_vector,
        .is_norm = s->is_norm,
        .exact = is_vector || id == WEIGHTS_ROUTER,
        .dtype = s->kind == PLAIN    ? a->dtype
                 : s->kind == LINEAR ? a->linear_dtype
                                     : a->expert_dtype,
    };
}

static const char *name_of(const struct arch *a, enum weights_id id)
{
    if (id == WEIGHTS_MLP_NORM && a->post_norms) {
        return "model.layers.{}.pre_feedforward_layernorm.weight";
    }
    if (id == WEIGHTS_ROUTER && a->moe.router == ARCH_ROUTER_SOFTMAX) {
        return "model.layers.{}.mlp.router.weight";
    }
    return specs[id].name;
}

static void put_name(const char *pattern, int layer, int expert, char *out)
{
    const char *hole = strstr(pattern, "{}"), *second = hole ? strstr(hole + 2, "{}") : NULL;
    if (second) {
        snprintf(out, TENSORS_NAME_BYTES, "%.*s%d%.*s%d%s", (int)(hole - pattern), pattern, layer,
                 (int)(second - hole - 2), hole + 2, expert, second + 2);
    } else if (hole) {
        snprintf(out, TENSORS_NAME_BYTES, "%.*s%d%s", (int)(hole - pattern), pattern, layer,
                 hole + 2);
    } else {
        snprintf(out, TENSORS_NAME_BYTES, "%s", pattern);
    }
}

/*
 * gpt-oss has the experts of a layer in one tensor, gate and up rows by turns: as 4-bit rows
 * (experts, 2 I, H) and (experts, H, I), else transposed, (experts, H, 2 I) and (experts, I, H).
 */
static void stack_matrix(const struct arch *a, enum weights_id id, int expert,
                         struct tensors_place *p)
{
    const int64_t h = a->hidden, i = a->moe.intermediate;
    const bool down = id == WEIGHTS_EXPERT_DOWN, packed = a->expert_dtype == ARCH_MXFP4;
    const int64_t rows = down ? h : 2 * i, cols = down ? i : h;
    const int64_t odd = id == WEIGHTS_EXPERT_UP;
    const int64_t next = down ? 1 : 2; // rows of the stack to the next row of the expert
    p->n_dims = 3;
    p->shape[0] = a->moe.n_experts;
    p->shape[1] = packed ? rows : cols;
    p->shape[2] = packed ? cols : rows;
    p->first = expert * rows * cols + (packed ? odd * cols : odd);
    p->row_step = packed ? next * cols : next;
    p->col_step = packed ? 1 : rows;
}

static void stack_bias(const struct arch *a, enum weights_id id, int expert,
                       struct tensors_place *p)
{
    const bool down = id == WEIGHTS_EXPERT_DOWN_BIAS;
    const int64_t n = down ? a->hidden : 2 * (int64_t)a->moe.intermediate;
    p->n_dims = 2;
    p->shape[0] = a->moe.n_experts;
    p->shape[1] = n;
    p->first = expert * n + (id == WEIGHTS_EXPERT_UP_BIAS);
    p->row_step = n;
    p->col_step = down ? 1 : 2;
}

struct tensors_place tensors_place(const struct arch *a, enum weights_id id, int layer, int expert)
{
    const struct tensors_shape s = tensors_shape(a, id);
    struct tensors_place p = {
        .n_dims = s.is_vector ? 1 : 2,
        .shape = {s.is_vector ? s.n_cols : s.n_rows, s.n_cols},
        .row_step = s.n_cols,
        .col_step = 1,
    };
    const bool stacked = tensors_is_of_expert(id) && a->moe.router == ARCH_ROUTER_SOFTMAX;
    if (stacked && s.is_vector) {
        stack_bias(a, id, expert, &p);
    } else if (stacked) {
        stack_matrix(a, id, expert, &p);
        const char *kind = id == WEIGHTS_EXPERT_DOWN ? "down" : "gate_up";
        snprintf(p.name, sizeof p.name, "model.layers.%d.mlp.experts.%s_proj", layer, kind);
        return p;
    }
    put_name(name_of(a, id), layer, expert, p.name);
    return p;
}
