/*
 * The bytes of OpenAI-compatible replies in the shape that vLLM gives them. What all events of one
 * stream share is made once, so that an event is three copies.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/str.h"

struct openai_reply {
    bool chat;
    bool chunked;         // each event is an HTTP chunk of its own
    struct str prefix;    // of an event: up to the choices, "data: " included
    struct str id, model; // as JSON: with quotes, escaped
    int64_t created_s;
};

struct openai_reply_usage {
    int64_t prompt_tokens, completion_tokens;
};

/* id: what follows "cmpl-" or "chatcmpl-". */
void openai_reply_init(struct openai_reply *r, bool chat, bool chunked, const char *id,
                       const char *model);
void openai_reply_free(struct openai_reply *r);

/* What a piece of a reply says beside its text. All may be NULL. */
struct openai_reply_more {
    const char *finish_reason; // NULL: it goes on
    const char *logprobs;      // as JSON
    const char *stop_reason;   // as JSON: the stop text or id that ended it
};

/* One SSE event with n bytes of text that needs no escapes. */
void openai_reply_put_event(const struct openai_reply *r, struct str *out, const char *text,
                            size_t n, const struct openai_reply_more *more);

/* The first event of a chat: a role, no text. */
void openai_reply_put_role(const struct openai_reply *r, struct str *out);

/* What ends a stream: usage (NULL: none), [DONE], and the last chunk. */
void openai_reply_put_end(const struct openai_reply *r, struct str *out,
                          const struct openai_reply_usage *usage);

/* The body of a reply that is not streamed. */
void openai_reply_put_whole(const struct openai_reply *r, struct str *out, const char *text,
                            size_t n, const struct openai_reply_more *more,
                            const struct openai_reply_usage *usage);

/* An error's body. */
void openai_reply_put_error(struct str *out, int status, const char *message);

/* Any text as a JSON string, with its quotes. */
void openai_reply_put_quoted(struct str *out, const char *text);
