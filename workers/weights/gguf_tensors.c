#include "workers/weights/gguf_tensors.h"

#include "workers/weights/tensors.h"

#include <stdio.h>
#include <string.h>

/* Behind "blk.N.", but for the first three. */
static const char *const names[WEIGHTS_N] = {
    [WEIGHTS_EMBED] = "token_embd.weight",
    [WEIGHTS_NORM] = "output_norm.weight",
    [WEIGHTS_HEAD] = "output.weight",
    [WEIGHTS_ATTN_NORM] = "attn_norm.weight",
    [WEIGHTS_POST_ATTN_NORM] = "post_attention_norm.weight",
    [WEIGHTS_Q] = "attn_q.weight",
    [WEIGHTS_K] = "attn_k.weight",
    [WEIGHTS_V] = "attn_v.weight",
    [WEIGHTS_Q_BIAS] = "attn_q.bias",
    [WEIGHTS_K_BIAS] = "attn_k.bias",
    [WEIGHTS_V_BIAS] = "attn_v.bias",
    [WEIGHTS_SINKS] = "attn_sinks.weight",
    [WEIGHTS_O] = "attn_output.weight",
    [WEIGHTS_O_BIAS] = "attn_output.bias",
    [WEIGHTS_Q_A] = "attn_q_a.weight",
    [WEIGHTS_Q_A_NORM] = "attn_q_a_norm.weight",
    [WEIGHTS_Q_B] = "attn_q_b.weight",
    [WEIGHTS_KV_A] = "attn_kv_a_mqa.weight",
    [WEIGHTS_KV_A_NORM] = "attn_kv_a_norm.weight",
    [WEIGHTS_KV_B] = "attn_kv_b.weight",
    [WEIGHTS_MLP_NORM] = "ffn_norm.weight",
    [WEIGHTS_POST_MLP_NORM] = "post_ffw_norm.weight",
    [WEIGHTS_GATE] = "ffn_gate.weight",
    [WEIGHTS_UP] = "ffn_up.weight",
    [WEIGHTS_DOWN] = "ffn_down.weight",
    [WEIGHTS_ROUTER] = "ffn_gate_inp.weight",
    [WEIGHTS_ROUTER_BIAS] = "ffn_gate_inp.bias",
    [WEIGHTS_CORRECTION_BIAS] = "exp_probs_b.bias",
    [WEIGHTS_EXPERT_GATE] = "ffn_gate_exps.weight",
    [WEIGHTS_EXPERT_UP] = "ffn_up_exps.weight",
    [WEIGHTS_EXPERT_DOWN] = "ffn_down_exps.weight",
    [WEIGHTS_EXPERT_GATE_BIAS] = "ffn_gate_exps.bias",
    [WEIGHTS_EXPERT_UP_BIAS] = "ffn_up_exps.bias",
    [WEIGHTS_EXPERT_DOWN_BIAS] = "ffn_down_exps.bias",
    [WEIGHTS_SHARED_GATE] = "ffn_gate_shexp.weight",
    [WEIGHTS_SHARED_UP] = "ffn_up_shexp.weight",
    [WEIGHTS_SHARED_DOWN] = "ffn_down_shexp.weight",
};

static void put_name(const struct arch *a, enum weights_id id, int layer, char out[96])
{
    const char *name = names[id];
    if (id == WEIGHTS_MLP_NORM && a->attn_sinks) { // gpt-oss: as Hugging Face calls it
        name = "post_attention_norm.weight";
    }
    if (tensors_is_of_layer(id)) {
        snprintf(out, 96, "blk.%d.%s", layer, name);
    } else {
        snprintf(out, 96, "%s", name);
    }
}

static void put_shape(char *out, size_t out_bytes, int n_dims, const int64_t *shape)
{
    size_t n = 0;
    for (int i = 0; i < n_dims && n < out_bytes; i++) {
        n += (size_t)snprintf(out + n, out_bytes - n, "%s%lld", i ? ", " : "", (long long)shape[i]);
    }
}

static int check(const struct gguf *g, const struct gguf_tensor *found, int n_dims,
                 const int64_t *want, bool is_float, struct err *e)
{
    bool ok = found->n_dims == n_dims;
    for (int i = 0; ok && i < n_dims; i++) {
        ok = found->shape[i] == want[i];
    }
    if (!ok) {
        char wanted[128], is[128];
        put_shape(wanted, sizeof wanted, n_dims, want);
        put_shape(is, sizeof is, found->n_dims, found->shape);
        return err_set(e, ERR_INPUT,
                       "%s: wrong shape of tensor %s: found (%s), its metadata need (%s)",
                       gguf_where(g), found->name, is, wanted);
    }
    if (is_float && found->type != ARCH_F32 && found->type != ARCH_F16 &&
        found->type != ARCH_BF16) {
        return err_set(e, ERR_INPUT, "%s: tensor %s has type %s; F32, F16 or BF16 wanted",
                       gguf_where(g), found->name, gguf_type_name(found->type));
    }
    return 0;
}

static bool is_rotary(const struct arch *a, enum weights_id id)
{
    const bool rows = id == WEIGHTS_Q || id == WEIGHTS_K;
    const bool biases = id == WEIGHTS_Q_BIAS || id == WEIGHTS_K_BIAS;
    return strcmp(a->family, "llama") == 0 && (rows || biases);
}

int gguf_tensors_find(const struct gguf *g, const struct arch *a, enum weights_id id, int layer,
                      int expert, struct weights_tensor *t, struct err *e)
{
    const struct tensors_shape s = tensors_shape(a, id);
    struct weights_tensor r = {
        .n_rows = s.n_rows,
        .n_cols = s.n_cols,
        .first = expert > 0 ? expert * s.n_rows * s.n_cols : 0,
        .row_step = s.n_cols,
        .col_step = 1,
        .rotary_head = is_rotary(a, id) ? a->head_dim : 0,
        .add = s.is_norm && a->norm_plus_one ? -1 : 0,
        .is_norm = s.is_norm,
    };
    put_name(a, id, layer, r.name);
    const struct gguf_tensor *found = gguf_find(g, r.name);
    if (!found) {
        return err_set(e, ERR_INPUT, "%s: tensor %s is missing", gguf_where(g), r.name);
    }
    int64_t want[3];
    int n = 0;
    if (expert >= 0) {
        want[n++] = a->moe.n_experts;
    }
    if (!s.is_vector) {
        want[n++] = s.n_rows;
    }
    want[n++] = s.n_cols;
    if (check(g, found, n, want, s.exact, e)) {
        return -1;
    }
    r.stored = found->type;
    r.data = found->data;
    *t = r;
    return 0;
}
