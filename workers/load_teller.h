/*
 * A leader says how many tokens it has outstanding, so that load ranks can choose among replicas by their
 * whole load (model/routing.h). Each load rank knows its own; it is told the others' (WIRE_LOAD), as often
 * as keeps all messages of a leader to about 2,000 a second, and only when they have changed.
 */
#pragma once

#include <stdint.h>

#include "core/comm.h"
#include "core/err.h"
#include "model/layout.h"
#include "workers/sched.h"

struct load_teller {
    int n_load_ranks; // to be told; 0: nobody needs it
    uint32_t replica, step;
    int64_t period_ns, t_next_ns;
    uint64_t *told; // (n_load_ranks) tokens
};

/* Nobody is told where there is one load rank or one replica. */
void load_teller_init(struct load_teller *t, const struct layout *layout, int replica);
void load_teller_free(struct load_teller *t);

void load_teller_begin_step(struct load_teller *t, uint32_t step, int64_t now_ns);

/* Tell whom it is time to tell. `s` counts for all load ranks. */
int load_teller_turn(struct load_teller *t, struct comm *comm, const struct sched *s,
                     int64_t now_ns, struct err *e) ERR_CHECKED;
