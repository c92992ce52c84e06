/*
 * What `vllm bench serve --save-result --save-detailed` writes (vllm/benchmarks/serve.py, 2025 and
 * 2026), and --append-result: one JSON object per run, any number of them in one text. Bytes from
 * outside: every value that is used is checked, and the message says where it stands.
 *
 * vLLM keeps no schedule. A request's time of arrival at the client is start_times - queue_times, where
 * it writes those (the wait behind --max-concurrency), else its send.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/err.h"
#include "results/store.h"

#define VLLM_JSON_MAX_BYTES  ((size_t)4 << 30)
#define VLLM_JSON_MAX_TOKENS 10000000 // of one request

struct json_t;

struct vllm_json_run {
    struct json_t *root; // owned; checked
    size_t n;            // requests, at least 1
    double rate_rps;     // 0: not paced ("inf")
    uint32_t users;      // --max-concurrency, or all at once; 0 where paced
    bool has_cap;        // --max-concurrency
    double begin_s;      // the first arrival, on vLLM's own clock
    int64_t unix_ns;     // `date`, taken as UTC; 0: none
};

struct vllm_json {
    struct vllm_json_run *runs; // (n), by rate, then by users; those that are not paced first
    size_t n;
};

/* text is changed (Python's NaN and Infinity, which JSON has not, become -1). ERR_INPUT: "NAME: ..." */
int vllm_json_parse(struct vllm_json *out, char *text, size_t len, const char *name,
                    struct err *e) ERR_CHECKED;
/* Moves all runs of `from` into `to`, in order. */
void vllm_json_join(struct vllm_json *to, struct vllm_json *from);
void vllm_json_free(struct vllm_json *v);

/* `model_id`, `backend` and so on; "" where there is none. Borrowed. */
const char *vllm_json_text(const struct vllm_json_run *run, const char *key);

/*
 * Request i as a record, with t0 at begin_s. Returns its n_out values dt_us, malloc'd: the tokens of the
 * reply spread evenly over its chunks, since vLLM does not say which chunk had how many.
 */
uint32_t *vllm_json_record(const struct vllm_json_run *run, size_t i, struct record *r);

/* The step that the run is: its times with t0 at begin_s. index is the caller's. */
struct step_info vllm_json_step(const struct vllm_json_run *run);
