/*
 * `tidemark model inspect CONFIG.yaml`: whether a run's workers fit their GPUs. By stage what the rank with the least
 * room takes of its GPU's memory (workers/rank_memory.h), and the KV pool that the run would find. ERR_INPUT, behind
 * the table, where one does not fit. JSON: schema tidemark.fit/1.
 */
#pragma once

#include <stdbool.h>

#include "core/err.h"

struct inspect_run_options {
    const char *config;
    const char *const *assignments; // key=value (n_assignments)
    int n_assignments;
    const char *hardware; // by name; NULL: memory_bytes says it
    double memory_bytes;  // of a GPU; 0: the hardware's
    bool json;
};

/* A file whose name ends so is a run's config, not a model. */
bool inspect_run_is_config(const char *name);

int inspect_run_print(const struct inspect_run_options *o, struct err *e) ERR_CHECKED;
