/* Two lists over one array of links, against arrays that are sorted anew each time. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "core/rng.h"
#include "workers/age_list.h"

enum {
    N = 40,
};

static void check(const struct age_list *l, const struct age_links *links, const int *where,
                  int list)
{
    uint64_t before = 0;
    uint32_t n = 0, prev = AGE_LIST_NONE;
    for (uint32_t i = l->head; i != AGE_LIST_NONE; i = links[i].next) {
        assert_int_equal(where[i], list);
        assert_true(links[i].age > before);
        assert_int_equal(links[i].prev, prev);
        before = links[i].age;
        prev = i;
        n++;
    }
    assert_int_equal(l->tail, prev);
    assert_int_equal(l->n, n);
    for (uint32_t i = 0; i < N; i++) {
        n -= where[i] == list;
    }
    assert_int_equal(n, 0);
}

static void test_always_in_order(void **state)
{
    (void)state;
    struct age_links links[N];
    struct age_list lists[2] = {age_list_empty(), age_list_empty()};
    int where[N];
    for (uint32_t i = 0; i < N; i++) {
        links[i].age = 1 + rng_permute(i, N, 5, RNG_SHUFFLE, 0);
        where[i] = -1;
    }
    for (uint64_t k = 0; k < 20000; k++) {
        uint32_t i = (uint32_t)rng_below(N, 6, RNG_SHUFFLE, k, 0);
        if (where[i] >= 0) {
            age_list_remove(&lists[where[i]], links, i);
            where[i] = -1;
        } else {
            where[i] = (int)rng_below(2, 6, RNG_SHUFFLE, k, 1);
            age_list_insert(&lists[where[i]], links, i);
        }
        check(&lists[0], links, where, 0);
        check(&lists[1], links, where, 1);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_always_in_order),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
