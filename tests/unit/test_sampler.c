#include "workers/sampler.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <float.h>
#include <jansson.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/mem.h"
#include "core/rng.h"

enum {
    MAX_VOCAB = 70000,
    DRAWS = 3000,
};

#define NEAR 2e-7 // float32 weights may fall on the other side

/* --- what must come out ------------------------------------------------------------------------------- */

struct ranked {
    double x;
    int id;
};

static int by_rank(const void *a, const void *b)
{
    const struct ranked *p = a, *q = b;
    return p->x != q->x ? (p->x < q->x) - (p->x > q->x) : p->id - q->id;
}

/* Probabilities after all bounds, by sorting, in double: p (n). */
static void oracle(const float *logits, int n, const struct wire_sampling *how, double *p)
{
    struct ranked *r = xcalloc((size_t)n, sizeof *r);
    for (int i = 0; i < n; i++) {
        r[i] = (struct ranked){(double)logits[i] / (double)how->temperature, i};
        p[i] = 0;
    }
    qsort(r, (size_t)n, sizeof *r, by_rank);
    int n_in = n;
    if (how->top_k > 0 && how->top_k < (uint32_t)n) {
        for (n_in = (int)how->top_k; n_in < n && r[n_in].x == r[how->top_k - 1].x; n_in++) {
        }
    }
    double sum = 0, before = 0;
    for (int i = 0; i < n_in; i++) {
        sum += exp(r[i].x - r[0].x);
    }
    int n_kept = 0;
    for (int i = 0; i < n_in && before < (double)how->top_p * sum; i++) {
        const double w = exp(r[i].x - r[0].x);
        before += w;
        if (w >= (double)how->min_p) {
            p[r[i].id] = w;
            n_kept = i + 1;
        }
    }
    double kept = 0;
    for (int i = 0; i < n_kept; i++) {
        kept += p[r[i].id];
    }
    for (int i = 0; i < n; i++) {
        p[i] /= kept;
    }
    free(r);
}

static struct sampler_job run(const float *logits, int n, const struct wire_sampling *how,
                              uint32_t index)
{
    static float copy[MAX_VOCAB];
    struct err e;
    struct sampler *s;
    struct sampler_job job = {.how = how, .index = index};
    assert_int_equal(sampler_create(&s, n, &e), 0);
    memcpy(copy, logits, (size_t)n * sizeof *copy);
    sampler_run(s, copy, &job);
    sampler_destroy(s);
    return job;
}

/* The id at which p's sum goes past u. *near: how close u is to where another would come out. */
static int32_t invert(const double *p, int n, double u, double *near)
{
    double sum = 0;
    int32_t id = -1;
    *near = 1;
    for (int i = 0; i < n && sum <= u; i++) {
        if (p[i] > 0) {
            *near = fmin(*near, fabs(u - sum));
            sum += p[i];
            id = i;
        }
    }
    *near = fmin(*near, fabs(u - sum));
    return id;
}

/* Draw after draw is the one that the distribution p (n) asks for. */
static void check_draws(const float *logits, int n, const struct wire_sampling *how,
                        const double *p, uint32_t n_draws)
{
    static float copy[MAX_VOCAB];
    struct err e;
    struct sampler *s;
    struct wire_sampling seeded = *how;
    uint32_t n_near = 0;
    assert_int_equal(sampler_create(&s, n, &e), 0);
    for (uint32_t k = 0; k < n_draws; k++) {
        double near;
        seeded.seed = k / 7;
        struct sampler_job job = {.how = &seeded, .index = k % 7};
        memcpy(copy, logits, (size_t)n * sizeof *copy);
        sampler_run(s, copy, &job);
        const int32_t want = invert(p, n, rng_uniform(k / 7, RNG_SAMPLE, k % 7, 0), &near);
        if (near < NEAR) {
            n_near++;
        } else if (job.id != want) {
            fail_msg("draw %u: id %d (p %g), not %d (p %g); T %g k %u p %g m %g", k, job.id,
                     p[job.id], want, p[want], (double)how->temperature, how->top_k,
                     (double)how->top_p, (double)how->min_p);
        }
        assert_true(near < NEAR || p[job.id] > 0);
    }
    assert_true(n_near < n_draws / 20 + 2);
    sampler_destroy(s);
}

