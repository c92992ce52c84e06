/*
 * Token times of a stored step, piece by piece, so that they are never all in memory. Thread of the
 * store.
 */
#pragma once

#include "core/err.h"
#include "results/store.h"

/* Takes one record's token times, n of them: dt_us[0] = t_first - t_send, then gaps. */
typedef void step_tokens_take(void *arg, const struct record *r, const uint32_t *dt_us, size_t n);

/* Calls `take` for every record of the step, in order. */
int step_tokens_each(struct store *s, const struct step_data *d, step_tokens_take *take, void *arg,
                     struct err *e) ERR_CHECKED;
