/*
 * What a model is, as data: one struct of dimensions and flags read from a Hugging Face config.json
 * or from a preset's table. There is one layer driver for all families (workers/layers.h); a family
 * is a way to fill this struct, never code of its own. Formulas: the families' config classes in
 * huggingface/transformers.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/err.h"

enum arch_dtype {
    ARCH_F32,
    ARCH_BF16,
};

enum arch_rope {
    ARCH_ROPE_DEFAULT,
    ARCH_ROPE_LLAMA3, // wavelength-dependent scaling (Llama 3.1)
};

struct arch {
    char family[32]; // "llama"
    int n_layers;
    int hidden;       // H
    int intermediate; // I
    int n_heads;      // query heads
    int n_kv_heads;   // n_heads % n_kv_heads == 0
    int head_dim;     // D, even
    int vocab;        // V
    int max_context;  // positions: prompt + output of one request
    float rms_eps;
    enum arch_rope rope;
    double rope_theta;
    struct {
        double factor, low, high; // low_freq_factor, high_freq_factor
        int original_context;
    } rope_llama3;
    bool tied_embedding;           // lm_head shares model.embed_tokens.weight
    enum arch_dtype dtype;         // of the weights as stored
    int bos_id, eos_ids[8], n_eos; // bos -1 when absent
};

/* Fill from config.json text. ERR_INPUT: unknown family (names those known), missing or absurd sizes. */
int arch_parse(const char *json, size_t len, const char *where, struct arch *a,
               struct err *e) ERR_CHECKED;

/*
 * Resolve a model name: a folder in Hugging Face layout, or a preset ("preset:tiny", "preset:tiny-16k",
 * "preset:small"), which has random weights (workers/weights) and no tokenizer.
 */
int arch_open(const char *model, struct arch *a, struct err *e) ERR_CHECKED;

bool arch_is_preset(const char *model);

/* Parameters of one layer / of the embedding / of the head (0 extra bytes counted once when tied). */
int64_t arch_layer_params(const struct arch *a);
int64_t arch_head_params(const struct arch *a);
int64_t arch_params(const struct arch *a);
/* KV cache of one token in all layers, values. */
int64_t arch_kv_values_per_token(const struct arch *a);

/* Relative cost of one decoded token: each layer, embedding lookup and head, in bytes of weights read. */
struct arch_costs {
    double layer, embed, head;
};
struct arch_costs arch_costs(const struct arch *a);

/*
 * Split the layers over n_stages so that the slowest stage is as fast as can be: first[s] ..
 * first[s+1]-1 are stage s's layers; stage 0 also pays `embed`, the last one `head`. Every stage
 * gets at least one layer. Ties go to the split with the smallest sum of squares.
 */
void arch_split(const struct arch *a, int n_stages, int *first /* (n_stages + 1) */);
