/*
 * What the words of a report mean: the same sentences in every rendering of it.
 */
#pragma once

#include <stddef.h>

struct definition {
    const char *term, *text;
};
extern const struct definition definitions[];
extern const size_t definitions_n;

/* What they mean instead where the target is an endpoint. */
extern const struct definition definitions_of_endpoint[];
extern const size_t definitions_of_endpoint_n;

/* What else there is to define where GPUs were looked at. */
extern const struct definition definitions_of_gpus[];
extern const size_t definitions_of_gpus_n;
