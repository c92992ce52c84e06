/*
 * Ranks, messages, bulk transfers and collectives, at any number of ranks. Every rank checks what
 * it received; a wrong byte ends the job with CHECK's line.
 */
#include "core/clock.h"
#include "core/clocksync.h"
#include "core/comm.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    MAX_MSG_BYTES = 64 << 10,
    N_MESSAGES = 1500, // from each rank to each
    BULK_BYTES = 24 << 20,
    N_BULK = 3,
    BCAST_BYTES = 40 << 20, // more than one chunk
    GATHER_BYTES = 18 << 20,
};

#define DEADLINE_NS (40 * NS_PER_S)

static struct comm *c;
static int rank, size;

static void must(int rc, const struct err *e)
{
    if (rc < 0) {
        comm_abort(c, 1, "%s", e->msg);
    }
}

static unsigned char pattern(uint64_t seed, size_t i)
{
    return (unsigned char)((seed * 131 + i * 7 + (i >> 9)) & 0xff);
}

static void fill(unsigned char *p, size_t n_bytes, uint64_t seed)
{
    for (size_t i = 0; i < n_bytes; i++) {
        p[i] = pattern(seed, i);
    }
}

static void verify(const unsigned char *p, size_t n_bytes, uint64_t seed)
{
    for (size_t i = 0; i < n_bytes; i++) {
        CHECK(p[i] == pattern(seed, i));
    }
}

static void test_who(void)
{
    CHECK(comm_pid(c, rank) == getpid());
    CHECK(comm_ranks_on_this_host(c) == size);
    CHECK(comm_index_on_this_host(c) == rank);
    for (int r = 0; r < size; r++) {
        CHECK(strcmp(comm_host(c, r), comm_host(c, 0)) == 0);
        CHECK(r == rank || comm_pid(c, r) != getpid());
    }
    if (comm_launched()) {
        CHECK(strncmp(comm_library(), "Open MPI ", 9) == 0 &&
              strchr("0123456789", comm_library()[9]));
    }
}

/* Of message i: most are short, some as long as they may be. */
static size_t message_bytes(int i)
{
    return i % 97 == 0 ? MAX_MSG_BYTES : (size_t)(i * 37 % 9000);
}

/* Take one message and check that it is the next of its sender. */
static int take(int *n_from, int tag_base)
{
    struct comm_msg m;
    struct err e = {0};
    int got = comm_poll(c, &m, &e);
    must(got, &e);
    if (got) {
        int i = n_from[m.src]++;
        CHECK(m.tag == tag_base + i && m.n_bytes == message_bytes(i));
        CHECK((uintptr_t)m.data % 8 == 0);
        verify(m.data, m.n_bytes, (uint64_t)(m.src * 1000003 + i));
    }
    return got;
}

/* All to all. In a burst, receiving begins only after everything was posted. */
static void test_messages(bool burst, int tag_base)
{
    int *n_from = calloc((size_t)size, sizeof *n_from);
    unsigned char *text = malloc(MAX_MSG_BYTES);
    struct err e = {0};
    int n_got = 0, n_all = N_MESSAGES * size;
    for (int i = 0; i < N_MESSAGES; i++) {
        fill(text, message_bytes(i), (uint64_t)(rank * 1000003 + i));
        for (int dst = 0; dst < size; dst++) {
            must(comm_post(c, dst, tag_base + i, text, message_bytes(i), &e), &e);
        }
        memset(text, 0xee, message_bytes(i)); // what was posted is a copy
        while (!burst && take(n_from, tag_base)) {
            n_got++;
        }
    }
    int64_t until_ns = clock_local_ns() + DEADLINE_NS;
    for (int idle = 0; n_got < n_all || comm_unsent(c) > 0;) {
        CHECK(clock_local_ns() < until_ns);
        if (take(n_from, tag_base)) {
            n_got++;
            idle = 0;
        } else {
            must(comm_pause(c, idle++, &e), &e);
        }
    }
    for (int r = 0; r < size; r++) {
        CHECK(n_from[r] == N_MESSAGES);
    }
    free(text);
    free(n_from);
    must(comm_barrier(c, DEADLINE_NS, &e), &e);
}

static void finish(struct comm_req *r)
{
    struct err e = {0};
    int64_t until_ns = clock_local_ns() + DEADLINE_NS;
    for (int idle = 0, done = 0; !done; idle++) {
        done = comm_test(c, r, &e);
        must(done, &e);
        if (!done) {
            must(comm_pause(c, idle, &e), &e);
        }
        CHECK(clock_local_ns() < until_ns);
    }
    CHECK(r->handle == NULL);
}