/* About normal, of standard deviation `sd`. */
static void fill(float *logits, int n, double sd, uint64_t seed)
{
    for (int i = 0; i < n; i++) {
        double sum = -6;
        for (uint64_t k = 0; k < 12; k++) {
            sum += rng_uniform(seed, RNG_TOKENS, (uint64_t)i, k);
        }
        logits[i] = (float)(sd * sum);
    }
}

/* --- tests ---------------------------------------------------------------------------------------------- */

static const struct wire_sampling forms[] = {
    {.temperature = 1, .top_p = 1},
    {.temperature = 0.25F, .top_p = 1},
    {.temperature = 100, .top_p = 1},
    {.temperature = 1, .top_p = 1, .top_k = 1},
    {.temperature = 1, .top_p = 1, .top_k = 2},
    {.temperature = 2, .top_p = 1, .top_k = 50},
    {.temperature = 1, .top_p = 1, .top_k = 1000000},
    {.temperature = 1, .top_p = 0.9F},
    {.temperature = 1, .top_p = 0.5F},
    {.temperature = 1, .top_p = 1e-6F},
    {.temperature = 5, .top_p = 0.999F},
    {.temperature = 100, .top_p = 0.7F},
    {.temperature = 1, .top_p = 1, .min_p = 0.1F},
    {.temperature = 4, .top_p = 1, .min_p = 0.01F},
    {.temperature = 1, .top_p = 1, .min_p = 1},
    {.temperature = 1, .top_p = 0.9F, .top_k = 40},
    {.temperature = 2, .top_p = 0.9F, .top_k = 40, .min_p = 0.05F},
    {.temperature = 3, .top_p = 0.8F, .min_p = 0.3F},
};

static void test_every_draw_against_an_oracle(void **state)
{
    (void)state;
    static const int vocabs[] = {1, 2, 63, 64, 65, 1000, 4099};
    static float logits[MAX_VOCAB];
    static double p[MAX_VOCAB];
    for (size_t v = 0; v < sizeof vocabs / sizeof vocabs[0]; v++) {
        fill(logits, vocabs[v], 2.5, v);
        for (size_t f = 0; f < sizeof forms / sizeof forms[0]; f++) {
            oracle(logits, vocabs[v], &forms[f], p);
            check_draws(logits, vocabs[v], &forms[f], p, 300);
        }
    }
}

static void test_a_large_vocabulary(void **state)
{
    (void)state;
    static float logits[MAX_VOCAB];
    static double p[MAX_VOCAB];
    fill(logits, MAX_VOCAB, 2.5, 77);
    for (size_t f = 0; f < sizeof forms / sizeof forms[0]; f++) {
        oracle(logits, MAX_VOCAB, &forms[f], p);
        check_draws(logits, MAX_VOCAB, &forms[f], p, 12);
    }
}

static void test_against_transformers(void **state)
{
    (void)state;
    char path[4096];
    snprintf(path, sizeof path, "%s/tests/golden/sampling.json", getenv("TIDEMARK_SOURCE"));
    json_t *root = json_load_file(path, 0, NULL);
    assert_non_null(root);
    const json_t *cases = json_object_get(root, "cases");
    assert_true(json_array_size(cases) > 20);
    for (size_t i = 0; i < json_array_size(cases); i++) {
        const json_t *c = json_array_get(cases, i), *ls = json_object_get(c, "logits");
        const json_t *ps = json_object_get(c, "probabilities"),
                     *top_p = json_object_get(c, "top_p");
        static float logits[MAX_VOCAB];
        static double p[MAX_VOCAB];
        const int n = (int)json_array_size(ls);
        for (int k = 0; k < n; k++) {
            logits[k] = (float)json_number_value(json_array_get(ls, (size_t)k));
            p[k] = json_number_value(json_array_get(ps, (size_t)k));
        }
        const struct wire_sampling how = {
            .temperature = (float)json_number_value(json_object_get(c, "temperature")),
            .top_k = (uint32_t)json_integer_value(json_object_get(c, "top_k")),
            .top_p = top_p ? (float)json_number_value(top_p) : 1,
            .min_p = (float)json_number_value(json_object_get(c, "min_p")),
        };
        check_draws(logits, n, &how, p, DRAWS);
    }
    json_decref(root);
}

