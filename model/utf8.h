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

/* The bytes at the start of s (len >= 0) that are UTF-8. */
size_t utf8_valid_span(const char *s, size_t len);

/*
 * Of bytes that do not begin with a character (len >= 1): the longest part of one that they begin
 * with, at least 1; and whether such a part can still become a character with bytes that follow.
 */
size_t utf8_part(const char *s, size_t len);
bool utf8_is_open(const char *s, size_t part);

/* White_Space of Unicode: what \s means to the regular expressions of `tokenizers`. */
bool utf8_is_space(uint32_t code);

/* Where the white space that begins at `at`, or ends there and not before `floor`, has its end. */
size_t utf8_spaces_after(const char *text, size_t len, size_t at);
size_t utf8_spaces_before(const char *text, size_t at, size_t floor);

/* Where the character that ends at `at` > floor begins; its code, UTF8_INVALID for a stray byte. */
size_t utf8_before(const char *text, size_t at, size_t floor, uint32_t *code);
