#include "datasets/prompt_text.h"

#include "core/mem.h"

#include <stdbool.h>
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

static bool is_plain(char c)
{
    return (unsigned char)c >= 0x20 && c != '"' && c != '\\';
}

void prompt_text_escape(struct prompt_text *t, const char *utf8, size_t len)
{
    for (size_t i = 0; i < len;) {
        size_t from = i;
        while (i < len && is_plain(utf8[i])) {
            i++;
        }
        str_append(&t->json, utf8 + from, i - from);
        if (i < len) {
            char c = utf8[i++];
            if (c == '"' || c == '\\') {
                str_append(&t->json, (char[]){'\\', c}, 2);
            } else {
                str_printf(&t->json, "\\u%04x", (unsigned char)c);
            }
        }
    }
}
