/*
 * Token ids back to text: the "decoder" of a tokenizer.json. Supported are ByteLevel, Metaspace,
 * what the SentencePiece families use (any of Replace, ByteFallback, Fuse and Strip of leading
 * characters, in this order), and null, which joins tokens with a space. Immutable once made.
 *
 * Text is always UTF-8, as in the Hugging Face `tokenizers` library: of byte-level tokens, what
 * forms no character is one U+FFFD per maximal part of a character; byte-fallback tokens in a row
 * are UTF-8 together, or U+FFFD each.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/err.h"
#include "core/str.h"
#include "model/vocab.h"

struct json_t;
struct detok;

int detok_parse(struct detok **out, const struct json_t *decoder, const struct vocab *v,
                struct err *e) ERR_CHECKED;
void detok_destroy(struct detok *d);

/* A text that is decoded piece by piece. A zeroed one is ready. */
struct detok_stream {
    struct str held;  // bytes that may become a character with those that follow
    size_t n_strips;  // leading characters that were cut
    bool is_begun;    // some token was there before
    bool is_stripped; // no more leading characters to cut
};
void detok_stream_free(struct detok_stream *s);

/*
 * Append the text of ids as far as it is certain; special tokens and ids without a token are left
 * out. Pieces together are what one piece would be.
 */
void detok_push(const struct detok *d, struct detok_stream *s, const int32_t *ids, size_t n,
                struct str *text);

/*
 * Append held bytes that form whole characters, to show them before the next token is known. The
 * difference is seen only when later byte-fallback tokens of the same row are broken.
 */
void detok_settle(const struct detok *d, struct detok_stream *s, struct str *text);

/* The text ends: append what was held, and begin anew. */
void detok_finish(const struct detok *d, struct detok_stream *s, struct str *text);
