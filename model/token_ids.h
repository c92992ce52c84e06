/*
 * A growable list of token ids. A zeroed one is empty; owned by whoever declared it.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "core/err.h"

struct token_ids {
    int32_t *v; // (cap)
    size_t n, cap;
};

void token_ids_push(struct token_ids *t, int32_t id);
void token_ids_append(struct token_ids *t, const int32_t *ids, size_t n);

/* Make room for n more, so that they can be written at v + n. */
void token_ids_reserve(struct token_ids *t, size_t n);
/*
 * Append the ids that a text says: whole numbers from 0 to vocab - 1 with white space between. ERR_INPUT:
 * anything else, with `where` and its line; ids before it are appended all the same.
 */
int token_ids_parse(struct token_ids *t, const char *text, size_t len, const char *where, int vocab,
                    struct err *e) ERR_CHECKED;
void token_ids_free(struct token_ids *t);
