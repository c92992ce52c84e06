/*
 * Log-probabilities in the shapes that the OpenAI API gives them: of completions as four lists of equal
 * length, of chats as a list of objects. Collected token by token; what was collected goes out together.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "core/str.h"
#include "model/tokenizer.h"
#include "model/wire.h"

struct openai_logprobs { // zeroed but for the first two: empty
    bool chat;
    const struct tokenizer *tokenizer; // NULL: ids stand as numbers
    struct str tokens, values, tops,
        offsets;    // JSON items, with commas between them; chats: tokens only
    int64_t offset; // characters before the next token
};
void openai_logprobs_free(struct openai_logprobs *l);

/* n_top: alternatives of l->top that are there. */
void openai_logprobs_add(struct openai_logprobs *p, const struct wire_logprobs *l);

/* The JSON of what was collected, and begin anew; false, and nothing appended, where that is nothing. */
bool openai_logprobs_put(struct openai_logprobs *p, struct str *out);

/* Append the text of a token. */
void openai_logprobs_text(const struct tokenizer *t, int32_t id, struct str *text);
