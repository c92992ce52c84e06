#include "core/pool.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <sched.h>
#include <stdatomic.h>
#include <string.h>

enum {
    MAX_MEMBERS = 8,
    N_ROUNDS = 200
};

static void wait_for(struct pool *p)
{
    while (!pool_poll(p)) {
        sched_yield();
    }
}

struct census {
    atomic_int calls[MAX_MEMBERS];
    int n_members;
};

static void count(void *arg, int member, int n_members)
{
    struct census *c = arg;
    atomic_fetch_add(&c->calls[member], 1);
    if (member == 0) {
        c->n_members = n_members;
    }
}

static void every_member_runs_once_per_submission(void **state)
{
    (void)state;
    for (int n = 1; n <= MAX_MEMBERS; n++) {
        struct census c = {0};
        struct pool *p = pool_create(n, NULL, false);
        assert_true(pool_poll(p));
        for (int i = 0; i < N_ROUNDS; i++) {
            pool_submit(p, count, &c);
            wait_for(p);
        }
        assert_int_equal(c.n_members, n);
        for (int k = 0; k < MAX_MEMBERS; k++) {
            assert_int_equal(c.calls[k], k < n ? N_ROUNDS : 0);
        }
        pool_destroy(p);
    }
}

/* Each round, every member adds what all members wrote in the round before: any member that ran
 * ahead or lagged behind the barrier would change the sums. */
struct relay {
    struct pool *pool;
    uint64_t cells[2][MAX_MEMBERS];
};

static void relay(void *arg, int member, int n_members)
{
    struct relay *r = arg;
    for (int round = 0; round < N_ROUNDS; round++) {
        const uint64_t *from = r->cells[round % 2];
        uint64_t sum = (uint64_t)member;
        for (int k = 0; k < n_members; k++) {
            sum = sum * 31 + from[k];
        }
        r->cells[(round + 1) % 2][member] = sum;
        pool_barrier(r->pool);
    }
}

static void relay_alone(struct relay *r, int n_members)
{
    for (int round = 0; round < N_ROUNDS; round++) {
        for (int member = 0; member < n_members; member++) {
            uint64_t sum = (uint64_t)member;
            for (int k = 0; k < n_members; k++) {
                sum = sum * 31 + r->cells[round % 2][k];
            }
            r->cells[(round + 1) % 2][member] = sum;
        }
    }
}

static void the_barrier_keeps_members_in_step(void **state)
{
    (void)state;
    for (int n = 1; n <= MAX_MEMBERS; n++) { // most of these oversubscribe a small machine
        struct pool *p = pool_create(n, NULL, false);
        struct relay team = {.pool = p}, alone = {0};
        for (int k = 0; k < n; k++) {
            team.cells[0][k] = alone.cells[0][k] = (uint64_t)k * 977 + 1;
        }
        for (int i = 0; i < 5; i++) {
            pool_submit(p, relay, &team);
            wait_for(p);
            relay_alone(&alone, n);
        }
        assert_memory_equal(team.cells, alone.cells, sizeof team.cells);
        pool_destroy(p);
    }
}

static void read_place(void *arg, int member, int n_members)
{
    (void)n_members;
    cpu_set_t *sets = arg;
    sched_getaffinity(0, sizeof sets[member], &sets[member]);
}

static void members_are_pinned_where_asked(void **state)
{
    (void)state;
    cpu_set_t mine, sets[2];
    sched_getaffinity(0, sizeof mine, &mine);
    int cpu = 0;
    while (!CPU_ISSET(cpu, &mine)) {
        cpu++;
    }
    int cpus[2] = {cpu, -1};
    struct pool *p = pool_create(2, cpus, false);
    pool_submit(p, read_place, sets);
    wait_for(p);
    pool_destroy(p);
    assert_int_equal(CPU_COUNT(&sets[0]), 1);
    assert_true(CPU_ISSET(cpu, &sets[0]));
    assert_true(CPU_EQUAL(&sets[1], &mine));
}

static void read_class(void *arg, int member, int n_members)
{
    (void)n_members;
    int *classes = arg;
    classes[member] = sched_getscheduler(0);
}

static void the_idle_class_is_what_it_says(void **state)
{
    (void)state;
    for (int asked = 0; asked <= 1; asked++) {
        int classes[3];
        struct pool *p = pool_create(3, NULL, asked);
        pool_submit(p, read_class, classes);
        wait_for(p);
        if (!asked) {
            assert_false(pool_is_idle_class(p));
        }
        for (int k = 0; k < 3; k++) {
            assert_int_equal(classes[k] == SCHED_IDLE, pool_is_idle_class(p));
        }
        pool_destroy(p);
    }
    pool_destroy(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_member_runs_once_per_submission),
        cmocka_unit_test(the_barrier_keeps_members_in_step),
        cmocka_unit_test(members_are_pinned_where_asked),
        cmocka_unit_test(the_idle_class_is_what_it_says),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
