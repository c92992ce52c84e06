/*
 * The JSON body of an OpenAI-compatible request (/v1/completions, /v1/chat/completions): what a
 * server must know to answer it. Members that it does not know are read over, as others do; those that
 * would change the answer and are not served are refused. docs/serving.md lists them all.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/err.h"
#include "model/stops.h"
#include "model/wire.h"

struct json_t;

struct openai_request {
    struct json_t *body; // owned; what points into it lives as long
    const char *model;
    bool chat, stream, include_usage;
    int64_t max_tokens; // 0: not given
    int64_t min_tokens; // 0: not given
    bool ignore_eos;
    /* seed is 0 without has_seed; min_out is min_tokens */
    struct wire_sampling sampling;
    bool has_seed;
    struct stops stops;
    const struct json_t *messages; // of a chat: checked
    const struct json_t *prompt;   // else: a string, or a list of whole numbers
    /* A prompt of ids has as many tokens; of a text, or of messages, each word (what blanks part)
       counts as one. */
    int64_t prompt_tokens;
};

/* ERR_INPUT with what is wrong, for a reply with status 400. */
int openai_request_parse(struct openai_request *r, bool chat, const char *body, size_t n,
                         struct err *e) ERR_CHECKED;
void openai_request_free(struct openai_request *r);
