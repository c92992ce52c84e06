/*
 * Requests of turns that the run itself decides (turns.h), made ready before they are due. What a turn asks is
 * known as soon as the one before it is sent; when it is due, that one's reply decides. Each user, or
 * conversation, has a place for its next turn. Turns are made ready in the order in which they were wanted, in the
 * loop's idle time, so that making them is no part of the send lag; bounded by bytes. A place keeps its memory.
 * Loop thread only; nothing but payloads is allocated after drafts_begin.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/err.h"
#include "core/str.h"

struct draft {
    struct str payload; // the client may take it and leave another one
    size_t n_bytes;     // of it when it was made; counted while it is ready
    uint64_t id;        // of the turn
    bool is_wanted, is_ready, is_queued;
};

struct drafts {
    struct draft *places; // (n)
    size_t *queue;        // (n) a ring: places with wanted turns, some of which are gone again
    size_t n, first, n_queued;
    size_t n_bytes, max_bytes; // of all that are ready
};

/* n places, all empty, for the step that begins; n may be 0. ERR_ENV when memory is out. */
int drafts_begin(struct drafts *d, size_t n, size_t max_bytes, struct err *e) ERR_CHECKED;
void drafts_free(struct drafts *d);

/* Turn `id` will probably be the next at this place (modulo n). Nothing happens where one is kept already. */
void drafts_want(struct drafts *d, uint64_t place, uint64_t id);

/* The turn to make ready now: the one wanted first. False: there is none, or no room. */
bool drafts_next(struct drafts *d, uint64_t *id);
/* Where its payload goes (cleared): to be filled, then drafts_done. */
struct str *drafts_make(struct drafts *d);
void drafts_done(struct drafts *d);

/*
 * Turn `id` leaves its place: its payload, the caller's until drafts_make, or NULL where it was not made ready.
 * Another turn that is kept there stays.
 */
struct str *drafts_take(struct drafts *d, uint64_t place, uint64_t id);
