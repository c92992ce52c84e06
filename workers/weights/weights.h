/*
 * Where a model's tensors come from: safetensors files in Hugging Face layout (one file, or shards
 * named by model.safetensors.index.json), or a preset's generated values. One table says every
 * tensor's name and shape; what a file holds is checked against it before any byte is used.
 * Immutable once open: several threads may read. Files stay mapped until weights_close.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "core/err.h"
#include "model/arch.h"

/*
 * Shapes are of struct arch; (rows, cols) as stored, y = x . w^T. Vectors have one dimension. A model
 * has those that its arch says. Experts are numbered; the others have no number (expert -1).
 */
enum weights_id {
    WEIGHTS_EMBED, // (vocab, hidden)
    WEIGHTS_NORM,  // (hidden) final
    WEIGHTS_HEAD,  // (vocab, hidden); the embedding where the two are tied
    // per layer
    WEIGHTS_ATTN_NORM,      // (hidden)
    WEIGHTS_POST_ATTN_NORM, // (hidden) post_norms: of the attention's output
    WEIGHTS_Q,              // (n_heads * head_dim, hidden)
    WEIGHTS_K,              // (n_kv_heads * head_dim, hidden)
    WEIGHTS_V,              // same
    WEIGHTS_Q_BIAS,         // (n_heads * head_dim)
    WEIGHTS_K_BIAS,         // (n_kv_heads * head_dim)
    WEIGHTS_V_BIAS,         // same
    WEIGHTS_SINKS,          // (n_heads)
    WEIGHTS_O,              // (hidden, n_heads * v_dim)
    WEIGHTS_O_BIAS,         // (hidden)
    // latent attention: instead of q, k, v
    WEIGHTS_Q_A,       // (q_rank, hidden)
    WEIGHTS_Q_A_NORM,  // (q_rank)
    WEIGHTS_Q_B,       // (n_heads * head_dim, q_rank); without q_rank there is WEIGHTS_Q
    WEIGHTS_KV_A,      // (kv_rank + rope_dim, hidden)
    WEIGHTS_KV_A_NORM, // (kv_rank)
    WEIGHTS_KV_B,      // (n_heads * (nope_dim + v_dim), kv_rank)
    // MLP
    WEIGHTS_MLP_NORM,      // (hidden)
    WEIGHTS_POST_MLP_NORM, // (hidden) post_norms: of the MLP's output
    WEIGHTS_GATE,          // (intermediate, hidden)
    WEIGHTS_UP,            // same
    WEIGHTS_DOWN,          // (hidden, intermediate)
    // mixture of experts: instead of gate, up, down
    WEIGHTS_ROUTER,           // (n_experts, hidden)
    WEIGHTS_ROUTER_BIAS,      // (n_experts) added to logits (gpt-oss)
    WEIGHTS_CORRECTION_BIAS,  // (n_experts) added to choices (DeepSeek-V3)
    WEIGHTS_EXPERT_GATE,      // (moe.intermediate, hidden)
    WEIGHTS_EXPERT_UP,        // same
    WEIGHTS_EXPERT_DOWN,      // (hidden, moe.intermediate)
    WEIGHTS_EXPERT_GATE_BIAS, // (moe.intermediate)
    WEIGHTS_EXPERT_UP_BIAS,   // same
    WEIGHTS_EXPERT_DOWN_BIAS, // (hidden)
    WEIGHTS_SHARED_GATE,      // (n_shared * moe.intermediate, hidden)
    WEIGHTS_SHARED_UP,        // same
    WEIGHTS_SHARED_DOWN,      // (hidden, n_shared * moe.intermediate)
    WEIGHTS_N,
};

struct weights;

/* One tensor, or one expert's part of one, ready to be read: vectors are one row. */
struct weights_tensor {
    char name[96];
    int64_t n_rows, n_cols;
    /*
     * Of the rows that weights_rows gives. weights_find chooses how they are stored, but BF16 for FP8
     * and MXFP4; the caller may set F32 or BF16. INT8 and INT4 are GGUF's blocks of Q8_0 and Q4_0.
     */
    enum arch_dtype dtype;
    enum arch_dtype stored;
    // value (row, col) is value first + row * row_step + col * col_step of what is stored
    int64_t first, row_step, col_step;
    const void *data; // in a mapped file; NULL: generated
    const float
        *scales; // ARCH_FP8: (ceil(n_rows / 128), ceil(n_cols / 128)), not necessarily aligned
    const uint8_t *exponents; // ARCH_MXFP4: of 32 values each; NULL: interleaved as in GGUF
    int rotary_head; // rows of a head, a bias's numbers, lie as GGUF's Llama has them; 0: plainly
    float add;       // to every value
    bool is_norm;    // generated ones are 1 + add
    uint64_t key;    // of generated values
};

/* `model` and `arch` as in arch_open. ERR_INPUT: no weights there, or a file that is not sound. */
int weights_open(struct weights **out, const char *model, const struct arch *a,
                 struct err *e) ERR_CHECKED;
void weights_close(struct weights *w);

/*
 * `layer` is ignored where none; `expert` is -1 but for WEIGHTS_EXPERT_*. The tensor must be one that
 * the arch has. ERR_INPUT names it, and the shape and dtype wanted and found.
 */
int weights_find(const struct weights *w, enum weights_id id, int layer, int expert,
                 struct weights_tensor *t, struct err *e) ERR_CHECKED;

/*
 * Rows first .. first + n - 1 in t->dtype: inside the file, or made in scratch (n rows). To
 * float32 every format is exact but FP8, whose product with its factor is rounded once; to bfloat16
 * that is rounded again, to nearest even (MXFP4 is exact there too).
 */
const void *weights_rows(const struct weights_tensor *t, int64_t first, int64_t n, void *scratch);

/* A whole vector as float32: out (n_cols). */
void weights_vector(const struct weights_tensor *t, float *out);

/* Bytes of n_cols values of a row; a multiple of 32 in the dtypes that have groups. */
int64_t weights_row_bytes(enum arch_dtype dtype, int64_t n_cols);

/* Bytes of it as stored, factors included. */
int64_t weights_stored_bytes(const struct weights_tensor *t);

/*
 * For provenance, of a model's folder: xxh64 over each file's name, size and header, in the order
 * of the names. No weight is read, so equal hashes with unequal weights are possible.
 */
int weights_hash(const char *model, const struct arch *a, uint64_t *hash,
                 struct err *e) ERR_CHECKED;

/* Open the model and look up every tensor: what a launcher does before it starts ranks. */
int weights_check(const char *model, const struct arch *a, struct err *e) ERR_CHECKED;
