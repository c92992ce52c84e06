#include "results/record.h"

#include "core/rng.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#define MAX_TOKENS 40
#define MAX_BYTES  2048

/* A record of any shape, as a function of i; also its two arrays. */
static void any_record(uint64_t i, struct record *r, uint32_t *stage_us, uint32_t *dt_us)
{
    uint8_t bytes[sizeof *r];
    for (size_t k = 0; k < sizeof bytes; k++) {
        bytes[k] = (uint8_t)rng_u64(1, RNG_TOKENS, i, k);
    }
    memcpy(r, bytes, sizeof *r);
    r->outcome = (uint8_t)rng_below(OUTCOME_N, 1, RNG_ENTRY, i, 0);
    r->n_stages = (uint8_t)rng_below(RECORD_MAX_STAGES + 1, 1, RNG_ENTRY, i, 1);
    r->n_out = (uint32_t)rng_below(MAX_TOKENS + 1, 1, RNG_ENTRY, i, 2);
    for (size_t k = 0; k < 2 * RECORD_MAX_STAGES; k++) {
        stage_us[k] = (uint32_t)rng_u64(1, RNG_SHUFFLE, i, k);
    }
    for (size_t k = 0; k < MAX_TOKENS; k++) {
        dt_us[k] = (uint32_t)rng_u64(1, RNG_BOOTSTRAP, i, k);
    }
}

static void init_means_nothing_happened(void **state)
{
    (void)state;
    struct record r;
    record_init(&r);
    assert_int_equal(r.t_sched_ns, RECORD_NONE);
    assert_int_equal(r.t_emit_last_ns, RECORD_NONE);
    assert_int_equal(r.n_out_usage, UINT32_MAX);
    assert_int_equal(r.n_out, 0);
    assert_int_equal(r.outcome, OUTCOME_OK);
}

static void names_are_complete(void **state)
{
    (void)state;
    for (int i = 0; i < OUTCOME_N; i++) {
        assert_non_null(record_outcome_names[i]);
    }
    for (int i = 0; i < STEP_KIND_N; i++) {
        assert_non_null(record_step_kind_names[i]);
    }
    for (int i = 0; i < VERDICT_N; i++) {
        assert_non_null(record_verdict_names[i]);
    }
    for (int i = 0; i < SPAN_OP_N; i++) {
        assert_non_null(record_span_op_names[i]);
    }
    assert_string_equal(record_outcome_names[OUTCOME_LOST], "lost");
    assert_string_equal(record_verdict_names[VERDICT_CLIENT_LIMITED], "client_limited");
}

static void what_is_encoded_comes_back(void **state)
{
    (void)state;
    _Alignas(8) uint8_t bytes[MAX_BYTES];
    for (uint64_t i = 0; i < 2000; i++) {
        struct record in, out;
        uint32_t stage_us[2 * RECORD_MAX_STAGES], dt_us[MAX_TOKENS];
        const uint32_t *stage_back, *dt_back;
        any_record(i, &in, stage_us, dt_us);
        size_t n = record_encoded_bytes(&in);
        assert_in_range(n, sizeof in, sizeof bytes);
        assert_int_equal(n % 8, 0);
        record_encode(&in, stage_us, dt_us, bytes);
        assert_int_equal(record_decode(bytes, sizeof bytes, &out, &stage_back, &dt_back), n);
        assert_memory_equal(&in, &out, sizeof in);
        assert_true((stage_back != NULL) == (in.n_stages > 0));
        assert_true((dt_back != NULL) == (in.n_out > 0));
        if (in.n_stages > 0) {
            assert_memory_equal(stage_back, stage_us, 2u * in.n_stages * sizeof *stage_us);
        }
        if (in.n_out > 0) {
            assert_memory_equal(dt_back, dt_us, in.n_out * sizeof *dt_us);
        }
    }
}

static void a_part_is_no_record(void **state)
{
    (void)state;
    struct record r, out;
    uint32_t stage_us[2 * RECORD_MAX_STAGES], dt_us[MAX_TOKENS];
    const uint32_t *stage_back, *dt_back;
    uint8_t whole[MAX_BYTES];
    any_record(5, &r, stage_us, dt_us);
    size_t n = record_encoded_bytes(&r);
    record_encode(&r, stage_us, dt_us, whole);
    for (size_t len = 0; len < n; len++) {
        uint8_t *part = malloc(len + 1); // its own block: a read past it is seen
        memcpy(part, whole, len);
        assert_int_equal(record_decode(part, len, &out, &stage_back, &dt_back), 0);
        free(part);
    }
}

/* Anything may come in; what is taken for a record lies within the bytes. */
static void damaged_bytes_stay_inside(void **state)
{
    (void)state;
    size_t n_taken = 0;
    for (uint64_t i = 0; i < 20000; i++) {
        struct record r, out;
        uint32_t stage_us[2 * RECORD_MAX_STAGES], dt_us[MAX_TOKENS];
        const uint32_t *stage_back, *dt_back;
        any_record(i % 50, &r, stage_us, dt_us);
        size_t n = record_encoded_bytes(&r);
        uint8_t *bytes = malloc(n);
        record_encode(&r, stage_us, dt_us, bytes);
        for (uint64_t k = 0; k <= i % 3; k++) {
            bytes[rng_below(n, 2, RNG_ENTRY, i, k)] ^=
                (uint8_t)(1 + rng_below(255, 2, RNG_SHUFFLE, i, k));
        }
        size_t used = record_decode(bytes, n, &out, &stage_back, &dt_back);
        assert_true(used == 0 || used == n);
        if (used > 0) {
            n_taken++;
            assert_true(out.outcome < OUTCOME_N && out.n_stages <= RECORD_MAX_STAGES);
            assert_true(out.n_out == 0 || (const uint8_t *)(dt_back + out.n_out) <= bytes + n);
        }
        free(bytes);
    }
    assert_true(n_taken > 1000); // most flips hit values, not the shape
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(init_means_nothing_happened), cmocka_unit_test(names_are_complete),
        cmocka_unit_test(what_is_encoded_comes_back),  cmocka_unit_test(a_part_is_no_record),
        cmocka_unit_test(damaged_bytes_stay_inside),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
