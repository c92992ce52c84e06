#include "workers/cuda/preset.h"

#include "workers/cuda/device.cuh"
#include "workers/cuda/device_matrix.h"

extern "C" {
#include "core/err.h"
}

#define THREADS 128
#define EACH    8 // values of a thread: of MXFP4 a word
#define MEAN    131070
#define GOLDEN  0x9e3779b97f4a7c15u

/* fill.c's value of an element. */
__device__ static float made(uint64_t key, uint64_t i)
{
    uint64_t h = key + (i + 1) * GOLDEN;
    h = (h ^ h >> 30) * 0xbf58476d1ce4e5b9u;
    h = (h ^ h >> 27) * 0x94d049bb133111ebu;
    h ^= h >> 31;
    const int sum = (int)((h & 0xffff) + (h >> 16 & 0xffff) + (h >> 32 & 0xffff) + (h >> 48));
    return (float)(sum - MEAN) * 0x1p-21f;
}

/* --- rounding to what a format has: formats.c's and f16.h's ------------------------------------------- */

/* Where one unit in the last place is the step of the smallest codes, an addition rounds to them. */
__device__ static uint32_t small_code(float size, float magic)
{
    return __float_as_uint(__fadd_rn(size, magic)) - __float_as_uint(magic);
}

/* Rounded to n mantissa bits, exponent and mantissa as one number; ties to even. */
__device__ static uint32_t top_bits(float v, uint32_t n)
{
    const uint32_t u = __float_as_uint(v), drop = 23 - n;
    return (u + (1u << (drop - 1)) - 1 + (u >> drop & 1)) >> drop;
}

__device__ static uint32_t e4m3_code(float v)
{
    const float size = fminf(fabsf(v), 448);
    return (__float_as_uint(v) >> 24 & 0x80u) |
           (size < 0x1p-6f ? small_code(size, 0x1p14f) : top_bits(size, 3) - (120u << 3));
}

__device__ static uint32_t e2m1_code(float v)
{
    const float size = fminf(fabsf(v), 6);
    return (__float_as_uint(v) >> 28 & 8u) |
           (size < 1 ? small_code(size, 0x1p22f) : top_bits(size, 1) - (126u << 1));
}

__device__ static float of_e4m3(uint32_t code)
{
    const uint32_t rest = code & 0x7fu;
    const float size = rest < 8 ? (float)rest * 0x1p-9f : __uint_as_float((rest << 20) + (120u << 23));
    return code & 0x80u ? -size : size;
}

__device__ static float of_e2m1(uint32_t code)
{
    const uint32_t rest = code & 7u;
    const float size = rest < 2 ? (float)rest * 0.5f : __uint_as_float((rest << 22) + (126u << 23));
    return code & 8u ? -size : size;
}

/* No value is above what binary16 holds. */
__device__ static float to_f16(float v)
{
    const float size = fabsf(v);
    const float rounded = size < 0x1p-14f ? __fsub_rn(__fadd_rn(size, 0.5f), 0.5f)
                                          : __uint_as_float(top_bits(size, 10) << 13);
    return copysignf(rounded, v);
}

/* --- a tensor --------------------------------------------------------------------------------------- */

__device__ static float value_of(const preset_rows &p, float v)
{
    switch (p.stored) {
    case ARCH_BF16:
        v = float_of(bf16_of(v));
        break;
    case ARCH_F16:
        v = to_f16(v);
        break;
    case ARCH_FP8:
        v = of_e4m3(e4m3_code(v * 0x1p12f)) * PRESET_FP8_FACTOR;
        break;
    case ARCH_MXFP4:
        v = of_e2m1(e2m1_code(v * 0x1p7f)) * 0x1p-7f;
        break;
    default:
        break;
    }
    v = p.is_norm ? 1 : v;
    return p.add != 0 ? v + p.add : v;
}

/* The tensor's row that comes to this place: layers_rotary_source of workers/layers.h. */
__device__ static int64_t source_row(const preset_rows &p, int row)
{
    if (p.head == 0) {
        return p.first_row + row;
    }
    const int j = row % p.head - (p.head - p.rope_dim), half = p.rope_dim / 2;
    return p.first_row + (j < 0 ? row : row - j + (j < half ? 2 * j : 2 * (j - half) + 1));
}

__device__ static void put_factor(const preset_rows &p, int64_t row, int64_t col, int64_t row_bytes)
{
    const int64_t blocks = (p.n_cols + DEVICE_MATRIX_FP8_BLOCK - 1) / DEVICE_MATRIX_FP8_BLOCK;
    if (p.dtype == ARCH_FP8 && col % DEVICE_MATRIX_FP8_BLOCK == 0 && row % p.factor_rows == 0) {
        ((float *)p.factors)[row / p.factor_rows * blocks + col / DEVICE_MATRIX_FP8_BLOCK] = PRESET_FP8_FACTOR;
    }
    if (p.dtype == ARCH_MXFP4 && col % DEVICE_MATRIX_GROUP == 0) {
        const int64_t groups = row_bytes / (DEVICE_MATRIX_GROUP / 2);
        ((uint8_t *)p.factors)[row * groups + col / DEVICE_MATRIX_GROUP] = PRESET_MXFP4_EXPONENT;
    }
}

/* Block (x, y): row x, its columns from y THREADS EACH on. */
__global__ static void preset_kernel(preset_rows p, int64_t row_bytes)
{
    const int64_t col = (int64_t)(blockIdx.y * THREADS + threadIdx.x) * EACH, row = blockIdx.x;
    const int64_t at = p.first + source_row(p, (int)row) * p.row_step + (p.first_col + col) * p.col_step;
    const int n = (int)min(p.n_cols - col, (int64_t)EACH);
    uint8_t *out = (uint8_t *)p.out + row * row_bytes;
    uint32_t word = 0;
    if (n <= 0) {
        return;
    }
    for (int i = 0; i < n; i++) {
        const float v = made(p.key, (uint64_t)(at + i * p.col_step));
        if (p.dtype == ARCH_F32) {
            ((float *)out)[col + i] = value_of(p, v);
        } else if (p.dtype == ARCH_BF16) {
            ((bf16 *)out)[col + i] = bf16_of(value_of(p, v));
        } else if (p.dtype == ARCH_FP8) {
            out[col + i] = (uint8_t)e4m3_code(v * 0x1p12f);
        } else {
            word |= e2m1_code(v * 0x1p7f) << 4 * (i / 2 + i % 2 * 4);
        }
    }
    if (p.dtype == ARCH_MXFP4) { // its place: device_matrix.h
        ((uint32_t *)out)[col / 128 * 16 + col % 32 / 8 * 4 + col % 128 / 32] = word;
    }
    put_factor(p, row, col, row_bytes);
}

void preset_queue(const struct preset_rows *p, struct CUstream_st *stream)
{
    const bool is_coded = p->dtype == ARCH_FP8 || p->dtype == ARCH_MXFP4;
    CHECK(!is_coded || (p->dtype == p->stored && !p->is_norm && p->add == 0));
    CHECK(p->dtype != ARCH_FP8 || p->factor_rows > 0);
    if (p->n_rows > 0 && p->n_cols > 0) {
        const int64_t each = THREADS * EACH;
        const int64_t row_bytes = (int64_t)device_matrix_row_bytes(p->dtype, (int)p->n_cols);
        const dim3 grid((unsigned)p->n_rows, (unsigned)((p->n_cols + each - 1) / each));
        launch(preset_kernel, grid, dim3(THREADS), 0, stream, *p, row_bytes);
    }
}
