/*
 * The alphabet of byte-level BPE: every byte as one printable character, so that a vocabulary can
 * be written in JSON. Bytes that are printable in Latin-1 stand for themselves, the other 68 are
 * U+0100 onwards in order (Radford et al. 2019, GPT-2: "bytes_to_unicode").
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define BYTELEVEL_MAX 2 // bytes of a character of the alphabet

/* Write the character of a byte as UTF-8 and return its length. */
size_t bytelevel_put(uint8_t byte, char out[BYTELEVEL_MAX]);

/*
 * The bytes that a text of the alphabet stands for, in out (at most len): how many. False when the
 * text has another character.
 */
bool bytelevel_bytes(const char *text, size_t len, char *out, size_t *n);
