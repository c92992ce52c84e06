/*
 * One NCCL communicator as a process uses it: one of a pipeline's edges, or a tensor-parallel group. No call of
 * this file waits for another rank, but those that say so, which have a deadline: whoever owns the communicator
 * looks again and again, and leaves when a rank has failed. NCCL itself watches nothing.
 *
 * What is queued is one of two:
 *   messages   on a stream of the communicator's own, beside what the GPU computes, in the order in which they
 *              are posted; what they carry must be there, or be free to be written, when they are posted, or by
 *              nccl_comm_after_gpu
 *   sums       on the GPU's stream, in the middle of a batch; in a graph, too, when all ranks record alike; such
 *              graphs are freed before the communicator ends, however that is, or it does not
 *
 * An error stays: every later call gives it again, and only nccl_comm_abort makes sense. One rank's error is no
 * other's: all must abort. One line says rank, GPU, what was under way, and NCCL's own words.
 *
 * One thread at a time, but nccl_comm_give_up.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/clock.h"
#include "core/err.h"
#include "model/arch.h"
#include "workers/cuda/nccl_library.h"

struct gpu;
struct nccl_comm;

/* For all ranks to meet, who begin with the first batch: half of what a stage waits for that one unless told otherwise
   (4 x deadline.batch). */
#define NCCL_COMM_MEETING_NS (60 * NS_PER_S)
#define NCCL_COMM_ENDING_NS  (10 * NS_PER_S) // for nccl_comm_end

enum {
    NCCL_COMM_DEPTH = 8, // messages that are not done
    NCCL_COMM_PARTS = 8, // of a message
};

/* --- before ------------------------------------------------------------------------------------- */

struct nccl_comm_place {
    int rank;
    const char *host, *pci; // of its GPU, as gpu_info has it
};

/*
 * Whether NCCL takes these ranks (n), known before it is asked. ERR_INPUT: two are on one GPU, which it refuses:
 * CUDA IPC or host memory goes there.
 */
int nccl_comm_check(const struct nccl_library *library, const struct nccl_comm_place *places, int n,
                    struct err *e) ERR_CHECKED;

/* One rank of a communicator makes its id; the caller brings it to the others. `rank` is for the message. */
int nccl_comm_make_id(const struct nccl_library *library, int rank, struct nccl_library_id *id,
                      struct err *e) ERR_CHECKED;

/* --- life --------------------------------------------------------------------------------------- */

struct nccl_comm_config {
    const struct nccl_library *library; // outlives it, as the GPU does
    struct gpu *gpu;
    const char *purpose; // for messages: "hidden states"; static
    const int *ranks;    // (size) of the world, for messages; copied
    int size, index;     // which of them this one is
    struct nccl_library_id id;
};

/* All its ranks must begin it; times are clock_local_ns. */
int nccl_comm_start(struct nccl_comm **out, const struct nccl_comm_config *cfg, int64_t deadline_ns,
                    struct err *e) ERR_CHECKED;
/* 1: it can be used, and so it stays; 0: not yet; -1: it failed, or the deadline has passed. */
int nccl_comm_ready(struct nccl_comm *c, struct err *e) ERR_CHECKED;

/* Make whoever uses it now, and waits, fail soon. Any thread. */
void nccl_comm_give_up(struct nccl_comm *c);

/*
 * End it: in order, when all ranks are done with it and nothing is under way; or by force, whatever is under way,
 * also after the other has failed. NCCL's last call may hang, so a thread makes it.
 */
void nccl_comm_finish(struct nccl_comm *c, int64_t deadline_ns);
void nccl_comm_abort(struct nccl_comm *c, int64_t deadline_ns);
/* 1: it has ended; 0: not yet; -1: it failed, or the deadline has passed. */
int nccl_comm_ended(struct nccl_comm *c, struct err *e) ERR_CHECKED;

/*
 * Forget it, when it has ended. False: it has not, so NCCL may still be at work on the device, whose memory stays
 * what it is: the process must end without gpu_close, or after gpu_leave_all. NULL is allowed.
 */
bool nccl_comm_close(struct nccl_comm *c) ERR_CHECKED;
/*
 * All of that, in order where it can be; waits for each of its calls so long at most. Where it has not ended then, the GPU
 * is left as it is (gpu_leave_all). NULL is allowed.
 */
void nccl_comm_end(struct nccl_comm *c, int64_t limit_ns);

/* --- messages ----------------------------------------------------------------------------------- */

/* To or from one rank. Both must say the same size. */
struct nccl_comm_part {
    bool is_send;
    int peer;     // index in the communicator
    void *buffer; // (n_bytes) on the device; of a send it is read only
    size_t n_bytes;
};

/* Fewer than NCCL_COMM_DEPTH messages are not done. */
bool nccl_comm_has_room(const struct nccl_comm *c);
/* Parts (n, up to NCCL_COMM_PARTS) that go at one time: of several none waits for another. */
int nccl_comm_post(struct nccl_comm *c, const struct nccl_comm_part *parts, int n,
                   int64_t deadline_ns, struct err *e) ERR_CHECKED;
/* What is posted from now on happens after all that is queued on the GPU's stream by now. */
int nccl_comm_after_gpu(struct nccl_comm *c, struct err *e) ERR_CHECKED;
/*
 * A turn: 1 once for each message that is done, in order; 0: the oldest is not; -1: an error, or its deadline has
 * passed. Also when there is none: that another rank is gone is seen here.
 */
int nccl_comm_turn(struct nccl_comm *c, struct err *e) ERR_CHECKED;
bool nccl_comm_is_quiet(const struct nccl_comm *c); // all are done

/* --- sums --------------------------------------------------------------------------------------- */

/*
 * Queue on the GPU's stream, and wait until NCCL has: each call starts a thread there, so what is queued often
 * belongs in a graph. All ranks queue the same in the same order.
 */
/* x (n) of F32 or BF16 becomes the sum of all ranks' x. */
int nccl_comm_sum(struct nccl_comm *c, void *x, size_t n, enum arch_dtype dtype,
                  int64_t deadline_ns, struct err *e) ERR_CHECKED;
/* all (size, n_bytes): what each rank has in `mine`, which may be its place in `all`. */
int nccl_comm_gather(struct nccl_comm *c, const void *mine, size_t n_bytes, void *all,
                     int64_t deadline_ns, struct err *e) ERR_CHECKED;

/* 1: all that was queued on the GPU's stream has happened; 0: not yet; -1: it, or NCCL, failed, or is late. */
int nccl_comm_watch(struct nccl_comm *c, int64_t deadline_ns, struct err *e) ERR_CHECKED;
/* Until it has happened. */
int nccl_comm_wait(struct nccl_comm *c, int64_t deadline_ns, struct err *e) ERR_CHECKED;
