/*
 * What a tokenizer does to text before it looks for tokens: the "normalizer" of a tokenizer.json.
 * Supported are Prepend, Replace of a literal String, Strip, the Unicode forms NFC, NFD, NFKC and
 * NFKD, and Sequences of them; others are an error with the type's name. Immutable once made.
 */
#pragma once

#include <stddef.h>

#include "core/err.h"
#include "core/str.h"

struct json_t;
struct normalizer;

struct normalizer_work { // scratch of one caller, reused; a zeroed one is ready
    struct str text[2];
};
void normalizer_work_free(struct normalizer_work *w);

/* json may be NULL or null: text stays as it is. Needs unicode_init before use. */
int normalizer_parse(struct normalizer **out, const struct json_t *json, struct err *e) ERR_CHECKED;
void normalizer_destroy(struct normalizer *n);

/*
 * The normalised text, in w or the text itself; valid until the next call with w. Returns its
 * length.
 */
size_t normalizer_apply(const struct normalizer *n, struct normalizer_work *w, const char *text,
                        size_t len, const char **normal);

/*
 * The literal pattern and its replacement of a {"type": "Replace", "pattern": {"String": P},
 * "content": C}, which decoders have too. Borrowed from json. ERR_INPUT: a Regex, an empty pattern.
 */
struct normalizer_rule {
    const char *pattern, *content;
    size_t pattern_len, content_len;
};
int normalizer_parse_replace(struct normalizer_rule *r, const struct json_t *json,
                             struct err *e) ERR_CHECKED;

/* Append text to out with every occurrence of the pattern replaced, from the left. */
void normalizer_replace(const struct normalizer_rule *r, const char *text, size_t len,
                        struct str *out);
