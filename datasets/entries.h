/*
 * What a file of prompts comes down to: the kept entries with their lengths, the token ids of those
 * that have text, and how many were filtered for which reason. Filled by sharegpt_parse and
 * trace_parse, owned by the dataset, read-only then.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "core/err.h"
#include "model/token_ids.h"

enum entries_reason { // why one was left out: the first that holds
    ENTRIES_TOO_FEW_TURNS,
    ENTRIES_NO_HUMAN_TURN,
    ENTRIES_OUTSIDE_WINDOW,
    ENTRIES_ZERO_TOKENS,
    ENTRIES_PROMPT_TOO_SHORT,
    ENTRIES_PROMPT_TOO_LONG,
    ENTRIES_COMPLETION_TOO_SHORT,
    ENTRIES_COMPLETION_TOO_LONG,
    ENTRIES_SUM_TOO_LONG,
    ENTRIES_CONTEXT, // the filter's own limits would allow it, the model's context does not
    ENTRIES_N_REASONS,
};

struct entry {
    uint32_t n_in;
    uint32_t n_out; // 0: drawn for each event
    uint64_t index; // in the source, 0-based
    size_t ids_at;  // into entries.ids
    int64_t t_ns;   // traces: since the window's start, scaled
};

struct entries {
    struct entry *v; // (n) in the order of the source
    size_t n, cap;
    struct token_ids ids; // of all kept prompts, end to end; empty for sources with lengths only
    uint64_t n_source;    // entries in the source, kept or not
    uint64_t filtered[ENTRIES_N_REASONS];
};

int entries_add(struct entries *s, const struct entry *entry, struct err *e) ERR_CHECKED;
void entries_free(struct entries *s);

/* "prompt_too_short" */
const char *entries_reason_name(enum entries_reason r);

/* ERR_INPUT with the counts when nothing was kept. `what`: "conversation", "request". */
int entries_check(const struct entries *s, const char *where, const char *what,
                  struct err *e) ERR_CHECKED;
