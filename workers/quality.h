/*
 * How far one form of a model is from another, by what both say of the same text: the distributions of
 * the next token at the same positions. Pure.
 *
 *   surprise      -ln q(token that follows)
 *   perplexity    exp(mean surprise)
 *   ratio         perplexity over the baseline's: exp(mean of the differences of surprise)
 *   KL            sum over the vocabulary of p (ln p - ln q), p the baseline's; in nats, 0 where equal
 *   same top      share of positions where both have the same likeliest token, of equals the lowest id
 *
 * Definitions and standard errors are those of llama.cpp's tools/perplexity (2025): sd / sqrt(n) of
 * positions taken as independent, carried through exp by its slope; of the share sqrt(s (1 - s) / (n - 1)).
 * The ratio's is of the differences, which share what is hard in the text, so that it is far smaller than
 * that of either perplexity. Percentiles lie linearly between order statistics.
 *
 * Logarithms and sums are float64 over logits of float32: the same logits give exactly 0 and 1, and a
 * divergence from 1e-12 on is right to several digits.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "core/err.h"

/* One position, seen by baseline and model. */
struct quality_position {
    double base_surprise, surprise; // nats
    double kl;                      // nats, >= 0
    int32_t base_top, top;          // ids
};

struct quality_estimate {
    double value, se;
};

struct quality_summary {
    size_t n; // positions
    struct quality_estimate perplexity, ratio, kl, same_top;
    double kl_p99, kl_max;
};

/*
 * Two rows of logits (vocab) of the position before the token `next`. NaN among them, or no finite one,
 * gives NaN.
 */
struct quality_position quality_compare(const float *base, const float *logits, int vocab,
                                        int32_t next);

/* Of n >= 1 positions; standard errors from 2 on, else NaN. */
int quality_summarise(const struct quality_position *positions, size_t n,
                      struct quality_summary *out, struct err *e) ERR_CHECKED;
