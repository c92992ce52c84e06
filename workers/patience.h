/*
 * How long work may take before who does it must be gone: the larger of a fixed time and 20 times the
 * running median of such work, by its size. What is the first of its size, with cold caches and code that
 * is still to be loaded, gets four times the fixed time. Pieces of work begin and end in the same order; the
 * oldest counts from when it began, or from when the one before it ended. Pure: times are passed in.
 *
 * A process that was itself stopped or starved must not accuse others: when its own checks lie more than a
 * second apart, the oldest counts from now on.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

enum {
    PATIENCE_WINDOW = 32, // last times of a size that the median is of
    PATIENCE_SIZES = 16,  // 1, 2, 3 to 4, 5 to 8, ... tokens
    PATIENCE_MAX = 256,   // pieces under way
};

/* Who only hears of it waits so much longer than who is nearer to the cause, whose word is the better one. */
#define PATIENCE_HEARSAY_NS 1000000000LL

struct patience {
    int64_t least_ns;
    int64_t since_ns; // the oldest counts from here
    int64_t t_check_ns;
    uint64_t n_begun, n_ended;
    struct {
        int64_t t_begin_ns;
        uint32_t n_tokens;
    } under_way[PATIENCE_MAX]; // piece k is at k % PATIENCE_MAX
    struct {
        uint64_t n;
        int64_t took_ns[PATIENCE_WINDOW]; // of the last ones, time i at i % PATIENCE_WINDOW
    } sizes[PATIENCE_SIZES];
};

/* What was waited for too long. */
struct patience_late {
    int64_t waited_ns, limit_ns;
    uint32_t n_tokens;
};

void patience_init(struct patience *p, int64_t least_ns);
void patience_begin(struct patience *p, uint32_t n_tokens, int64_t now_ns);
void patience_end(struct patience *p, int64_t now_ns);
/* The oldest has a reason to wait that is not its own: it counts from now on. */
void patience_restart(struct patience *p, int64_t now_ns);

/* To be called in every turn. Whether the oldest is more than `beyond_ns` over its limit. */
bool patience_is_over(struct patience *p, int64_t now_ns, int64_t beyond_ns,
                      struct patience_late *late);

/* Of work of so many tokens, by what has been seen of it. */
int64_t patience_limit_ns(const struct patience *p, uint32_t n_tokens);

/* "a batch of 12 tokens for 31.0 s (it has 30.0 s: ...)", for the line that ends a job. Returns buf. */
const char *patience_text(const struct patience_late *late, char *buf, int cap);