/* Round the ring, several at once, received in another order than sent. */
static void test_bulk(void)
{
    struct comm_req out[N_BULK], in[N_BULK];
    unsigned char *to[N_BULK], *from[N_BULK];
    struct err e = {0};
    int next = (rank + 1) % size, before = (rank + size - 1) % size;
    for (int k = 0; k < N_BULK; k++) {
        to[k] = malloc(BULK_BYTES);
        from[k] = malloc(BULK_BYTES + 5);
        fill(to[k], BULK_BYTES, (uint64_t)(rank * 10 + k));
        must(comm_isend(c, to[k], (size_t)BULK_BYTES - (size_t)k, next, k, &out[k], &e), &e);
    }
    for (int k = N_BULK - 1; k >= 0; k--) {
        must(comm_irecv(c, from[k], BULK_BYTES + 5, before, k, &in[k], &e), &e);
    }
    for (int k = 0; k < N_BULK; k++) {
        finish(&in[k]);
        finish(&out[k]);
        CHECK(in[k].n_bytes == (size_t)BULK_BYTES - (size_t)k);
        CHECK(out[k].n_bytes == in[k].n_bytes);
        verify(from[k], in[k].n_bytes, (uint64_t)(before * 10 + k));
        free(to[k]);
        free(from[k]);
    }
}

static void test_bulk_errors(void)
{
    struct err e = {0};
    struct comm_req in = {0}, out = {0};
    char text[16] = "", late[16] = "untouched";
    int next = (rank + 1) % size, before = (rank + size - 1) % size;
    must(comm_irecv(c, late, sizeof late, before, 60, &in, &e), &e);
    comm_cancel(c, &in);
    CHECK(in.handle == NULL);

    must(comm_irecv(c, text, 8, before, 61, &in, &e), &e); // 16 bytes come
    must(comm_isend(c, "sixteen bytes...", 16, next, 61, &out, &e), &e);
    int done = 0;
    int64_t until_ns = clock_local_ns() + DEADLINE_NS;
    while ((done = comm_test(c, &in, &e)) == 0) {
        CHECK(clock_local_ns() < until_ns);
    }
    CHECK(in.handle == NULL);
    CHECK(size == 1 || (done == -1 && e.code == ERR_ENV)); // Open MPI cuts silently within a rank
    finish(&out);
    CHECK(strcmp(late, "untouched") == 0);
}

static void test_collectives(void)
{
    struct err e = {0};
    unsigned char *p = malloc(BCAST_BYTES);
    for (int root = 0; root < size; root++) {
        fill(p, BCAST_BYTES, (uint64_t)(rank == root ? root : 1000));
        must(comm_bcast(c, p, BCAST_BYTES, root, &e), &e);
        verify(p, BCAST_BYTES, (uint64_t)root);
    }
    unsigned char *all = rank == 0 ? malloc((size_t)GATHER_BYTES * (size_t)size) : NULL;
    fill(p, GATHER_BYTES, (uint64_t)rank + 7);
    must(comm_gather(c, p, GATHER_BYTES, all, &e), &e);
    for (int r = 0; all && r < size; r++) {
        verify(all + (size_t)r * GATHER_BYTES, GATHER_BYTES, (uint64_t)r + 7);
    }
    free(all);
    free(p);
    for (int i = 0; i < 200; i++) {
        must(comm_barrier(c, DEADLINE_NS, &e), &e);
    }
}

static void test_agree(void)
{
    struct err e = {0};
    must(comm_agree(c, &e), &e);
    for (int lowest = 0; lowest < size; lowest++) {
        char expected[64];
        e = (struct err){0};
        if (rank >= lowest) {
            err_set(&e, rank == lowest ? ERR_INPUT : ERR_ENV, "rank %d cannot", rank);
        }
        CHECK(comm_agree(c, &e) == -1);
        snprintf(expected, sizeof expected, "rank %d cannot", lowest);
        CHECK(e.code == ERR_INPUT && strcmp(e.msg, expected) == 0);
    }
    e = (struct err){0};
    must(comm_agree(c, &e), &e);
}

/* On one host all ranks read the same clock: the true offset is 0. */
static void test_clocksync(void)
{
    struct err e = {0};
    struct clocksync sync;
    must(clocksync_measure(c, 100, &sync, &e), &e);
    CHECK(sync.bound_ns >= 0 && sync.bound_ns < NS_PER_S);
    CHECK(llabs(sync.offset_ns) <= sync.bound_ns + 1);
    CHECK(rank > 0 || (sync.offset_ns == 0 && sync.bound_ns == 0));
}

/* Messages that are still under way when their sender leaves do arrive, or hold nobody up. */
static void leave_in_a_hurry(void)
{
    static char text[MAX_MSG_BYTES];
    struct err e = {0};
    for (int i = 0; i < 200; i++) {
        must(comm_post(c, (rank + 1) % size, 0, text, sizeof text, &e), &e);
    }
    comm_close(c);
}

int main(void)
{
    struct err e = {0};
    if (comm_open(&c, &e)) {
        fprintf(stderr, "%s\n", e.msg);
        return 1;
    }
    rank = comm_rank(c);
    size = comm_size(c);
    must(comm_start(c, MAX_MSG_BYTES, &e), &e);
    must(comm_watch(c, 10 * NS_PER_S, &e), &e);
    test_who();
    test_messages(true, 0);
    test_messages(false, 10000);
    test_bulk();
    test_bulk_errors();
    test_collectives();
    test_agree();
    test_clocksync();
    leave_in_a_hurry();
    return 0;
}
