/* Parts of hidden states that ranks send: all of them once, in order, at bounds that copies like. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>

#include <cmocka.h>

#include "workers/shard.h"

static void check(const struct arch *a, size_t n_tokens, int size)
{
    const size_t all = n_tokens * (size_t)a->hidden;
    const size_t value = arch_carried(a) == ARCH_F32 ? 4 : 2;
    size_t at = 0;
    for (int rank = 0; rank < size; rank++) {
        const struct shard_slice s = shard_hidden(a, n_tokens, rank, size);
        assert_int_equal(s.first, at);
        assert_int_equal(s.n_bytes, s.n * value);
        assert_true(s.first % 8 == 0 || s.n == 0);
        assert_true(s.n_bytes <= s.each_bytes && s.each_bytes <= all * value);
        assert_true(s.n_bytes == s.each_bytes || at + s.n == all); // only the last ones are shorter
        assert_true((size_t)rank * s.each_bytes == s.first * value || s.n == 0);
        at += s.n;
    }
    assert_int_equal(at, all);
}

static void parts_are_the_whole(void **state)
{
    (void)state;
    static const int hidden[] = {1, 7, 24, 32, 96, 896, 4096};
    static const size_t tokens[] = {1, 2, 3, 17, 512};
    for (size_t i = 0; i < sizeof hidden / sizeof *hidden; i++) {
        for (size_t k = 0; k < sizeof tokens / sizeof *tokens; k++) {
            for (int size = 1; size <= 9; size++) {
                const struct arch wide = {.hidden = hidden[i], .dtype = ARCH_F32};
                const struct arch narrow = {.hidden = hidden[i], .dtype = ARCH_BF16};
                check(&wide, tokens[k], size);
                check(&narrow, tokens[k], size);
            }
        }
    }
}

static void one_rank_has_all(void **state)
{
    (void)state;
    const struct arch a = {.hidden = 24, .dtype = ARCH_BF16};
    const struct shard_slice s = shard_hidden(&a, 5, 0, 0);
    assert_int_equal(s.n_bytes, 5 * 24 * 2);
    assert_int_equal(s.n_bytes, arch_carried_bytes(&a, 5));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(parts_are_the_whole),
        cmocka_unit_test(one_rank_has_all),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
