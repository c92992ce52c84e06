/*
 * Who has been heard of, and when: the book-keeping of heartbeats, without the sending. A star:
 * rank 0 watches all others, they watch rank 0. Times are clock_local_ns, passed in.
 *
 * A process that was itself stopped or starved has heard nobody for that long and must not accuse
 * the others: when its own turns lie more than half the timeout apart, all ages start again.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct beat {
    int64_t timeout_ns; // 0: not armed
    int64_t send_every_ns;
    int64_t last_turn_ns, next_turn_ns, next_send_ns;
    int rank, size;
    int64_t *heard_ns; // (size) when last heard of, or when waiting for it began
    bool *ever;        // (size) heard of at all: a rank that is not yet up gets longer
};

void beat_arm(struct beat *b, int rank, int size, int64_t timeout_ns, int64_t now_ns);
void beat_free(struct beat *b);

/* Call as often as convenient; true when it is time to collect heartbeats and ask beat_silent. */
bool beat_turn(struct beat *b, int64_t now_ns);

/* True when this rank should send its own; the next is then due one interval later. */
bool beat_send_due(struct beat *b, int64_t now_ns);

void beat_heard(struct beat *b, int rank, int64_t now_ns);

/* A watched rank whose age passed the timeout, or -1. `age_ns` is set with it. */
int beat_silent(const struct beat *b, int64_t now_ns, int64_t *age_ns);
