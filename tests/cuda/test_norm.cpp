/* Norms and sums of hidden states on the device against plain C in float64. */
#include "tests/cuda/device_test.h"
#include "workers/cuda/norm.h"

#include <math.h>

static const int sizes[] = {1, 7, 64, 256, 1000, 4096};

/* One row by the formula. */
static void reference(double *x, const float *branch, const float *branch_norm, const float *norm,
                      int hidden, double eps, double *out)
{
    double squares = 0;
    for (int k = 0; branch && k < hidden; k++) {
        squares += (double)branch[k] * branch[k];
    }
    const double scale = branch_norm ? 1 / sqrt(squares / hidden + eps) : 1;
    squares = 0;
    for (int k = 0; k < hidden; k++) {
        x[k] += branch ? branch[k] * scale * (branch_norm ? branch_norm[k] : 1) : 0;
        squares += x[k] * x[k];
    }
    for (int k = 0; k < hidden; k++) {
        out[k] = x[k] / sqrt(squares / hidden + eps) * norm[k];
    }
}

static void check(int n, int hidden, bool has_branch, bool has_branch_norm, bool wide)
{
    const size_t all = (size_t)n * (size_t)hidden;
    device_array<float> x(all), branch(all), branch_norm((size_t)hidden), norm((size_t)hidden);
    device_array<float> out32(all, NAN);
    device_array<uint16_t> out16(all, 0xffff);
    x.draw(-2, 2), branch.draw(-1, 1), branch_norm.draw(0.5f, 1.5f), norm.draw(0.5f, 1.5f);
    const std::vector<float> before = x.host;
    norm_rows r = {};
    r.n = n, r.hidden = hidden, r.eps = 1e-5f, r.x = x.device(), r.norm = norm.device();
    r.branch = has_branch ? branch.device() : nullptr;
    r.branch_norm = has_branch_norm ? branch_norm.device() : nullptr;
    r.out = wide ? (void *)out32.device() : (void *)out16.device();
    r.wide = wide;
    norm_queue(&r, nullptr);
    device_finish();
    x.fetch(), out32.fetch(), out16.fetch();
    for (int i = 0; i < n; i++) {
        const size_t at = (size_t)i * (size_t)hidden;
        std::vector<double> want_x(before.begin() + (long)at, before.begin() + (long)at + hidden);
        std::vector<double> want(want_x.size());
        reference(want_x.data(), has_branch ? &branch.host[at] : nullptr,
                  has_branch_norm ? branch_norm.host.data() : nullptr, norm.host.data(), hidden, 1e-5,
                  want.data());
        for (int k = 0; k < hidden; k++) {
            const size_t j = at + (size_t)k;
            const double got = wide ? out32.host[j] : float_of_bits(out16.host[j]);
            // a float32 sum of `hidden` squares; half a unit of bfloat16's 8 bits
            expect_near(got, want[(size_t)k], (wide ? 2e-6 : 4e-3) * fabs(want[(size_t)k]) + 1e-6);
            expect_near(x.host[j], want_x[(size_t)k], 2e-6 * fabs(want_x[(size_t)k]) + 1e-6);
        }
    }
}

static void sums_and_norms(void **state)
{
    (void)state;
    for (int hidden : sizes) {
        for (int way = 0; way < 6; way++) {
            check(1 + way, hidden, way % 3 > 0, way % 3 > 1, way / 3 > 0);
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
    r.n = 5, r.hidden = 70, r.eps = 1e-6f, r.x = x.device(), r.norm = norm.device(), r.out = out.device();
    r.rows = rows.device(), r.n_out = 2, r.wide = true;
    norm_queue(&r, nullptr);
    device_finish();
    out.fetch();
    for (size_t i = 0; i < 2; i++) {
        std::vector<double> want(70), row(x.host.begin() + rows.host[i] * 70L,
                                          x.host.begin() + rows.host[i] * 70L + 70);
        reference(row.data(), nullptr, nullptr, norm.host.data(), 70, 1e-6, want.data());
        for (size_t k = 0; k < 70; k++) {
            expect_near(out.host[i * 70 + k], want[k], 2e-6 * fabs(want[k]) + 1e-6);
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
