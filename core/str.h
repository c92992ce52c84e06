/*
 * A growable byte buffer: text being built, request bodies, messages. Always NUL-terminated at
 * data[len]. A zeroed struct str is an empty string. Owned by whoever declared it.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

struct str {
    char *data; // (cap), NUL at [len]; NULL until first use
    size_t len;
    size_t cap;
};

void str_append(struct str *s, const void *bytes, size_t n);
void str_puts(struct str *s, const char *text);
void str_printf(struct str *s, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void str_reserve(struct str *s, size_t n_more);
void str_clear(struct str *s); // keeps the memory
void str_free(struct str *s);

/* What may be chosen from, as "a|b|c": the index of `text` (-1: none of them), and "a, b, c" appended. */
int str_choice(const char *choices, const char *text);
void str_put_choices(struct str *s, const char *choices);

/* Edit distance of two short words, for "did you mean" hints; at most 63 bytes of each count. */
int str_distance(const char *a, const char *b);

/* Read a whole regular file of at most max_bytes into s. ERR_INPUT when it is missing or larger. */
struct err;
int str_read_file(struct str *s, const char *path, size_t max_bytes, struct err *e)
    __attribute__((warn_unused_result));
