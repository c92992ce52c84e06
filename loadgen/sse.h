/*
 * Server-sent events out of a stream of bytes (WHATWG HTML, "Server-sent events", parsing an event
 * stream): lines end in CRLF, LF or CR, a byte order mark may lead, comments and unknown fields are
 * passed over, several data lines make one event, an empty line ends it. However the bytes are split,
 * the same events come out. An event that lies whole in what was fed is handed over where it lies.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "core/str.h"

/* One event's data, valid until the call returns. */
typedef void sse_event_fn(void *arg, const char *data, size_t len);

struct sse {           // zeroed: at the beginning of a stream
    struct str line;   // the beginning of a line that is not over
    struct str data;   // of the event so far, when it is not in one piece
    const char *whole; // of the event so far, when it is one line inside of what is being fed
    size_t whole_len;
    bool has_data;    // a data line of this event was seen
    bool after_cr;    // the last line ended in CR: an LF right behind it belongs to it
    bool is_begun;    // past where a byte order mark may be
    size_t max_bytes; // of a line, and of an event's data; 0: no limit
};

/* 0, or -1 when a line or an event is longer than max_bytes: the stream is then good for nothing. */
int sse_feed(struct sse *s, const char *bytes, size_t n, sse_event_fn *fn, void *arg);
/* The stream has ended: an event that lacks only its empty line still counts. */
int sse_end(struct sse *s, sse_event_fn *fn, void *arg);
/* Whether what is fed next is the first byte of a line that begins an event. */
bool sse_is_between(const struct sse *s);
/* Ready for another stream; memory and limit stay. */
void sse_reset(struct sse *s);
void sse_free(struct sse *s);
