#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>

#include <cmocka.h>

#include "workers/weights/bf16.h"
#include "workers/weights/fill.h"

#include <math.h>
#include <string.h>

#define NAME "model.layers.0.self_attn.q_proj.weight"

/* Worked out apart from this code, in integers, from the definition in fill.h. */
static void known_values(void **state)
{
    (void)state;
    const struct {
        uint64_t i;
        int sum;
        uint16_t bf16;
    } known[] = {
        {0, -47552, 0xbcba},    {1, -7639, 0xbb6f},        {2, -17948, 0xbc0c},
        {1000, -23079, 0xbc34}, {123456789, 3983, 0x3af9}, {1ull << 40, -36599, 0xbc8f},
    };
    uint64_t key = fill_key(NAME);
    assert_true(key == 0x3a296639dc11febbu);
    assert_true(fill_key("") == 0xcbf29ce484222325u);
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        float f;
        uint16_t b;
        fill_f32(key, known[i].i, 1, &f);
        fill_bf16(key, known[i].i, 1, &b);
        assert_true(f == (float)known[i].sum / 2097152.0f);
        assert_int_equal(b, known[i].bf16);
    }
}

static void spread_is_that_of_trained_models(void **state)
{
    (void)state;
    enum {
        N = 1 << 18
    };
    static float v[N];
    fill_f32(fill_key(NAME), 0, N, v);
    double sum = 0, squares = 0, fourth = 0;
    for (size_t i = 0; i < N; i++) {
        double x = (double)v[i];
        sum += x;
        squares += x * x;
        fourth += x * x * x * x;
    }
    const double sd = 65536 / sqrt(3) / 2097152, variance = squares / N;
    assert_true(fabs(sum / N) < 5 * sd / sqrt(N));
    assert_true(fabs(sqrt(variance) / sd - 1) < 0.01);
    assert_true(fabs(fourth / N / (variance * variance) - 2.7) < 0.05); // 3 - 1.2 / 4 fields
}

static void shards_make_their_own_parts(void **state)
{
    (void)state;
    float whole[1000], parts[1000];
    uint64_t key = fill_key("lm_head.weight");
    fill_f32(key, 50, 1000, whole);
    fill_f32(key, 50 + 700, 300, parts + 700);
    fill_f32(key, 50, 1, parts);
    fill_f32(key, 50 + 1, 699, parts + 1);
    assert_memory_equal(whole, parts, sizeof whole);
    fill_f32(fill_key("lm_head.weighs"), 50, 1000, parts);
    int same = 0;
    for (int i = 0; i < 1000; i++) {
        same += whole[i] == parts[i];
    }
    assert_in_range(same, 0, 5); // another name, other values
}

/* Each instruction set's loops, for lengths that leave every remainder of its vectors. */
static void every_set_gives_the_same_bits(void **state)
{
    (void)state;
    enum {
        N = 700
    };
    const struct fill_set *set;
    int n_sets = 0;
    float want[N], got[N];
    uint16_t want_halves[N], halves[N];
    for (; (set = fill_set(n_sets)) != NULL; n_sets++) {
        for (uint64_t n = 0; n < N; n += n < 70 ? 1 : 61) {
            const uint64_t from = fill_key(NAME) + n * n * 0x9e3779b97f4a7c15u;
            for (uint64_t i = 0; i < n; i++) { // one by one
                fill_f32(from, i, 1, &want[i]);
                want_halves[i] = bf16_from_f32(want[i]);
            }
            got[n] = 7;
            halves[n] = 7;
            set->f32(from, n, got);
            set->bf16(from, n, halves);
            assert_memory_equal(got, want, n * sizeof *got);
            assert_memory_equal(halves, want_halves, n * sizeof *halves);
            assert_true(got[n] == 7 && halves[n] == 7);
        }
    }
    assert_true(n_sets >= 1 && strcmp(fill_set(n_sets - 1)->name, "portable") == 0);
}

static void bfloat16_rounds_to_nearest_even(void **state)
{
    (void)state;
    const struct {
        uint32_t f;
        uint16_t b;
    } known[] = {
        {0x3f800000, 0x3f80}, {0x3f808000, 0x3f80}, {0x3f818000, 0x3f82}, {0x3f808001, 0x3f81},
        {0x3f80ffff, 0x3f81}, {0x80000000, 0x8000}, {0x7f7fffff, 0x7f80}, {0x7f800000, 0x7f80},
        {0x7f800001, 0x7fc0}, {0xff801234, 0xffc0},
    };
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        float f;
        memcpy(&f, &known[i].f, sizeof f);
        assert_int_equal(bf16_from_f32(f), known[i].b);
    }
    assert_true(bf16_to_f32(0x3fc0) == 1.5f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(known_values),
        cmocka_unit_test(spread_is_that_of_trained_models),
        cmocka_unit_test(shards_make_their_own_parts),
        cmocka_unit_test(every_set_gives_the_same_bits),
        cmocka_unit_test(bfloat16_rounds_to_nearest_even),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
