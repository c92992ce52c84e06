#include "core/clocksync.h"

#include "core/clock.h"

#include <sched.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

enum {
    TAG_CLOCKSYNC = 32001
};

#define WAIT_NS  (60 * NS_PER_S)   // for the ranks before this one, too
#define EAGER_NS (300 * NS_PER_US) // test without pausing: a sleep here would be measured

/* One transfer to its end; *t_ns is the local clock when the end was seen. */
static int finish(struct comm *c, struct comm_req *r, int peer, int64_t *t_ns, struct err *e)
{
    int64_t start_ns = clock_local_ns();
    for (int idle = 0;;) {
        int done = comm_test(c, r, e);
        *t_ns = clock_local_ns();
        if (done) {
            return done > 0 ? 0 : -1;
        }
        if (*t_ns - start_ns < EAGER_NS) {
            sched_yield();
            continue;
        }
        if (*t_ns - start_ns > WAIT_NS) {
            return err_set(e, ERR_ENV, "clock offsets: no answer from rank %d (pid %d on %s)", peer,
                           comm_pid(c, peer), comm_host(c, peer));
        }
        if (comm_pause(c, idle++, e)) {
            return -1;
        }
    }
}

static int send_stamp(struct comm *c, int peer, const int64_t *stamp_ns, struct err *e)
{
    struct comm_req r = {0};
    int64_t ignored;
    if (comm_isend(c, stamp_ns, sizeof *stamp_ns, peer, TAG_CLOCKSYNC, &r, e)) {
        return -1;
    }
    return finish(c, &r, peer, &ignored, e);
}

static int recv_stamp(struct comm *c, int peer, int64_t *stamp_ns, int64_t *t_ns, struct err *e)
{
    struct comm_req r = {0};
    if (comm_irecv(c, stamp_ns, sizeof *stamp_ns, peer, TAG_CLOCKSYNC, &r, e)) {
        return -1;
    }
    return finish(c, &r, peer, t_ns, e);
}

static int serve(struct comm *c, int peer, int n_rounds, struct err *e)
{
    for (int i = 0; i < n_rounds; i++) {
        int64_t ping, t_ns;
        if (recv_stamp(c, peer, &ping, &t_ns, e) || send_stamp(c, peer, &t_ns, e)) {
            return -1;
        }
    }
    return 0;
}

static int ask(struct comm *c, int n_rounds, struct clocksync *out, struct err *e)
{
    int64_t best_ns = INT64_MAX;
    for (int i = 0; i < n_rounds; i++) {
        int64_t t0_ns = clock_local_ns();
        int64_t stamp_ns, t1_ns;
        if (send_stamp(c, 0, &t0_ns, e) || recv_stamp(c, 0, &stamp_ns, &t1_ns, e)) {
            return -1;
        }
        int64_t trip_ns = t1_ns - t0_ns;
        if (trip_ns < best_ns) {
            best_ns = trip_ns;
            out->offset_ns = stamp_ns - (t0_ns + trip_ns / 2);
            out->bound_ns = (trip_ns + 1) / 2;
        }
    }
    return 0;
}

int clocksync_measure(struct comm *c, int n_rounds, struct clocksync *out, struct err *e)
{
    CHECK(n_rounds > 0);
    struct clocksync mine = {0};
    if (comm_rank(c) == 0) {
        for (int peer = 1; peer < comm_size(c); peer++) {
            if (serve(c, peer, n_rounds, e)) {
                return -1;
            }
        }
    } else if (ask(c, n_rounds, &mine, e)) {
        return -1;
    }
    // one host has one CLOCK_MONOTONIC; only a host that merely bears the same name contradicts that
    bool same_host = strcmp(comm_host(c, comm_rank(c)), comm_host(c, 0)) == 0;
    if (same_host && llabs(mine.offset_ns) <= mine.bound_ns) {
        mine = (struct clocksync){0};
    }
    *out = mine;
    return 0;
}
