/*
 * What the last stage knows of requests that are not greedy: their parameters by scheduler slot, from
 * the batch that begins a request to the next one that does in that slot, and the sampler's jobs of
 * the batch at hand. Sized once; main thread. Batches of greedy requests pass by.
 */
#pragma once

#include "core/err.h"
#include "model/arch.h"
#include "workers/batch.h"
#include "workers/sampler.h"

struct choices;

/* lim: n_slots and max_rows are used. `arch` is borrowed. */
int choices_create(struct choices **out, const struct batch_limits *lim, const struct arch *arch,
                   struct err *e) ERR_CHECKED;
void choices_destroy(struct choices *c);

/* Take what a batch begins, and make the jobs of its rows. Only one batch is at hand at a time. */
void choices_apply(struct choices *c, const struct batch *b);
const struct sampler_jobs *choices_jobs(const struct choices *c);

/* The parameters of a slot's request; NULL: greedy. */
const struct wire_sampling *choices_how(const struct choices *c, uint32_t slot);
