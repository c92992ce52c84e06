/*
 * Conversations in ShareGPT's JSON: [{"conversations": [{"from": ROLE, "value": TEXT}, ...]}, ...]
 * ("conversation", "role" and "content" are taken too). The filters are those of other load
 * generators, so that results can be compared:
 *
 *   vllm                 vllm-project/vllm, vllm/benchmarks/datasets.py: turns 0 and 1 are prompt
 *                        and completion, each >= 4 tokens, prompt <= 1024, sum <= 2048; a forced
 *                        output length has no minimum
 *   inference-benchmark  AI-Hypercomputer/inference-benchmark: these two turns, each 4..1024 tokens
 *   first-turn           the first human turn; the output length is drawn for each event
 *
 * Lengths are tokens of the model's own tokenizer; the prompt's count has BOS in it, as sent.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "core/err.h"
#include "datasets/dataset.h"
#include "datasets/entries.h"

/*
 * ERR_INPUT: not JSON (line and column), not a list of conversations (which one), nothing kept. The
 * text is parsed one conversation at a time: memory is that of the kept token ids.
 */
int sharegpt_parse(struct entries *out, const struct dataset_config *cfg,
                   const struct tokenizer *tok, uint32_t context, const char *text, size_t len,
                   const char *where, struct err *e) ERR_CHECKED;
