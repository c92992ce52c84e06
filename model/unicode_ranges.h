/*
 * What the tokenizers need to know of every character, as ranges of equal properties: generated.
 * `model/unicode.h` is the way to ask.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

struct unicode_range {
    uint32_t first; // its characters end where the next range begins
    uint16_t flags; // UNICODE_*
};

extern const struct unicode_range unicode_ranges[]; // (unicode_ranges_n) in order
extern const size_t unicode_ranges_n;
