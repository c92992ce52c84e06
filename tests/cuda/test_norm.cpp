/* Norms and sums of hidden states on the device against plain C in float64. */
#include "tests/cuda/device_test.h"
#include "workers/cuda/norm.h"

#include <math.h>

static const int sizes[] = {1, 7, 64, 256, 1000, 4096};

/* Any float32 near v may be what is rounded: the middle of what comes of them, and how far off it may be. */
struct range {
    double middle, off;
};

static range rounded(double v, bool rounds, double near)
{
    const double low = v * (1 - near), high = v * (1 + near);
    if (!rounds) {
        return {v, fabs(v) * near};
    }
    const double a = float_of_bits(bits_of_float((float)low)),
                 b = float_of_bits(bits_of_float((float)high));
    return {(a + b) / 2, fabs(b - a) / 2};
}

/* What a norm's row is divided by. */
static double rms(const std::vector<double> &x, double eps)
{
    double squares = 0;
    for (double v : x) {
        squares += v * v;
    }
    return sqrt(squares / (double)x.size() + eps);
}

/* What is asked of a row; the orders of families are (rounds, not wide), and not rounds. */
struct way {
    bool has_branch, has_branch_norm, wide, rounds, rounds_x;
};

static const double NEAR = 2e-6; // a float32 sum of up to 4,096 squares

/* Hidden states after the row's first half; got is what the device has. */
static void expect_x(const std::vector<double> &x, const float *branch, const float *weight,
                     const way &w, const float *got)
{
    std::vector<double> b(x.size(), 0);
    for (size_t k = 0; w.has_branch && k < x.size(); k++) {
        b[k] = branch[k];
    }
    const double scale = w.has_branch_norm ? 1 / rms(b, 1e-5) : 1;
    for (size_t k = 0; k < x.size(); k++) {
        const range unit = rounded(b[k] * scale, w.has_branch_norm && w.rounds, NEAR);
        const double by = w.has_branch_norm ? weight[k] : 1, sum = x[k] + unit.middle * by;
        const double off = unit.off * fabs(by) + NEAR * (fabs(x[k]) + fabs(unit.middle * by));
        // half a unit of bfloat16's 8 bits; nothing below them is left
        expect_near(got[k], sum, off + (w.rounds_x ? 0x1p-8 * (fabs(sum) + off) : 0));
        if (w.rounds_x) {
            assert_true(got[k] == float_of_bits(bits_of_float(got[k])));
        }
    }
}

static void expect_out(const float *x, size_t hidden, const float *weight, const way &w,
                       const std::vector<double> &got)
{
    const std::vector<double> row(x, x + hidden);
    const double scale = 1 / rms(row, 1e-5);
    for (size_t k = 0; k < hidden; k++) {
        const range unit = rounded(row[k] * scale, w.rounds, NEAR);
        const double want = unit.middle * weight[k],
                     off = (unit.off + NEAR * fabs(unit.middle)) * weight[k];
        expect_near(got[k], want, off + (w.wide ? 0 : 0x1p-8 * (fabs(want) + off)));
    }
}

static void check(int n, int hidden, const way &w)
{
    const size_t all = (size_t)n * (size_t)hidden;
    device_array<float> x(all), branch(all), branch_norm((size_t)hidden), norm((size_t)hidden);
    device_array<float> out32(all, NAN);
    device_array<uint16_t> out16(all, 0xffff);
    x.draw(-2, 2), branch.draw(-1, 1), branch_norm.draw(0.5f, 1.5f), norm.draw(0.5f, 1.5f);
    const std::vector<float> before = x.host;
    norm_rows r = {};
    r.n = n, r.hidden = hidden, r.eps = 1e-5f, r.x = x.device(), r.norm = norm.device();
    r.branch = w.has_branch ? branch.device() : nullptr;
    r.branch_norm = w.has_branch_norm ? branch_norm.device() : nullptr;
    r.rounds = w.rounds, r.rounds_x = w.rounds_x, r.wide = w.wide;
    r.out = w.wide ? (void *)out32.device() : (void *)out16.device();
    norm_queue(&r, nullptr);
    device_finish();
    x.fetch(), out32.fetch(), out16.fetch();
    for (size_t at = 0; at < all; at += (size_t)hidden) {
        const std::vector<double> row(before.begin() + (long)at,
                                      before.begin() + (long)at + hidden);
        expect_x(row, &branch.host[at], branch_norm.host.data(), w, &x.host[at]);
        std::vector<double> got;
        for (size_t k = at; k < at + (size_t)hidden; k++) {
            got.push_back(w.wide ? out32.host[k] : float_of_bits(out16.host[k]));
        }
        expect_out(&x.host[at], (size_t)hidden, norm.host.data(), w,
                   got); // of the device's own hidden states
    }
}

static void sums_and_norms(void **state)
{
    (void)state;
    for (int hidden : sizes) {
        for (int i = 0; i < 24; i++) {
            check(1 + i % 5, hidden,
                  {i % 3 > 0, i % 3 > 1, i / 3 % 2 > 0, i / 6 % 2 > 0, i / 12 > 0});
        }
    }
}

static void some_rows(void **state)
{
    (void)state;
    device_array<float> x(5 * 70), norm(70), out(2 * 70, NAN);
    device_array<uint32_t> rows(2);
    x.draw(-1, 1), norm.draw(0.5f, 1.5f);
    rows.host = {4, 1};
    norm_rows r = {};
    r.n = 5, r.hidden = 70, r.eps = 1e-6f, r.x = x.device(), r.norm = norm.device(),
    r.out = out.device();
    r.rows = rows.device(), r.n_out = 2, r.wide = true;
    norm_queue(&r, nullptr);
    device_finish();
    out.fetch();
    for (size_t i = 0; i < 2; i++) {
        const std::vector<double> row(x.host.begin() + rows.host[i] * 70L,
                                      x.host.begin() + rows.host[i] * 70L + 70);
        const double scale = 1 / rms(row, 1e-6);
        for (size_t k = 0; k < 70; k++) {
            const double want = row[k] * scale * norm.host[k];
            expect_near(out.host[i * 70 + k], want, NEAR * fabs(want));
        }
    }
}

int main()
{
    const CMUnitTest tests[] = {
        cmocka_unit_test(sums_and_norms),
        cmocka_unit_test(some_rows),
    };
    return device_test_run(tests, nullptr, nullptr);
}
