/*
 * What stands in front of the prompts of a source: a preamble, the same for all but for a mark, then
 * the tokens of the event's prefix group. Both are one system message. The mark is eight words drawn
 * for the event: at the preamble's head it keeps prefix caches from hitting at all, at its tail they
 * hit the preamble and nothing behind it.
 *
 * Group g's tokens are the same in every step and run, as a deployment's system prompts are.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "core/err.h"
#include "datasets/dataset_options.h"
#include "datasets/drawn.h"
#include "datasets/prompt_text.h"
#include "model/token_ids.h"

struct front_piece { // of the preamble
    struct token_ids ids;
    struct str json; // escaped text
    uint32_t n_tokens;
};

struct front {
    const struct drawn *drawn;
    struct front_piece head, tail; // the mark stands between them; either may be empty
    uint32_t n_mark;
    uint32_t n_group_tokens;
    uint64_t n_groups;
    double share;
    double *cumulative; // (n_groups) share of groups 0..g; NULL: all the same
};

/* tok may be NULL: then a preamble has a token per 4 bytes. ERR_INPUT: it is not UTF-8. */
int front_open(struct front *f, const struct dataset_config *cfg, const struct drawn *drawn,
               const struct tokenizer *tok, struct err *e) ERR_CHECKED;
void front_close(struct front *f);

/* Tokens in front of event i, and in front of any event at most. */
uint32_t front_tokens(const struct front *f, uint64_t seed, uint64_t i);
uint32_t front_max_tokens(const struct front *f);

void front_ids(const struct front *f, uint64_t seed, uint64_t i, int32_t *ids /* (front_tokens) */);

/* Append the system message, if there is one. */
void front_text(const struct front *f, uint64_t seed, uint64_t i, struct prompt_text *out);
