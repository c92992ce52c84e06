/* Products of few tokens, of experts and of heads, of weights in every format, against float64. */
#include "tests/cuda/device_weights.h"
#include "workers/cuda/matmul.h"

static const enum arch_dtype formats[] = {ARCH_F32, ARCH_BF16, ARCH_FP8, ARCH_INT8, ARCH_INT4, ARCH_MXFP4};

/* Sums in float32, in which a tensor core drops what is below the 24 bits of the largest of 16 products. */
#define OF_SIZE 1e-5

static int64_t padded(int64_t n, int64_t to)
{
    return (n + to - 1) / to * to;
}

static bool same(float a, float b)
{
    return memcmp(&a, &b, sizeof a) == 0;
}

struct shape {
    int n_rows, n_cols, m, n_batch, factor_rows;
    bool bias, add;
};

/* Twice: the bits must be equal. */
static void check(enum arch_dtype dtype, const shape &s)
{
    const int n_batch = s.n_batch, all = n_batch * s.n_rows;
    const int64_t x_step = padded(s.n_cols, 8), ldx = n_batch * x_step + 8, ldy = all + n_batch + 3;
    device_weights w(dtype, all, s.n_cols, s.factor_rows);
    device_inputs x(dtype, s.m, (int)ldx, ldx);
    device_array<float> bias((size_t)all), y((size_t)((s.m + 1) * ldy), NAN), again((size_t)((s.m + 1) * ldy), NAN);
    bias.draw(-1, 1);
    if (s.add) {
        y.draw(-1, 1);
        again.host = y.host;
    }
    const std::vector<float> before = y.host;
    matmul p = {};
    p.w = w.matrix(n_batch), p.m = s.m, p.n_batch = n_batch, p.add = s.add;
    p.x = x.device(), p.y = y.device(), p.bias = s.bias ? bias.device() : nullptr;
    p.ldx = ldx, p.ldy = ldy, p.x_step = x_step, p.y_step = s.n_rows + 1;
    matmul_queue(&p, nullptr);
    p.y = again.device();
    matmul_queue(&p, nullptr);
    device_finish();
    y.fetch(), again.fetch();
    for (size_t i = 0; i < y.host.size(); i++) {
        const int token = (int)((int64_t)i / ldy), column = (int)((int64_t)i % ldy);
        const int batch = column / (s.n_rows + 1), row = column % (s.n_rows + 1);
        assert_true(same(y.host[i], again.host[i]));
        if (token == s.m || batch >= n_batch || row == s.n_rows) {
            assert_true(same(y.host[i], before[i])); // between and behind the outputs
            continue;
        }
        const product_sum want = product_of_row(w, batch * s.n_rows + row, x.row(token) + batch * x_step);
        const double b = s.bias ? bias.host[(size_t)(batch * s.n_rows + row)] : 0, y0 = s.add ? before[i] : 0;
        // rounded once per addend, so to the size of each, also where they cancel
        expect_near(y.host[i], want.sum + b + y0, OF_SIZE * (want.size + fabs(b) + fabs(y0)) + 1e-12);
    }
}

static int most_tokens(enum arch_dtype dtype)
{
    return dtype == ARCH_F32 || dtype == ARCH_BF16 ? MATMUL_FEW : MATMUL_MOST;
}

static void every_edge(void **state)
{
    (void)state;
    // rows in and around tiles of 4, 16 and 32; columns around steps of 32, 64 and 128, one step to many
    static const int rows[] = {1, 16, 33, 7, 130, 15}, columns[] = {1, 32, 65, 200, 31, 1036};
    static const int tokens[] = {1, 2, 8, 9, 16, 17, 40, 64};
    int i = 0;
    for (enum arch_dtype dtype : formats) {
        for (int m : tokens) {
            for (int k = 0; k < 2 && m <= most_tokens(dtype); k++, i++) {
                const shape s = {rows[i % 6], columns[(i / 6 + i + k) % 6], m, 1, i % 3 ? 128 : 1, i % 2 == 0, i % 4 > 1};
                check(dtype, s);
            }
        }
    }
}

