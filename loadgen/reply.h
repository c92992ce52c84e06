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
