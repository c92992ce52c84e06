/*
 * Byte-pair encoding: the "BPE" model of a tokenizer.json. A word becomes one symbol per character
 * (byte-level models: per byte), then the merges are applied (model/merges.h). Characters outside
 * the vocabulary become their bytes (byte_fallback), else the unknown token, else nothing, as in
 * the Hugging Face `tokenizers` library.
 *
 * Immutable once made; callers bring a work space each.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/err.h"
#include "model/merges.h"
#include "model/vocab.h"

#define BPE_MAX_BYTES ((size_t)1 << 28) // of one word

struct json_t;
struct token_ids;
struct bpe;

struct bpe_features {
    bool is_byte_level, has_byte_fallback, fuse_unk, ignore_merges;
    int32_t unk; // -1: characters that nothing stands for vanish
};

/* A model of all tokens that v has now and v must outlive, with room for n_merges. */
struct bpe *bpe_new(const struct vocab *v, const struct bpe_features *f, size_t n_merges);

/* Two tokens become one: the lowest rank first, the leftmost among equals (model/merges.h). */
void bpe_merge(struct bpe *b, int32_t left, int32_t right, uint32_t rank, int32_t merged);

/* The same from the text "left right". ERR_INPUT: not of this form, or no tokens. */
int bpe_merge_text(struct bpe *b, const char *text, size_t len, uint32_t rank,
                   struct err *e) ERR_CHECKED;

/*
 * From the "model" object; its vocabulary is added to v, which must outlive the bpe. ERR_INPUT:
 * another type of model, an unsupported feature (named), a merge of unknown tokens (by index).
 */
int bpe_parse(struct bpe **out, const struct json_t *model, bool is_byte_level, struct vocab *v,
              struct err *e) ERR_CHECKED;
void bpe_destroy(struct bpe *b);

/*
 * The bytes at the start of a word that may be encoded apart from the rest with the same result:
 * so words of models without a pre-tokenizer stay short, and can be remembered.
 */
size_t bpe_cut(const struct bpe *b, const char *text, size_t len);

/* Append the ids of one word (any bytes, at most BPE_MAX_BYTES). */
void bpe_encode(const struct bpe *b, struct merges_work *w, const char *text, size_t len,
                struct token_ids *ids);
