/*
 * The words that prompts without text of their own are made of. With a tokenizer: words of its
 * vocabulary that are exactly one token each behind a space, so that n of them are n tokens both as
 * ids and as text, whichever is sent. Without one, or where the vocabulary has too few: common
 * English words, about one token each in any large vocabulary; the server's count is exact then.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/str.h"
#include "model/tokenizer.h"

struct word {
    char text[16]; // " [a-z]{2,}": with its space, NUL-terminated
    uint8_t len;
    int32_t id; // -1: not known
};

struct words {
    struct word *v; // (n)
    size_t n;
    bool is_exact;    // one token each
    bool begins_bare; // the tokenizer puts the first word's space itself
};

/* tok may be NULL. Owned by the caller: words_free. */
void words_open(struct words *w, const struct tokenizer *tok);
void words_free(struct words *w);

/* The word that 32 random bits pick. */
static inline const struct word *words_pick(const struct words *w, uint32_t bits)
{
    return &w->v[(uint64_t)bits * w->n >> 32];
}

/* Append a word; the first of a text goes without its space where the tokenizer puts that. */
void words_put(const struct words *w, const struct word *word, bool is_first, struct str *text);
