/*
 * The device's paged cache as tests see it: numbers are found by what workers/cuda/cache.h says, in other words
 * than the kernels', and read as float64.
 */
#pragma once

#include "tests/cuda/device_test.h"
#include "workers/cuda/cache.h"

#include <algorithm>
#include <numeric>

class paged {
  public:
    const cache_layout c;
    const uint32_t n_blocks, max_blocks, n_rows;
    device_array<unsigned char> bytes;
    device_array<uint32_t> tables; // (n_rows, max_blocks), each block in one place
    bool shared_blocks = false;    // ... or in many: for contexts longer than the cache

    paged(const cache_layout &layout, uint32_t rows, uint32_t blocks_per_row, uint32_t distinct = 0)
        : c(layout), n_blocks(distinct ? distinct : rows * blocks_per_row),
          max_blocks(blocks_per_row), n_rows(rows), bytes(n_blocks * layout.block_bytes, 0xff),
          tables(rows * blocks_per_row), shared_blocks(distinct > 0)
    {
        for (size_t i = 0; i < tables.host.size(); i++) {
            tables.host[i] = (uint32_t)(i % n_blocks);
        }
        std::shuffle(tables.host.begin(), tables.host.end(), device_random());
    }

    /* Where number d of a key or value begins. */
    size_t at(uint32_t row, uint32_t pos, int head, bool value, int d) const
    {
        const size_t begin =
            tables.host[row * max_blocks + pos / 16] * c.block_bytes + (size_t)head * c.head_bytes;
        const uint32_t p = pos % 16;
        const size_t size = number_bytes();
        if (value && !c.shared) {
            if (c.dtype == ARCH_F32) {
                return begin + c.values_at + (p * (size_t)c.value_dim + (size_t)d) * size;
            }
            const int w = c.dtype == ARCH_BF16 ? 2 : 4;
            const uint32_t quads[4][4] = {
                {0, 1, 8, 9}, {2, 3, 10, 11}, {4, 5, 12, 13}, {6, 7, 14, 15}};
            size_t t = 0, slot = 0;
            while (quads[t][slot] != p) {
                slot = (slot + 1) % 4;
                t += slot == 0;
            }
            const size_t tile = (size_t)(d / (8 * w)), g = (size_t)(d % 8), i = (size_t)(d / 8 % w);
            return begin + c.values_at +
                   ((((tile * 8 + g) * 4 + t) * (size_t)w + i) * 4 + slot) * size;
        }
        const size_t u = 16 / size, unit = (size_t)d / u;
        return begin + ((unit * 16 + p) * u + (size_t)d % u) * size;
    }

    size_t factor_at(uint32_t row, uint32_t pos, int head, bool value) const
    {
        const size_t begin = tables.host[row * max_blocks + pos / 16] * c.block_bytes +
                             (size_t)head * c.head_bytes + c.factors_at;
        return begin + (pos % 16 + (value && !c.shared ? 16 : 0)) * sizeof(float);
    }

    double number(uint32_t row, uint32_t pos, int head, bool value, int d) const
    {
        const unsigned char *p = &bytes.host[at(row, pos, head, value, d)];
        float f = 1;
        uint16_t half;
        switch (c.dtype) {
        case ARCH_F32:
            memcpy(&f, p, sizeof f);
            return f;
        case ARCH_BF16:
            memcpy(&half, p, sizeof half);
            return float_of_bits(half);
        default:
            memcpy(&f, &bytes.host[factor_at(row, pos, head, value)], sizeof f);
            return f * (c.dtype == ARCH_FP8 ? e4m3(*p) : (double)(signed char)*p);
        }
    }

    /* All numbers of one position, at random. */
    void draw(uint32_t row, uint32_t pos)
    {
        for (int head = 0; head < c.n_kv_heads; head++) {
            for (int value = 0; value < (c.shared ? 1 : 2); value++) {
                const int padded = value ? c.value_dim : (c.key_dim + 15) / 16 * 16;
                for (int d = 0; d < padded; d++) {
                    if (d < (value ? c.value_dim : c.key_dim)) {
                        put_random(at(row, pos, head, value, d));
                    } else if (number_bytes() == 1) {
                        bytes.host[at(row, pos, head, value, d)] =
                            0; // behind a key of 8 mod 16 numbers
                    }
                }
                if (number_bytes() == 1) {
                    const float f = random(0.3f, 1) / (c.dtype == ARCH_FP8 ? 448 : 127);
                    memcpy(&bytes.host[factor_at(row, pos, head, value)], &f, sizeof f);
                }
            }
        }
    }

    static float random(float lo, float hi)
    {
        return std::uniform_real_distribution<float>(lo, hi)(device_random());
    }

    static double e4m3(unsigned code)
    {
        const int exponent = (int)(code >> 3 & 15), mantissa = (int)(code & 7);
        const double v = exponent ? ldexp(8 + mantissa, exponent - 10) : ldexp(mantissa, -9);
        return code & 0x80 ? -v : v;
    }

  private:
    size_t number_bytes() const
    {
        return c.dtype == ARCH_F32 ? 4 : c.dtype == ARCH_BF16 ? 2 : 1;
    }

    void put_random(size_t to)
    {
        const float f = random(-1, 1);
        const uint16_t half = bits_of_float(f);
        if (c.dtype == ARCH_F32) {
            memcpy(&bytes.host[to], &f, sizeof f);
        } else if (c.dtype == ARCH_BF16) {
            memcpy(&bytes.host[to], &half, sizeof half);
        } else {
            const unsigned char code = (unsigned char)(device_random()() & 0xff);
            const bool is_nan = c.dtype == ARCH_FP8 && (code & 0x7f) == 0x7f;
            bytes.host[to] = is_nan ? (unsigned char)(code & 0x80) : code;
        }
    }
};
