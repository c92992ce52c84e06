/*
 * The keeper of the result file on rank 0: journal, HDF5 and judging, all in the helper thread, in
 * order. The main thread hands it work and never waits for the disk inside a step; the first
 * failure is kept and shows in keeper_check. Between keeper_open and keeper_finish a NULL keeper keeps
 * nothing and never fails: a dry run.
 */
#pragma once

#include "cli/world.h"
#include "model/wire.h"
#include "results/journal.h"

struct keeper;

/* ERR_INPUT: the file is complete, or was begun with another config. Does not touch it. */
int keeper_check_resume(const struct run_config *c, struct err *e) ERR_CHECKED;

/* Create the result file, or open it to go on with it (`resume`). Waits, the comm alive. */
int keeper_open(struct keeper **out, struct world *w, const struct store_run *run, bool force,
                bool resume, struct err *e) ERR_CHECKED;

struct store *keeper_store(struct keeper *k); // only while the helper has nothing to do
int64_t keeper_t0_ns(const struct keeper *k);

/* A step begins: its journal, with the announcement as first entry. */
void keeper_begin_step(struct keeper *k, const struct wire_step *step);
/* Append to the step's journal; the bytes are copied. */
void keeper_append(struct keeper *k, enum journal_kind kind, const void *bytes, size_t n_bytes);
/* The step is over: fsync, fold, judge, finish. Waits, the comm alive; fills info and sample. */
int keeper_end_step(struct keeper *k, struct step_info *info, struct slo_sample *sample,
                    struct err *e) ERR_CHECKED;
/* The run is cut short: what was handed over is written and fsynced, as far as 0.7 s go. */
void keeper_abandon(struct keeper *k);

/* -1 when something in the helper has failed. */
int keeper_check(struct keeper *k, struct err *e) ERR_CHECKED;

/* Clock offsets after the run, complete = 1; builds the report and keeps it in the file. */
struct json_t;
int keeper_finish(struct keeper *k, const struct store_rank *ranks_after, bool complete,
                  struct json_t **report, struct err *e) ERR_CHECKED;
void keeper_destroy(struct keeper *k);
