/*
 * The events of a stream are alike but for their text. A form is one event, to know the next one by: where
 * all its bytes are the same but those of its text, it says the same but for that, and neither its
 * lines nor its JSON need be looked for. It holds events that are one data line,
 *
 *   data: {"id":"1","choices":[{"text":" tide","finish_reason":null}]}\n\n
 *   [------------- before ------------]     [-------- after ---------]
 *
 * whose text is not empty and has no escape. All others go their way through sse_feed and reply_scan.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "loadgen/reply.h"

#define EVENT_FORM_BYTES 1024

struct event_form { // zeroed: fits nothing
    char bytes[EVENT_FORM_BYTES];
    size_t n_before, n_after;
    bool is_reasoning; // the text is
    struct reply reply;
};

/* Whether an event that fits begins at `at`, between two events of a stream: its bytes, and what it says, as
 * reply_scan would say of its data. 0: none. */
size_t event_form_match(const struct event_form *f, const char *at, const char *end,
                        struct reply *out);

/* Know others by this one: the data of an event, and what reply_scan said of it. */
void event_form_learn(struct event_form *f, const char *data, size_t len, const struct reply *r);
