/*
 * The ranks of a run and what they say to each other. Two implementations: comm_self.c (one
 * process, complete) and comm_mpi*.c (the one owner of mpi.h).
 *
 * Everything here belongs to the main thread of a rank (MPI_THREAD_FUNNELED). Nothing blocks
 * without a deadline: waiting spins up to 50 us, then sleeps 50 us between tests, and keeps the
 * heartbeats going. Each failure names the rank.
 *
 * Three planes that never wait for each other:
 *   messages     comm_post / comm_poll: small, copied, in order per sender, dispatched by tag;
 *   bulk         comm_isend / comm_irecv / comm_test: the caller's own buffers (activations);
 *   heartbeats   inside, once comm_watch has armed them.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/err.h"

struct comm;

/* Whether a launcher (mpirun, srun --mpi=pmix) started this process: OMPI_COMM_WORLD_SIZE or PMIX_RANK. */
bool comm_launched(void);

/* The rank that the launcher gave this process, known before it joins; 0 where there is no launcher. */
int comm_launched_rank(void);

/*
 * Join the world. Launched processes get MPI, others comm_self. Call once, before anything else
 * that needs a rank; sets log_set_rank.
 */
int comm_open(struct comm **out, struct err *e) ERR_CHECKED;

/*
 * Leave the world after a successful run: all ranks must come here, and are waited for at most
 * 10 s. After a failure use comm_abort.
 */
void comm_close(struct comm *c);

/* End the whole job at once with this exit code; the line is logged once. Never returns. */
_Noreturn void comm_abort(struct comm *c, int exit_code, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

int comm_rank(const struct comm *c);
int comm_size(const struct comm *c);
const char *comm_host(const struct comm *c, int rank); // host name of a rank
int comm_pid(const struct comm *c, int rank);
int comm_ranks_on_this_host(const struct comm *c); // this rank included
int comm_index_on_this_host(const struct comm *c); // 0-based among them
bool comm_spins(const struct comm *c);             // while waiting; false: ranks here share cores
const char *comm_library(void);                    // "Open MPI 4.1.4" or "none (single process)"

/* --- messages ------------------------------------------------------------------------------- */

struct comm_msg {
    int src, tag;
    const void *data; // (n_bytes), 8-byte aligned; valid until the next comm_poll
    size_t n_bytes;
};

/*
 * Size the message plane: the largest message in bytes. Collective, once, before the first
 * post. Posting more than this is a bug.
 */
int comm_start(struct comm *c, size_t max_msg_bytes, struct err *e) ERR_CHECKED;

/* Send a copy of data to dst (oneself too). Returns at once. ERR_ENV when the peer's backlog is full. */
int comm_post(struct comm *c, int dst, int tag, const void *data, size_t n_bytes,
              struct err *e) ERR_CHECKED;

/* Next message in order of arrival: 1 with m filled, 0 when there is none, -1 on error or silence. */
int comm_poll(struct comm *c, struct comm_msg *m, struct err *e) ERR_CHECKED;

/* How many posted messages are still on their way out. */
int comm_unsent(struct comm *c);

/* --- bulk ----------------------------------------------------------------------------------- */

struct comm_req {
    void *handle; // NULL: nothing under way
    size_t n_bytes;
};

int comm_isend(struct comm *c, const void *buf, size_t n_bytes, int dst, int tag,
               struct comm_req *r, struct err *e) ERR_CHECKED;
int comm_irecv(struct comm *c, void *buf, size_t cap_bytes, int src, int tag, struct comm_req *r,
               struct err *e) ERR_CHECKED;
/* 1 when finished (n_bytes = what came), 0 not yet, -1 error. */
int comm_test(struct comm *c, struct comm_req *r, struct err *e) ERR_CHECKED;
/* Give up a pending receive. */
void comm_cancel(struct comm *c, struct comm_req *r);

/* --- waiting and liveness ------------------------------------------------------------------- */

/* Arm heartbeats: a rank not heard of for timeout_ns makes any later call fail with its name. */
int comm_watch(struct comm *c, int64_t timeout_ns, struct err *e) ERR_CHECKED;

/*
 * One turn of waiting: progress, heartbeats, then a pause that depends on how long nothing
 * happened (`idle_turns`, counted by the caller, 0 after each event). -1 when a rank is silent.
 */
int comm_pause(struct comm *c, int idle_turns, struct err *e) ERR_CHECKED;

/* --- collectives: all ranks, same order, each with a deadline --------------------------------- */

int comm_barrier(struct comm *c, int64_t timeout_ns, struct err *e) ERR_CHECKED;
int comm_bcast(struct comm *c, void *buf, size_t n_bytes, int root, struct err *e) ERR_CHECKED;
/* Rank 0 gets size() x n_bytes in `all`; others pass NULL. */
int comm_gather(struct comm *c, const void *mine, size_t n_bytes, void *all,
                struct err *e) ERR_CHECKED;

/*
 * Agree before anything collective: every rank passes its own state (e->code == 0: fine). When any
 * failed, all return -1 and all hold the error of the lowest failing rank.
 */
int comm_agree(struct comm *c, struct err *e) ERR_CHECKED;
