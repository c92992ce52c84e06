/*
 * What is put around the ids of a text: the "post_processor" of a tokenizer.json. Supported are
 * TemplateProcessing, ByteLevel (it concerns offsets alone), Sequences of them, and null.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "core/err.h"

struct json_t;

#define POSTPROCESSOR_MAX 16 // special tokens before or after a text

struct postprocessor_ids {
    int32_t v[POSTPROCESSOR_MAX]; // (n)
    size_t n;
};

struct postprocessor {
    struct postprocessor_ids before, after; // the text
};

/* Ids must be below n_ids. json may be NULL or null: nothing is put around. */
int postprocessor_parse(struct postprocessor *p, const struct json_t *json, int32_t n_ids,
                        struct err *e) ERR_CHECKED;
