/*
 * All that the bytes of a connection say, as text, however they come in pieces: for tests of
 * core/http_answer.h.
 */
#pragma once

#include "core/http_answer.h"

struct answers { // zeroed
    struct http_answer a;
    struct str said; // a line for each answer; then "refused: ..." or how the connection may end
    struct str body; // of the answer under way
    bool is_refused;
};

/* The next piece; nothing after a refusal. */
void answers_take(struct answers *r, const char *bytes, size_t n);
/* The connection has ended. `said` stays. */
void answers_end(struct answers *r);
void answers_free(struct answers *r);
