#include "model/vocab.h"

#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

void vocab_init(struct vocab *v, int32_t cap)
{
    CHECK(cap > 0);
    size_t n_slots = 4;
    while (n_slots < 2 * (size_t)cap) {
        n_slots *= 2;
    }
    *v = (struct vocab){
        .tokens = xcalloc((size_t)cap, sizeof *v->tokens),
        .cap = cap,
        .slots = xmalloc(n_slots * sizeof *v->slots),
        .n_slots = n_slots,
    };
    memset(v->slots, 0xFF, n_slots * sizeof *v->slots);
}

void vocab_free(struct vocab *v)
{
    free(v->tokens);
    free(v->slots);
    arena_free(&v->text);
    *v = (struct vocab){0};
}

/* The slot that holds the text, or the free one where it would go: half of the slots stay free. */
static size_t find_slot(const struct vocab *v, const char *text, size_t len)
{
    size_t i = (size_t)XXH3_64bits(text, len) & (v->n_slots - 1);
    while (v->slots[i] >= 0) {
        const struct vocab_token *t = &v->tokens[v->slots[i]];
        if (t->len == len && memcmp(t->text, text, len) == 0) {
            break;
        }
        i = (i + 1) & (v->n_slots - 1);
    }
    return i;
}

int32_t vocab_find(const struct vocab *v, const char *text, size_t len)
{
    return len <= v->max_len ? v->slots[find_slot(v, text, len)] : -1;
}

int vocab_add(struct vocab *v, const char *text, size_t len, int64_t id, struct err *e)
{
    if (id < 0 || id >= v->cap) {
        return err_set(e, ERR_INPUT,
                       "token id %lld does not match the vocabulary of config.json (ids 0..%d)",
                       (long long)id, v->cap - 1);
    }
    size_t slot = find_slot(v, text, len);
    if (v->slots[slot] >= 0 && v->slots[slot] != id) {
        return err_set(e, ERR_INPUT, "token ids %d and %lld have the same text", v->slots[slot],
                       (long long)id);
    }
    if (v->slots[slot] == id) {
        return 0;
    }
    if (v->tokens[id].text != NULL) {
        return err_set(e, ERR_INPUT, "token id %lld is given to two tokens", (long long)id);
    }
    const char *copy = len < UINT32_MAX ? arena_strdup(&v->text, text, len) : NULL;
    if (copy == NULL) {
        return err_set(e, ERR_ENV, "out of memory for the vocabulary");
    }
    v->tokens[id] = (struct vocab_token){
        .text = copy, .len = (uint32_t)len, .shown = copy, .shown_len = (uint32_t)len};
    v->slots[slot] = (int32_t)id;
    v->n_ids = (int32_t)id >= v->n_ids ? (int32_t)id + 1 : v->n_ids;
    v->max_len = len > v->max_len ? len : v->max_len;
    return 0;
}

int vocab_show_as(struct vocab *v, int32_t id, const char *text, size_t len, struct err *e)
{
    CHECK(id >= 0 && id < v->n_ids && v->tokens[id].text != NULL);
    const char *copy = len < UINT32_MAX ? arena_strdup(&v->text, text, len) : NULL;
    if (copy == NULL) {
        return err_set(e, ERR_ENV, "out of memory for the vocabulary");
    }
    v->tokens[id].shown = copy;
    v->tokens[id].shown_len = (uint32_t)len;
    return 0;
}
