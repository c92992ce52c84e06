/*
 * What a file of prompts comes down to: the kept entries with their turns and lengths, where their
 * text stands in the file and its token ids, and how many were filtered for which reason. Filled by
 * sharegpt_parse and trace_parse or mapped from the cache, owned by the source, read-only then.
 */
#pragma once

#include <stdbool.h>
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

struct entry {         // a request of a trace, or a conversation
    uint64_t index;    // in the source, 0-based
    int64_t t_ns;      // traces: since the window's start, scaled
    size_t data_at;    // text: into ids; traces with prefix blocks: into blocks
    size_t turn_at;    // into turns
    size_t message_at; // text: into messages
    uint32_t n_data;   // ids of all its turns, or blocks
    uint32_t n_turns;  // >= 1
};

struct turn {
    uint32_t n_in;       // tokens of the prompt, all the history before it included
    uint32_t n_out;      // 0: drawn for each event
    uint32_t n_messages; // of the entry that make up the prompt
};

struct message {
    uint64_t at;   // in the file: the inside of a JSON string
    uint32_t len;  // bytes there
    uint32_t role; // enum prompt_role
};

struct entries {
    struct entry *v; // (n) in the order of the source
    size_t n, cap;
    struct turn *turns; // (n_turns)
    size_t n_turns, turns_cap;
    struct message *messages; // (n_messages)
    size_t n_messages, messages_cap;
    struct token_ids ids; // of all kept entries, end to end; empty for sources with lengths only
    uint64_t *blocks;     // (n_blocks) prefix blocks by name
    size_t n_blocks, blocks_cap;

    uint64_t n_source; // entries in the source, kept or not
    uint64_t filtered[ENTRIES_N_REASONS];
    uint64_t n_turns_cut; // turns of kept conversations that no longer fit the context

    void *mapped; // (n_mapped) what the arrays point into, if they are not on the heap
    size_t n_mapped;
};

/* ERR_ENV: out of memory. */
int entries_add(struct entries *s, const struct entry *entry, struct err *e) ERR_CHECKED;
int entries_add_turn(struct entries *s, const struct turn *turn, struct err *e) ERR_CHECKED;
int entries_add_message(struct entries *s, const struct message *m, struct err *e) ERR_CHECKED;
int entries_add_block(struct entries *s, uint64_t name, struct err *e) ERR_CHECKED;

/* Put all of `from` behind `s`; `from` is empty then. */
int entries_append(struct entries *s, struct entries *from, struct err *e) ERR_CHECKED;
void entries_free(struct entries *s);

/* "prompt_too_short" */
const char *entries_reason_name(enum entries_reason r);

/* ERR_INPUT with the counts when nothing was kept. `what`: "conversation", "request". */
int entries_check(const struct entries *s, const char *where, const char *what,
                  struct err *e) ERR_CHECKED;
