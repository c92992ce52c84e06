#include "datasets/prompt_text.h"

#include "core/mem.h"

#include <stdlib.h>

void prompt_text_clear(struct prompt_text *t)
{
    str_clear(&t->json);
    t->n = 0;
}

void prompt_text_free(struct prompt_text *t)
{
    str_free(&t->json);
    str_free(&t->plain);
    free(t->parts);
    *t = (struct prompt_text){0};
}

void prompt_text_end(struct prompt_text *t, enum prompt_role role)
{
    if (t->n > 0 && t->parts[t->n - 1].role == (uint8_t)role) {
        t->parts[t->n - 1].end = t->json.len;
        return;
    }
    if (t->n == t->cap) {
        t->cap = t->cap * 2 + 8;
        t->parts = xrealloc(t->parts, t->cap * sizeof *t->parts);
    }
    t->parts[t->n++] = (struct prompt_part){.role = (uint8_t)role, .end = t->json.len};
}
