/*
 * A pipeline of backends in one process, without scheduler or transport: a test says which tokens of
 * which slots make the next batch and gets the greedy ids. KV blocks come from a shuffled list, so
 * that neighbours in a request are not neighbours in memory. Failures abort.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "model/arch.h"
#include "workers/backend.h"
#include "workers/kv.h"
#include "workers/sampler.h"

/*
 * This process computes one stage alone; hidden states come from and go to others by what the test says. Called by
 * chain_step, in this order.
 */
struct chain_ends {
    int stage;
    void *ctx;
    const void *(*take)(void *ctx, uint32_t n_tokens); // not of the first stage
    void *(*room)(void *ctx);                          // to write to; not of the last stage
    void (*turn)(void *ctx);                           // while it computes
    void (*give)(void *ctx, uint32_t n_tokens); // what was taken has been read, the room is full
};

struct chain_config {
    const char *backend; // NULL: "cpu"
    const char *model;   // folder or preset:NAME
    int n_stages, n_threads;
    int n_tensor; // ranks that share a stage's layers; 0 counts as 1
    const struct shard_group
        *group; // this process is a rank of a group of processes, instead; or NULL
    const struct chain_ends *ends; // or NULL: all stages are here
    const char *sums;              // as in struct backend_config
    int index, n_neighbours;       // likewise
    const char *kernels;
    enum arch_dtype kv_dtype;
    struct moe_routing routing;
    uint32_t max_tokens, max_rows; // of a batch
    uint32_t n_slots, context;     // requests at once, positions of each
};

struct chain_group; // ranks of one process that put results together
struct chain_place;

struct chain_stage {
    struct backend **ranks; // (n_tensor)
    struct chain_group *group;
    struct chain_place *places; // (n_tensor)
    struct kv_tables tables;
    char *out; // (n_tensor, max_tokens, hidden) of arch_carried: for the next stage
};

struct chain {
    struct chain_config cfg;
    struct arch arch;
    int *first;                 // (n_stages + 1) layers
    int from, to;               // stages that are here
    struct chain_stage *stages; // (n_stages)
    struct batch *batch;
    int32_t *ids;   // (n_tensor, max_rows)
    float *logits;  // (n_tensor, max_rows, vocab) of rows that sample, in order
    uint32_t *free; // (n_free) blocks
    uint32_t n_free;
    struct sampler_jobs jobs; // of the next step, set by the test: rows that are not greedy
    int64_t busy_ns;          // compute time of the last step, all stages
};

struct chain_row {
    uint32_t slot, pos;
    const int32_t *tokens; // (n)
    uint32_t n;
    bool sample;
};

void chain_open(struct chain *c, const struct chain_config *cfg);
void chain_close(struct chain *c);

/* Run one batch; position 0 begins a request anew. Afterwards c->ids has the greedy id of each row that
 * samples and c->logits what they were the largest of, where the last stage is. */
void chain_step(struct chain *c, const struct chain_row *rows, uint32_t n_rows);

/* Greedy generation alone in slot 0: `prompt` in chunks of at most `chunk` tokens, then one by one. */
void chain_generate(struct chain *c, const int32_t *prompt, uint32_t n_prompt, uint32_t chunk,
                    int32_t *out, uint32_t n_out);
