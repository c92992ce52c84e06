/* A tensor-parallel group whose ranks are threads of one process: sums in rank order, gathers. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>

#include <cmocka.h>

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "core/mem.h"
#include "workers/tp_group.h"

enum {
    SIZE = 3,
    MAX_N = 40000,
    ROUNDS = 50,
};

struct rank {
    struct tp_group *group;
    int index, n_wrong;
};

/* Large, large the other way, and small: another order gives other bits. */
static float value(int rank, int round, size_t i)
{
    const float large = (float)(16777216 + 2 * (int)(i % 977) + round);
    const float small = 0.1f + (float)(i % 13) * 0.07f;
    return rank == 0 ? large : rank == 1 ? 2 - large : small;
}

static float sum_in_order(int round, size_t i)
{
    return value(0, round, i) + value(1, round, i) + value(2, round, i);
}

static void *compute(void *arg)
{
    static const size_t sizes[] = {1, 7, 1000, MAX_N, 0};
    struct rank *r = arg;
    float *x = xcalloc(MAX_N, sizeof *x);
    for (int round = 0; round < ROUNDS; round++) {
        const size_t n = sizes[round % 5];
        const int mine[2] = {r->index, round};
        int all[SIZE][2];
        for (size_t i = 0; i < n; i++) {
            x[i] = value(r->index, round, i);
        }
        tp_group_sum(r->group, x, n);
        for (size_t i = 0; i < n; i++) {
            r->n_wrong += x[i] != sum_in_order(round, i);
        }
        tp_group_gather(r->group, mine, sizeof mine, all);
        for (int k = 0; k < SIZE; k++) {
            r->n_wrong += all[k][0] != k || all[k][1] != round;
        }
    }
    free(x);
    return NULL;
}

static void threads_add_up_in_rank_order(void **state)
{
    (void)state;
    struct tp_group *groups[SIZE];
    struct rank ranks[SIZE];
    pthread_t threads[SIZE];
    struct err e = {0};
    assert_true(sum_in_order(0, 0) != value(2, 0, 0) + value(1, 0, 0) + value(0, 0, 0));
    assert_int_equal(tp_group_create_all(groups, SIZE, MAX_N, &e), 0);
    for (int i = 0; i < SIZE; i++) {
        ranks[i] = (struct rank){groups[i], i, 0};
        assert_int_equal(pthread_create(&threads[i], NULL, compute, &ranks[i]), 0);
    }
    for (int i = 0; i < SIZE; i++) {
        pthread_join(threads[i], NULL);
        assert_int_equal(ranks[i].n_wrong, 0);
        tp_group_destroy(groups[i]);
    }
}

static void one_alone_keeps_what_it_has(void **state)
{
    (void)state;
    struct tp_group *group;
    struct err e = {0};
    float x[2] = {3, 4};
    int all = 0;
    const int mine = 7;
    assert_int_equal(tp_group_create_all(&group, 1, 2, &e), 0);
    tp_group_sum(group, x, 2);
    tp_group_gather(group, &mine, sizeof mine, &all);
    assert_true(x[0] == 3 && x[1] == 4 && all == 7);
    tp_group_destroy(group);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(threads_add_up_in_rank_order),
        cmocka_unit_test(one_alone_keeps_what_it_has),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
