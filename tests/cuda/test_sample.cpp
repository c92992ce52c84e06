/* Draws on the device against workers/sampler.c, and the device's random numbers against core/rng.c. */
#include "tests/cuda/device_test.h"
#include "workers/cuda/rng.cuh"
#include "workers/cuda/sample.h"

extern "C" {
#include "workers/sampler.h"
}

/* --- random numbers --------------------------------------------------------------------------------- */

__global__ static void rng_kernel(const uint64_t *in, rng_bits *bits, double *uniform)
{
    const uint64_t *x = in + 4 * threadIdx.x;
    bits[threadIdx.x] = device_rng_draw(x[0], (enum rng_stream)x[1], x[2], x[3]);
    uniform[threadIdx.x] = device_rng_uniform(x[0], (enum rng_stream)x[1], x[2], x[3]);
}

static void the_bits_of_philox(void **state)
{
    (void)state;
    device_array<uint64_t> in(4 * 256);
    device_array<rng_bits> bits(256);
    device_array<double> uniform(256);
    for (size_t i = 0; i < 1024; i++) {
        in.host[i] = i % 4 == 1 ? 1 + device_random()() % RNG_SEED : device_random()();
    }
    in.host[0] = in.host[2] = in.host[3] = 0;
    in.host[4] = in.host[6] = in.host[7] = UINT64_MAX;
    launch(rng_kernel, dim3(1), dim3(256), 0, nullptr, in.device(), bits.device(), uniform.device());
    device_finish();
    bits.fetch(), uniform.fetch();
    for (size_t i = 0; i < 256; i++) {
        const uint64_t *x = &in.host[4 * i];
        const struct rng_bits want = rng_draw(x[0], (enum rng_stream)x[1], x[2], x[3]);
        assert_memory_equal(&bits.host[i], &want, sizeof want);
        assert_true(uniform.host[i] == rng_uniform(x[0], (enum rng_stream)x[1], x[2], x[3]));
    }
}

#ifdef GPU_ON_CPU
enum { REPEATS = 1 };
#else
enum { REPEATS = 40 };
#endif

/* --- draws against the CPU's -------------------------------------------------------------------------- */

struct form {
    float temperature, top_p, min_p;
    uint32_t top_k, logprobs;
};

static const form forms[] = {
    {1, 1, 0, 0, 0},        {0.7f, 1, 0, 0, 1},    {1, 0.9f, 0, 0, 6},       {1.3f, 0.5f, 0, 40, 0},
    {1, 1, 0, 5, 21},       {1, 1, 0.05f, 0, 0},   {2, 0.95f, 0.01f, 64, 3}, {0, 1, 0, 0, 0},
    {0, 1, 0, 0, 11},       {1, 1e-6f, 0, 0, 0},   {1, 0.999f, 0, 0, 0},     {100, 0.8f, 0, 1500, 0},
    {0.01f, 0.9f, 0, 0, 2}, {1, 0.97f, 0.3f, 1, 0}, {1, 1, 1, 0, 0},
};
enum { N_FORMS = sizeof forms / sizeof *forms };

struct draws {
    size_t n, vocab;
    device_array<float> logits, weights;
    device_array<sample_job> jobs;
    device_array<int32_t> banned;
    device_array<sample_found> found;

    draws(size_t n_, size_t vocab_)
        : n(n_), vocab(vocab_), logits(n * vocab), weights(n * vocab, NAN), jobs(n), banned(n * 8), found(n)
    {
        logits.draw(-6, 6);
        memset(found.host.data(), 0xff, n * sizeof *found.host.data());
        for (size_t i = 0; i < n; i++) {
            sample_job &job = jobs.host[i];
            job = {};
            job.top_p = 1, job.temperature = 1;
            job.row = (uint32_t)(n - 1 - i);
            job.seed = device_random()();
            job.index = (uint32_t)(device_random()() % 1000);
            job.first_banned = (uint32_t)(8 * i);
        }
    }

    float *row(size_t job) { return &logits.host[jobs.host[job].row * vocab]; }

    void take(size_t job, const form &f)
    {
        sample_job &j = jobs.host[job];
        j.temperature = f.temperature, j.top_p = f.top_p, j.min_p = f.min_p;
        j.top_k = f.top_k, j.logprobs = f.logprobs;
    }

    void run()
    {
        sample_rows s = {};
        s.n = (int)n, s.vocab = (int)vocab, s.logits = logits.device(), s.jobs = jobs.device();
        s.banned = banned.device(), s.weights = weights.device(), s.found = found.device();
        sample_queue(&s, nullptr);
        device_finish();
        found.fetch();
    }
};

static void check_logprobs(const sample_found &got, const struct sampler_job &want, bool same_id)
{
    assert_int_equal(got.n_top, want.n_top);
    for (uint32_t i = 0; i < want.n_top; i++) {
        assert_int_equal(got.top[i].id, want.top[i].id);
        if (want.top[i].logprob > -INFINITY) { // float64 sums in another order, rounded to float32
            expect_near(got.top[i].logprob, want.top[i].logprob, 1e-5);
        }
    }
    if (same_id && want.logprob > -INFINITY) {
        expect_near(got.logprob, want.logprob, 1e-5);
    }
}

