/*
 * The text that a chat is for a model: its messages in the form that the model was trained on, up to where
 * the assistant's turn begins. Which form that is follows from the special tokens in the vocabulary: the
 * template language of tokenizer_config.json is not spoken here.
 *
 *   <|im_start|>         ChatML (Qwen)
 *   <|start_header_id|>  Llama 3
 *   <start_of_turn>      Gemma; a system message goes ahead of the first turn's text
 *   none of these        lines of "role: text"
 */
#pragma once

#include <stddef.h>

#include "core/str.h"
#include "model/tokenizer.h"

enum chat_form {
    CHAT_LINES,
    CHAT_CHATML,
    CHAT_LLAMA3,
    CHAT_GEMMA,
};

/* `t` may be NULL. */
enum chat_form chat_form_of(const struct tokenizer *t);

/* Append one message, and at last what opens the answer. `held`: a system text that waits for its turn. */
void chat_put_message(enum chat_form form, const char *role, const char *text, struct str *held,
                      struct str *out);
void chat_put_opening(enum chat_form form, struct str *out);
