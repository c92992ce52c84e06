/*
 * One stage with a whole model, without scheduler or transport. How fast it is: prompts and decoding at
 * given lengths and batches, beside what this machine can do at most, measured in between by as many
 * threads (workers/cpu/ceilings.h). And what it says of a text: the logits that quality is judged by
 * (workers/quality.h). The numbers behind `tidemark bench`.
 *
 * Inside the timing: a step from backend_submit to its end, greedy ids included. Outside: loading and
 * building batches. A run is all steps of a case; it is repeated, every time from position 0.
 */
#pragma once

#include <stdint.h>

#include "core/err.h"
#include "model/arch.h"
#include "workers/cpu/ceilings.h"

#define BENCH_MAX_REPEATS 1000
#define BENCH_TEXT_ROWS   128u // positions of a text whose logits are had at once

struct bench_config {
    const char *model, *kernels; // as in struct backend_config
    int weight_bits;             // same
    enum arch_dtype kv_dtype;    // same
    int n_threads;
    uint32_t max_prompt, max_gen, max_batch; // of all cases
    uint32_t max_text;                       // tokens of a text; 0: none
    bool has_ceilings;                       // to be measured
};

/* One prompt of n tokens, or `batch` requests of n output tokens each that begin together. */
struct bench_case {
    bool is_prompt;
    uint32_t n, batch; // batch 1 with a prompt
    int n_repeats;     // 1 .. BENCH_MAX_REPEATS
};

/* Shares are of the ceilings and are, like them, the best of the repeats; zeros without ceilings. */
struct bench_result {
    double mean, sd, best; // tokens per second
    double bytes, flops;   // of a run: weights and cache read; two per multiply-add
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
const char *bench_kernels(const struct bench *b);
double bench_weight_bytes(const struct bench *b); // as kept in memory, without pads
double bench_kv_bytes(const struct bench *b);     // of one token in the cache, pads included
double bench_load_s(const struct bench *b);
const struct ceilings *bench_ceilings(const struct bench *b);

/* The peak that products of this model's layers are measured by, and its instruction. */
double bench_peak(const struct bench *b, const char **name);

/* One run; returns its seconds. */
double bench_once(struct bench *b, const struct bench_case *c);

/*
 * Put tokens pos .. pos + n - 1 of a text behind those before, in one request's cache; pos 0 begins a
 * text. bench_logits also returns the logits behind each of them: (n <= BENCH_TEXT_ROWS, vocab), valid
 * until the next call.
 */
void bench_read(struct bench *b, const int32_t *text, uint32_t pos, uint32_t n);
const float *bench_logits(struct bench *b, const int32_t *text, uint32_t pos, uint32_t n);

/* Look at the ceilings once more: between cases. */
void bench_look(struct bench *b);

/* What the runs (n_repeats) of a case amount to, beside the ceilings as they are now known. */
void bench_sum(const struct bench *b, const struct bench_case *c, const double *runs_s,
               struct bench_result *out);
