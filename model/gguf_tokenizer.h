/*
 * The tokenizer in a GGUF file's metadata ("tokenizer.ggml.*"), as struct tokenizer has it. Two kinds:
 *
 *   llama  SentencePiece BPE: of all adjacent pairs that are a token together, the one of the best
 *          score is joined, leftmost first among equals (Kudo & Richardson 2018, "SentencePiece").
 *          Merges with ranks say the same: one for each way to part a token in two, its rank the
 *          place of the token's score.
 *   gpt2   byte-level BPE with merges; tokenizer.ggml.pre names how text is cut into words.
 *
 * Control and user-defined tokens are found in the text as given, each text between them begins with
 * a space where add_space_prefix says so, and unused ones are no tokens. A chat's form follows from
 * the vocabulary (model/chat.h), not from tokenizer.chat_template.
 */
#pragma once

#include <stdbool.h>

#include "core/err.h"
#include "model/gguf.h"

struct tokenizer;

/* Whether the file carries a tokenizer at all. */
bool gguf_tokenizer_is_there(const struct gguf *g);

/* ERR_INPUT: a kind or a way of cutting that is not supported (named), keys that are missing or unsound. */
int gguf_tokenizer_read(struct tokenizer **out, const struct gguf *g, int vocab,
                        struct err *e) ERR_CHECKED;
