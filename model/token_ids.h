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
void token_ids_free(struct token_ids *t);
