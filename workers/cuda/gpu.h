/*
 * One GPU as this process uses it: one stream in which everything happens in order, device memory that is
 * taken once, host memory that copies go through, and errors in one line that names rank, device, call and
 * size. An error after which the device does nothing more for this process (a kernel's fault, a device that
 * is gone) says so; what then closes the device cannot hang.
 *
 * Not for several threads at once; whoever calls may change between calls. A thread that queues kernels of its
 * own says gpu_use first.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/err.h"

struct CUstream_st;
struct gpu;

enum {
    GPU_PCI_CHARS = 16, // of a bus address
};

struct gpu_info {
    char name[256];
    int device, n_processors, capability; // capability: 90 for 9.0
    int shared_bytes;                     // of shared memory that a block may have
    int64_t bytes;                        // of its memory
    int driver, runtime;                  // versions as CUDA numbers them: 13000
    char pci[GPU_PCI_CHARS];              // bus address
};

/*
 * Whether there is a GPU that can be used: ERR_ENV-free look for `backend: auto` and `doctor`; `why` (cap) says
 * in a few words why not.
 */
bool gpu_is_there(char *why, size_t cap);
int gpu_count(void); // that this process sees; 0 also where nothing can be asked

/* The bus address of a device (cap); empty: there is no such one. */
void gpu_address(int device, char *pci, size_t cap);
/* Whether a device sees the memory of the one at an address, which may be itself; of one that is hidden from this process: so it is taken. */
bool gpu_reaches(int device, const char *pci);

/* Open a device. `rank` is for messages. ERR_INPUT: there is no such device, or no driver for it. */
int gpu_open(struct gpu **out, int device, int rank, struct err *e) ERR_CHECKED;
void gpu_close(struct gpu *g);

/* Make it the calling thread's device. Functions of this file do so themselves. */
int gpu_use(const struct gpu *g, struct err *e) ERR_CHECKED;

const struct gpu_info *gpu_info(const struct gpu *g);
int gpu_rank(const struct gpu *g); // that it was opened for
struct CUstream_st *gpu_stream(const struct gpu *g);

/* Bytes that can still be taken now. */
int gpu_free_bytes(const struct gpu *g, int64_t *n, struct err *e) ERR_CHECKED;

/*
 * Memory of the device, aligned to 256 bytes, its content undefined; given back by gpu_close. `what` is for the
 * message: "the KV cache". ERR_ENV when there is not enough.
 */
int gpu_take(struct gpu *g, size_t n_bytes, const char *what, void **out,
             struct err *e) ERR_CHECKED;
int64_t gpu_taken_bytes(const struct gpu *g);

/*
 * Host memory that the device copies from and to by itself; given back by gpu_close, or before by gpu_give_host,
 * when nothing that is queued uses it.
 */
int gpu_take_host(struct gpu *g, size_t n_bytes, const char *what, void **out,
                  struct err *e) ERR_CHECKED;
void gpu_give_host(struct gpu *g, void *p);
/* Likewise of gpu_take's; NULL is allowed. */
void gpu_give(struct gpu *g, void *p);
/* Such memory is not given back before the process ends: others may still have it open (gpu_ipc.h). */
void gpu_leave(struct gpu *g, void *p);
/*
 * From now on nothing is given back, by gpu_close neither: something may be at work on the device that does not end,
 * and every call that gives back would wait for it. Whoever has more of the device than this file knows leaves it, too.
 */
void gpu_leave_all(struct gpu *g);
bool gpu_is_left(const struct gpu *g);

/* Let the device copy from and to memory that someone else owns and frees after gpu_close. */
int gpu_register_host(struct gpu *g, void *p, size_t n_bytes, const char *what,
                      struct err *e) ERR_CHECKED;

/* Queued in order with everything else. Host memory is from gpu_take_host or gpu_register_host, and stays until then. */
int gpu_copy_in(struct gpu *g, void *device, const void *host, size_t n_bytes,
                struct err *e) ERR_CHECKED;
int gpu_copy_out(struct gpu *g, void *host, const void *device, size_t n_bytes,
                 struct err *e) ERR_CHECKED;
int gpu_copy_on(struct gpu *g, void *to, const void *from, size_t n_bytes,
                struct err *e) ERR_CHECKED; // from its memory to its memory
int gpu_clear(struct gpu *g, void *device, size_t n_bytes, struct err *e) ERR_CHECKED;

/* Put rank and device before an error that someone else has set; -1. */
int gpu_blame(const struct gpu *g, struct err *e);

/* Whether kernels queued since the last look could be launched; `what` names them. */
int gpu_launched(struct gpu *g, const char *what, struct err *e) ERR_CHECKED;

/* 1: all that was queued has happened; 0: not yet; -1: it failed. */
int gpu_poll(struct gpu *g, struct err *e) ERR_CHECKED;

/* Poll until it has, without sleep at first; ERR_ENV after `deadline_ns` (clock_local_ns): what was queued last. */
int gpu_wait(struct gpu *g, int64_t deadline_ns, struct err *e) ERR_CHECKED;

/* Around what is queued of one batch: how long the device was at it, known once gpu_poll says 1. */
int gpu_begin(struct gpu *g, struct err *e) ERR_CHECKED;
int gpu_end(struct gpu *g, struct err *e) ERR_CHECKED;
int gpu_busy_ns(struct gpu *g, int64_t *ns, struct err *e) ERR_CHECKED;

/*
 * Work that is queued again and again: what is queued between record and recorded does not happen, but is
 * kept, with the pointers and sizes it was queued with. `what` is for messages. gpu_graph_free before gpu_close.
 */
struct gpu_graph;
int gpu_graph_record(struct gpu *g, struct err *e) ERR_CHECKED;
int gpu_graph_recorded(struct gpu *g, const char *what, struct gpu_graph **out,
                       struct err *e) ERR_CHECKED;
/* Give up a recording that failed. */
void gpu_graph_abandon(struct gpu *g);
int gpu_graph_queue(struct gpu *g, const struct gpu_graph *graph, struct err *e) ERR_CHECKED;
void gpu_graph_free(struct gpu_graph *graph); // may be NULL
