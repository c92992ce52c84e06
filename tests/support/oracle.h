/*
 * What transformers said of the tiny models of tests/golden, and ways to compute the same: how many stages,
 * which chunks, what else is in the batch, by which backend.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "tests/support/chain.h"

#define ORACLE_MAX_IDS 256

struct oracle {
    char *folder;
    bool may_turn; // choices of experts are close enough for that
    uint32_t n_prompt, n_positions, n_ids;
    int32_t prompt[ORACLE_MAX_IDS], positions[ORACLE_MAX_IDS], ids[ORACLE_MAX_IDS];
    struct safetensors *file;
    const float *logits; // (n_positions, vocab)
    size_t n_logits;
};

void oracle_open(struct oracle *o, const char *name); // a folder of tests/golden
void oracle_close(struct oracle *o);

/* cmocka fails unless they differ by less than 1e-4 of the largest: float32 sums in another order. */
void oracle_expect_equal(const float *got, const float *want, size_t n);
/* ... unless the relative L2 distance is up to `distance`, and the cosine as near. */
void oracle_expect_near(const float *got, const float *want, size_t n, double distance);

/*
 * Where a router's choice is close to call, rounding turns it, and that position is another: by position (of
 * `n_positions`), half are within `distance`, and all but a fifth within three times that.
 */
void oracle_expect_most_near(const float *got, const float *want, size_t n, size_t n_positions,
                             double distance);

/*
 * The oracle's own logits (n_logits) from a GPU's backend: distance 0: equal; else near, and of DeepSeek's models, whose
 * rounded inputs turn close choices of experts, most near.
 */
void oracle_expect_logits(const struct oracle *o, const float *got, double distance);

struct oracle_way {
    const char *backend, *kernels;
    enum arch_dtype kv_dtype;
    int n_stages, n_threads, n_tensor;
    const struct shard_group *group; // as in struct chain_config, as are
    const struct chain_ends *ends;   // these
    const char *sums;                // as in struct backend_config
    int index, n_neighbours;         // likewise
    uint32_t chunk;                  // tokens of a batch at most
    bool strangers;                  // other requests in every batch
    uint32_t max_tokens;             // of a batch with all; 0: 256
    bool again;                      // half of it computed before, then dropped
};

void oracle_chain(struct chain *c, const struct oracle *o, const struct oracle_way *way);

/* Logits of the oracle's positions: out (n_positions, vocab). */
void oracle_compute(struct chain *c, const struct oracle *o, const struct oracle_way *way,
                    float *out);

/* The prompt in chunks, then the very ids that transformers chose. */
void oracle_expect_ids(struct chain *c, const struct oracle *o, uint32_t chunk);