/* Chi-square of the counts of many seeds against the distribution. */
static void test_counts(void **state)
{
    (void)state;
    enum {
        N = 24,
        SEEDS = 200000,
    };
    float logits[N], copy[N];
    double p[N], chi2 = 0;
    uint32_t counts[N] = {0};
    struct wire_sampling how = {.temperature = 1.5F, .top_p = 0.97F, .top_k = 20};
    struct err e;
    struct sampler *s;
    fill(logits, N, 1.5, 9);
    oracle(logits, N, &how, p);
    assert_int_equal(sampler_create(&s, N, &e), 0);
    for (how.seed = 0; how.seed < SEEDS; how.seed++) {
        struct sampler_job job = {.how = &how, .index = 5};
        memcpy(copy, logits, sizeof copy);
        sampler_run(s, copy, &job);
        counts[job.id]++;
    }
    int free_cells = -1;
    for (int i = 0; i < N; i++) {
        assert_true(p[i] > 0 || counts[i] == 0);
        if (p[i] > 0) {
            const double want = p[i] * SEEDS;
            chi2 += (counts[i] - want) * (counts[i] - want) / want;
            free_cells++;
        }
    }
    // Wilson and Hilferty: the 0.9999 quantile, far beyond what chance gives once.
    const double h = 2.0 / (9.0 * free_cells);
    assert_true(free_cells > 10);
    assert_true(chi2 < free_cells * pow(1 - h + 3.719 * sqrt(h), 3));
    sampler_destroy(s);
}

static void test_greedy(void **state)
{
    (void)state;
    float logits[200];
    const struct wire_sampling how = {.top_p = 1};
    fill(logits, 200, 1, 3);
    logits[130] = logits[150] = logits[199] = 40;
    assert_int_equal(run(logits, 200, &how, 0).id, 130); // of equals the lowest
    for (int i = 0; i < 200; i++) {
        logits[i] = -INFINITY;
    }
    assert_int_equal(run(logits, 200, &how, 0).id, 0);
    logits[70] = -1e30F;
    assert_int_equal(run(logits, 200, &how, 0).id, 70);
    logits[71] = NAN;
    assert_int_equal(run(logits, 200, &how, 0).id, 70);
}

/* Equal logits: top_k keeps them all, top_p the lowest ids. */
static void test_equals(void **state)
{
    (void)state;
    enum {
        N = 100,
    };
    float logits[N] = {0};
    double p[N];
    const struct wire_sampling by_k = {.temperature = 1, .top_p = 1, .top_k = 3};
    const struct wire_sampling by_p = {.temperature = 1, .top_p = 0.25F};
    for (int i = 0; i < N; i++) {
        p[i] = 1.0 / N;
    }
    check_draws(logits, N, &by_k, p, 500);
    for (int i = 0; i < N; i++) {
        p[i] = i < 25 ? 1.0 / 25 : 0;
    }
    check_draws(logits, N, &by_p, p, 500);
}

/* Whatever is no number, infinite, tiny or huge: an id of the vocabulary comes out, and one with a chance. */
static void test_extremes(void **state)
{
    (void)state;
    float logits[130];
    for (uint32_t seed = 0; seed < 50; seed++) {
        for (size_t f = 0; f < sizeof forms / sizeof forms[0]; f++) {
            struct wire_sampling how = forms[f];
            how.seed = seed;
            fill(logits, 130, 1e-3, seed);
            logits[0] = -INFINITY;
            logits[64] = NAN;
            logits[129] = -FLT_MAX;
            how.temperature = seed % 2 ? FLT_MIN : how.temperature;
            const int32_t id = run(logits, 130, &how, 0).id;
            assert_true(id > 0 && id < 129 && id != 64);
            logits[77] = FLT_MAX;
            assert_int_equal(run(logits, 130, &how, 0).id, 77);
            logits[77] = INFINITY;
            assert_int_equal(run(logits, 130, &how, 0).id, 77);
            for (int i = 0; i < 130; i++) {
                logits[i] = seed % 2 ? NAN : -INFINITY;
            }
            assert_int_equal(run(logits, 130, &how, 0).id, 0);
        }
    }
}

