/*
 * The loop of a load rank: what is due is sent, what arrives is stamped, what has finished goes to
 * rank 0 within 250 ms. One thread (the rank's main thread) owns everything here.
 *
 * A step: plan (before it begins) -> wait for t_begin -> until t_end send each event at its time ->
 * until t_drain wait for the rest -> what is left is cancelled -> everything is posted to rank 0
 * (WIRE_JOURNAL), then WIRE_STEP_DONE.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "core/comm.h"
#include "core/err.h"
#include "datasets/dataset.h"
#include "loadgen/client.h"
#include "loadgen/load.h"
#include "model/layout.h"
#include "model/wire.h"

struct loop_hooks {
    void *arg;
    /* A message that is not the client's (rank 0: journals of others; all: WIRE_SHUTDOWN...). */
    int (*message)(void *arg, const struct comm_msg *m, struct err *e);
    /* Once per turn, cheap; -1 ends the step with the error. */
    int (*tick)(void *arg, int64_t now_ns, struct err *e);
    /* Last in a step, before rank 0 hears that this rank has sent it everything. May be NULL. */
    int (*end)(void *arg, struct err *e);
};

struct loop_live { // for the progress line, updated each turn
    uint64_t n_sent, n_done, n_ok;
    uint64_t n_in_flight;
};

struct loop;
struct hist;

/* Largest message that a loop posts to rank 0: for comm_start. context bounds n_in + n_out. */
size_t loop_max_message_bytes(int context);

/*
 * Sizes everything that can be sized; `context` is the one that the dataset was opened with. The
 * client's slots come from the loop (loop_live_table).
 */
int loop_create(struct loop **out, struct comm *comm, const struct layout *layout,
                const struct load_config *cfg, const struct dataset *ds, int context,
                struct loop_hooks hooks, struct err *e) ERR_CHECKED;

/* Plan the step: slow (all events), may run in a helper thread before loop_run_step. */
int loop_plan_step(struct loop *l, const struct wire_step *step, struct err *e) ERR_CHECKED;
/* -1: a peer or a hook failed; the loop is then good for loop_destroy only. */
int loop_run_step(struct loop *l, struct client *client, struct err *e) ERR_CHECKED;
/* From a hook: end the step now. What is in flight or was never sent ends as cancelled. */
void loop_stop(struct loop *l);

/* From a hook: the load ends at t_end_ns already, sooner than planned; what is due from then on is not
 * offered and leaves no record. */
void loop_end_at(struct loop *l, int64_t t_end_ns, int64_t t_drain_ns);

/* Requests of this rank that are due and have no first token yet. Walks over all that are in flight. */
uint64_t loop_waiting(const struct loop *l, int64_t now_ns);

const struct loop_live *loop_live(const struct loop *l);
const struct hist *loop_ttft(const struct loop *l); // us since due, own requests of this step
struct live_table *loop_live_table(struct loop *l); // for clients: ticket -> live request

/*
 * Ask for SCHED_FIFO, priority 1, or give it back: what is in force afterwards. With it the loop is
 * woken within tens of microseconds even where others keep every core busy (pace.h has how it waits). Threads created later inherit it: start helpers first.
 */
bool loop_realtime(bool want);

void loop_destroy(struct loop *l);
