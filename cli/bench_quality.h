/*
 * `tidemark bench --quality`: every form of a model's weights and cache, how far what it says of a text is
 * from the baseline (workers/quality.h) beside how fast it is.
 *
 * The baseline is the model in bfloat16, its cache, too: what the same kernels make of weights rounded
 * once from how they are stored. One form is loaded at a time. The baseline's logits are kept as they are
 * in a file without a name under TMPDIR, 4 bytes x vocabulary x positions: a second copy of the weights in
 * memory would take more of what is scarcer, and computing the baseline anew beside every form as long
 * again as all forms take. It is read twice: the second time it is a form like the others, and any
 * divergence from itself would show.
 */
#pragma once

#include <stdbool.h>

#include "cli/bench_cases.h"
#include "cli/bench_forms.h"
#include "cli/bench_text.h"
#include "core/err.h"
#include "results/record.h"
#include "workers/quality.h"

#define BENCH_QUALITY_WIRE "tidemark.quality/1"

struct bench_quality_row {
    struct bench_form form;
    struct quality_summary quality;
    double weight_bytes, kv_bytes, load_s; // kv_bytes of one token
    struct bench_result *speeds;           // (cases.n)
};

struct bench_quality {
    const char *model, *file;
    struct engine engine; // that computed: backend, device, kernels
    int64_t params;
    struct bench_text text;
    const struct bench_cases *cases;
    struct bench_forms forms;
    struct bench_quality_row rows[BENCH_FORMS_MAX]; // (forms.n), the baseline's first
};

/* What is asked for. Texts of options; NULL weights and kv: all forms. */
struct bench_quality_ask {
    const char *file, *weights, *kv;
    uint32_t context, max_chunks; // as bench_text_open
};

/* `cfg` has backend, model, kernels and threads. ERR_INPUT: the text, the options; ERR_ENV: no room for logits. */
int bench_quality_run(struct bench_quality *q, const struct bench_quality_ask *ask,
                      const struct bench_config *cfg, const struct bench_cases *cases,
                      struct err *e) ERR_CHECKED;
void bench_quality_free(struct bench_quality *q);

void bench_quality_table(const struct bench_quality *q);
void bench_quality_json(const struct bench_quality *q);
