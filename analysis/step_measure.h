/*
 * A stored step measured: its token times read in pieces from the file. Thread of the store.
 */
#pragma once

#include "analysis/measure.h"
#include "core/err.h"
#include "results/store.h"

int step_measure(struct store *s, const struct step_data *d, const struct slo_config *slo,
                 struct measure *m, struct err *e) ERR_CHECKED;