static void masked_inputs(void **state)
{
    (void)state;
    for (enum arch_dtype dtype : formats) { // NaN behind the last column
        for (int n_cols = 1; n_cols <= 9; n_cols++) {
            device_weights w(dtype, 5, n_cols);
            device_inputs x(dtype, 1, n_cols, 16);
            device_array<float> y(5, NAN);
            matmul p = {};
            p.w = w.matrix(), p.m = 1, p.x = x.device(), p.y = y.device(), p.ldx = 16, p.ldy = 5;
            matmul_queue(&p, nullptr);
            device_finish();
            y.fetch();
            for (int row = 0; row < 5; row++) {
                const product_sum want = product_of_row(w, row, x.row(0));
                expect_near(y.host[(size_t)row], want.sum, OF_SIZE * want.size + 1e-12);
            }
        }
    }
}

static void heads(void **state)
{
    (void)state;
    int i = 0;
    for (enum arch_dtype dtype : formats) {
        const shape few = {i % 2 ? 40 : 24, 100, 3, 3, i % 2 ? 40 : 8, true, true}, more = {16, 48, 13, 2, 16, false, false};
        check(dtype, few);
        check(dtype, more);
        i++;
    }
}

/* So many tiles that each warp has its own: columns are not shared. */
static void many_rows(void **state)
{
    (void)state;
    check(ARCH_BF16, {66000, 72, 1, 1, 128, false, false});
    check(ARCH_F32, {16500, 140, 1, 1, 128, true, false});
}

/* --- experts ------------------------------------------------------------------------------------ */

struct routed {
    std::vector<uint32_t> chosen; // (n_tokens, top_k)
    device_array<uint32_t> first, sorted;

    /* Some experts are liked better than others, some not at all. */
    routed(int n_experts, int n_tokens, int top_k)
        : chosen((size_t)(n_tokens * top_k)), first((size_t)n_experts + 1), sorted((size_t)(n_tokens * top_k))
    {
        for (size_t i = 0; i < chosen.size(); i++) {
            const size_t begin = i / (size_t)top_k * (size_t)top_k;
            bool is_new = false;
            while (!is_new) {
                const double u = (double)(device_random()() % 1000) / 1000;
                chosen[i] = (uint32_t)(u * u * n_experts);
                is_new = true;
                for (size_t j = begin; j < i; j++) {
                    is_new = is_new && chosen[j] != chosen[i];
                }
            }
            first.host[chosen[i] + 1]++;
        }
        for (size_t e = 0; e < (size_t)n_experts; e++) {
            uint32_t at = first.host[e];
            first.host[e + 1] += at;
            for (size_t i = 0; i < chosen.size(); i++) {
                if (chosen[i] == e) {
                    sorted.host[at++] = (uint32_t)i;
                }
            }
        }
    }
};

static void check_experts(enum arch_dtype dtype, int n_experts, int n_tokens, int top_k, bool is_second)
{
    const int n_rows = 21, n_cols = 72, n_slots = n_tokens * top_k, n_x = is_second ? n_slots : n_tokens;
    const int64_t ldx = 88, ldy = 24;
    device_weights w(dtype, n_experts * n_rows, n_cols, 7);
    device_inputs x(dtype, n_x, n_cols, ldx);
    routed r(n_experts, n_tokens, top_k);
    device_array<float> bias((size_t)(n_experts * n_rows)), y((size_t)(n_slots * ldy), NAN);
    bias.draw(-1, 1);
    matmul_experts p = {};
    p.w = w.matrix(n_experts), p.n_experts = n_experts, p.n_tokens = n_tokens, p.top_k = top_k;
    p.slots_per_row = is_second ? 1 : top_k, p.first = r.first.device(), p.sorted = r.sorted.device();
    p.x = x.device(), p.y = y.device(), p.bias = is_second ? nullptr : bias.device(), p.ldx = ldx, p.ldy = ldy;
    matmul_experts_queue(&p, nullptr);
    device_finish();
    y.fetch();
    for (int i = 0; i < n_slots * (int)ldy; i++) {
        const int slot = i / (int)ldy, row = i % (int)ldy;
        if (row >= n_rows) {
            assert_true(isnan(y.host[(size_t)i]));
            continue;
        }
        const int of_all = (int)r.chosen[(size_t)slot] * n_rows + row;
        const product_sum want = product_of_row(w, of_all, x.row(is_second ? slot : slot / top_k));
        const double more = is_second ? 0 : bias.host[(size_t)of_all];
        expect_near(y.host[(size_t)i], want.sum + more, OF_SIZE * (want.size + fabs(more)) + 1e-12);
    }
}

