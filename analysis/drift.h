/*
 * Whether the target drifted while it was measured: the last step of the first pass against the first one at
 * the same rate, where others were offered in between. Welch's test on the means over batches of TTFT, TPOT, and served over offered output
 * tokens (Welch 1947), at 1 % for the three together (Bonferroni), and only a change of more than 3 % counts:
 * with enough requests every target differs from itself. Pure.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "analysis/measure.h"
#include "results/store.h"

#define DRIFT_METRICS 3

struct drift_metric {
    const char *name;           // "ttft_ms", "tpot_ms", "served_share"
    double first, last, change; // change: last / first - 1
    bool is_significant;
};

struct drift {
    bool is_known;      // a rate was come back to
    size_t first, last; // positions of the two steps
    struct drift_metric metric[DRIFT_METRICS];
    bool is_significant; // any of them
};

/* All steps of the run in their order, (n) each. */
void drift_find(const struct step_info *info, const struct measure *m, size_t n, struct drift *out);
