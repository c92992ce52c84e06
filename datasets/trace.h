/*
 * Arrival traces in the format of Azure/AzurePublicDataset (LLM inference traces 2023 and 2024):
 * CSV with the header TIMESTAMP,ContextTokens,GeneratedTokens and one request a line, times rising.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "core/err.h"
#include "datasets/dataset.h"
#include "datasets/entries.h"

/*
 * Keep the requests of cfg->window ([from, to) since the first line's time) and scale their times.
 * The first bad line is ERR_INPUT as "WHERE:LINE: ...": a field that is no time or number, a time
 * before the line above. Requests without tokens, outside the window or over the context are
 * counted.
 */
int trace_parse(struct entries *out, const struct dataset_config *cfg, uint32_t context,
                const char *text, size_t len, const char *where, struct err *e) ERR_CHECKED;
