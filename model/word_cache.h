/*
 * What words became last time: text -> ids, for the few words that make up most of any text. A
 * fixed table of one cache line per word; a new word takes the place of an older one. One caller's.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define WORD_CACHE_TEXT_MAX 31 // bytes
#define WORD_CACHE_IDS_MAX  7

struct word_cache_entry {
    uint64_t text[4]; // padded with zeros, its length in the last byte
    int32_t ids[WORD_CACHE_IDS_MAX];
    uint32_t n_ids;
};
struct word_cache {
    struct word_cache_entry *slots;
};

void word_cache_init(struct word_cache *c);
void word_cache_free(struct word_cache *c);

/*
 * The entry of the word, 1 <= len <= WORD_CACHE_TEXT_MAX; `end` is how far text may be read.
 * Where *found is false the entry holds the word's text now, and the caller fills in its ids, or 0
 * of them: that it will not be found.
 */
struct word_cache_entry *word_cache_at(struct word_cache *c, const char *text, size_t len,
                                       const char *end, bool *found);
