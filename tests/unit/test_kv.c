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
    assert_int_equal(kv_pool_create(&p, 3, false, &e), 0);
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
    assert_int_equal(kv_pool_create(&p, 0, false, &e), 0);
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
    assert_int_equal(kv_pool_create(&p, N_BLOCKS, false, &e), 0);
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

/* --- the prefix cache ------------------------------------------------------------------------------ */

static const int32_t *ids_of(int32_t first)
{
    static int32_t ids[BATCH_KV_BLOCK];
    for (int32_t i = 0; i < BATCH_KV_BLOCK; i++) {
        ids[i] = first + i;
    }
    return ids;
}

static void test_content_is_found_by_all_that_lies_before_it(void **state)
{
    (void)state;
    struct err e;
    struct kv_pool *p;
    assert_int_equal(kv_pool_create(&p, 4, true, &e), 0);
    uint64_t chain = KV_CHAIN_START;
    assert_int_equal(kv_pool_find(p, &chain, ids_of(7)), -1);
    assert_int_equal(kv_pool_take(p), 0);
    assert_int_equal(kv_pool_take(p), 1);
    assert_int_equal(kv_pool_take(p), 2);
    uint64_t one = kv_pool_keep(p, KV_CHAIN_START, 0, ids_of(7));
    uint64_t two = kv_pool_keep(p, one, 1, ids_of(7)); // the same ids, elsewhere
    assert_int_not_equal(one, two);
    assert_int_equal(kv_pool_find(p, &chain, ids_of(7)), 0);
    assert_int_equal(chain, one);
    assert_int_equal(kv_pool_find(p, &chain, ids_of(8)), -1);
    assert_int_equal(kv_pool_find(p, &chain, ids_of(7)), 1);
    assert_int_equal(chain, two);
    // What somebody else has computed as well goes on in the same chain, but stays unknown.
    assert_int_equal(kv_pool_keep(p, KV_CHAIN_START, 2, ids_of(7)), one);
    kv_pool_unref(p, 2);
    assert_int_equal(kv_pool_take(p), 2);
    kv_pool_destroy(p);
}

static void test_content_goes_when_its_block_is_needed(void **state)
{
    (void)state;
    struct err e;
    struct kv_pool *p;
    assert_int_equal(kv_pool_create(&p, 4, true, &e), 0);
    uint64_t chain[3] = {KV_CHAIN_START};
    for (uint32_t i = 0; i < 3; i++) {
        assert_int_equal(kv_pool_take(p), i);
        chain[i] = kv_pool_keep(p, KV_CHAIN_START, i, ids_of((int32_t)i));
    }
    kv_pool_unref(p, 1);
    kv_pool_unref(p, 0);
    kv_pool_unref(p, 2);
    assert_int_equal(kv_pool_free(p), 4);
    kv_pool_ref(p, 0); // found again: in use
    assert_int_equal(kv_pool_free(p), 3);
    assert_int_equal(kv_pool_take(p), 3); // the one without content
    assert_int_equal(kv_pool_take(p), 1); // then the longest free
    uint64_t start = KV_CHAIN_START;
    assert_int_equal(kv_pool_find(p, &start, ids_of(1)), -1);
    assert_int_equal(kv_pool_find(p, &start, ids_of(2)), 2);
    assert_int_equal(start, chain[2]);
    assert_int_equal(kv_pool_take(p), 2);
    assert_int_equal(kv_pool_take(p), -1); // 0 is in use
    kv_pool_unref(p, 1);
    assert_int_equal(kv_pool_take(p), 1);
    kv_pool_destroy(p);
}

enum {
    N_KEPT = 11, // contents, for 37 blocks and for 7
};

/* Random use against a list of what every block holds, in the order in which blocks became free. */
static void check_cache_against_model(uint32_t n_blocks, uint64_t seed)
{
    struct err e;
    struct kv_pool *p;
    assert_int_equal(kv_pool_create(&p, n_blocks, true, &e), 0);
    int32_t content[N_BLOCKS]; // -1: none
    uint32_t count[N_BLOCKS] = {0}, n_hits = 0;
    uint64_t freed[N_BLOCKS] = {0};
    for (uint32_t i = 0; i < n_blocks; i++) {
        content[i] = -1;
    }
    for (uint64_t i = 0; i < 20000; i++) {
        uint32_t block = (uint32_t)draw(n_blocks, seed + 3 * i);
        if (draw(2, seed + 3 * i + 1) && count[block] > 0) {
            kv_pool_unref(p, block);
            freed[block] = --count[block] == 0 ? i : 0;
            continue;
        }
        int32_t want = (int32_t)draw(N_KEPT, seed + 3 * i + 2);
        uint64_t chain = KV_CHAIN_START;
        int64_t got = kv_pool_find(p, &chain, ids_of(want));
        uint32_t oldest = N_BLOCKS;
        bool has_empty = false;
        for (uint32_t k = 0; k < n_blocks; k++) {
            assert_true(content[k] != want || got == k);
            has_empty |= count[k] == 0 && content[k] < 0;
            bool older = oldest == N_BLOCKS || freed[k] < freed[oldest];
            oldest = count[k] == 0 && content[k] >= 0 && older ? k : oldest;
        }
        if (got >= 0) {
            assert_int_equal(content[got], want);
            kv_pool_ref(p, (uint32_t)got);
            count[got]++;
            n_hits++;
        } else if ((got = kv_pool_take(p)) >= 0) {
            assert_true(count[got] == 0 && (has_empty ? content[got] < 0 : got == oldest));
            kv_pool_keep(p, KV_CHAIN_START, (uint32_t)got, ids_of(want));
            content[got] = want;
            count[got] = 1;
        } else {
            assert_true(!has_empty && oldest == N_BLOCKS);
        }
    }
    assert_true(n_hits > 100);
    kv_pool_destroy(p);
}

static void test_cache_against_model(void **state)
{
    (void)state;
    check_cache_against_model(N_BLOCKS, 0);
    check_cache_against_model(7, 1000000);
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
    b.n_blocks = b.rows[0].n_blocks = 3;
    rows[0] = row(2, BATCH_BEGIN | BATCH_PREFILL, 32, 5, 0, 3); // behind two cached blocks
    apply(&t, &b);
    assert_int_equal(t.n[2], 3);
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
        row(0, BATCH_BEGIN, 16, 1, 0, 1), // behind a block that it does not bring
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
        cmocka_unit_test(test_content_is_found_by_all_that_lies_before_it),
        cmocka_unit_test(test_content_goes_when_its_block_is_needed),
        cmocka_unit_test(test_cache_against_model),
        cmocka_unit_test(test_tables_grow_and_start_afresh),
        cmocka_unit_test(test_tables_refuse_nonsense),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
