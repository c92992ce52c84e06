/*
 * Texts that end a reply, looked for in a text that comes piece by piece. What may be the beginning of
 * one is held back, so that no part of a stop text is ever shown; the one that is
 * complete first counts, however the text is cut into pieces. The text is UTF-8, and so is what is shown.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "core/str.h"

#define STOPS_MAX       4
#define STOPS_MAX_BYTES 256 // of each

struct stops {
    const char *texts[STOPS_MAX]; // (n) none empty; borrowed
    size_t n;
};

/* Zeroed: ready. */
struct stops_stream {
    struct str held;
    int hit; // 1 + index of the text that was found; 0: none yet
};
void stops_stream_free(struct stops_stream *t);

/*
 * Append to `out` what of the text so far is certain to be shown. True: it has ended before a stop text,
 * and nothing of what comes will be shown.
 */
bool stops_push(const struct stops *s, struct stops_stream *t, const char *text, size_t n,
                struct str *out);

/* The text ends: append what was held. */
void stops_finish(struct stops_stream *t, struct str *out);
