#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "core/rng.h"
#include "workers/batch.h"

static const struct batch_limits limits = {
    .max_rows = 8,
    .max_tokens = 64,
    .max_blocks = 12,
    .n_stages = 3,
    .n_slots = 10,
    .n_kv_blocks = 100,
    .n_lanes = 4,
    .n_load_ranks = 2,
};

static uint32_t draw(uint32_t n, uint64_t a, uint64_t b)
{
    return (uint32_t)rng_below(n, 11, RNG_SHUFFLE, a, b);
}

static struct batch *create(void)
{
    struct err e;
    struct batch *b;
    assert_int_equal(batch_create(&b, &limits, &e), 0);
    return b;
}

static void fill_row(struct batch *b, uint64_t seed, uint32_t i)
{
    bool is_prefill = draw(2, seed, 100 + i);
    uint32_t n_tokens = is_prefill ? 1 + draw(7, seed, 200 + i) : 1;
    uint32_t n_blocks = draw(2, seed, 300 + i);
    bool begins = is_prefill && draw(2, seed, 400 + i);
    bool sampled = !is_prefill || draw(2, seed, 500 + i);
    b->rows[i] = (struct batch_row){
        .slot = i,
        .flags = (is_prefill ? BATCH_PREFILL : 0u) | (begins ? BATCH_BEGIN : 0u) |
                 (begins && draw(2, seed, 450 + i) ? BATCH_AGAIN : 0u) |
                 (sampled ? BATCH_SAMPLE | BATCH_LAST : 0u),
        .first = b->n_tokens,
        .n_tokens = n_tokens,
        .pos = draw(1000, seed, 600 + i) * (begins ? BATCH_KV_BLOCK : 1),
        .first_block = b->n_blocks,
        .n_blocks = n_blocks,
        .load_rank = (int32_t)draw(2, seed, 700 + i),
        .ticket = {.slot = draw(1 << 20, seed, 800 + i), .generation = i},
        .t_recv_ns = begins ? 5 : 0,
    };
    if (begins && draw(2, seed, 450 + i)) {
        b->rows[i].flags |= BATCH_PARAMS;
        b->params[b->n_params++] = (struct batch_params){
            .how = {.seed = seed, .temperature = 1, .top_p = 0.5F, .top_k = i}, .n_in = i};
    }
    for (uint32_t k = 0; k < n_tokens; k++) {
        b->tokens[b->n_tokens++] = (int32_t)draw(32000, seed, 900 + 10 * i + k);
    }
    for (uint32_t k = 0; k < n_blocks; k++) {
        b->blocks[b->n_blocks++] = draw(limits.n_kv_blocks, seed, 1900 + 10 * i + k);
    }
}

/* A valid batch drawn from the seed. */
static void fill(struct batch *b, uint64_t seed)
{
    b->seq = 1 + seed;
    b->step = 3;
    b->lane = (uint16_t)draw(limits.n_lanes, seed, 1);
    b->t_build_ns = 1000000 + (int64_t)seed;
    b->t_ready_ns = 999999;
    b->n_rows = b->n_tokens = b->n_blocks = b->n_params = 0;
    uint32_t n_rows = 1 + draw(limits.max_rows, seed, 2);
    for (uint32_t i = 0; i < n_rows; i++) {
        fill_row(b, seed, i);
    }
    b->n_rows = n_rows;
    for (uint32_t s = 0; s < limits.n_stages; s++) {
        b->times[s] = (struct batch_stage_times){.t_recv_ns = s, .t_end_ns = 10 * (int64_t)seed};
    }
}

static void assert_same(const struct batch *a, const struct batch *b)
{
    assert_int_equal(a->seq, b->seq);
    assert_int_equal(a->step, b->step);
    assert_int_equal(a->lane, b->lane);
    assert_int_equal(a->n_stages, b->n_stages);
    assert_int_equal(a->t_build_ns, b->t_build_ns);
    assert_int_equal(a->t_ready_ns, b->t_ready_ns);
    assert_int_equal(a->n_rows, b->n_rows);
    assert_int_equal(a->n_tokens, b->n_tokens);
    assert_int_equal(a->n_blocks, b->n_blocks);
    assert_int_equal(a->n_params, b->n_params);
    assert_int_equal(memcmp(a->params, b->params, a->n_params * sizeof *a->params), 0);
    assert_memory_equal(a->rows, b->rows, a->n_rows * sizeof *a->rows);
    assert_memory_equal(a->times, b->times, a->n_stages * sizeof *a->times);
    assert_memory_equal(a->tokens, b->tokens, a->n_tokens * sizeof *a->tokens);
    assert_int_equal(memcmp(a->blocks, b->blocks, a->n_blocks * sizeof *a->blocks), 0);
}

