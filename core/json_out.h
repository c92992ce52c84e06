/*
 * Writing JSON as it comes, without a tree: what is written may be larger than memory. Commas and
 * quotes are set here; that opens and closes match and keys stand only in objects is the caller's.
 *
 *     json_out_open(&o, NULL, '{');
 *     json_out_number(&o, "rate", 2.5);
 *     json_out_close(&o, '}');
 *
 * `key` is NULL in lists and at the top. Errors of the stream stay in it (ferror).
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

struct json_t;

struct json_out { // {.f = FILE}: at the beginning
    FILE *f;
    bool follows; // a value of this object or list is there already
};

void json_out_open(struct json_out *o, const char *key, char bracket);
void json_out_close(struct json_out *o, char bracket);

/* The shortest of 15 or 17 digits that reads back the same; null for what is not finite. */
void json_out_number(struct json_out *o, const char *key, double x);
void json_out_whole(struct json_out *o, const char *key, uint64_t n);
void json_out_text(struct json_out *o, const char *key, const char *text); // UTF-8; NULL: null
void json_out_bool(struct json_out *o, const char *key, bool x);
void json_out_null(struct json_out *o, const char *key);
/* A tree as it is; NULL: null. */
void json_out_tree(struct json_out *o, const char *key, const struct json_t *tree);
