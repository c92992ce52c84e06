/*
 * The block tables of all scheduler slots on the device (workers/kv.h): a batch brings the entries that are
 * new, and only those are written.
 *
 * Queued on the stream; an error is the stream's (cudaGetLastError). All pointers are the device's.
 */
#pragma once

#ifdef __cplusplus
extern "C" {
#endif

#include <stdint.h>

struct CUstream_st;

struct tables_entry {
    uint32_t at, block;
};

struct tables_entries {
    uint32_t n;
    const struct tables_entry *v; // (n) no `at` twice
    uint32_t *tables;             // (n_slots, max_blocks)
};

void tables_queue(const struct tables_entries *e, struct CUstream_st *stream);

#ifdef __cplusplus
}
#endif
