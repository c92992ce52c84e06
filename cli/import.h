/*
 * Other tools' per-request results as a result file of ours, through the same fold and the same
 * judgement as a run's, so that everything downstream works on it.
 *
 * What such a file cannot have: a schedule. Requests count from their arrival at the client, so response
 * latency is service latency plus the wait at the client's own cap, and nothing says whether the client
 * kept up. The file says so in its provenance (`imported`), and every report of it in its notes.
 */
#pragma once

#include "core/err.h"
#include "results/store.h"

/* vLLM's JSON or JSONL, n_paths of them: each run in them becomes a step. Open for reading. */
int import_vllm(struct store **out, const char *const *paths, int n_paths, const char *to,
                bool force, struct err *e) ERR_CHECKED;