static void test_round_trip(void **state)
{
    (void)state;
    struct err e;
    struct batch *a = create(), *b = create();
    uint8_t *wire = malloc(batch_max_bytes(&limits));
    for (uint64_t seed = 0; seed < 500; seed++) {
        fill(a, seed);
        size_t n = batch_encode(a, wire);
        assert_true(n <= batch_max_bytes(&limits));
        assert_int_equal(batch_decode(b, &limits, wire, n, &e), 0);
        assert_same(a, b);
    }
    free(wire);
    batch_destroy(a);
    batch_destroy(b);
}

/* What every accepted batch must satisfy, whatever the bytes were. */
static void assert_in_bounds(const struct batch *b)
{
    assert_in_range(b->n_rows, 1, limits.max_rows);
    assert_in_range(b->n_tokens, 1, limits.max_tokens);
    assert_true(b->n_blocks <= limits.max_blocks && b->lane < limits.n_lanes);
    assert_true(b->n_params <= b->n_rows);
    uint32_t n_tokens = 0, n_blocks = 0;
    for (uint32_t i = 0; i < b->n_rows; i++) {
        const struct batch_row *r = &b->rows[i];
        assert_true(r->slot < limits.n_slots);
        assert_in_range(r->load_rank, 0, limits.n_load_ranks - 1);
        assert_int_equal(r->first, n_tokens);
        assert_int_equal(r->first_block, n_blocks);
        assert_true(r->n_tokens > 0);
        n_tokens += r->n_tokens;
        n_blocks += r->n_blocks;
    }
    assert_int_equal(n_tokens, b->n_tokens);
    assert_int_equal(n_blocks, b->n_blocks);
    for (uint32_t i = 0; i < b->n_blocks; i++) {
        assert_true(b->blocks[i] < limits.n_kv_blocks);
    }
}

/* Exactly sized copies, so that a sanitizer sees any read beyond the message. */
static int decode_copy(struct batch *b, const uint8_t *bytes, size_t n)
{
    struct err e;
    uint8_t *copy = malloc(n + 1); // malloc(0) may be NULL
    memcpy(copy, bytes, n);
    int rc = batch_decode(b, &limits, copy, n, &e);
    free(copy);
    return rc;
}

static void test_corrupted_bytes(void **state)
{
    (void)state;
    struct batch *a = create(), *b = create();
    uint8_t *wire = malloc(batch_max_bytes(&limits));
    uint32_t n_accepted = 0, n_refused = 0;
    for (uint64_t seed = 0; seed < 20000; seed++) {
        fill(a, seed % 50);
        size_t n = batch_encode(a, wire);
        uint32_t n_flips = 1 + draw(4, seed, 5000);
        for (uint32_t k = 0; k < n_flips; k++) {
            uint32_t at = draw((uint32_t)n, seed, 5001 + k);
            wire[at] = (uint8_t)(wire[at] ^ (1u << draw(8, seed, 6000 + k)));
        }
        if (decode_copy(b, wire, n) == 0) {
            assert_in_bounds(b);
            n_accepted++;
        } else {
            n_refused++;
        }
    }
    assert_true(n_accepted > 100 && n_refused > 100); // ids and stamps may differ, indices may not
    free(wire);
    batch_destroy(a);
    batch_destroy(b);
}

static void test_truncated_bytes(void **state)
{
    (void)state;
    struct batch *a = create(), *b = create();
    uint8_t *wire = malloc(batch_max_bytes(&limits) + 8);
    fill(a, 4);
    size_t n = batch_encode(a, wire);
    for (size_t len = 0; len < n; len++) {
        assert_int_equal(decode_copy(b, wire, len), -1);
    }
    memset(wire + n, 0, 8);
    assert_int_equal(decode_copy(b, wire, n + 8), -1);
    assert_int_equal(decode_copy(b, wire, n), 0);
    free(wire);
    batch_destroy(a);
    batch_destroy(b);
}

struct spoil {
    const char *name;
    void (*fn)(struct batch *b);
};

#define SPOIL(name_, statement_)                                                                   \
    static void spoil_##name_(struct batch *b)                                                     \
    {                                                                                              \
        statement_;                                                                                \
    }
