/*
 * A growable list of token ids. A zeroed one is empty; owned by whoever declared it.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

struct token_ids {
    int32_t *v; // (cap)
    size_t n, cap;
};

void token_ids_push(struct token_ids *t, int32_t id);
void token_ids_append(struct token_ids *t, const int32_t *ids, size_t n);

/* Make room for n more, so that they can be written at v + n. */
void token_ids_reserve(struct token_ids *t, size_t n);
void token_ids_free(struct token_ids *t);
