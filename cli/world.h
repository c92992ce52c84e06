/*
 * A rank's place in the job and what it needs before the first request: config, layout, model,
 * heartbeats, and then weights (worker ranks) or tokenizer and dataset (load ranks), loaded in the
 * helper thread while the main thread keeps the comm alive. Shared by `run` and `generate`.
 */
#pragma once

#include <stdbool.h>

#include "cli/run_config.h"
#include "core/clocksync.h"
#include "core/comm.h"
#include "core/jobs.h"
#include "loadgen/identity.h"
#include "model/arch.h"
#include "model/layout.h"
#include "model/tokenizer.h"
#include "results/store.h"
#include "workers/worker.h"

struct world {
    struct comm *comm;
    struct run_config config;
    struct layout layout;
    struct arch arch;
    struct identity identity; // of an endpoint, as this load rank was told
    int rank;
    bool is_load;
    struct jobs *jobs;
    struct clocksync clock;
    struct tokenizer *tokenizer; // load ranks of models that have one
    struct dataset *dataset;     // load ranks
    struct worker *worker;       // worker ranks
    char auto_why[160]; // rank 0: why target.backend `auto` took the CPU; empty: it did not
    bool agreed;        // the last failure is known to all ranks: they may part in peace
};

/*
 * Join the job and agree on one config: rank 0's (`rc` and `e` are its result of reading it; others
 * pass 0). `config` is taken over. On failure every rank gets -1 with the same message.
 */
int world_open(struct world *w, struct run_config *config, int rc, struct err *e) ERR_CHECKED;

/* comm_agree, remembering in `agreed` that all ranks know of the failure. */
int world_agree(struct world *w, struct err *e) ERR_CHECKED;

/* Load weights or tokenizer and dataset, agree, and put all clocks on rank 0's. Collective. */
int world_load(struct world *w, bool with_dataset, struct err *e) ERR_CHECKED;

/* Run fn(arg) in the helper thread; the comm is kept alive meanwhile. -1: a rank is silent, or abort. */
int world_wait(struct world *w, void (*fn)(void *), void *arg, struct err *e) ERR_CHECKED;

/* Clock offsets anew, into w->clock: the stamps go on with those that world_load applied. Collective. */
int world_measure_clocks(struct world *w, struct err *e) ERR_CHECKED;

/* Every rank's row for the result file, with the clock offset in w->clock. Rank 0 gets them malloc'd. */
int world_ranks(struct world *w, struct store_rank **rows, struct err *e) ERR_CHECKED;

/* What every worker rank computes with, by rank, memory nodes included. Rank 0 gets them (n) malloc'd. Collective. */
int world_engines(struct world *w, struct engine **rows, size_t *n, struct err *e) ERR_CHECKED;

/* Rank 0, for a service without steps: all workers begin one step that nothing ends early, and later end it,
 * dropping what is under way, and go. */
int world_begin_service(struct world *w, struct err *e) ERR_CHECKED;
int world_end_service(struct world *w, struct err *e) ERR_CHECKED;

/* Wait for one message, alive and with a deadline: 1 with m filled, -1 on silence or deadline. */
int world_next_message(struct world *w, struct comm_msg *m, int64_t timeout_ns, const char *what,
                       struct err *e) ERR_CHECKED;

void world_close(struct world *w);

/*
 * The end of a failed job. When all ranks agreed on the failure they part, and rank 0 alone has said the message
 * by then (err_say_once); else this rank ends the job (never returns). The exit code.
 */
int world_fail(struct world *w, struct err *e);

/* "worker, replica 0 stage 1": for messages about a rank. */
const char *world_describe_rank(const struct layout *l, int rank, char *buf, size_t cap);
