/*
 * Entries of a large file of conversations, kept between runs: tokenising hundreds of megabytes takes
 * seconds, mapping the result does not. One file for each (text, tokenizer, filter, context, forced
 * lengths) in $TIDEMARK_CACHE, else $XDG_CACHE_HOME/tidemark, else ~/.cache/tidemark, 8 GiB in all
 * (the oldest go first). Where no folder can be written, everything is made anew each time.
 *
 * Ranks of one host that want the same entries do the work once: one holds a lock on the folder, the
 * others wait for it, ten minutes at most.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/err.h"
#include "datasets/entries.h"

struct ids_cache_key { // without padding: it is compared and hashed as bytes
    uint64_t file_hash, file_len, tokenizer_hash;
    uint32_t vocab, filter, turns, context;
    uint32_t shortest_in, shortest_out; // of forced lengths; 0: not forced
};

typedef int (*ids_cache_make)(void *arg, struct entries *out, struct err *e);

/* From the cache, else made and put there. Files too small to be worth it are only made. */
int ids_cache_get(struct entries *out, const struct ids_cache_key *key, ids_cache_make make,
                  void *arg, bool *was_cached, struct err *e) ERR_CHECKED;

/*
 * Look at the bytes of a cache file (8-byte aligned, they stay the caller's): true if they are whole,
 * belong to the key, and hold nothing that points outside of the arrays, the text or the vocabulary.
 */
bool ids_cache_read(struct entries *out, const struct ids_cache_key *key, const void *bytes,
                    size_t len);

/* Append those bytes. */
struct str;
void ids_cache_write(const struct entries *s, const struct ids_cache_key *key, struct str *out);
