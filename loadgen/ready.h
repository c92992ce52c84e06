/*
 * Requests made ready before they are due: what the client will send for each of the next events of
 * the schedule, in order. Made in the loop's idle time, so that making them is no part of the send
 * lag; bounded by count and bytes, so that it is never the whole run. Payloads keep their memory and go
 * round. Loop thread only.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "core/err.h"
#include "core/str.h"

struct ready_slot {
    struct str payload; // the client may take it and leave another one
    size_t n_bytes;     // of it when it was made
};

struct ready {
    struct ready_slot *slots; // (cap), a ring
    size_t cap, max_bytes;
    size_t first, n; // events first .. first + n - 1 are ready
    size_t n_bytes;  // of their payloads
};

/* Room for cap >= 1 events of the step that begins. ERR_ENV when memory is out. */
int ready_begin(struct ready *r, size_t cap, size_t max_bytes, struct err *e) ERR_CHECKED;
void ready_free(struct ready *r);

/* Whether one more may be made ready. */
bool ready_has_room(const struct ready *r);
/* The event whose turn it is, and where its payload goes (cleared): to be filled, then ready_done. */
struct str *ready_next(struct ready *r, size_t *event);
void ready_done(struct ready *r);

/* The payload of this event, or NULL: it was not made ready. */
struct str *ready_find(struct ready *r, size_t event);
/* Events up to and including this one have been sent. */
void ready_drop(struct ready *r, size_t event);
