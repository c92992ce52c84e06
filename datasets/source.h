/*
 * One source of prompts: a sampler of lengths, a file of conversations, a trace. Each kind answers
 * what event i is, and gives its ids and its text; dataset.c puts several together and things in
 * front.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "core/err.h"
#include "datasets/dataset.h"
#include "datasets/drawn.h"
#include "datasets/entries.h"
#include "datasets/lengths.h"
#include "datasets/text_file.h"

struct source;

struct source_kind {
    const char *name;
    bool is_file, is_text; // is_text: its prompts are, not drawn
    int (*load)(struct source *s, struct err *e);
    void (*get)(const struct source *s, uint64_t seed, uint64_t i, uint32_t turn, struct prompt *p);
    /* Ids of the source's own, or scratch (n) filled; n is the source's part of n_in. */
    const int32_t *(*ids)(const struct source *s, uint64_t seed, uint64_t i, uint32_t turn,
                          uint32_t n, int32_t *scratch);
    void (*text)(const struct source *s, uint64_t seed, uint64_t i, uint32_t turn, uint32_t n,
                 struct prompt_text *out);
    const char *(*note)(const struct source *s);
};

struct source {
    const struct source_kind *kind;
    struct dataset_config cfg; // owned
    const struct tokenizer *tok;
    const struct drawn *drawn;
    bool may_estimate;
    uint32_t context; // what is left of it behind the front
    struct text_file file;
    struct entries entries;
    struct lengths in, out;
    uint32_t n_special; // ids that begin every prompt with text (BOS)
    bool was_cached;    // the ids come from the cache
};

/* cfg is taken over, also on failure. */
int source_open(struct source *s, struct dataset_config *cfg, const struct dataset_model *model,
                const struct drawn *drawn, uint32_t context, struct err *e) ERR_CHECKED;
void source_close(struct source *s);

bool source_has_arrivals(const struct source *s);
bool source_is_multi(const struct source *s);
bool source_is_estimated(const struct source *s);  // text whose tokens were not counted
bool source_draws_outputs(const struct source *s); // an output length is known once drawn

/* Event i's entry: in order of time, or in a seeded order, epoch by epoch. */
const struct entry *source_in_order(const struct source *s, uint64_t i);
const struct entry *source_shuffled(const struct source *s, uint64_t seed, uint64_t i);

/*
 * Draw what is not given (n_in 0, n_out 0) until both fit the context together; what remains too
 * long after thousands of draws gets the shortest lengths. Counts in p->redrawn.
 */
void source_draw_lengths(const struct source *s, uint64_t seed, uint64_t i, struct prompt *p);