static void test_banned(void **state)
{
    (void)state;
    float logits[100], copy[100];
    struct err e;
    struct sampler *s;
    const int32_t banned[] = {7, 99, -4, 100, 1 << 30};
    fill(logits, 100, 1, 4);
    logits[7] = logits[99] = 30;
    logits[8] = 20;
    assert_int_equal(sampler_create(&s, 100, &e), 0);
    for (int k = 0; k < 2; k++) {
        const struct wire_sampling how = {
            .temperature = k ? 0.5F : 0, .top_p = 0.9F, .logprobs = 3};
        struct sampler_job job = {.how = &how, .banned = banned, .n_banned = 5};
        memcpy(copy, logits, sizeof copy);
        sampler_run(s, copy, &job);
        assert_int_equal(job.id, 8);
        assert_int_equal(job.top[0].id, 7); // told as the model has it
        assert_int_equal(job.top[1].id, 99);
        assert_true(fabsf(job.logprob - (-10 - logf(2))) < 1e-3F);
    }
    sampler_destroy(s);
}

static void test_logprobs(void **state)
{
    (void)state;
    static float logits[5000];
    struct ranked r[5000];
    double sum = 0;
    fill(logits, 5000, 3, 5);
    logits[4000] = logits[17]; // equals
    for (int i = 0; i < 5000; i++) {
        r[i] = (struct ranked){(double)logits[i], i};
        sum += exp((double)logits[i]);
    }
    qsort(r, 5000, sizeof r[0], by_rank);
    for (uint32_t n = 0; n <= WIRE_MAX_TOP; n++) {
        const struct wire_sampling how = {
            .temperature = n % 2 ? 0.7F : 0, .top_p = 0.8F, .logprobs = n + 1, .seed = n};
        const struct sampler_job job = run(logits, 5000, &how, n);
        assert_int_equal(job.n_top, n);
        assert_true(fabs((double)job.logprob - (double)logits[job.id] + log(sum)) < 1e-5);
        for (uint32_t i = 0; i < n; i++) {
            assert_int_equal(job.top[i].id, r[i].id);
            assert_true(fabs((double)job.top[i].logprob - r[i].x + log(sum)) < 1e-5);
        }
    }
    const struct wire_sampling more = {.top_p = 1, .logprobs = 11};
    assert_int_equal(run(logits, 4, &more, 0).n_top, 4); // than there are
}

/* Another index or seed is another draw; neither the vocabulary's tail nor other rows have a say. */
static void test_draws_are_functions_of_seed_and_index(void **state)
{
    (void)state;
    float logits[300];
    int n_same_index = 0, n_same_seed = 0;
    fill(logits, 300, 0.1, 8);
    for (uint32_t k = 0; k < 200; k++) {
        const struct wire_sampling how = {.temperature = 1, .top_p = 1, .seed = k};
        struct wire_sampling next = how;
        next.seed++;
        const int32_t id = run(logits, 300, &how, k).id;
        assert_int_equal(run(logits, 300, &how, k).id, id);
        n_same_index += run(logits, 300, &how, k + 1).id == id;
        n_same_seed += run(logits, 300, &next, k).id == id;
    }
    assert_true(n_same_index < 10 && n_same_seed < 10);
}

static void test_check(void **state)
{
    (void)state;
    static const struct wire_sampling wrong[] = {
        {.temperature = -1, .top_p = 1},
        {.temperature = NAN, .top_p = 1},
        {.temperature = INFINITY, .top_p = 1},
        {.top_p = 0},
        {.top_p = 1.5F},
        {.top_p = NAN},
        {.top_p = 1, .min_p = -0.1F},
        {.top_p = 1, .min_p = NAN},
        {.top_p = 1, .min_p = 2},
        {.top_p = 1, .logprobs = WIRE_MAX_TOP + 2},
        {.top_p = 1, .n_stop_ids = WIRE_MAX_STOP_IDS + 1},
        {.top_p = 1, .reserved = 1},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        struct err e = {0};
        assert_int_equal(sampler_check(&wrong[i], ERR_ENV, &e), -1);
        assert_int_equal(e.code, ERR_ENV);
    }
    for (size_t i = 0; i < sizeof forms / sizeof forms[0]; i++) {
        struct err e = {0};
        assert_int_equal(sampler_check(&forms[i], ERR_ENV, &e), 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_draw_against_an_oracle),
        cmocka_unit_test(test_a_large_vocabulary),
        cmocka_unit_test(test_against_transformers),
        cmocka_unit_test(test_counts),
        cmocka_unit_test(test_greedy),
        cmocka_unit_test(test_equals),
        cmocka_unit_test(test_extremes),
        cmocka_unit_test(test_banned),
        cmocka_unit_test(test_logprobs),
        cmocka_unit_test(test_draws_are_functions_of_seed_and_index),
        cmocka_unit_test(test_check),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