SPOIL(seq, b->seq = 0)
SPOIL(lane, b->lane = 4)
SPOIL(stages, b->n_stages = 2)
SPOIL(slot, b->rows[0].slot = 10)
SPOIL(load_rank, b->rows[0].load_rank = 2)
SPOIL(negative_rank, b->rows[0].load_rank = -1)
SPOIL(overlap, b->rows[0].first = 1)
SPOIL(no_tokens, b->rows[0].n_tokens = 0)
SPOIL(too_many, b->rows[0].n_tokens = UINT32_MAX)
SPOIL(flags, b->rows[0].flags |= 1u << 20)
SPOIL(stop_unsampled, b->rows[0].flags = BATCH_PREFILL | BATCH_LAST)
SPOIL(again_without_begin, b->rows[0].flags = BATCH_PREFILL | BATCH_AGAIN)
SPOIL(begin_late, (b->rows[0].flags = BATCH_PREFILL | BATCH_BEGIN, b->rows[0].pos = 1))
SPOIL(no_params, b->rows[0].flags |= BATCH_PREFILL | BATCH_BEGIN | BATCH_PARAMS)
SPOIL(params_late, (b->rows[0].flags = BATCH_SAMPLE | BATCH_PARAMS, b->n_params = 1))
SPOIL(stop_ids_unsampled, b->rows[0].flags = BATCH_PREFILL | BATCH_STOP_IDS)
SPOIL(pos, b->rows[0].pos = UINT32_MAX)
SPOIL(stamp, b->times[1].t_end_ns = INT64_MIN)
SPOIL(blocks, b->rows[0].n_blocks = UINT32_MAX)

static void test_each_check(void **state)
{
    (void)state;
    static const struct spoil spoils[] = {
        {"seq", spoil_seq},
        {"lane", spoil_lane},
        {"stages", spoil_stages},
        {"slot", spoil_slot},
        {"load rank", spoil_load_rank},
        {"negative load rank", spoil_negative_rank},
        {"overlap", spoil_overlap},
        {"no tokens", spoil_no_tokens},
        {"too many tokens", spoil_too_many},
        {"unknown flag", spoil_flags},
        {"last without sample", spoil_stop_unsampled},
        {"again without begin", spoil_again_without_begin},
        {"begin in the middle", spoil_begin_late},
        {"parameters missing", spoil_no_params},
        {"parameters in the middle", spoil_params_late},
        {"stop ids without sample", spoil_stop_ids_unsampled},
        {"position", spoil_pos},
        {"stamp", spoil_stamp},
        {"blocks", spoil_blocks},
    };
    struct err e;
    struct batch *a = create(), *b = create();
    uint8_t *wire = malloc(batch_max_bytes(&limits));
    for (size_t i = 0; i < sizeof spoils / sizeof spoils[0]; i++) {
        a->n_stages = (uint16_t)limits.n_stages;
        fill(a, 9);
        spoils[i].fn(a);
        size_t n = batch_encode(a, wire);
        if (batch_decode(b, &limits, wire, n, &e) == 0) {
            fail_msg("accepted: %s", spoils[i].name);
        }
        assert_int_equal(e.code, ERR_ENV);
    }
    free(wire);
    batch_destroy(a);
    batch_destroy(b);
}

static void test_ends(void **state)
{
    (void)state;
    enum {
        STOPS = WIRE_LAST | WIRE_STOPPED,
    };
    const int eos[] = {2, 7};
    const struct wire_sampling how = {.n_stop_ids = 2, .stop_ids = {40, 41}};
    static const struct {
        uint32_t flags;
        int32_t id;
        int n_eos;
        uint32_t end;
    } cases[] = {
        {BATCH_SAMPLE, 2, 2, 0}, // EOS is ignored unless asked for
        {BATCH_SAMPLE | BATCH_LAST, 5, 2, WIRE_LAST},
        {BATCH_SAMPLE | BATCH_STOP_EOS, 7, 2, STOPS},
        {BATCH_SAMPLE | BATCH_STOP_EOS, 3, 2, 0},
        {BATCH_SAMPLE | BATCH_STOP_EOS, 2, 0, 0},
        {BATCH_SAMPLE | BATCH_STOP_EOS | BATCH_LAST, 3, 2, WIRE_LAST},
        {BATCH_SAMPLE | BATCH_STOP_EOS | BATCH_LAST, 2, 2, STOPS},
        {BATCH_SAMPLE | BATCH_STOP_EOS, 41, 2, 0}, // too early for stop ids, too
        {BATCH_SAMPLE | BATCH_STOP_IDS, 41, 2, STOPS},
        {BATCH_SAMPLE | BATCH_STOP_IDS, 2, 2, 0},
        {BATCH_SAMPLE | BATCH_STOP_IDS | BATCH_STOP_EOS, 2, 2, STOPS},
        {BATCH_SAMPLE | BATCH_STOP_IDS, 42, 2, 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        assert_int_equal(batch_ends(cases[i].flags, cases[i].id, eos, cases[i].n_eos, &how),
                         cases[i].end);
    }
    assert_int_equal(batch_ends(BATCH_SAMPLE | BATCH_STOP_IDS, 41, eos, 2, NULL), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_corrupted_bytes),
        cmocka_unit_test(test_truncated_bytes),
        cmocka_unit_test(test_each_check),
        cmocka_unit_test(test_ends),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
