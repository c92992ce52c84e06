#include "core/jobs.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>

enum {
    N_JOBS = 1000
};

struct trail {
    int n;
    int seen[N_JOBS];
};

struct step {
    struct trail *trail;
    int id;
};

static void leave_mark(void *arg)
{
    struct step *s = arg;
    s->trail->seen[s->trail->n++] = s->id;
}

static void wait_for(struct jobs *j, long ticket)
{
    while (!jobs_done(j, ticket)) {
        sched_yield();
    }
}

static void runs_in_order(void **state)
{
    (void)state;
    static struct trail trail;
    static struct step steps[N_JOBS];
    struct jobs *j = jobs_create("test");
    long last = 0;
    for (int i = 0; i < N_JOBS; i++) {
        steps[i] = (struct step){&trail, i};
        long ticket = jobs_push(j, leave_mark, &steps[i]);
        assert_true(ticket > last);
        last = ticket;
    }
    wait_for(j, last);
    assert_true(jobs_done(j, 1));
    assert_int_equal(trail.n, N_JOBS);
    for (int i = 0; i < N_JOBS; i++) {
        assert_int_equal(trail.seen[i], i);
    }
    jobs_destroy(j);
}

static void hold(void *arg)
{
    atomic_int *gate = arg;
    while (!atomic_load(gate)) {
        sched_yield();
    }
}

static void a_ticket_is_done_only_when_its_job_is(void **state)
{
    (void)state;
    struct jobs *j = jobs_create("test");
    atomic_int gate = 0, second_gate = 0;
    long first = jobs_push(j, hold, &gate);
    long second = jobs_push(j, hold, &second_gate);
    assert_false(jobs_done(j, first));
    atomic_store(&gate, 1);
    wait_for(j, first);
    assert_false(jobs_done(j, second));
    atomic_store(&second_gate, 1);
    wait_for(j, second);
    jobs_destroy(j);
}

static void destroy_finishes_the_queue(void **state)
{
    (void)state;
    struct trail trail = {0};
    struct step steps[100];
    struct jobs *j = jobs_create("a name longer than the kernel takes");
    for (int i = 0; i < 100; i++) {
        steps[i] = (struct step){&trail, i};
        jobs_push(j, leave_mark, &steps[i]);
    }
    jobs_destroy(j);
    assert_int_equal(trail.n, 100);
    jobs_destroy(NULL);
}

static void read_mask(void *arg)
{
    pthread_sigmask(SIG_SETMASK, NULL, arg);
}

static void signals_stay_with_the_main_thread(void **state)
{
    (void)state;
    sigset_t before, in_helper, after;
    pthread_sigmask(SIG_SETMASK, NULL, &before);
    struct jobs *j = jobs_create("test");
    wait_for(j, jobs_push(j, read_mask, &in_helper));
    jobs_destroy(j);
    pthread_sigmask(SIG_SETMASK, NULL, &after);
    assert_true(sigismember(&in_helper, SIGUSR1) && sigismember(&in_helper, SIGTERM));
    assert_int_equal(sigismember(&before, SIGUSR1), sigismember(&after, SIGUSR1));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(runs_in_order),
        cmocka_unit_test(a_ticket_is_done_only_when_its_job_is),
        cmocka_unit_test(destroy_finishes_the_queue),
        cmocka_unit_test(signals_stay_with_the_main_thread),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