/* How many ids are not the CPU's. */
static size_t compare(draws &d)
{
    struct sampler *sampler;
    struct err e;
    size_t n_other = 0;
    const std::vector<float> logits = d.logits.host;
    d.run();
    assert_int_equal(sampler_create(&sampler, (int)d.vocab, &e), 0);
    for (size_t i = 0; i < d.n; i++) {
        const sample_job &job = d.jobs.host[i];
        struct wire_sampling how = {};
        how.seed = job.seed, how.temperature = job.temperature, how.top_p = job.top_p, how.min_p = job.min_p;
        how.top_k = job.top_k, how.logprobs = job.logprobs;
        struct sampler_job want = {};
        want.index = job.index, want.how = &how;
        want.banned = &d.banned.host[job.first_banned], want.n_banned = job.n_banned;
        std::vector<float> row(logits.begin() + (long)(job.row * d.vocab),
                               logits.begin() + (long)((job.row + 1) * d.vocab));
        sampler_run(sampler, row.data(), &want);
        const sample_found &got = d.found.host[i];
        assert_in_range(got.id, 0, d.vocab - 1);
        n_other += got.id != want.id;
        if (job.logprobs > 0) {
            check_logprobs(got, want, got.id == want.id);
        } else {
            assert_true(got.n_top == 0 && got.logprob == 0);
        }
    }
    sampler_destroy(sampler);
    return n_other;
}

static void random_logits(void **state)
{
    (void)state;
    const size_t sizes[] = {1, 2, 31, 500, 1023, 1025, 4000, 12345};
    size_t n = 0, n_other = 0;
    for (size_t vocab : sizes) {
        draws d((vocab > 2000 ? 1 : 2) * N_FORMS * REPEATS, vocab);
        for (size_t i = 0; i < d.n; i++) {
            d.take(i, forms[i % N_FORMS]);
        }
        n += d.n;
        n_other += compare(d);
    }
    assert_true(1000 * n_other <= n); // at least 99.9 % are the CPU's; all are expected to be
}

static void equal_logits(void **state)
{
    (void)state;
    draws d(2 * N_FORMS, 3000);
    for (size_t i = 0; i < d.n; i++) {
        d.take(i, forms[i % N_FORMS]);
        for (size_t k = 0; k < d.vocab; k++) { // 13 values, or one
            float &v = d.row(i)[k];
            v = i < N_FORMS ? (float)(int)v : -0.5f;
        }
        d.row(i)[100] = -0.0f;
    }
    // A bound that falls between equals is a whole number of them, but for a rounding: one may be more or less.
    assert_in_range(compare(d), 0, 1);
}

static void banned_ids(void **state)
{
    (void)state;
    draws d(N_FORMS, 900);
    for (size_t i = 0; i < d.n; i++) {
        d.take(i, forms[i]);
        d.jobs.host[i].n_banned = (uint32_t)(i % 9);
        for (size_t k = 0; k < 8; k++) {
            d.banned.host[8 * i + k] = (int32_t)(device_random()() % d.vocab);
            d.row(i)[d.banned.host[8 * i + k]] = 9; // would be chosen
        }
        d.banned.host[8 * i + 2] = -1;
        d.banned.host[8 * i + 3] = 900;
    }
    assert_int_equal(compare(d), 0);
    for (size_t i = 0; i < d.n; i++) {
        for (size_t k = 0; k < d.jobs.host[i].n_banned; k++) {
            assert_int_not_equal(d.found.host[i].id, d.banned.host[8 * i + k]);
        }
    }
}

static void few_have_a_chance(void **state)
{
    (void)state;
    draws d(4 * N_FORMS, 2500);
    for (size_t i = 0; i < d.n; i++) {
        d.take(i, forms[i % N_FORMS]);
        float *row = d.row(i);
        std::fill_n(row, d.vocab, i / N_FORMS == 1 ? NAN : -INFINITY);
        row[77] = i / N_FORMS == 3 ? NAN : row[77];
        row[2499] = i / N_FORMS < 3 ? row[2499] : 3;
        row[1200] = i / N_FORMS < 2 ? row[1200] : 1;
        d.jobs.host[i].logprobs = 0;
    }
    assert_int_equal(compare(d), 0);
    for (size_t i = 0; i < 2 * N_FORMS; i++) {
        assert_int_equal(d.found.host[i].id, 0);
    }
}

static void a_far_tail(void **state)
{
    (void)state;
    draws d(2 * N_FORMS, 6000);
    for (size_t i = 0; i < d.n; i++) {
        d.take(i, forms[i % N_FORMS]);
        for (size_t k = 0; k < d.vocab; k++) {
            d.row(i)[k] *= i % 2 ? 30.0f : 1e-3f; // weights of no normal float, and nearly all alike
        }
    }
    assert_int_equal(compare(d), 0);
}

int main()
{
    const CMUnitTest tests[] = {
        cmocka_unit_test(the_bits_of_philox), cmocka_unit_test(random_logits),
        cmocka_unit_test(equal_logits),       cmocka_unit_test(banned_ids),
        cmocka_unit_test(few_have_a_chance),  cmocka_unit_test(a_far_tail),
    };
    return device_test_run(tests, nullptr, nullptr);
}
