/*
 * One stage with a whole model, without scheduler or transport. How fast it is: prompts and decoding at
 * given lengths, batches and depths, beside what the device that computes can do at most, measured in between
 * (workers/ceilings.h). And what it says of a text: the logits that quality is judged by
 * (workers/quality.h). The numbers behind `tidemark bench`.
 *
 * Inside the timing: a step from backend_submit to its end, greedy ids included. Outside: loading,
 * building batches, and filling caches up to a case's depth, which happens once: a run is all steps of a
 * case, and begins at that depth however often it is repeated.
 *
 * What fails is what the backend refuses, or says of a batch or a look.
 */
#pragma once

#include <stdint.h>

#include "core/err.h"
#include "model/arch.h"
#include "results/record.h"
#include "workers/ceilings.h"

#define BENCH_MAX_REPEATS 1000
#define BENCH_TEXT_ROWS   128u // positions of a text whose logits are had at once

/* One prompt of n tokens, or `batch` requests of n output tokens each that begin together. */
struct bench_case {
    bool is_prompt;
    uint32_t n, batch; // batch 1 with a prompt
    uint32_t depth;    // positions that each request's cache holds before
    int n_repeats;     // 1 .. BENCH_MAX_REPEATS
};

struct bench_config {
    const char *backend, *model, *kernels; // as in struct backend_config
    int weight_bits;                       // same
    enum arch_dtype kv_dtype;              // same
    int n_threads;
    const struct bench_case *cases; // (n_cases) all that will be run; for bench_open only
    int n_cases;
    uint32_t max_text; // tokens of a text; 0: none
    bool has_ceilings; // to be measured
};

/* Of one run. */
struct bench_time {
    double steps_s; // inside the timing
    double wall_s;  // from the first batch's making to the last one's end
    double busy_s;  // the device computed
};

/* Shares are of the ceilings and are, like them, the best of the repeats; zeros without ceilings. */
struct bench_result {
    double mean, sd, best; // tokens per second
    double bytes, flops;   // of a run: weights and cache read; two per multiply-add
    double gap_share;      // of the best run's wall time: the device waited for the host
    double launch_share;   // of its steps' time: same, between a step's submission and its end
    double read_bytes_per_s, flops_per_s;
    double read_share;     // of the bandwidth
    double peak_share;     // of the peak
    double roofline_share; // max(bytes / bandwidth, flops / peak) of the time
};

struct bench;

/* Load the model. ERR_INPUT: what backend_create refuses; more tokens than the context has. */
int bench_open(struct bench **out, const struct bench_config *cfg, struct err *e) ERR_CHECKED;
void bench_close(struct bench *b);

const struct arch *bench_arch(const struct bench *b);
/* The backend's word of itself: device, kernels, bytes of a token in the cache, pads included. */
void bench_about(const struct bench *b, struct engine *out);
const char *bench_kernels(const struct bench *b); // static
double bench_weight_bytes(const struct bench *b); // as kept in memory, without pads
double bench_load_s(const struct bench *b);

/* What was found so far, and which of it products of this model's layers are held against. */
const struct ceilings *bench_ceilings(const struct bench *b);
const struct ceiling *bench_peak(const struct bench *b);

/* Before a case's runs: fill its caches, and run a prompt, or one step. */
int bench_begin(struct bench *b, const struct bench_case *c, struct err *e) ERR_CHECKED;
/* One run. */
int bench_once(struct bench *b, const struct bench_case *c, struct bench_time *out,
               struct err *e) ERR_CHECKED;

/*
 * Put tokens pos .. pos + n - 1 of a text behind those before, in one request's cache; pos 0 begins a
 * text. bench_logits also has the logits behind each of them: (n <= BENCH_TEXT_ROWS, vocab), valid
 * until the next call.
 */
int bench_read(struct bench *b, const int32_t *text, uint32_t pos, uint32_t n,
               struct err *e) ERR_CHECKED;
int bench_logits(struct bench *b, const int32_t *text, uint32_t pos, uint32_t n,
                 const float **logits, struct err *e) ERR_CHECKED;

/* Look at the ceilings once more: between cases. */
int bench_look(struct bench *b, struct err *e) ERR_CHECKED;

/* What the runs (n_repeats) of a case amount to, beside the ceilings as they are now known. */
void bench_sum(const struct bench *b, const struct bench_case *c, const struct bench_time *runs,
               struct bench_result *out);
