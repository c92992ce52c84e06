/*
 * Added tokens of a tokenizer.json: texts that are one token wherever they stand, found before the
 * model sees the rest. The longest match at the leftmost place wins. Those with "normalized": true
 * are looked for in the normalised text, the others in the text as given, as in the Hugging Face
 * `tokenizers` library. Immutable once made.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/err.h"
#include "model/normalizer.h"
#include "model/vocab.h"

struct json_t;
struct added;

struct added *added_new(void);

/* A token that v has, to be found in the text as given. */
void added_raw(struct added *a, const struct vocab *v, int32_t id);

enum added_stage {
    ADDED_RAW,
    ADDED_NORMALIZED,
};

/*
 * From the "added_tokens" list (NULL or null: none); adds to v those that it lacks. ERR_INPUT: an
 * id that contradicts the vocabulary. Needs unicode_init before use.
 */
int added_parse(struct added **out, const struct json_t *list, const struct normalizer *n,
                struct vocab *v, struct err *e) ERR_CHECKED;
void added_destroy(struct added *a);

struct added_match {
    size_t begin, end; // the text that the token takes, with white space it strips
    size_t resume;     // where to look for the next one
    int32_t id;
};

/* The first match at or after `from`; `floor` is the end of the text that is already taken. */
bool added_next(const struct added *a, enum added_stage stage, const char *text, size_t len,
                size_t from, size_t floor, struct added_match *m);
