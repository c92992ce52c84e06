/*
 * Tokens out of nothing, for prompts that have lengths only: token k of a sequence is a function of
 * (seed, stream, a, k), the same word as id and as text (words.h). A shorter sequence is a prefix of
 * a longer one of the same name.
 */
#pragma once

#include <stdint.h>

#include "core/err.h"
#include "core/rng.h"
#include "core/str.h"
#include "datasets/words.h"

struct drawn {
    struct words words;
    int32_t *ordinary; // (n_ordinary) ids to draw from where no word has one; NULL: 0..n_ordinary-1
    uint64_t n_ordinary;
};

struct drawn_sequence {
    uint64_t seed;
    enum rng_stream stream;
    uint64_t a;
};

/* tok may be NULL. ERR_INPUT: the tokenizer has no ordinary token below vocab. */
int drawn_open(struct drawn *d, const struct tokenizer *tok, int vocab, struct err *e) ERR_CHECKED;
void drawn_close(struct drawn *d);

void drawn_ids(const struct drawn *d, struct drawn_sequence s, uint32_t n, int32_t *ids /* (n) */);

/* Append n words; the first of an empty text goes without its space where the tokenizer puts it. */
void drawn_text(const struct drawn *d, struct drawn_sequence s, uint32_t n, struct str *text);
