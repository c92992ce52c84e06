/*
 * Arrival traces, one request a line, times rising. The format is told by the first line:
 *
 *   Azure/AzurePublicDataset (LLM inference traces 2023 and 2024): CSV with the header
 *       TIMESTAMP,ContextTokens,GeneratedTokens and dates
 *   HPMLL/BurstGPT: CSV with a header that has Timestamp (seconds), Request tokens and
 *       Response tokens; failed requests have 0 response tokens
 *   kvcache-ai/Mooncake: JSON lines {"timestamp": ms, "input_length": n, "output_length": n,
 *       "hash_ids": [...]}; ms may have a fraction; one id for every 512 tokens of input (blocks.h)
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/err.h"
#include "datasets/dataset_options.h"
#include "datasets/entries.h"
#include "datasets/lengths.h"

struct trace_input {
    const struct dataset_config *cfg;
    const struct lengths *in, *out;
    uint32_t context;
};

/*
 * Keep the requests of cfg->window ([from, to) since the first line's time) and scale their times.
 * The first bad line is ERR_INPUT as "WHERE:LINE: ...": a field that is no time or number, a time
 * before the line above. Empty last lines do not count. Requests without tokens, outside the window or over the context are
 * counted.
 */
int trace_parse(struct entries *out, const struct trace_input *in, const char *text, size_t len,
                const char *where, struct err *e) ERR_CHECKED;

/* Whether its lines are of a format with prefix blocks. */
bool trace_has_blocks(const char *text, size_t len);
