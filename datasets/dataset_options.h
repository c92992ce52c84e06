/*
 * The settings of what requests contain: `load.dataset`, lengths, what stands in front of prompts,
 * what repeats, and how long a user thinks between turns. Transparent; owned by the run's config.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "core/dist.h"
#include "core/opt.h"

enum dataset_filter {
    DATASET_FILTER_VLLM, // >= 2 turns; prompt, completion >= 4; prompt <= 1024; sum <= 2048
    DATASET_FILTER_INFERENCE_BENCHMARK, // >= 2 turns; each >= 4; each <= 1024
    DATASET_FILTER_FIRST_TURN,          // >= 1 human turn; output from the table or output_tokens
};

enum dataset_turns {
    DATASET_TURNS_FIRST, // one request a conversation, as the filter says
    DATASET_TURNS_MULTI, // every answered human turn, behind the whole history; no filter
};

enum dataset_mutate { // where in the preamble a mark stands that no other event has
    DATASET_MUTATE_NONE,
    DATASET_MUTATE_HEAD,
    DATASET_MUTATE_MIDDLE,
    DATASET_MUTATE_TAIL,
};

struct dataset_config {
    /* one source */
    char *source;             // "sharegpt", a path
    int filter;               // enum dataset_filter
    int turns;                // enum dataset_turns
    double time_scale;        // trace: 0.5 = twice as fast
    struct opt_window window; // trace: part of it, before scaling
    double weight;            // in a mix

    struct json_t *mix;        // several sources, each with keys as above; NULL: the one above
    bool use_cache;            // of token ids
    struct dist input, output; // forced lengths in tokens; unset: as the source says
    struct {
        int kind; // enum dist_kind
        int64_t mean_ns, sd_ns;
    } think; // between turns
    struct {
        int64_t groups, tokens;
        double share, zipf;
    } prefix; // tokens that the events of a group share
    struct {
        char *text; // NULL: none
        int mutate; // enum dataset_mutate
    } preamble;
    double repeat_share; // of events: the prompt of an earlier one again
};

/* Rows load.dataset.*, load.{input,output}_tokens, load.think, .prefix, .preamble, .repeat_share. */
extern const struct opt_table dataset_options;

/* Checks across rows. ERR_INPUT. */
int dataset_options_check(const struct dataset_config *c, struct err *e) ERR_CHECKED;

/* How many sources there are, and number i of them as a config of its own (a copy: free it). */
int dataset_options_n_sources(const struct dataset_config *c);
int dataset_options_source(const struct dataset_config *c, int i, struct dataset_config *out,
                           struct err *e) ERR_CHECKED;
void dataset_options_free(struct dataset_config *c);

/* "first-turn" */
const char *dataset_options_filter_name(int filter);
