/*
 * What the steps of a run have said so far, kept for the search: analysis and loadgen do not know each
 * other, and this is where the findings of the one become the results of the other. Rank 0.
 */
#pragma once

#include "analysis/slo_sample.h"
#include "loadgen/search.h"
#include "results/store.h"

struct evidence_step;

struct evidence {                // zeroed: nothing yet
    struct evidence_step *steps; // (n), owned
    size_t n, n_allocated;
};

/* One more step, in the order of the run. */
void evidence_add(struct evidence *ev, const struct step_info *info,
                  const struct slo_sample *sample);

/* The last step as the search takes it: all steps at its rate in its pass decide together whether the
 * objectives hold. */
struct search_result evidence_result(const struct evidence *ev, double quantile);

/* Mean TTFT of the last step that was not overloaded; 0: there was none. */
double evidence_ttft_s(const struct evidence *ev);

void evidence_free(struct evidence *ev);
