/*
 * One line on the terminal of whoever waits for the run, redrawn four times a second by rank 0:
 *
 *   step 3/10 sweep  4.62 req/s  sent 37 in flight 5 done 32  TTFT p50 41 ms p99 97 ms  6 s left, run <= 2 min
 *
 * stderr must be a terminal, or TIDEMARK_TTY its width where a launcher stands between; else, and
 * with --quiet, nothing is ever written. With several load ranks the counts are rank 0's own share
 * times their number; the result file has the exact ones.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "loadgen/loop.h"
#include "results/record.h"

#define PROGRESS_MAX_COLUMNS 400

struct progress {
    uint32_t step;      // from 1
    int64_t most_steps; // 0: not known
    enum step_kind kind;
    double rate_rps; // 0 in a closed loop
    uint32_t users;
    int64_t t_end_ns;          // of the step; rank 0's clock
    int64_t step_ns, drain_ns; // of steps still to come, for the estimate
    uint64_t n_sent, n_in_flight, n_done;
    int64_t ttft_p50_us, ttft_p99_us; // < 0: none yet
    /* where and when it is drawn: */
    int columns; // 0: nowhere
    int64_t t_drawn_ns;
};

/* Width of the terminal that stderr ends on, 0 when it ends on none. */
int progress_columns(void);

/* The next step: what is announced, and nothing counted yet. */
void progress_begin_step(struct progress *p, const struct wire_step *step);

/* The line at now_ns, at most `columns` characters and a NUL, into out (columns + 1). */
void progress_format(const struct progress *p, int64_t now_ns, int columns, char *out);

/* Redraw when a quarter of a second has passed: from the loop's tick. Never waits for the terminal. */
void progress_draw(struct progress *p, const struct loop *l, int load_ranks, int64_t now_ns);

/* Clear the line, before something else is written. */
void progress_clear(struct progress *p);
