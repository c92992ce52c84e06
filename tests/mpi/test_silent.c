/*
 * One rank stops answering; the others must leave with its name. Run by silent_rank.sh.
 *   test_silent poll VICTIM     the others wait for messages
 *   test_silent barrier VICTIM  the others wait in a collective
 *   test_silent late VICTIM     no heartbeats: the victim just does not come to a collective
 */
#include "core/clock.h"
#include "core/comm.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void must(struct comm *c, int rc, const struct err *e)
{
    if (rc < 0) {
        comm_abort(c, 3, "%s", e->msg);
    }
}

static void wait_for_messages(struct comm *c, struct err *e)
{
    struct comm_msg m;
    for (int idle = 0;; idle++) {
        must(c, comm_poll(c, &m, e), e);
        must(c, comm_pause(c, idle, e), e);
    }
}

static void be_late(struct comm *c, bool victim, struct err *e)
{
    if (victim) {
        sleep(30);
    }
    // Rank 0 knows who did not come; the others only know that rank 0 did not answer in time.
    must(c, comm_barrier(c, (comm_rank(c) == 0 ? 1 : 20) * NS_PER_S, e), e);
}

int main(int argc, char **argv)
{
    struct comm *c;
    struct err e = {0};
    if (argc != 3 || comm_open(&c, &e)) {
        fprintf(stderr, "%s\n", e.msg);
        return 1;
    }
    bool victim = comm_rank(c) == atoi(argv[2]);
    must(c, comm_start(c, 64, &e), &e);
    printf("pid %d\n", (int)getpid());
    if (victim) {
        printf("victim %d\n", (int)getpid());
    }
    fflush(stdout);
    must(c, comm_barrier(c, 10 * NS_PER_S, &e), &e);
    if (strcmp(argv[1], "late") == 0) {
        be_late(c, victim, &e);
        return 0;
    }
    must(c, comm_watch(c, NS_PER_S, &e), &e);
    must(c, comm_barrier(c, 10 * NS_PER_S, &e), &e);
    if (victim) {
        raise(SIGSTOP);
    }
    if (strcmp(argv[1], "barrier") == 0) {
        must(c, comm_barrier(c, 60 * NS_PER_S, &e), &e);
    }
    wait_for_messages(c, &e);
    return 0;
}
