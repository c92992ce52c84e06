/*
 * Finished requests on their way to rank 0: each is encoded as a journal record into one buffer, and
 * the buffer is posted as WIRE_JOURNAL when it is full or 250 ms old, so that what finished is in the
 * journal soon after. Loop thread only; nothing is allocated after outbox_init.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/comm.h"
#include "core/err.h"
#include "loadgen/live.h"

#define OUTBOX_PERIOD_NS 250000000LL

struct outbox {
    struct comm *comm;
    struct wire_journal *piece; // (cap) a message being filled
    size_t len, cap;            // bytes
    uint32_t *dt_us;            // (max_tokens) one request's token times
    uint32_t n_records;         // of this step
    int64_t t_posted_ns;        // when the last piece went out, or the step began
};

/* Largest message for replies of at most max_tokens tokens. */
size_t outbox_message_bytes(uint32_t max_tokens);

int outbox_init(struct outbox *o, struct comm *c, uint32_t max_tokens, struct err *e) ERR_CHECKED;
void outbox_free(struct outbox *o);

void outbox_begin_step(struct outbox *o, uint32_t step, int64_t now_ns);

/* One request's record; its table slot may be freed afterwards. -1 when rank 0 takes no messages. */
int outbox_add(struct outbox *o, const struct live_table *t, const struct live *l,
               struct err *e) ERR_CHECKED;
/* The record of an event that never was a live request: no tokens, no stages. */
int outbox_add_unsent(struct outbox *o, const struct record *r, struct err *e) ERR_CHECKED;

bool outbox_is_due(const struct outbox *o, int64_t now_ns);
/* Post what there is, if anything. */
int outbox_post(struct outbox *o, int64_t now_ns, struct err *e) ERR_CHECKED;
