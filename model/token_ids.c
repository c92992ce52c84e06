#include "model/token_ids.h"

#include "core/mem.h"

#include <ctype.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#define MIN_CAP 64u

void token_ids_reserve(struct token_ids *t, size_t n)
{
    if (t->cap - t->n >= n) {
        return;
    }
    size_t cap = t->cap != 0 ? t->cap : MIN_CAP;
    while (cap - t->n < n) {
        cap *= 2;
    }
    t->v = xrealloc(t->v, cap * sizeof *t->v);
    t->cap = cap;
}

void token_ids_push(struct token_ids *t, int32_t id)
{
    token_ids_reserve(t, 1);
    t->v[t->n++] = id;
}

void token_ids_append(struct token_ids *t, const int32_t *ids, size_t n)
{
    token_ids_reserve(t, n);
    if (n > 0) {
        memcpy(t->v + t->n, ids, n * sizeof *ids);
    }
    t->n += n;
}

static bool is_space(char c)
{
    return isspace((unsigned char)c) != 0;
}

/* The whole number that a word is; -1: none below `end`. */
static int32_t parse_id(const char *word, size_t len, int end)
{
    int64_t id = 0;
    for (size_t i = 0; i < len; i++) {
        if (word[i] < '0' || word[i] > '9') {
            return -1;
        }
        id = 10 * id + (word[i] - '0');
        if (id >= end) {
            return -1;
        }
    }
    return (int32_t)id;
}

int token_ids_parse(struct token_ids *t, const char *text, size_t len, const char *where, int vocab,
                    struct err *e)
{
    size_t line = 1;
    for (size_t i = 0, n; i < len; i += n) {
        n = 1;
        if (is_space(text[i])) {
            line += text[i] == '\n';
            continue;
        }
        while (i + n < len && !is_space(text[i + n])) {
            n++;
        }
        const int32_t id = parse_id(text + i, n, vocab);
        if (id < 0) {
            const int shown = n < 24 ? (int)n : 24;
            return err_set(e, ERR_INPUT, "%s: line %zu: '%.*s' is not a token id from 0 to %d",
                           where, line, shown, text + i, vocab - 1);
        }
        token_ids_push(t, id);
    }
    return 0;
}

void token_ids_free(struct token_ids *t)
{
    free(t->v);
    *t = (struct token_ids){0};
}
