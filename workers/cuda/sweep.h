/*
 * Kernels that go through memory from front to back, 16 bytes a thread, several loads under way at once: what
 * bandwidth is measured by (gpu_ceilings.h). A stride of the whole grid lies between a thread's loads.
 *
 * Pointers are the device's and aligned to 16 bytes; sizes are multiples of 16. Queued on the stream; an error is
 * the stream's (cudaGetLastError).
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

struct CUstream_st;

/* Which shape is fastest depends on the device: all are tried. */
#define SWEEP_SHAPES 7
const char *sweep_shape_name(int shape); // "512 threads, 4 a processor, 4 loads"; static

/* Sums that sweep_read_queue leaves on a device of so many multiprocessors, at most. */
size_t sweep_max_sums(int n_processors);

/*
 * Read; each warp leaves the sum of the 32-bit words that it read, modulo 2^32, in sums. Returns how many
 * there are: together they are the sum of all words, each read once.
 */
size_t sweep_read_queue(int shape, int n_processors, const void *from, size_t n_bytes,
                        uint32_t *sums, struct CUstream_st *stream);

void sweep_copy_queue(int shape, int n_processors, void *to, const void *from, size_t n_bytes,
                      struct CUstream_st *stream);

/* Words of random bits where `random` has ones, and of `fixed` where it has none; by word and seed alone. */
void sweep_fill_queue(void *to, size_t n_bytes, uint32_t seed, uint32_t random, uint32_t fixed,
                      struct CUstream_st *stream);

#ifdef __cplusplus
}
#endif
