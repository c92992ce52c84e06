#include "datasets/entries.h"

#include "core/str.h"

#include <stdlib.h>

int entries_add(struct entries *s, const struct entry *entry, struct err *e)
{
    if (s->n == s->cap) {
        size_t cap = s->cap != 0 ? 2 * s->cap : 1024;
        struct entry *v = realloc(s->v, cap * sizeof *v);
        if (v == NULL) {
            return err_set(e, ERR_ENV, "out of memory for %zu entries", cap);
        }
        s->v = v;
        s->cap = cap;
    }
    s->v[s->n++] = *entry;
    return 0;
}

void entries_free(struct entries *s)
{
    free(s->v);
    token_ids_free(&s->ids);
    *s = (struct entries){0};
}

const char *entries_reason_name(enum entries_reason r)
{
    static const char *const names[ENTRIES_N_REASONS] = {
        [ENTRIES_TOO_FEW_TURNS] = "too_few_turns",
        [ENTRIES_NO_HUMAN_TURN] = "no_human_turn",
        [ENTRIES_OUTSIDE_WINDOW] = "outside_window",
        [ENTRIES_ZERO_TOKENS] = "zero_tokens",
        [ENTRIES_PROMPT_TOO_SHORT] = "prompt_too_short",
        [ENTRIES_PROMPT_TOO_LONG] = "prompt_too_long",
        [ENTRIES_COMPLETION_TOO_SHORT] = "completion_too_short",
        [ENTRIES_COMPLETION_TOO_LONG] = "completion_too_long",
        [ENTRIES_SUM_TOO_LONG] = "sum_too_long",
        [ENTRIES_CONTEXT] = "context",
    };
    return names[r];
}

int entries_check(const struct entries *s, const char *where, const char *what, struct err *e)
{
    if (s->n > 0) {
        return 0;
    }
    struct str counts = {0};
    for (int r = 0; r < ENTRIES_N_REASONS; r++) {
        if (s->filtered[r] > 0) {
            str_printf(&counts, "%s%s %llu", counts.len > 0 ? ", " : ": ",
                       entries_reason_name((enum entries_reason)r),
                       (unsigned long long)s->filtered[r]);
        }
    }
    err_set(e, ERR_INPUT, "%s: keeps no %s of %llu%s", where, what, (unsigned long long)s->n_source,
            counts.len > 0 ? counts.data : "");
    str_free(&counts);
    return -1;
}
