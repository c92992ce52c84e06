/*
 * Bodies of requests to an OpenAI-compatible endpoint. What all requests share is rendered once; a
 * body is that head, the lengths and the prompt.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "core/str.h"
#include "datasets/dataset.h"
#include "loadgen/endpoint.h"

struct body {
    const struct endpoint_config *cfg; // borrowed
    struct str head;                   // "{...," up to the lengths
    bool fixed_max;                    // the extra body says how long outputs are
    bool with_min;                     // min_tokens goes along
    struct prompt_text text;           // of the prompt under way
    struct str ids;                    // room for (n_in) ids
};

void body_init(struct body *b, const struct endpoint_config *c, const char *model, bool ignore_eos);
void body_free(struct body *b);

/* Append the body that asks for this prompt of the dataset. */
void body_write(struct body *b, const struct dataset *ds, uint64_t seed, uint64_t event,
                const struct prompt *p, struct str *out);
