/*
 * Prompts of a trace with prefix blocks (Mooncake): block `name` is 512 tokens that are a function of
 * (trace, name) alone, the last one of a prompt cut to its length. So two prompts share exactly the
 * tokens that the trace says they share, under every seed. What a forced length asks for beyond the
 * blocks is the event's own.
 */
#pragma once

#include "datasets/source.h"

#define BLOCKS_TOKENS 512

const int32_t *blocks_ids(const struct source *s, uint64_t seed, uint64_t i, uint32_t turn,
                          uint32_t n, int32_t *scratch);
void blocks_text(const struct source *s, uint64_t seed, uint64_t i, uint32_t turn, uint32_t n,
                 struct prompt_text *out);
