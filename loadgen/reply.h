/*
 * What an OpenAI-compatible server says: one event of a stream, or a whole answer, scanned in one pass
 * without allocation. The shapes are those of OpenAI's API reference ("Completions", "Chat
 * completions") as vLLM, SGLang, TGI and llama.cpp send them:
 *
 *   {"choices": [{"text": T}]}                              completions
 *   {"choices": [{"delta": {"content": T}}]}                chat, streamed
 *   {"choices": [{"message": {"content": T}}]}              chat, whole
 *   reasoning as "reasoning_content" or "reasoning" beside "content"
 *   {"usage": {"prompt_tokens": N, "completion_tokens": N}} in the last event, or in all
 *   {"error": {"message": M}} or {"object": "error", "message": M}
 *
 * An event is a token's when it has text: one with only a role, an empty text or only usage is not.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/json_scan.h"

struct reply {
    struct json_text content, reasoning;      // as escaped in the JSON; len 0: none
    int64_t prompt_tokens, completion_tokens; // of its usage; -1: not said
    bool has_choice;
    bool is_finished; // a finish_reason is given
    bool is_done;     // the mark [DONE], nothing else
    bool is_error;
    struct json_text message; // of the error
};

/*
 * False when it is neither JSON of an object nor [DONE]. Choices other than the first are passed over,
 * and so is a token count that is no whole number.
 */
bool reply_scan(const char *text, size_t len, struct reply *out);

/*
 * The events of a stream are alike but for their text. A form is one event, to know the next one by: where
 * all bytes but those of its text are the same, so is what it says, and no more than its text is
 * looked at. Zeroed: fits nothing.
 */
#define REPLY_FORM_BYTES 1024

struct reply_form {
    char bytes[REPLY_FORM_BYTES];
    size_t n_before, n_after; // bytes before and behind the text
    struct reply reply;
    bool is_reasoning; // the text is
};

/* The same as reply_scan; `form` is what it knows others by, and becomes this one where that did not fit. */
bool reply_scan_like(struct reply_form *form, const char *text, size_t len, struct reply *out);
