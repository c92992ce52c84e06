#include "workers/load_teller.h"

#include "core/clock.h"
#include "core/mem.h"
#include "model/wire.h"

#include <stdlib.h>

#define LEAST_PERIOD_NS (5 * NS_PER_MS)
#define PER_RANK_NS     (NS_PER_MS / 2)

void load_teller_init(struct load_teller *t, const struct layout *layout, int replica)
{
    const bool is_needed = layout->load_ranks > 1 && layout->replicas > 1;
    const int64_t period_ns = layout->load_ranks * PER_RANK_NS;
    *t = (struct load_teller){
        .n_load_ranks = is_needed ? layout->load_ranks : 0,
        .replica = (uint32_t)replica,
        .period_ns = period_ns > LEAST_PERIOD_NS ? period_ns : LEAST_PERIOD_NS,
        .told = xcalloc((size_t)layout->load_ranks, sizeof *t->told),
    };
}

void load_teller_free(struct load_teller *t)
{
    free(t->told);
    *t = (struct load_teller){0};
}

void load_teller_begin_step(struct load_teller *t, uint32_t step, int64_t now_ns)
{
    t->step = step;
    t->t_next_ns = now_ns;
    for (int i = 0; i < t->n_load_ranks; i++) {
        t->told[i] = 0; // load ranks begin with none
    }
}

int load_teller_turn(struct load_teller *t, struct comm *comm, const struct sched *s,
                     int64_t now_ns, struct err *e)
{
    uint64_t all = 0;
    if (t->n_load_ranks == 0 || now_ns < t->t_next_ns) {
        return 0;
    }
    t->t_next_ns = now_ns + t->period_ns;
    for (int i = 0; i < t->n_load_ranks; i++) {
        all += sched_outstanding(s, i);
    }
    for (int i = 0; i < t->n_load_ranks; i++) {
        const struct wire_load load = {
            .step = t->step, .replica = t->replica, .n_tokens = all - sched_outstanding(s, i)};
        if (load.n_tokens == t->told[i]) {
            continue;
        }
        if (comm_post(comm, i, WIRE_LOAD, &load, sizeof load, e) != 0) {
            return -1;
        }
        t->told[i] = load.n_tokens;
    }
    return 0;
}
