#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>

#include <cmocka.h>

#include "model/layout.h"

#include <string.h>

static void ranks_and_places_are_inverse(void **state)
{
    (void)state;
    const struct layout l = {.load_ranks = 3, .replicas = 2, .pipeline = 4, .tensor = 2};
    assert_int_equal(layout_size(&l), 3 + 2 * 4 * 2);
    int rank = l.load_ranks;
    for (int r = 0; r < l.replicas; r++) {
        for (int s = 0; s < l.pipeline; s++) {
            for (int t = 0; t < l.tensor; t++, rank++) {
                assert_int_equal(layout_rank(&l, r, s, t), rank);
                struct layout_worker w = layout_worker(&l, rank);
                assert_int_equal(w.replica, r);
                assert_int_equal(w.stage, s);
                assert_int_equal(w.tensor, t);
                assert_false(layout_is_load(&l, rank));
            }
        }
    }
    assert_int_equal(rank, layout_size(&l));
    assert_true(layout_is_load(&l, 0) && layout_is_load(&l, 2));
    assert_false(layout_is_load(&l, -1));
    assert_int_equal(layout_leader(&l, 0), 3);
    assert_int_equal(layout_leader(&l, 1), 11);
}

static void a_world_that_fits_passes(void **state)
{
    (void)state;
    struct err e = {0};
    const struct layout stages = {.load_ranks = 1, .replicas = 1, .pipeline = 2, .tensor = 1};
    assert_int_equal(layout_check(&stages, 3, &e), 0);
    const struct layout endpoint = {.load_ranks = 4, .replicas = 0, .pipeline = 1, .tensor = 1};
    assert_int_equal(layout_check(&endpoint, 4, &e), 0);
}

static void a_world_that_does_not_fit_shows_the_sum(void **state)
{
    (void)state;
    struct err e = {0};
    const struct layout l = {.load_ranks = 2, .replicas = 3, .pipeline = 4, .tensor = 5};
    assert_int_equal(layout_check(&l, 7, &e), -1);
    assert_int_equal(e.code, ERR_INPUT);
    assert_non_null(strstr(e.msg, "7 ranks"));
    assert_non_null(strstr(e.msg, "62 = 2 load + 3 replicas x 4 pipeline x 5 tensor"));
}

static void a_rank_is_labelled_by_its_place(void **state)
{
    (void)state;
    const struct layout l = {.load_ranks = 1, .replicas = 2, .pipeline = 2, .tensor = 2};
    char label[96];
    assert_string_equal(layout_label(&l, 0, label, sizeof label), "rank 0 (load rank)");
    assert_string_equal(layout_label(&l, 8, label, sizeof label),
                        "rank 8 (replica 1, stage 1, tensor 1)");
}

static void tensor_ranks_share_a_host(void **state)
{
    (void)state;
    struct err e = {0};
    const struct layout l = {.load_ranks = 1, .replicas = 1, .pipeline = 2, .tensor = 2};
    const char *good[] = {"a", "a", "a", "b", "b"}, *bad[] = {"a", "a", "a", "a", "b"};
    assert_int_equal(layout_check_hosts(&l, good, &e), 0);
    assert_int_equal(layout_check_hosts(&l, bad, &e), -1);
    assert_int_equal(e.code, ERR_INPUT);
    assert_non_null(
        strstr(e.msg, "stage 1 of replica 0 is on two hosts, rank 3 on a and rank 4 on b"));
    assert_non_null(strstr(e.msg, "--map-by slot"));
    const struct layout one = {.load_ranks = 1, .replicas = 1, .pipeline = 4, .tensor = 1};
    const char *any[] = {"a", "b", "c", "b", "a"};
    assert_int_equal(layout_check_hosts(&one, any, &e), 0);
    const struct layout none = {.load_ranks = 2, .replicas = 0, .pipeline = 1, .tensor = 8};
    assert_int_equal(layout_check_hosts(&none, any, &e), 0);
}

static void hops_between_hosts_are_counted_per_replica(void **state)
{
    (void)state;
    const struct layout l = {.load_ranks = 1, .replicas = 2, .pipeline = 3, .tensor = 2};
    const char *hosts[] = {"a", "a", "a", "a", "a", "b", "b", "b", "b", "c", "c", "b", "b"};
    assert_int_equal(layout_crossings(&l, hosts, 0), 1);
    assert_int_equal(layout_least_crossings(&l, hosts, 0), 1);
    assert_int_equal(layout_crossings(&l, hosts, 1), 2); // to and fro
    assert_int_equal(layout_least_crossings(&l, hosts, 1), 1);
    const struct layout one = {.load_ranks = 1, .replicas = 1, .pipeline = 1, .tensor = 1};
    assert_int_equal(layout_crossings(&one, hosts, 0), 0);
    assert_int_equal(layout_least_crossings(&one, hosts, 0), 0);
}

static void absurd_layouts_are_refused(void **state)
{
    (void)state;
    struct err e = {0};
    const struct layout none = {.load_ranks = 0, .replicas = 1, .pipeline = 1, .tensor = 1};
    assert_int_equal(layout_check(&none, 1, &e), -1);
    const struct layout flat = {.load_ranks = 1, .replicas = 1, .pipeline = 0, .tensor = 1};
    assert_int_equal(layout_check(&flat, 1, &e), -1);
    const int big = 2000000;
    const struct layout huge = {.load_ranks = 1, .replicas = big, .pipeline = big, .tensor = 1};
    assert_int_equal(layout_check(&huge, 1, &e), -1);
    assert_non_null(strstr(e.msg, "4000000000001"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ranks_and_places_are_inverse),
        cmocka_unit_test(a_world_that_fits_passes),
        cmocka_unit_test(a_world_that_does_not_fit_shows_the_sum),
        cmocka_unit_test(a_rank_is_labelled_by_its_place),
        cmocka_unit_test(tensor_ranks_share_a_host),
        cmocka_unit_test(hops_between_hosts_are_counted_per_replica),
        cmocka_unit_test(absurd_layouts_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
