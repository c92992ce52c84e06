/*
 * The last stage's way out: sampled ids become token messages to the load ranks, one per (batch,
 * load rank). Ahead of a request's first and last token goes a trace, ahead of a token whose
 * log-probabilities are asked for these. Sized once; main thread.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "core/comm.h"
#include "core/err.h"
#include "model/arch.h"
#include "workers/batch.h"
#include "workers/choices.h"

struct emit;

/* lim: n_slots, n_load_ranks, max_rows and n_stages are used. `arch` is borrowed. */
int emit_create(struct emit **out, const struct batch_limits *lim, const struct arch *arch,
                struct err *e) ERR_CHECKED;
void emit_destroy(struct emit *m);

/* Largest message. */
size_t emit_max_message_bytes(const struct batch_limits *lim);

/* A batch whose stamps are all set; ids (n_rows), -1 where nothing was sampled; the rows' parameters. */
int emit_batch(struct emit *m, struct comm *comm, const struct batch *b, const int32_t *ids,
               const struct choices *choices, struct err *e) ERR_CHECKED;
