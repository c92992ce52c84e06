#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "core/rng.h"
#include "workers/batch.h"
#include "workers/kv.h"

enum {
    N_BLOCKS = 37,
    N_TURNS = 200000,
};

static uint64_t draw(uint64_t n, uint64_t i)
{
    return rng_below(n, 7, RNG_SHUFFLE, i, n);
}

static void test_take_in_order_until_empty(void **state)
{
    (void)state;
    struct err e;
    struct kv_pool *p;
    assert_int_equal(kv_pool_create(&p, 3, &e), 0);
    assert_int_equal(kv_pool_size(p), 3);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(kv_pool_take(p), i);
    }
    assert_int_equal(kv_pool_take(p), -1);
    kv_pool_unref(p, 2);
    kv_pool_unref(p, 0);
    assert_int_equal(kv_pool_take(p), 0); // last in, first out
    assert_int_equal(kv_pool_take(p), 2);
    kv_pool_destroy(p);
}

static void test_empty_pool(void **state)
{
    (void)state;
    struct err e;
    struct kv_pool *p;
    assert_int_equal(kv_pool_create(&p, 0, &e), 0);
    assert_int_equal(kv_pool_take(p), -1);
    assert_int_equal(kv_pool_free(p), 0);
    kv_pool_destroy(p);
}

/* Random take, ref and unref against an array of counts and a stack of free blocks. */
static void test_pool_against_model(void **state)
{
    (void)state;
    struct err e;
    struct kv_pool *p;
    assert_int_equal(kv_pool_create(&p, N_BLOCKS, &e), 0);
    uint32_t count[N_BLOCKS] = {0}, stack[N_BLOCKS], n_free = N_BLOCKS;
    for (uint32_t i = 0; i < N_BLOCKS; i++) {
        stack[i] = N_BLOCKS - 1 - i;
    }
    uint32_t n_empty = 0;
    for (uint64_t i = 0; i < N_TURNS; i++) {
        // In waves, so that the pool is now full, now empty.
        uint64_t grow = (i / 500) % 2 ? 6 : 3;
        uint32_t block = (uint32_t)draw(N_BLOCKS, 2 * i);
        uint64_t op = draw(10, 2 * i + 1);
        if (op < grow) {
            int64_t want = n_free > 0 ? (int64_t)stack[n_free - 1] : -1;
            assert_int_equal(kv_pool_take(p), want);
            n_empty += want < 0;
            if (want >= 0) {
                n_free--;
                assert_int_equal(count[want], 0);
                count[want] = 1;
            }
        } else if (count[block] > 0 && op == grow) {
            kv_pool_ref(p, block);
            count[block]++;
        } else if (count[block] > 0) {
            kv_pool_unref(p, block);
            if (--count[block] == 0) {
                stack[n_free++] = block;
            }
        }
        assert_int_equal(kv_pool_free(p), n_free);
    }
    assert_true(n_empty > 100); // the edge was reached
    kv_pool_destroy(p);
}

static struct batch_row row(uint32_t slot, uint32_t flags, uint32_t pos, uint32_t n_tokens,
                            uint32_t first_block, uint32_t n_blocks)
{
    return (struct batch_row){
        .slot = slot,
        .flags = flags,
        .pos = pos,
        .n_tokens = n_tokens,
        .first_block = first_block,
        .n_blocks = n_blocks,
    };
}

static void apply(struct kv_tables *t, struct batch *b)
{
    struct err e;
    assert_int_equal(kv_tables_check(t, b, &e), 0);
    kv_tables_apply(t, b);
}

static void test_tables_grow_and_start_afresh(void **state)
{
    (void)state;
    struct err e;
    struct kv_tables t;
    assert_int_equal(kv_tables_init(&t, 4, 3, &e), 0);
    struct batch_row rows[2];
    uint32_t blocks[3] = {11, 12, 13};
    struct batch b = {.rows = rows, .blocks = blocks, .n_rows = 2, .n_blocks = 3};
    rows[0] = row(3, BATCH_BEGIN | BATCH_PREFILL, 0, 20, 0, 2);
    rows[1] = row(0, BATCH_BEGIN | BATCH_PREFILL, 0, 1, 2, 1);
    apply(&t, &b);
    assert_int_equal(t.n[3], 2);
    assert_int_equal(t.n[0], 1);
    assert_int_equal(t.blocks[3 * 3 + 1], 12);
    assert_int_equal(t.blocks[0], 13);

    b.n_rows = 1;
    blocks[0] = 30;
    rows[0] = row(3, BATCH_SAMPLE, 20, 1, 0, 0); // fits its blocks
    apply(&t, &b);
    assert_int_equal(t.n[3], 2);
    rows[0] = row(3, BATCH_SAMPLE, 32, 1, 0, 1);
    apply(&t, &b);
    assert_int_equal(t.n[3], 3);
    assert_int_equal(t.blocks[3 * 3 + 2], 30);
    rows[0] = row(3, BATCH_BEGIN | BATCH_PREFILL, 0, 3, 0, 1); // the next request in this slot
    apply(&t, &b);
    assert_int_equal(t.n[3], 1);
    assert_int_equal(t.blocks[3 * 3], 30);
    kv_tables_free(&t);
}

static void test_tables_refuse_nonsense(void **state)
{
    (void)state;
    struct err e;
    struct kv_tables t;
    assert_int_equal(kv_tables_init(&t, 2, 2, &e), 0);
    uint32_t blocks[4] = {0};
    struct batch_row rows[2];
    struct batch b = {.rows = rows, .blocks = blocks, .n_rows = 1};
    const struct batch_row bad[] = {
        row(2, BATCH_BEGIN, 0, 1, 0, 1),  // no such slot
        row(0, BATCH_BEGIN, 0, 17, 0, 1), // past its block
        row(0, BATCH_BEGIN, 0, 33, 0, 3), // longer than a table
        row(0, 0, 0, 1, 0, 0),            // continues what never began
        row(0, 0, UINT32_MAX, 1, 0, 1),
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        rows[0] = bad[i];
        assert_int_equal(kv_tables_check(&t, &b, &e), -1);
        assert_int_equal(e.code, ERR_ENV);
    }
    b.n_rows = 2; // one slot twice, though each row alone would do
    rows[0] = rows[1] = row(1, BATCH_BEGIN, 0, 1, 0, 1);
    assert_int_equal(kv_tables_check(&t, &b, &e), -1);
    b.n_rows = 1;
    assert_int_equal(kv_tables_check(&t, &b, &e), 0);
    kv_tables_free(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_take_in_order_until_empty),
        cmocka_unit_test(test_empty_pool),
        cmocka_unit_test(test_pool_against_model),
        cmocka_unit_test(test_tables_grow_and_start_afresh),
        cmocka_unit_test(test_tables_refuse_nonsense),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
