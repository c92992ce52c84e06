/*
 * How text is cut into words before BPE: the "pre_tokenizer" of a tokenizer.json. Supported are
 * Split (by a literal, or by the regular expressions of splitters.h), ByteLevel, Digits, Metaspace,
 * Sequences of them, and null; others are an error with the type's or the expression's text.
 * Immutable once made.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "core/err.h"
#include "core/str.h"
#include "model/splitters.h"

struct json_t;

#define PRETOKENIZER_MAX_STAGES 8

/* One step of the cutting: a splitter, or a literal. */
struct pretokenizer_stage {
    splitters_fn *split; // NULL: by the literal
    enum {
        PRETOKENIZER_ALONE,
        PRETOKENIZER_ENDS,
        PRETOKENIZER_BEGINS
    } literal_is;  // a piece
    char *literal; // (len)
    size_t literal_len;
};

struct pretokenizer {
    struct pretokenizer_stage stages[PRETOKENIZER_MAX_STAGES];
    size_t n_stages;
    bool is_byte_level; // the model's characters stand for bytes (model/bytelevel.h)
    char *space;        // Metaspace: what each space becomes; NULL
    char *prefix;       // put before a text that does not begin with it; NULL
    bool prefix_first;  // only before the first text, not behind added tokens
};

/* json may be NULL or null: text is one word. Needs unicode_init before use. */
int pretokenizer_parse(struct pretokenizer *p, const struct json_t *json,
                       struct err *e) ERR_CHECKED;
void pretokenizer_free(struct pretokenizer *p);

/*
 * The text that is to be cut: with spaces replaced and the prefix before it, in `work`, or the text
 * itself. Returns its length. is_first: it stands at the very beginning.
 */
size_t pretokenizer_prepare(const struct pretokenizer *p, struct str *work, const char *text,
                            size_t len, bool is_first, const char **prepared);

/* The words of a text, one after the other: pieces of pieces, stage by stage. */
struct pretokenizer_words {
    const struct pretokenizer *p;
    const char *at;                                // where the next word begins
    const char *ends[PRETOKENIZER_MAX_STAGES + 1]; // of the piece of each stage; [0]: the text
};
void pretokenizer_begin(struct pretokenizer_words *w, const struct pretokenizer *p,
                        const char *text, size_t len);

/* The next word; NULL at the end. */
const char *pretokenizer_next(struct pretokenizer_words *w, size_t *len);
