/*
 * A prompt as text, ready to be put into a request body: the contents of its messages end to end,
 * each escaped as the inside of a JSON string (UTF-8, without the quotes), with role and end of each.
 * A zeroed one is empty; it is filled again and again without allocating once it is large enough.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "core/str.h"

enum prompt_role {
    PROMPT_SYSTEM,
    PROMPT_USER,
    PROMPT_ASSISTANT,
};

struct prompt_part { // a message: from the end of the one before it
    uint8_t role;    // enum prompt_role
    size_t end;      // into json
};

struct prompt_text {
    struct str json;
    struct prompt_part *parts; // (n)
    size_t n, cap;
    struct str plain; // scratch of whoever fills it
};

void prompt_text_clear(struct prompt_text *t); // keeps the memory
void prompt_text_free(struct prompt_text *t);

/* What was appended to json since the last part is a message, or more of one of the same role. */
void prompt_text_end(struct prompt_text *t, enum prompt_role role);
