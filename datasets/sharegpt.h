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
 * With `turns: multi` there is no filter but the context: every human turn that is answered is a
 * request, its prompt all messages up to it. What follows the first turn that does not fit is cut
 * off and counted.
 *
 * Lengths are tokens of the model's own tokenizer; a prompt's count has BOS in it, as sent, and so has that of the
 * completion of the two filters, as their tools count it. Without a tokenizer they are estimated from the bytes.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/err.h"
#include "datasets/dataset_options.h"
#include "datasets/entries.h"
#include "datasets/lengths.h"
#include "model/tokenizer.h"

#define SHAREGPT_BYTES_PER_TOKEN 4 // of English text in today's vocabularies, about

struct sharegpt_input {
    const struct dataset_config *cfg;
    const struct tokenizer *tok; // NULL: lengths are estimated, there are no ids
    const struct lengths *in, *out;
    uint32_t context;
    int n_threads;  // 0: one for each core that is ours
    bool is_mapped; // the text is a text_file's: what has been read need not stay in memory
};

/*
 * ERR_INPUT: not JSON (line and column), not a list of conversations (which one), nothing kept. The
 * entries are the same for any number of threads. Memory is that of the kept entries.
 */
int sharegpt_parse(struct entries *out, const struct sharegpt_input *in, const char *text,
                   size_t len, const char *where, struct err *e) ERR_CHECKED;

/* How many ids (BOS) the tokenizer puts in front of a prompt; 0 without one. */
uint32_t sharegpt_n_special(const struct tokenizer *tok);
