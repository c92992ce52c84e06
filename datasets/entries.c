#include "datasets/entries.h"

#include "core/str.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

/* Room for n_more elements behind the n that are there. */
static int reserve(void **v, size_t *cap, size_t n, size_t n_more, size_t each, struct err *e)
{
    if (n + n_more <= *cap) {
        return 0;
    }
    size_t want = 2 * *cap > n + n_more ? 2 * *cap : n + n_more + 64;
    void *grown = realloc(*v, want * each);
    if (grown == NULL) {
        return err_set(e, ERR_ENV, "out of memory for a dataset of %zu entries", want);
    }
    *v = grown;
    *cap = want;
    return 0;
}

#define RESERVE(s_, v_, n_, cap_, n_more_, e_)                                                     \
    reserve((void **)&(s_)->v_, &(s_)->cap_, (s_)->n_, n_more_, sizeof *(s_)->v_, e_)

int entries_add(struct entries *s, const struct entry *entry, struct err *e)
{
    if (RESERVE(s, v, n, cap, 1, e) != 0) {
        return -1;
    }
    s->v[s->n++] = *entry;
    return 0;
}

int entries_add_turn(struct entries *s, const struct turn *turn, struct err *e)
{
    if (RESERVE(s, turns, n_turns, turns_cap, 1, e) != 0) {
        return -1;
    }
    s->turns[s->n_turns++] = *turn;
    return 0;
}

int entries_add_message(struct entries *s, const struct message *m, struct err *e)
{
    if (RESERVE(s, messages, n_messages, messages_cap, 1, e) != 0) {
        return -1;
    }
    s->messages[s->n_messages++] = *m;
    return 0;
}

int entries_add_block(struct entries *s, uint64_t name, struct err *e)
{
    if (RESERVE(s, blocks, n_blocks, blocks_cap, 1, e) != 0) {
        return -1;
    }
    s->blocks[s->n_blocks++] = name;
    return 0;
}

/* --- joining ---------------------------------------------------------------------------------- */

static void append_array(void *to, size_t *n_to, const void *from, size_t n_from, size_t each)
{
    if (n_from > 0) {
        memcpy((char *)to + *n_to * each, from, n_from * each);
        *n_to += n_from;
    }
}

int entries_append(struct entries *s, struct entries *from, struct err *e)
{
    CHECK(from->n_blocks == 0 &&
          from->mapped == NULL); // conversations are read in parts, only they
    if (RESERVE(s, v, n, cap, from->n, e) != 0 ||
        RESERVE(s, turns, n_turns, turns_cap, from->n_turns, e) != 0 ||
        RESERVE(s, messages, n_messages, messages_cap, from->n_messages, e) != 0 ||
        RESERVE(&s->ids, v, n, cap, from->ids.n, e) != 0) {
        return -1;
    }
    for (size_t i = 0; i < from->n; i++) {
        struct entry x = from->v[i];
        x.data_at += s->ids.n;
        x.turn_at += s->n_turns;
        x.message_at += s->n_messages;
        s->v[s->n++] = x;
    }
    append_array(s->turns, &s->n_turns, from->turns, from->n_turns, sizeof *s->turns);
    append_array(s->messages, &s->n_messages, from->messages, from->n_messages,
                 sizeof *s->messages);
    append_array(s->ids.v, &s->ids.n, from->ids.v, from->ids.n, sizeof *s->ids.v);
    s->n_source += from->n_source;
    s->n_turns_cut += from->n_turns_cut;
    for (int r = 0; r < ENTRIES_N_REASONS; r++) {
        s->filtered[r] += from->filtered[r];
    }
    entries_free(from);
    return 0;
}

void entries_free(struct entries *s)
{
    if (s->mapped != NULL) {
        munmap(s->mapped, s->n_mapped);
    } else {
        free(s->v);
        free(s->turns);
        free(s->messages);
        free(s->blocks);
        token_ids_free(&s->ids);
    }
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
