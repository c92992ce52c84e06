/*
 * Result files for tests of results/: a small run whose every number is a function of (step, id), so
 * that a test can say what must come back. Test code only.
 */
#pragma once

#include "results/store.h"

#define RUN_FILES_STAGES 2
#define RUN_FILES_T0_NS  ((int64_t)5000000000)

/* A record, its stage times (2, RUN_FILES_STAGES) and token times (n_out), malloc'd by the caller to
 * at least 64 values. Times are absolute. */
void run_files_record(uint32_t step, uint64_t id, struct record *r, uint32_t *stage_us,
                      uint32_t *dt_us);
struct step_info run_files_info(uint32_t step, uint64_t n);

/* A fresh folder below the test's working folder; caller frees. */
char *run_files_folder(const char *name);

struct store *run_files_create(const char *path);

/* Write the step's journal with n records in shuffled order, n spans, n samples. Path: caller frees. */
char *run_files_journal(const char *dir, uint32_t step, uint64_t n);

/* Journal, fold, finish. */
int run_files_step(struct store *s, const char *path, uint32_t step, uint64_t n, struct err *e);
