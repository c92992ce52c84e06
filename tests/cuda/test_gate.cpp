/* Activations on the device against the formulas in float64. */
#include "tests/cuda/device_test.h"
#include "workers/cuda/gate.h"

static double sigmoid(double x)
{
    return 1 / (1 + exp(-x));
}

static double reference(enum arch_activation activation, double gate, double up)
{
    switch (activation) {
    case ARCH_GELU_TANH:
        return gate / 2 * (1 + tanh(sqrt(2 / M_PI) * (gate + 0.044715 * gate * gate * gate))) * up;
    case ARCH_SWIGLU_CLAMP:
        gate = fmin(gate, 7);
        up = fmax(-7, fmin(up, 7));
        return gate * sigmoid(1.702 * gate) * (up + 1);
    default:
        return gate * sigmoid(gate) * up;
    }
}

/* `way` 0: no bias, 1: one, 2: that of a row's expert. */
static void check(int n, int inner, enum arch_activation activation, int way, bool wide)
{
    const size_t width = 2 * (size_t)inner, all = (size_t)n * (size_t)inner, n_experts = 3;
    device_array<float> gate_up((size_t)n * width), bias(n_experts * width), out32(all, NAN);
    device_array<uint16_t> out16(all, 0xffff);
    device_array<int32_t> experts((size_t)n);
    gate_up.draw(-12, 12), bias.draw(-1, 1), experts.draw(0, 2.99f);
    gate_up.host[0] = -150, gate_up.host[width - 1] = 30; // exp(150) is no float
    gate_rows r = {};
    r.n = n, r.inner = inner, r.activation = activation, r.gate_up = gate_up.device();
    r.bias = way > 0 ? bias.device() : nullptr;
    r.experts = way > 1 ? experts.device() : nullptr;
    r.out = wide ? (void *)out32.device() : (void *)out16.device();
    r.wide = wide;
    gate_queue(&r, nullptr);
    device_finish();
    out32.fetch(), out16.fetch();
    for (size_t i = 0; i < all; i++) {
        const size_t row = i / (size_t)inner, k = i % (size_t)inner;
        const float *b = &bias.host[way > 1 ? (size_t)experts.host[row] * width : 0];
        const float *x = &gate_up.host[row * width];
        const double gate = way > 0 ? x[k] + b[k] : x[k];
        const double up = way > 0 ? x[(size_t)inner + k] + b[(size_t)inner + k] : x[(size_t)inner + k];
        const double want = reference(activation, gate, up);
        // float32: the argument of exp is rounded, up to 150; half a unit of bfloat16's 8 bits
        const double relative = (wide ? 0 : 4e-3) + 2e-6 + 1e-7 * fabs(gate) * (activation ? 20 : 1);
        expect_near(wide ? out32.host[i] : float_of_bits(out16.host[i]), want, relative * fabs(want) + 1e-6);
    }
}

static void every_activation(void **state)
{
    (void)state;
    for (int inner : {1, 3, 4, 96, 511, 512, 1400}) {
        for (enum arch_activation activation : {ARCH_SILU, ARCH_GELU_TANH, ARCH_SWIGLU_CLAMP}) {
            for (int way = 0; way < 3; way++) {
                check(1 + way * 2, inner, activation, way, false);
                check(1 + way * 2, inner, activation, way, true);
            }
        }
    }
}

int main()
{
    const CMUnitTest tests[] = {
        cmocka_unit_test(every_activation),
    };
    return device_test_run(tests, nullptr, nullptr);
}
