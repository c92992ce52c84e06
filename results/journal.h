/*
 * The journal: FILE.h5.journal/ beside the result file, on rank 0. Everything that finishes inside
 * a step is appended with write(2) within 250 ms, so the death of a process loses nothing that
 * finished more than 1 s before; fsync at the end of the step. At the end of a step the journal is
 * folded into the step's HDF5 group and removed: the normal end, `recover` and --resume share that path.
 *
 * One file per step, "step_0003.journal": entries of {magic, kind, n_bytes, xxh32 of payload}
 * + payload, 8-byte aligned. The first entry is JOURNAL_STEP. A torn last entry is cut off when read.
 * Writer: the helper thread of rank 0 only.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/err.h"

enum journal_kind {
    JOURNAL_STEP = 1, // struct wire_step bytes: what was announced
    JOURNAL_RECORDS,  // encoded records, each padded to 8 bytes
    JOURNAL_SPANS,    // struct span[]
    JOURNAL_SERIES,   // struct series_point[]
    JOURNAL_DONE,     // struct wire_step_done bytes with the rank before it: {int32 rank, pad, ...}
    JOURNAL_STOP,     // struct wire_step_stop bytes: the load ended sooner than announced
    JOURNAL_GPUS,     // struct gpus_sample[]
    JOURNAL_KIND_END, // behind the last
};

struct journal; // open for appending

/* Create DIR (if need be) and its file for this step. ERR_ENV with path and reason. */
int journal_create(struct journal **out, const char *dir, uint32_t step, struct err *e) ERR_CHECKED;
int journal_append(struct journal *j, enum journal_kind kind, const void *payload, size_t n_bytes,
                   struct err *e) ERR_CHECKED;
int journal_sync(struct journal *j, struct err *e) ERR_CHECKED;
void journal_close(struct journal *j);

/* --- reading: bytes from outside, checked -------------------------------------------------------- */

struct journal_entry {
    enum journal_kind kind;
    const uint8_t *payload; // (n_bytes), 8-byte aligned, valid until the next call
    size_t n_bytes;
    uint64_t file_offset; // of the payload
};

struct journal_reader;
int journal_open(struct journal_reader **out, const char *path, struct err *e) ERR_CHECKED;
/* 1 entry, 0 end (`torn` says whether bytes were cut off), -1 the file cannot be read. */
int journal_next(struct journal_reader *r, struct journal_entry *entry, struct err *e) ERR_CHECKED;
bool journal_torn(const struct journal_reader *r);
/* Read payload bytes again, anywhere. */
int journal_pread(struct journal_reader *r, uint64_t file_offset, void *buf, size_t n_bytes,
                  struct err *e) ERR_CHECKED;
void journal_reader_close(struct journal_reader *r);

/* Path of a step's file under DIR (caller frees), and removal of a folded step / an empty folder. */
char *journal_path(const char *dir, uint32_t step);
void journal_remove(const char *dir, uint32_t step);

/* Steps that have a file under DIR, ascending: what a killed run left. Caller frees; a missing
 * folder has none. */
int journal_list(const char *dir, uint32_t **steps, size_t *n_steps, struct err *e) ERR_CHECKED;
