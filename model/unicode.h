/*
 * Properties of characters: Unicode 16.0, the version of `tokenizers` 0.23 (its normalisers know
 * less, which UNICODE_NEW marks). One look-up per character; ready after unicode_init.
 */
#pragma once

#include <stdint.h>

#include "model/utf8.h"

enum {
    UNICODE_UPPER = 1 << 0,        // Lu, Lt
    UNICODE_LOWER = 1 << 1,        // Ll
    UNICODE_OTHER_LETTER = 1 << 2, // Lm, Lo
    UNICODE_NUMBER = 1 << 3,       // N
    UNICODE_MARK = 1 << 4,         // M
    UNICODE_PUNCTUATION = 1 << 5,  // P
    UNICODE_SYMBOL = 1 << 6,       // S
    UNICODE_SPACE = 1 << 7,        // White_Space
    UNICODE_WORD = 1 << 8,         // \w
    UNICODE_COMPOSES = 1 << 9,     // NFC may replace it or join it to what stands before
    UNICODE_COMBINES = 1 << 10,    // has a combining class: NFC may move it
    UNICODE_NEW = 1 << 11,         // the normalisers of `tokenizers` leave it alone
    UNICODE_LETTER = UNICODE_UPPER | UNICODE_LOWER | UNICODE_OTHER_LETTER, // L
};

extern uint16_t unicode_flags[0x110000]; // by character

/* Fill the table, once for the process; any number of threads may call it. */
void unicode_init(void);

/* UNICODE_* of a character as utf8_next gives it; a stray byte is what U+FFFD is. */
static inline unsigned unicode_of(uint32_t code)
{
    return code != UTF8_INVALID ? unicode_flags[code] : UNICODE_SYMBOL;
}
