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

#include <stddef.h>
#include <stdint.h>

#include "core/err.h"
#include "core/opt.h"
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

/* One event's content. */
struct prompt {
    uint32_t n_in, n_out;
    const int32_t *ids; // (n_in) when the source has text; NULL: dataset_draw_ids makes them
    uint64_t entry;     // index in the source
    uint32_t redrawn;   // draws that did not fit before this one
};

struct dataset_stats { // of one length over the kept entries (or 100,000 draws of a sampler)
    uint64_t n;
    double min, median, mean, p90, p99, max;
};

struct dataset;

/*
 * tok may be NULL for sources with lengths only (ERR_INPUT for a text source then). vocab bounds
 * drawn ids, context bounds n_in + n_out. ERR_INPUT: missing file, not JSON, a bad line by number,
 * nothing left after filtering (with the counts).
 */
int dataset_open(struct dataset **out, const struct dataset_config *cfg,
                 const struct tokenizer *tok, int vocab, int context, struct err *e) ERR_CHECKED;
void dataset_close(struct dataset *d);

/*
 * Event i under this seed: conversations are walked in a seeded order without repetition until
 * exhausted, then in another; traces in order of time under every seed.
 */
void dataset_get(const struct dataset *d, uint64_t seed, uint64_t i, struct prompt *p);

/* The ids of an event whose prompt has none: uniform over ordinary ids, f(seed, i) only. */
void dataset_draw_ids(const struct dataset *d, uint64_t seed, uint64_t i, uint32_t n_in,
                      int32_t *ids /* (n_in) */);

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
