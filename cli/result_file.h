/*
 * A result to be read: tidemark's own file (FILE.h5), or vLLM's results (FILE.json, FILE.jsonl), which
 * are imported into a file without a name that is gone when it is closed.
 */
#pragma once

#include "cli/run_config.h"
#include "results/store.h"

int result_file_open(struct store **out, const char *path, struct err *e) ERR_CHECKED;

/* Its configuration as the run had it, with these assignments on top. */
int result_file_config(struct store *s, struct run_config *c, const char *const *assignments,
                       int n_assignments, struct err *e) ERR_CHECKED;
