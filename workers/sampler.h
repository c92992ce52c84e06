/*
 * The choice of a token from one row of logits. Pure: the same logits, parameters and place in the
 * request give the same token, whatever else is computed beside it.
 *
 * A distribution is cut down in the order of Hugging Face transformers (generation/logits_process.py,
 * 5.x), with its rules:
 *
 *   temperature  p_i ~ exp(logit_i / temperature); 0 takes the largest logit, of equals the lowest id
 *   top_k        ids below the k-th largest logit go; ids equal to it all stay
 *   top_p        over what is left, likeliest first: ids that come when top_p is already reached go; of
 *                equals the lowest ids stay
 *   min_p        ids less likely than min_p times the likeliest go
 *
 * and what is left, in the order of ids, is drawn from by inversion with a number that is a function of
 * (seed, index of the token in the output) only (core/rng.h, RNG_SAMPLE). Weights are float32, sums
 * float64 in a fixed order. Log-probabilities are of the logits as they came: neither temperature nor
 * bounds change them (as in vLLM).
 *
 * Nothing is sorted: blocks of 64 logits are judged by their largest, thresholds are found by counting
 * bits of floats from the top.
 */
#pragma once

#include <stdint.h>

#include "core/err.h"
#include "model/wire.h"

/* One row's choice, as it is asked for and as it was made. */
struct sampler_job {
    uint32_t row;   // of the batch
    uint32_t index; // of the token in its request's output, from 0
    const struct wire_sampling *how;
    const int32_t *banned; // (n_banned) ids that may not be chosen; outside the vocabulary: ignored
    uint32_t n_banned;
    // filled in:
    int32_t id;
    float logprob; // where how->logprobs asks for it, as is the rest
    uint32_t n_top;
    struct wire_logprob top[WIRE_MAX_TOP]; // (n_top) likeliest first, of equals the lowest id
};

struct sampler_jobs {
    struct sampler_job *v; // (n) in the order of rows
    uint32_t n;
};

/* Working memory for one caller and rows of `vocab` logits. */
struct sampler;
int sampler_create(struct sampler **out, int vocab, struct err *e) ERR_CHECKED;
void sampler_destroy(struct sampler *s);

/* `logits` (vocab); those of banned ids are overwritten. NaN counts as no chance. */
void sampler_run(struct sampler *s, float *logits, struct sampler_job *job);

/* Whether parameters that another rank sent are in their ranges. `code` for the error. */
int sampler_check(const struct wire_sampling *how, enum err_code code, struct err *e) ERR_CHECKED;