static void experts_of_every_format(void **state)
{
    (void)state;
    for (enum arch_dtype dtype : formats) {
        check_experts(dtype, 7, 1, 3, false);  // one token
        check_experts(dtype, 30, 13, 2, true); // up to 16 of an expert
        check_experts(dtype, 9, 35, 2, false); // 32
        check_experts(dtype, 3, 90, 2, true);  // more than a tile of 64
    }
}

static void many_experts(void **state)
{
    (void)state;
    check_experts(ARCH_MXFP4, 600, 20, 6, false); // more than threads of a block
    check_experts(ARCH_F32, 300, 3, 8, true);
    check_experts(ARCH_BF16, 1, 5, 1, false);
}

static void sums_over_experts(void **state)
{
    (void)state;
    for (int way = 0; way < 4; way++) {
        const int n = 1 + 2 * way, top_k = way == 2 ? MATMUL_MIX_MOST : 1 + way, n_cols = way ? 300 : 5;
        const int64_t ldy = n_cols + 1, ldout = n_cols + 2;
        routed r(40, n, top_k);
        device_array<uint32_t> chosen(r.chosen.size());
        chosen.host = r.chosen;
        device_array<float> weights((size_t)(n * top_k)), y((size_t)(n * top_k * ldy)), out((size_t)(n * ldout), NAN);
        weights.draw(0, 1), y.draw(-1, 1);
        if (way % 2) {
            out.draw(-1, 1);
        }
        const std::vector<float> before = out.host;
        matmul_mix p = {};
        p.n_tokens = n, p.top_k = top_k, p.n_cols = n_cols, p.chosen = chosen.device(), p.weights = weights.device();
        p.y = y.device(), p.out = out.device(), p.ldy = ldy, p.ldout = ldout, p.add = way % 2;
        matmul_mix_queue(&p, nullptr);
        device_finish();
        out.fetch();
        for (int i = 0; i < n * (int)ldout; i++) {
            const int token = i / (int)ldout, column = i % (int)ldout;
            float want = p.add ? before[(size_t)i] : 0;
            for (uint32_t e = 0; e < 40; e++) {
                for (int s = token * top_k; s < (token + 1) * top_k; s++) {
                    if (r.chosen[(size_t)s] == e && column < n_cols) {
                        want += weights.host[(size_t)s] * y.host[(size_t)(s * ldy + column)];
                    }
                }
            }
            if (column >= n_cols) {
                assert_true(same(out.host[(size_t)i], before[(size_t)i]));
            } else {
                expect_near(out.host[(size_t)i], want, 3e-6); // a GPU multiplies and adds in one step
            }
        }
    }
}

/* --- widened ------------------------------------------------------------------------------------ */

static void rounded_once(void **state)
{
    (void)state;
    static const int columns[] = {1, 31, 64, 100, 129, 4200};
    for (enum arch_dtype dtype : formats) {
        for (int n_cols : columns) {
            if (dtype == ARCH_F32) {
                continue;
            }
            const int64_t ld = padded(n_cols, 8) + 8;
            device_weights w(dtype, 9, n_cols, 4);
            device_array<uint16_t> out((size_t)(5 * ld), 0xffff);
            matmul_widen p = {};
            p.w = w.matrix(), p.first = 3, p.n = 4, p.out = out.device(), p.ld = ld;
            matmul_widen_queue(&p, nullptr);
            device_finish();
            out.fetch();
            for (int i = 0; i < 5 * (int)ld; i++) {
                const int row = i / (int)ld, c = i % (int)ld;
                const uint16_t want = row == 4 || c >= padded(n_cols, 8) ? 0xffff
                                      : c >= n_cols                      ? 0
                                                                         : bits_of_float((float)w.at(3 + row, c));
                assert_int_equal(out.host[(size_t)i], want);
            }
        }
    }
}

int main()
{
    const CMUnitTest tests[] = {
        cmocka_unit_test(every_edge),
        cmocka_unit_test(masked_inputs),
        cmocka_unit_test(heads),
        cmocka_unit_test(many_rows),
        cmocka_unit_test(experts_of_every_format),
        cmocka_unit_test(many_experts),
        cmocka_unit_test(sums_over_experts),
        cmocka_unit_test(rounded_once),
    };
    return device_test_run(tests, nullptr, nullptr);
}
