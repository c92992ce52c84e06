/* Weights of every format, drawn, laid out for the device, and as the numbers that they are. */
#pragma once

#include "tests/cuda/device_rows.h"
#include "workers/cuda/device_matrix.h"

class device_weights {
  public:
    const enum arch_dtype dtype;
    const int n_rows, n_cols, factor_rows;
    std::vector<double> values; // (n_rows, n_cols)

    /* n_rows of all that are stacked. */
    device_weights(enum arch_dtype dtype_, int n_rows_, int n_cols_, int factor_rows_ = 128)
        : dtype(dtype_), n_rows(n_rows_), n_cols(n_cols_),
          factor_rows(dtype_ == ARCH_FP8 ? factor_rows_ : 0),
          values((size_t)n_rows_ * (size_t)n_cols_),
          row_bytes(device_matrix_row_bytes(dtype_, n_cols_)),
          factor_bytes(device_matrix_factor_bytes(dtype_, n_cols_)),
          data((size_t)n_rows_ * row_bytes, 0),
          factors((size_t)factor_lines() * factor_bytes + 1, 0)
    {
        draw_factors();
        for (int r = 0; r < n_rows; r++) {
            for (int c = 0; c < n_cols; c++) {
                values[(size_t)r * (size_t)n_cols + (size_t)c] = draw_value(r, c);
            }
        }
    }

    /* As one of several that are stacked, each of n_rows / n. */
    struct device_matrix matrix(int n = 1)
    {
        struct device_matrix m = {};
        m.dtype = dtype, m.n_rows = n_rows / n, m.n_cols = n_cols, m.factor_rows = factor_rows;
        m.data = data.device(), m.factors = factor_bytes ? factors.device() : nullptr;
        return m;
    }

    double at(int row, int column) const
    {
        return values[(size_t)row * (size_t)n_cols + (size_t)column];
    }

  private:
    const size_t row_bytes, factor_bytes;
    device_array<uint8_t> data, factors;

    int factor_lines() const
    {
        return factor_rows ? (n_rows + factor_rows - 1) / factor_rows : n_rows;
    }

    static unsigned draw(unsigned n)
    {
        return (unsigned)(device_random()() % n);
    }

    /* Of whole groups; the others are 0, as padding is. */
    void draw_factors()
    {
        for (int line = 0; line < factor_lines(); line++) {
            uint8_t *row = &factors.host[(size_t)line * factor_bytes];
            const int n = (n_cols + 31) / 32;
            for (int i = 0; i < n && dtype == ARCH_MXFP4; i++) {
                row[i] = (uint8_t)(115 + draw(16));
            }
            for (int i = 0; i < n && (dtype == ARCH_INT8 || dtype == ARCH_INT4); i++) {
                const uint16_t half =
                    (uint16_t)(draw(32) ? 0x1c00 + draw(0x800) : draw(0x400)); // some subnormal
                memcpy(row + 2 * i, &half, 2);
            }
            for (int i = 0; i < (n_cols + 127) / 128 && dtype == ARCH_FP8; i++) {
                const float f = (float)(1 + draw(1 << 20)) * 0x1p-28f;
                memcpy(row + 4 * i, &f, 4);
            }
        }
    }

    double factor_of(int r, int c) const
    {
        const uint8_t *row =
            &factors.host[(size_t)(factor_rows ? r / factor_rows : r) * factor_bytes];
        if (dtype == ARCH_MXFP4) {
            return ldexp(1, row[c / 32] - 127);
        }
        if (dtype == ARCH_FP8) {
            float f;
            memcpy(&f, row + c / 128 * 4, 4);
            return f;
        }
        uint16_t half;
        memcpy(&half, row + c / 32 * 2, 2);
        return value_of_half(half);
    }

    double draw_value(int r, int c)
    {
        uint8_t *row = &data.host[(size_t)r * row_bytes];
        const size_t place = device_matrix_place(dtype, c);
        if (dtype == ARCH_F32 || dtype == ARCH_BF16) {
            const float v = (float)(device_random()() % 20001) * 1e-4f - 1;
            const uint16_t half = bits_of_float(v);
            memcpy(row + place * (dtype == ARCH_F32 ? 4 : 2),
                   dtype == ARCH_F32 ? (const void *)&v : &half, dtype == ARCH_F32 ? 4 : 2);
            return dtype == ARCH_F32 ? v : float_of_bits(half);
        }
        if (dtype == ARCH_FP8 || dtype == ARCH_INT8) {
            unsigned code = draw(256);
            code -= dtype == ARCH_FP8 && (code & 0x7f) == 0x7f; // no NaN
            row[place] = (uint8_t)code;
            return factor_of(r, c) *
                   (dtype == ARCH_FP8 ? value_of_e4m3(code) : (double)(int8_t)code);
        }
        const unsigned code = draw(16);
        row[place / 2] = (uint8_t)(row[place / 2] | code << place % 2 * 4);
        return factor_of(r, c) * (dtype == ARCH_MXFP4 ? value_of_e2m1(code) : (double)code - 8);
    }
};

/* (n, ld) inputs of n_cols numbers each, for weights of this format; what stands behind them is NaN. */
class device_inputs {
  public:
    const int n_cols;
    const int64_t ld;
    std::vector<double> values; // (n, ld)

    device_inputs(enum arch_dtype dtype, int n, int n_cols_, int64_t ld_)
        : n_cols(n_cols_), ld(ld_), values((size_t)(n * ld_)), is_wide(dtype == ARCH_F32),
          wide((size_t)(n * ld_), NAN), narrow((size_t)(n * ld_), 0xffff)
    {
        std::uniform_real_distribution<float> d(-1, 1);
        for (size_t i = 0; i < values.size(); i++) {
            if ((int)(i % (size_t)ld) < n_cols) {
                wide.host[i] = d(device_random());
                narrow.host[i] = bits_of_float(wide.host[i]);
                values[i] = is_wide ? wide.host[i] : float_of_bits(narrow.host[i]);
            }
        }
    }

    const void *device()
    {
        return is_wide ? (const void *)wide.device() : narrow.device();
    }
    const double *row(int i) const
    {
        return &values[(size_t)(i * ld)];
    }

  private:
    const bool is_wide;
    device_array<float> wide;
    device_array<uint16_t> narrow;
};

/* The product of a row of weights and of inputs from a column on, and of their sizes. */
struct product_sum {
    double sum, size;
};

static inline product_sum product_of_row(const device_weights &w, int row, const double *x)
{
    product_sum s = {0, 0};
    for (int k = 0; k < w.n_cols; k++) {
        s.sum += w.at(row, k) * x[k];
        s.size += fabs(w.at(row, k) * x[k]);
    }
    return s;
}
