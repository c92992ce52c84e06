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
        cmocka_unit_test(absurd_layouts_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
