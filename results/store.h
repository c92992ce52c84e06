/*
 * The result file: HDF5 (1.8's format), one writer. results/schema.md is the layout. Everything is
 * written once: /meta when the run starts, one group /steps/NNNN per finished step (flushed and
 * fsynced, then linked), /meta/ranks_after, /meta/steps and `complete` = 1 at the end. A run killed at
 * any time leaves a file that opens with any reader.
 *
 * /analysis is the one group that may be replaced. All calls on one store come from one thread
 * (rank 0's helper thread in a run).
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/err.h"
#include "results/gpus.h"
#include "results/record.h"

#define STORE_SCHEMA_NAME    "tidemark.run"
#define STORE_SCHEMA_VERSION "1.5.0" // readers accept the same major

struct json_t;
struct store;

/* One row of /meta/ranks. */
struct store_rank {
    int32_t rank;
    int32_t role;                   // 0 load, 1 worker
    int32_t replica, stage, tensor; // -1 for load ranks
    int32_t pid;
    char host[64];
    char cpuset[64];      // affinity in force, "0-1"
    char sched_class[32]; // of the main thread and of compute threads: "fifo/-", "other/idle"
    char kernels[16];     // that a worker computes with: "avx2"; empty for load ranks
    int64_t clock_offset_ns, clock_bound_ns;
};

/* What a run says of itself at its start. All borrowed; json in canonical form. */
struct store_run {
    char uuid[40];
    const char *name;
    int64_t created_unix_ns;     // wall clock
    int64_t t0_ns;               // rank 0's clock at t0: times in the file are relative to it
    const struct json_t *config; // resolved config: nested object, as opt_dump made it
    const struct json_t
        *provenance; // flat or nested object of strings and numbers (results/provenance.h)
    const struct json_t
        *dataset; // {source, filter, hash, entries, filtered{...}, input_tokens{...}, ...}
    const struct json_t *target; // {kind, model, backend, replicas, pipeline, tensor, server, ...}
    const struct store_rank *ranks; // (n_ranks)
    size_t n_ranks;
    const struct engine *engines; // (n_engines) of worker ranks, by rank
    size_t n_engines;
    const struct edge *edges; // (n_edges) between worker ranks, by sender
    size_t n_edges;
    const struct gpus_device *gpus; // (n_gpus) of the target, sampled
    size_t n_gpus;
};

/* ERR_INPUT when PATH exists (unless `force`), its folder does not, or cannot be written. */
int store_create(struct store **out, const char *path, bool force, const struct store_run *run,
                 struct err *e) ERR_CHECKED;
/* PATH.journal, the folder of the run's journal. Caller frees. */
char *store_journal_dir(const char *path);
/* Only the checks of store_create, without touching anything. */
int store_check_path(const char *path, bool force, bool resume, struct err *e) ERR_CHECKED;
/* ERR_INPUT: no such file, not HDF5, not ours, or from a newer schema (both versions named). */
int store_open(struct store **out, const char *path, bool writable, struct err *e) ERR_CHECKED;
void store_close(struct store *s);

/* --- steps ------------------------------------------------------------------------------------ */

#define STORE_MAX_PASSES  1000               // load.repeats
#define STORE_MAX_TIME_NS ((int64_t)1 << 60) // 36 years

struct step_info {
    uint32_t index;
    enum step_kind kind;
    double rate_rps; // 0 in a closed loop
    uint32_t users;  // closed loop; else 0
    uint64_t seed;
    int64_t t_begin_ns, t_warm_ns, t_end_ns, t_drain_ns; // since t0
    int64_t t_planned_ns; // end of the load as announced: the schedule reaches that far
    bool stopped_early;   // overloaded beyond doubt: t_end is before t_planned
    uint32_t repeat;      // pass over the rates, 0-based (load.repeats)
    uint64_t schedule_hash;
    uint64_t n_scheduled, n_filtered;
    double poll_gap_p50_ns, poll_gap_p99_ns; // worst load rank; NAN: not every load rank told
    double stamp_p50_ns, stamp_p99_ns;       // the same; NAN without sockets, too
    double chunk_p50_ns, chunk_p99_ns;       // the same
    double load_cpu_share; // CPU time of load ranks / their wall time; NAN as above
    bool recovered;        // folded by `recover`
    /* known once analysed: */
    enum verdict verdict;
    char reason[160];
    uint64_t n_late; // marked late, whole step
    double achieved_rps, offered_output_tokens_per_s, served_output_tokens_per_s;
};

