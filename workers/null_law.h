/*
 * When the tokens of a server that computes nothing are due: times are drawn, never worked for.
 * Draws are functions of (seed, request, token) alone.
 */
#pragma once

#include <stdint.h>

#include "workers/serve_config.h"

/* From the start of request number `request` to its first token. */
int64_t null_law_ttft_ns(const struct serve_config *c, uint64_t request);

/* From token `token` - 1 to token `token` (>= 1). */
int64_t null_law_gap_ns(const struct serve_config *c, uint64_t request, int64_t token);
