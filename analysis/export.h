/*
 * A result file in the formats of other tools. Every figure is worked out anew from the raw records
 * by the definition of the tool whose format it is: the same request has another TPOT in guidellm
 * than in vLLM. The head of each export_*.c says which figure is which.
 *
 *   vllm            vllm/stepNNNN.json                 one object per step, as `vllm bench serve
 *                                                      --save-result --save-detailed` writes it
 *   inference-perf  inference-perf/..._lifecycle_metrics.json  stages, summary and requests
 *   guidellm        guidellm/benchmarks.json           one benchmark per step
 *   br0.2           br0.2/stepNNNN.json                llm-d Benchmark Report v0.2, one per step
 *   csv             csv/steps.csv                      tidemark's own figures, one row per step
 *   requests-csv    requests-csv/requests.csv          one row per request
 *
 * Peers know no warm-up by default: but for guidellm, br0.2 and csv, which say so, figures are of the
 * whole step. Thread of the store.
 */
#pragma once

#include <stdbool.h>
#include <stdio.h>

#include "analysis/step.h"
#include "core/err.h"
#include "results/store.h"

struct export_run {
    struct store *store;
    struct store_meta meta; // owned by whoever made it
    struct slo_config slo;  // for goodput by the peer's definition
    const char *folder;     // exists; each format makes its own below
};

struct export_format {
    const char *name;
    int (*write)(const struct export_run *x, struct err *e);
};
extern const struct export_format export_formats[];
extern const size_t export_n_formats;

/* --- what the formats share ------------------------------------------------------------------- */

int export_vllm(const struct export_run *x, struct err *e) ERR_CHECKED;
int export_inference_perf(const struct export_run *x, struct err *e) ERR_CHECKED;
int export_guidellm(const struct export_run *x, struct err *e) ERR_CHECKED;
int export_br02(const struct export_run *x, struct err *e) ERR_CHECKED;
int export_csv(const struct export_run *x, struct err *e) ERR_CHECKED;
int export_csv_requests(const struct export_run *x, struct err *e) ERR_CHECKED;

/* Calls `write` with every step in turn; one is in memory at a time. */
typedef int export_step(const struct export_run *x, const struct step_data *d, void *arg,
                        struct err *e);
int export_each_step(const struct export_run *x, export_step *write, void *arg,
                     struct err *e) ERR_CHECKED;

/* A new file FOLDER/FORMAT/NAME; export_close says whether all of it was written. */
struct export_file {
    FILE *f;
    char *path;
};
int export_create(struct export_file *out, const struct export_run *x, const char *format,
                  const char *name, struct err *e) ERR_CHECKED;
int export_close(struct export_file *file, int rc, struct err *e) ERR_CHECKED; // rc: failed before

/* What the run says of its target, or `other`. */
const char *export_target(const struct export_run *x, const char *key, const char *other);

/* Peers know only what they sent; and a request that ended well has a first and a last token. */
bool export_was_sent(const struct record *r);
bool export_is_ok(const struct record *r);

double export_seconds(int64_t ns);
/* When a request that was sent ended: its last token, or, for one that failed, the last that is known of
 * it; the end of the drain for one that was cancelled there. Since t0. */
int64_t export_end_ns(const struct step_info *s, const struct record *r);

/* The failure in words: "http_status 429", "connect: Connection refused"; NULL when ok. */
const char *export_error(const struct record *r, char *buf, size_t cap);

/*
 * Gaps between the chunks of a reply, in us, from those between its tokens dt_us (n): those of 0 lie
 * inside a chunk. Where chunks came less than 1 us apart there are fewer than n_chunks - 1; zeros fill
 * up. Returns their count; gaps has room for n.
 */
size_t export_chunk_gaps(const struct record *r, const uint32_t *dt_us, size_t n, uint32_t *gaps);
