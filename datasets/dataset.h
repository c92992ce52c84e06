/*
 * Where prompts come from. A dataset answers one question: what is event i of a step? The answer is
 * a pure function of (seed, i), so every rank can compute every event. Sources:
 *
 *   sharegpt (or quantile:sharegpt)  the published ShareGPT length table as a sampler (quantile.h)
 *   PATH.json                        ShareGPT conversations, filtered (sharegpt.c)
 *   PATH.csv                         Azure trace: arrival times and lengths (trace.c)
 *
 * What does not fit the context is filtered when the dataset is opened (or redrawn, for samplers)
 * and counted, never cut. Immutable once open.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/err.h"
#include "core/opt.h"
#include "datasets/prompt_text.h"
#include "model/tokenizer.h"

enum dataset_filter {
    DATASET_FILTER_VLLM, // >= 2 turns; prompt, completion >= 4; prompt <= 1024; sum <= 2048
    DATASET_FILTER_INFERENCE_BENCHMARK, // >= 2 turns; each >= 4; each <= 1024
    DATASET_FILTER_FIRST_TURN,          // >= 1 human turn; output from the table or output_tokens
};

struct dataset_config {
    char *source;             // "sharegpt", a path
    int filter;               // enum dataset_filter
    double time_scale;        // trace: 0.5 = twice as fast
    struct opt_window window; // trace: part of it, before scaling
    int64_t input_tokens;     // force every prompt length; 0: as the source says
    int64_t output_tokens;    // force every output length; 0: as the source says
};

/* Rows load.dataset.* and load.{input,output}_tokens over struct dataset_config. */
extern const struct opt_table dataset_options;

/* What prompts are made for. */
struct dataset_model {
    const struct tokenizer *tok; // NULL: only vocab and context are known; outlives the dataset
    int vocab;                   // bounds drawn ids
    int context;                 // bounds n_in + n_out
    bool may_estimate;           // without a tokenizer, a text is taken to have a token per 4 bytes
};

/* One request: what is asked, at one turn of its conversation. */
struct prompt {
    uint32_t n_in, n_out;
    uint64_t entry;         // index in the source
    uint32_t redrawn;       // draws that did not fit before this one
    uint32_t turn, n_turns; // of its conversation; 0 of 1 where there is none
    uint64_t conversation;  // 0: none
    int64_t think_ns;       // before this turn, after the reply to the one before
};

struct dataset_stats { // of one length over the kept entries (or 100,000 draws of a sampler)
    uint64_t n;
    double min, median, mean, p90, p99, max;
};

struct dataset;

/*
 * ERR_INPUT: missing file, not JSON, a bad line by number, text without a tokenizer (unless lengths
 * may be estimated), nothing left after filtering (with the counts).
 */
int dataset_open(struct dataset **out, const struct dataset_config *cfg,
                 const struct dataset_model *model, struct err *e) ERR_CHECKED;
void dataset_close(struct dataset *d);

/*
 * Turn `turn` of event i under this seed (turn 0 of sources without conversations): conversations
 * are walked in a seeded order without repetition until exhausted, then in another; traces in order
 * of time under every seed.
 */
void dataset_get(const struct dataset *d, uint64_t seed, uint64_t i, uint32_t turn,
                 struct prompt *p);

/*
 * The token ids (p->n_in) of what dataset_get said of event i: the dataset's own, or `scratch`
 * (p->n_in) filled. Pure like dataset_get; no allocation.
 */
const int32_t *dataset_ids(const struct dataset *d, uint64_t seed, uint64_t i,
                           const struct prompt *p, int32_t *scratch);

/*
 * The same prompt as text. Ids and text say the same words; where the ids are not known (no
 * tokenizer), n_in is about the text's length in tokens. Reuses out's memory: once that is large
 * enough, nothing is allocated.
 */
void dataset_text(const struct dataset *d, uint64_t seed, uint64_t i, const struct prompt *p,
                  struct prompt_text *out);

/*
 * Traces: number of arrivals and the time of each since the window's start, scaled. 0 / bug
 * otherwise.
 */
uint64_t dataset_n_arrivals(const struct dataset *d);
int64_t dataset_arrival_ns(const struct dataset *d, uint64_t i);

/* For the result file and `dataset stats`. New reference: {source, kind, filter, hash, entries,
 * filtered{reason: count}, input_tokens{min,median,mean,p90,p99,max}, output_tokens{..}, note}. */
struct json_t *dataset_describe(const struct dataset *d);
void dataset_lengths(const struct dataset *d, struct dataset_stats *in, struct dataset_stats *out);
