/*
 * The JSON body of an OpenAI-compatible request (/v1/completions, /v1/chat/completions): what a
 * server must know to answer it. Members that it does not know are read over, as others do.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/err.h"

struct openai_request {
    char *model; // owned
    bool stream, include_usage;
    int64_t max_tokens; // 0: not given
    int64_t min_tokens; // 0: not given
    /* A prompt of ids has as many tokens; of a text, or of messages, each word (what blanks part)
       counts as one. */
    int64_t prompt_tokens;
};

/* ERR_INPUT with what is wrong, for a reply with status 400. */
int openai_request_parse(struct openai_request *r, bool chat, const char *body, size_t n,
                         struct err *e) ERR_CHECKED;
void openai_request_free(struct openai_request *r);
