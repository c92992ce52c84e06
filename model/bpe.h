/*
 * Byte-pair encoding: the "BPE" model of a tokenizer.json. A piece of text becomes one symbol per
 * character, then the adjacent pair with the lowest rank is merged, leftmost first among equals,
 * until no merge is left (Sennrich et al. 2016, "Neural Machine Translation of Rare Words with
 * Subword Units", section 3.2). Characters outside the vocabulary become their bytes
 * (byte_fallback), else the unknown token, as in the Hugging Face `tokenizers` library.
 *
 * Immutable once made; callers bring a work space each.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "core/err.h"
#include "model/vocab.h"

struct json_t;
struct token_ids;
struct bpe;

/* Scratch memory of one caller, reused between pieces. A zeroed one is ready. */
struct bpe_work {
    int32_t *symbols; // (n), of the segment being built
    size_t n, cap;
    uint32_t *prev, *next; // (list_cap) neighbours of symbols in a long segment
    size_t list_cap;
    struct bpe_candidate *heap; // (n_heap)
    size_t n_heap, heap_cap;
};
void bpe_work_free(struct bpe_work *w);

/*
 * From the "model" object; its vocabulary is added to v, which must outlive the bpe. ERR_INPUT:
 * another type of model, an unsupported feature (named), a merge of unknown tokens (by index).
 */
int bpe_parse(struct bpe **out, const struct json_t *model, struct vocab *v,
              struct err *e) ERR_CHECKED;
void bpe_destroy(struct bpe *b);

/* Append the ids of one piece of text (any bytes). */
void bpe_encode(const struct bpe *b, struct bpe_work *w, const char *text, size_t len,
                struct token_ids *ids);
