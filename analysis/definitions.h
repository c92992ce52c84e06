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
