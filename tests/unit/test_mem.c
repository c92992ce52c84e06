/* Arenas keep what they hand out, aligned and apart; aligned blocks are zeroed. */
#include "core/mem.h"
#include "core/rng.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#define N_ALLOCS 20000

static void test_x_functions(void **state)
{
    (void)state;
    unsigned char *p = xcalloc(7, 3);
    for (int i = 0; i < 21; i++) {
        assert_int_equal(p[i], 0);
    }
    p = xrealloc(p, 100000);
    free(p);
    free(xmalloc(0));
    char *s = xstrdup("stage");
    char *t = xasprintf("%s %d", s, 3);
    assert_string_equal(t, "stage 3");
    free(s);
    free(t);
}

static void test_aligned(void **state)
{
    (void)state;
    const size_t sizes[] = {0, 1, 63, 64, 65, 4097, 1000003};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        unsigned char *p = mem_aligned(sizes[i]);
        assert_non_null(p);
        assert_int_equal((uintptr_t)p % 64, 0);
        for (size_t k = 0; k < sizes[i]; k++) {
            assert_int_equal(p[k], 0);
        }
        free(p);
    }
    assert_null(mem_aligned(SIZE_MAX));
}

/* Sizes over several orders of magnitude, some far larger than a block. */
static size_t size_of(uint64_t i)
{
    uint64_t most = i % 997 == 0 ? 3000000 : 200;
    return rng_below(most, 1, RNG_SHUFFLE, 0, i);
}

static void test_arena_keeps_what_it_hands_out(void **state)
{
    (void)state;
    struct arena a = {0};
    unsigned char **p = xcalloc(N_ALLOCS, sizeof *p);
    size_t total = 0;
    for (uint64_t i = 0; i < N_ALLOCS; i++) {
        size_t n = size_of(i);
        p[i] = arena_alloc(&a, n);
        assert_non_null(p[i]);
        assert_int_equal((uintptr_t)p[i] % 16, 0);
        memset(p[i], (int)(i % 251), n);
        total += n;
    }
    assert_int_equal(a.n_bytes, total);
    for (uint64_t i = 0; i < N_ALLOCS; i++) {
        size_t n = size_of(i);
        for (size_t k = 0; k < n; k++) {
            if (p[i][k] != i % 251) {
                fail_msg("allocation %d was overwritten", (int)i);
            }
        }
    }
    free(p);
    arena_free(&a);
    assert_null(a.head);
    assert_int_equal(a.n_bytes, 0);
}

static void test_arena_strings_and_limits(void **state)
{
    (void)state;
    struct arena a = {0};
    assert_string_equal(arena_strdup(&a, "a prompt", 3), "a p");
    assert_string_equal(arena_strdup(&a, "", 0), "");
    char *with_nul = arena_strdup(&a, "a\0b", 3);
    assert_memory_equal(with_nul, "a\0b", 4);
    assert_ptr_not_equal(arena_alloc(&a, 0), arena_alloc(&a, 0));
    assert_null(arena_alloc(&a, SIZE_MAX));
    assert_null(arena_alloc(&a, SIZE_MAX - 8));
    assert_null(arena_strdup(&a, "x", SIZE_MAX));
    arena_free(&a);
    arena_free(&a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_x_functions),
        cmocka_unit_test(test_aligned),
        cmocka_unit_test(test_arena_keeps_what_it_hands_out),
        cmocka_unit_test(test_arena_strings_and_limits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
