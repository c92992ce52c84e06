/*
 * Text <-> token ids, from a model's own tokenizer.json (byte-pair encoding in the layout of the
 * Hugging Face `tokenizers` library, whose ids and texts it gives) or from what its GGUF file carries
 * (model/gguf_tokenizer.h). Immutable once open: any number of threads may use it, each with its own
 * encoder and buffers.
 *
 * Text may be any bytes. A byte that is part of no character (the library takes none) is cut like
 * U+FFFD, left alone by normalisers, and encoded as itself where the model has tokens for bytes,
 * else as an unknown character.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/err.h"
#include "core/str.h"
#include "model/token_ids.h"

struct tokenizer;

#define TOKENIZER_MAX_VOCAB (1 << 24) // more ids than any model has

/*
 * Open what a model (model/arch.h) has: a folder's tokenizer.json, or the metadata of a .gguf file.
 * ERR_INPUT: not JSON, a feature outside what is supported (named), or a vocabulary with ids outside
 * 0..vocab-1 ("does not match the vocabulary of config.json").
 */
int tokenizer_open(struct tokenizer **out, const char *model, int vocab, struct err *e) ERR_CHECKED;

/* Whether a model should have one: a folder, or a .gguf file that carries it. */
bool tokenizer_is_there(const char *model);

int tokenizer_parse(struct tokenizer **out, const char *json, size_t len, const char *where,
                    int vocab, struct err *e) ERR_CHECKED;
void tokenizer_close(struct tokenizer *t);

/*
 * Append the ids of a text as the model expects them: with_special adds what its template puts
 * around a text, such as BOS. For one text; many are faster with an encoder.
 */
void tokenizer_encode(const struct tokenizer *t, const char *text, size_t len, bool with_special,
                      struct token_ids *ids);

/*
 * One caller's scratch memory and what it remembers of words (about 1 MiB), for many texts. The
 * tokenizer must outlive it. Ids are those of tokenizer_encode.
 */
struct tokenizer_encoder;
struct tokenizer_encoder *tokenizer_encoder_new(const struct tokenizer *t);
void tokenizer_encoder_free(struct tokenizer_encoder *e);
void tokenizer_encoder_add(struct tokenizer_encoder *e, const char *text, size_t len,
                           bool with_special, struct token_ids *ids);

/*
 * Append the text of ids, without special tokens. `continues`: the ids follow earlier text, so no
 * leading space is cut. Always UTF-8: bytes that form no character become U+FFFD (model/detok.h).
 */
void tokenizer_decode(const struct tokenizer *t, const int32_t *ids, size_t n, bool continues,
                      struct str *text);

/*
 * A text whose ids come one after the other: push appends what is certain to be shown, and holds
 * back a character of which bytes are missing; finish appends what was held. Together they append
 * what tokenizer_decode does, but for byte-fallback bytes that turn out to be broken after some of
 * their row were shown.
 */
struct tokenizer_stream;
struct tokenizer_stream *tokenizer_stream_new(const struct tokenizer *t, bool continues);
void tokenizer_stream_free(struct tokenizer_stream *s);
void tokenizer_stream_push(struct tokenizer_stream *s, const int32_t *ids, size_t n,
                           struct str *text);
void tokenizer_stream_finish(struct tokenizer_stream *s, struct str *text);

/* Append what one id stands for inside a text; a special one as it is written. */
void tokenizer_piece(const struct tokenizer *t, int32_t id, struct str *text);

/* The id of this token, special or not, as it is written; -1: there is none. */
int32_t tokenizer_find(const struct tokenizer *t, const char *token);

/* 64-bit hash of the file's bytes, for provenance. */
uint64_t tokenizer_hash(const struct tokenizer *t);
int tokenizer_vocab(const struct tokenizer *t); // highest id + 1

/* Whether id stands for text: it is in the vocabulary and not special. */
bool tokenizer_is_ordinary(const struct tokenizer *t, int32_t id);
