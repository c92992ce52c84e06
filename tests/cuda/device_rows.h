/* Weights in the device's form (workers/cuda/device_matrix.h), read back by their own formulas. */
#pragma once

#include "tests/cuda/device_test.h"
#include "workers/cuda/device_matrix.h"

static inline double value_of_e4m3(unsigned code)
{
    const int exponent = (int)(code >> 3 & 15), mantissa = (int)(code & 7);
    const double size = exponent ? ldexp(8 + mantissa, exponent - 10) : ldexp(mantissa, -9);
    return code & 0x80 ? -size : size;
}

static inline double value_of_e2m1(unsigned code)
{
    static const double sizes[8] = {0, 0.5, 1, 1.5, 2, 3, 4, 6};
    return code & 8 ? -sizes[code & 7] : sizes[code & 7];
}

/* Of finite ones. */
static inline double value_of_half(unsigned bits)
{
    const int exponent = (int)(bits >> 10 & 31), mantissa = (int)(bits & 1023);
    const double size = exponent ? ldexp(1024 + mantissa, exponent - 25) : ldexp(mantissa, -24);
    return bits & 0x8000 ? -size : size;
}

/* A row of them. */
class device_row {
  public:
    const enum arch_dtype dtype;
    const int n_cols;
    std::vector<uint8_t> data, factors; // what is not written is 0xa5

    device_row(enum arch_dtype dtype_, int n_cols_)
        : dtype(dtype_), n_cols(n_cols_), data(device_matrix_row_bytes(dtype_, n_cols_), 0xa5),
          factors(device_matrix_factor_bytes(dtype_, n_cols_) + 1, 0xa5)
    {
    }

    /* From memory that was read back from the device. */
    device_row(enum arch_dtype dtype_, int n_cols_, const uint8_t *data_, const uint8_t *factors_)
        : device_row(dtype_, n_cols_)
    {
        memcpy(data.data(), data_, data.size());
        if (factors.size() > 1) {
            memcpy(factors.data(), factors_, factors.size() - 1);
        }
    }

    unsigned code(int column) const
    {
        const size_t place = device_matrix_place(dtype, column);
        return dtype == ARCH_FP8 || dtype == ARCH_INT8 ? data[place]
                                                       : data[place / 2] >> place % 2 * 4 & 15u;
    }

    double factor(int column) const
    {
        if (dtype == ARCH_MXFP4) {
            return ldexp(1, factors[(size_t)(column / 32)] - 127);
        }
        if (dtype == ARCH_FP8) {
            float f;
            memcpy(&f, &factors[(size_t)(column / 128 * 4)], sizeof f);
            return f;
        }
        uint16_t half;
        memcpy(&half, &factors[(size_t)(column / 32 * 2)], sizeof half);
        return value_of_half(half);
    }

    double value(int column) const
    {
        float f;
        uint16_t half;
        if (dtype == ARCH_F32) {
            memcpy(&f, &data[(size_t)column * 4], 4);
            return f;
        }
        if (dtype == ARCH_BF16) {
            memcpy(&half, &data[(size_t)column * 2], 2);
            return float_of_bits(half);
        }
        const unsigned c = code(column);
        return factor(column) * (dtype == ARCH_FP8     ? value_of_e4m3(c)
                                 : dtype == ARCH_MXFP4 ? value_of_e2m1(c)
                                 : dtype == ARCH_INT8  ? (double)(int8_t)c
                                                       : (double)c - 8);
    }

    /* Columns behind the last one are zeros, and nothing is written behind. */
    void check_padding() const
    {
        const int chunk = device_matrix_chunk(dtype), end = (n_cols + chunk - 1) / chunk * chunk;
        for (int i = n_cols; i < end; i++) {
            if (dtype == ARCH_F32 || dtype == ARCH_BF16) {
                assert_true(value(i) == 0);
            } else if (dtype == ARCH_FP8) {
                assert_int_equal(code(i), 0);
            } else {
                assert_true(code(i) == (dtype == ARCH_INT4 ? 8 : 0));
            }
        }
        assert_int_equal(factors.back(), 0xa5);
    }
};
