/*
 * A source of conversations: prompts with text, from a file in ShareGPT's format (sharegpt.h), one
 * request each or turn by turn. Ids are prefixes of the entry's ids, text is the file's own bytes;
 * only where a length is forced are ids repeated and text made from them.
 */
#pragma once

#include "datasets/source.h"

int conversation_load(struct source *s, struct err *e) ERR_CHECKED;
void conversation_get(const struct source *s, uint64_t seed, uint64_t i, uint32_t turn,
                      struct prompt *p);
const int32_t *conversation_ids(const struct source *s, uint64_t seed, uint64_t i, uint32_t turn,
                                uint32_t n, int32_t *scratch);
void conversation_text(const struct source *s, uint64_t seed, uint64_t i, uint32_t turn, uint32_t n,
                       struct prompt_text *out);
const char *conversation_note(const struct source *s);
