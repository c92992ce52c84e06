/*
 * Requests in flight. A live request is a slot of a fixed table, taken when the request is sent and
 * given back when its record has been written out; its ticket (slot, generation) travels with the
 * request, and a reply whose ticket no longer matches is nobody's. Token times are kept in chunks of
 * a pool that is one reserved mapping: what is resident follows what is in flight, and nothing is
 * allocated once a step has begun. Slots and chunks are reused last-in first-out.
 *
 * Loop thread only. Clients call live_find and the functions from live_sent to live_end.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/err.h"
#include "loadgen/plan.h"
#include "model/wire.h"
#include "results/record.h"

struct live {
    struct record rec; // absolute times of rank 0's clock
    struct wire_ticket ticket;
    int64_t t_end_ns; // once it has ended: when the target was done with it
    bool busy;        // taken, and not ended
    /* the table's own: */
    uint32_t first_chunk, last_chunk;
    uint32_t next;                            // in the list of ended or of free slots
    uint64_t last_us;                         // of the last token, since t_send
    uint32_t stage_us[2 * RECORD_MAX_STAGES]; // (2, rec.n_stages)
};

struct live_table;

/*
 * Tokens that a reply to a request for n_out_req of them may have before it counts as broken: a server
 * that sends a few more than were asked for still gets them counted.
 */
uint32_t live_room(uint32_t n_out_req);

/* n_slots requests at once, each for at most max_tokens output tokens. */
int live_create(struct live_table **out, uint32_t n_slots, uint32_t max_tokens,
                struct err *e) ERR_CHECKED;
void live_destroy(struct live_table *t);

/* Chunks that a reply to a request for n_out_req tokens may take. */
size_t live_chunks(uint32_t n_out_req);
/* Room for n_chunks in flight at once, or fewer where all slots together cannot use that many. No
 * request may be in flight. */
int live_reserve(struct live_table *t, size_t n_chunks, struct err *e) ERR_CHECKED;

bool live_is_full(const struct live_table *t);
/* A free slot for this event, due at t_sched_ns. Bug when the table is full. */
struct live *live_take(struct live_table *t, const struct plan_event *ev, int64_t t_sched_ns);
/* The busy request that a ticket from outside names, or NULL. */
struct live *live_find(struct live_table *t, struct wire_ticket ticket);
/* A busy slot from `slot` on, in order, or NULL: for walking over all. */
struct live *live_busy_from(struct live_table *t, uint32_t slot);
uint32_t live_in_flight(const struct live_table *t); // busy ones

/* --- what clients report ------------------------------------------------------------------------ */

void live_sent(struct live *l, int64_t t_ns);
/* The first byte or message of the answer; later calls change nothing. */
void live_byte(struct live *l, int64_t t_ns);
/* One message with n >= 1 tokens. False when there is no room for so many: nothing is kept then. */
bool live_tokens(struct live_table *t, struct live *l, uint32_t n, int64_t t_ns);
/*
 * Every message so far was taken for one token, and turns out to have had counts[i] (rec.n_chunks):
 * the first of them came after the message's gap, the others at once. The gap of a message that had none
 * is part of the next one's. What exceeds the room is dropped.
 * gaps_us: (rec.n_chunks) of scratch.
 */
void live_recount(struct live_table *t, struct live *l, const uint32_t *counts, uint32_t *gaps_us);
/*
 * The request has ended, at t_ns: with its last token, or later where more of the answer had to come. From then
 * on its place is free for another one, and its user may think. The loop writes its record out and frees the
 * slot. Once per request.
 */
void live_end(struct live_table *t, struct live *l, enum outcome outcome, int error, int64_t t_ns);

/* --- what becomes of the ended ones --------------------------------------------------------------- */

/* The one that ended first, or NULL; stays valid until live_free. */
struct live *live_next_ended(struct live_table *t);
/* Its token times dt_us (rec.n_out), as record_encode wants them. */
void live_copy_tokens(const struct live_table *t, const struct live *l, uint32_t *dt_us);
void live_free(struct live_table *t, struct live *l);
