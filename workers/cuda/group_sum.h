/*
 * Sums and gathers over the ranks of a tensor-parallel group, each with a GPU of its own or several on one, through
 * memory that all of them have open: kernels write what their rank brings into its own memory, wait for the
 * others' flags, and read the others' memory. Sums run in the order of the ranks, so all ranks have the same
 * bits; they do not depend on how it is done (all at once, or in two steps).
 *
 * All ranks queue the same calls in the same order. What is baked into a recorded launch never changes: the
 * number of a call is counted on the device, so recordings can be played again and mixed with other calls.
 *
 * No wait is for ever: when `limit_ns` is over, the kernel says in `late` for whom it waited and ends, and so does
 * every later one at once; results are nothing then.
 *
 * Two ranks on one GPU: without MPS their kernels take turns by slices of time, and one that waits keeps its
 * slice to the end, so each wait may cost one. That is for tests, and never for a measurement.
 *
 * Queued on the stream; an error is the stream's (cudaGetLastError). All pointers are the device's.
 */
#pragma once

#ifdef __cplusplus
extern "C" {
#endif

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct CUstream_st;

enum {
    GROUP_SUM_MOST = 8,     // ranks
    GROUP_SUM_BLOCKS = 32,  // of threads, in a large call; how many there should be is unmeasured
    GROUP_SUM_ALIGNED = 16, // bytes: what pointers are multiples of
};

/*
 * A rank's memory that the others have open; two buffers of max_bytes follow. `arrived` is written by the others:
 * how far each has come; the rest is this rank's own.
 */
struct group_sum_room {
    uint32_t arrived[GROUP_SUM_BLOCKS][GROUP_SUM_MOST];
    struct group_sum_room *rooms[GROUP_SUM_MOST]; // (size) where it sees all of them
    uint32_t n_calls;                             // so far
    uint32_t n_ended;                             // blocks of the call at hand that have
    uint32_t is_late;                             // a wait was given up
    uint32_t unused[13];                          // buffers begin at a multiple of 128
};

/* What a recording keeps. While `own->rooms` are NULL, calls do nothing: so a first batch runs before traffic. */
struct group_sum_ranks {
    int size, index;
    struct group_sum_room *own;
    size_t max_bytes; // a multiple of GROUP_SUM_ALIGNED
    uint64_t limit_ns;
    uint32_t *late; // memory of the host: 0, or 1 + whom was waited for
};

/* Bytes of a room and its buffers. */
static inline size_t group_sum_room_bytes(size_t max_bytes)
{
    return sizeof(struct group_sum_room) + 2 * max_bytes;
}

/* x (n) float32 becomes the sum of all ranks' x. In two steps each rank adds up one slice, and reads the others'. */
void group_sum_queue(const struct group_sum_ranks *ranks, float *x, int64_t n, bool in_two_steps,
                     struct CUstream_st *stream);

/* Columns of n_rows rows that each rank has some of, side by side. */
struct group_sum_columns {
    int n_rows, ld;            // of `all`
    int first[GROUP_SUM_MOST]; // (size) where a rank's columns begin
    int n[GROUP_SUM_MOST];     // (size) how many those are
    const float *mine;         // (n_rows, n[index])
    float *all;                // (n_rows, ld)
};
void group_sum_columns_queue(const struct group_sum_ranks *ranks,
                             const struct group_sum_columns *columns, struct CUstream_st *stream);

/* The same from parts that have been gathered: rank i's (n_rows, n[i]) from parts + i * each on; `mine` is not read. */
void group_sum_place_queue(const struct group_sum_columns *columns, int size, const float *parts,
                           int64_t each, struct CUstream_st *stream);

/* all (size, n_bytes): what each rank has in `mine`; faster where n_bytes is a multiple of 4, or 16. */
void group_sum_gather_queue(const struct group_sum_ranks *ranks, const void *mine, size_t n_bytes,
                            void *all, struct CUstream_st *stream);

#ifdef __cplusplus
}
#endif
