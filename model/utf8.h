/*
 * UTF-8, strictly as Unicode defines it (no surrogates, no overlong forms, nothing above U+10FFFF).
 * Text from outside may hold any bytes: a byte that is part of no character stands for itself.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define UTF8_INVALID UINT32_MAX

/*
 * Decode the character at s (len >= 1) and return its bytes: 1..4; 1 and UTF8_INVALID for a stray.
 */
size_t utf8_next(const char *s, size_t len, uint32_t *code);

/* Whether all of s is UTF-8. */
bool utf8_valid(const char *s, size_t len);

/* White_Space of Unicode: what \s means to the regular expressions of `tokenizers`. */
bool utf8_is_space(uint32_t code);
