/*
 * Text for servers that have nothing to say: words, of which one is one token.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#define NULL_WORDS_MAX_BYTES 12 // of a word, its blank included

/* n words from number `first` on, each with a blank before it; no NUL. The bytes written to `to`. */
size_t null_words_put(char *to, uint64_t first, int64_t n);
