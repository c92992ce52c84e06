/*
 * A tokenizer's vocabulary: token text (bytes) <-> id, both ways, from the model's own vocabulary
 * and its added tokens. Filled once, then read-only. Ids are bounded by the model's config.json.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/err.h"
#include "core/mem.h"

struct vocab_token {
    const char *text; // (len), in the vocabulary's arena; NULL: no token has this id
    uint32_t len;
    const char *shown; // (shown_len) as decoded: text, or what an added token is after normalising
    uint32_t shown_len;
    bool special; // left out of decoded text
};

struct vocab {
    struct vocab_token *tokens; // (cap) by id
    int32_t cap;                // ids are below it: vocab_size of config.json
    int32_t n_ids;              // highest id + 1
    size_t max_len;             // bytes of the longest token
    int32_t *slots;             // (n_slots) open addressing by text: id, or -1
    size_t n_slots;             // a power of two
    struct arena text;
};

void vocab_init(struct vocab *v, int32_t cap);
void vocab_free(struct vocab *v);

/* ERR_INPUT: id outside 0..cap-1, an id or a text that already stands for something else. */
int vocab_add(struct vocab *v, const char *text, size_t len, int64_t id, struct err *e) ERR_CHECKED;

/* Show a token that is there as this text when decoding. */
int vocab_show_as(struct vocab *v, int32_t id, const char *text, size_t len,
                  struct err *e) ERR_CHECKED;

/* The id of a text, or -1. */
int32_t vocab_find(const struct vocab *v, const char *text, size_t len);
