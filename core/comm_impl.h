/*
 * What comm.c, comm_self.c and comm_mpi*.c share; nobody else includes this. struct comm is the base
 * that both implementations put first in a struct of their own. comm.c holds what does not depend
 * on the implementation: who the ranks are, messages to oneself, waiting, agreement; the table
 * below is what an implementation adds. It owns its own members; comm.c owns and frees the base.
 */
#pragma once

#include <sched.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/comm.h"
#include "core/msgbuf.h"

#define COMM_WAIT_NS  60000000000LL // a collective without a timeout of its own
#define COMM_CLOSE_NS 10000000000LL // leaving the world

struct comm_ops {
    void (*close)(struct comm *c);                // releases all but the base
    void (*abort)(struct comm *c, int exit_code); // may return: the caller then exits
    int (*start)(struct comm *c, struct err *e);  // max_msg_bytes is set
    int (*post)(struct comm *c, int dst, int tag, const void *data, size_t n_bytes,
                struct err *e); // dst is another rank
    int (*poll)(struct comm *c, struct comm_msg *m, struct err *e);
    int (*isend)(struct comm *c, const void *buf, size_t n_bytes, int dst, int tag,
                 struct comm_req *r, struct err *e);
    int (*irecv)(struct comm *c, void *buf, size_t cap_bytes, int src, int tag, struct comm_req *r,
                 struct err *e);
    int (*test)(struct comm *c, struct comm_req *r, struct err *e);
    void (*cancel)(struct comm *c, struct comm_req *r);
    int (*watch)(struct comm *c, int64_t timeout_ns, struct err *e);
    int (*turn)(struct comm *c, struct err *e); // progress and heartbeats, no pause
    int (*bcast)(struct comm *c, void *buf, size_t n_bytes, int root, int64_t timeout_ns,
                 struct err *e);
    int (*gather)(struct comm *c, const void *mine, size_t n_bytes, void *all, int64_t timeout_ns,
                  struct err *e);
};

struct comm_peer {
    int pid;
    char host[65];
    cpu_set_t cpus; // where it may run
};

struct comm {
    const struct comm_ops *ops;
    int rank, size;
    struct comm_peer *peers; // (size); NULL while comm_open has not yet learned them
    int n_on_host, index_on_host;
    size_t max_msg_bytes; // 0 until comm_start
    int n_unsent;         // posted, not yet taken by the network

    struct msgbuf_pool bufs;              // copies of posted messages
    struct msgbuf *self_head, *self_tail; // posted to oneself, oldest first
    struct msgbuf *self_out;              // handed out by the last comm_poll
    bool self_first;                      // whose turn it is in comm_poll

    int64_t spin_ns;       // how long to spin before sleeping; 0 where ranks share cores
    int64_t idle_since_ns; // start of the present wait; 0 after an event
};

int comm_self_open(struct comm **out, struct err *e) ERR_CHECKED;
int comm_mpi_open(struct comm **out, struct err *e) ERR_CHECKED;
const char *comm_mpi_library(void);

/* "rank 2 (pid 123 on node1)" into buf; returns buf. */
const char *comm_label(const struct comm *c, int rank, char *buf, size_t cap);

/* Pause once: spin at first, sleep 50 us when nothing happened for longer than spin_ns. */
void comm_backoff(struct comm *c, int idle_turns);