/*
 * A request of the schedule, for ids that have no record (`recover`). t_sched_ns since t0;
 * outcome LOST is filled in by the fold.
 */
struct store_scheduled {
    uint64_t id;
    int64_t t_sched_ns;
    uint32_t n_in, n_out;
    uint16_t load_rank;
};

/*
 * Fold a step's journal into /steps/NNNN: columns sorted by id, token times CSR, spans, series.
 * `expected` (may be NULL) is the whole schedule: ids without a record get outcome `lost`. A
 * duplicate id keeps its first record. Memory: <= 200 bytes per record, never all token times.
 * The group stays unlinked, so the file does not have it yet; store_finish_step links it.
 */
int store_fold_step(struct store *s, const char *journal_path, const struct step_info *info,
                    int64_t t0_ns, const struct store_scheduled *expected, size_t n_expected,
                    struct err *e) ERR_CHECKED;
/* Write the verdict and the summary (JSON object of numbers per metric), flush, fsync, link. */
int store_finish_step(struct store *s, const struct step_info *info, const struct json_t *summary,
                      struct err *e) ERR_CHECKED;

/* --- reading ------------------------------------------------------------------------------------ */

/* One step in memory, without token times: columns of equal length n, sorted by id. */
struct step_data {
    struct step_info info;
    size_t n;
    struct record *records; // (n), times since t0
    uint32_t n_stages;
    /* (n, n_stages) up to the first / last token; NULL without stages, UINT32_MAX where missing */
    uint32_t *stage_us[2];
    size_t n_spans;
    struct span *spans; // (n_spans) by rank, then time
    size_t n_series;
    struct series_point *series; // (n_series) by time
    size_t n_gpus;
    struct gpus_sample *gpus; // (n_gpus) by time; none before schema 1.4
};

/* Complete steps, 0..n-1. Between fold and finish, index n reads the step just folded. */
size_t store_n_steps(const struct store *s);
int store_read_step(struct store *s, size_t index, struct step_data *d, struct err *e) ERR_CHECKED;
void step_data_free(struct step_data *d);

/*
 * Token times of records first..first+n-1: offsets (n + 1) into dt_us, malloc'd, caller frees both.
 * For record k the values are dt_us[offsets[k] .. offsets[k+1]).
 */
int store_read_tokens(struct store *s, size_t step_index, size_t first, size_t n,
                      uint64_t **offsets, uint32_t **dt_us, struct err *e) ERR_CHECKED;

/* What the run said of itself; json_decref by the caller. Ranks malloc'd. */
struct store_meta {
    char uuid[40];
    char *name;
    char created_utc[32];
    int64_t created_unix_ns, t0_ns;
    bool complete;
    char schema_version[16];
    struct json_t *config, *provenance, *dataset, *target;
    struct store_rank *ranks;       // (n_ranks)
    struct store_rank *ranks_after; // (n_ranks) clock offsets after the run; NULL when not complete
    size_t n_ranks;
    struct engine *engines; // (n_engines) of worker ranks, by rank; none in files before 1.3
    size_t n_engines;
    struct edge *edges; // (n_edges) between worker ranks; none in files before 1.5
    size_t n_edges;
    struct gpus_device *gpus; // (n_gpus) of the target, sampled; none in files before 1.4
    size_t n_gpus;
};
int store_read_meta(struct store *s, struct store_meta *m, struct err *e) ERR_CHECKED;
void store_meta_free(struct store_meta *m);

/* The run's end: clock offsets measured again, then complete = 1. */
int store_finish(struct store *s, const struct store_rank *ranks_after, size_t n_ranks,
                 struct err *e) ERR_CHECKED;
/* (Re)write /analysis: the report JSON as one text plus its main numbers as attributes. */
int store_write_analysis(struct store *s, const struct json_t *report, struct err *e) ERR_CHECKED;

/* Check a file against the schema: every finding is one line to `line`. 0 when it conforms. */
int store_validate(const char *path, void (*line)(void *arg, const char *text), void *arg,
                   int *n_findings, struct err *e) ERR_CHECKED;

const char *store_library(void); // "HDF5 1.10.8"
