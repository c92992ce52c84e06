#include "workers/cuda/device_encode.h"

#include <math.h>
#include <string.h>

#include "core/err.h"
#include "workers/weights/bf16.h"
#include "workers/weights/formats.h"

enum {
    GROUP = DEVICE_MATRIX_GROUP
};

/* --- places ------------------------------------------------------------------------------------- */

static void put_4_bits(uint8_t *data, enum arch_dtype dtype, int column, unsigned code)
{
    const size_t at = device_matrix_place(dtype, column);
    const unsigned shift = at % 2 * 4;
    data[at / 2] = (uint8_t)((data[at / 2] & ~(15u << shift)) | code << shift);
}

/* --- formats ------------------------------------------------------------------------------------ */

static void encode_bf16(const float *values, int n, void *data)
{
    for (int i = 0; i < n; i++) {
        const uint16_t bits = bf16_from_f32(values[i]);
        memcpy((char *)data + (size_t)i * sizeof bits, &bits, sizeof bits);
    }
}

/* A value is code * factor, rounded once; so over its factor it lies nearest to its own code. */
static void encode_fp8(const float *values, int n, const float *scales, uint8_t *data)
{
    for (int i = 0; i < n; i++) {
        const float factor = scales[i / DEVICE_MATRIX_FP8_BLOCK];
        data[i] = factor != 0 ? formats_to_e4m3(values[i] / factor) : 0;
    }
}

/* The least power of two by which the largest is at most 6: every value that shares one is a code then, too. */
static unsigned exponent_of(const float *values, int n)
{
    float largest = 0;
    for (int i = 0; i < n; i++) {
        largest = fmaxf(largest, fabsf(values[i]));
    }
    if (largest == 0) {
        return 127;
    }
    int e = ilogbf(largest) - 2;
    e += largest > 6 * ldexpf(1, e);
    return (unsigned)(e < -127 ? 0 : e + 127);
}

static void encode_mxfp4(const float *values, int n, uint8_t *data, uint8_t *factors)
{
    for (int first = 0; first < n; first += GROUP) {
        const int end = first + GROUP < n ? first + GROUP : n;
        const unsigned exponent = exponent_of(values + first, end - first);
        factors[first / GROUP] = (uint8_t)exponent;
        for (int i = first; i < end; i++) {
            const float code = ldexpf(values[i], 127 - (int)exponent);
            put_4_bits(data, ARCH_MXFP4, i, formats_to_e2m1(code));
        }
    }
}

/* --- blocks of integers ------------------------------------------------------------------------- */

void device_encode_blocks(enum arch_dtype dtype, const uint8_t *blocks, int n_cols, void *data,
                          void *factors)
{
    const size_t step = dtype == ARCH_INT8 ? FORMATS_Q8_0_BYTES : FORMATS_Q4_0_BYTES;
    memset(data, dtype == ARCH_INT8 ? 0 : 0x88, device_matrix_row_bytes(dtype, n_cols));
    memset(factors, 0, device_matrix_factor_bytes(dtype, n_cols));
    for (int i = 0; i < n_cols; i++) {
        const uint8_t *block = blocks + (size_t)(i / GROUP) * step, *codes = block + 2;
        const int in = i % GROUP;
        if (in == 0) {
            memcpy((char *)factors + (size_t)(i / GROUP) * 2, block, 2);
        }
        if (dtype == ARCH_INT8) {
            ((uint8_t *)data)[device_matrix_place(dtype, i)] = codes[in];
        } else {
            put_4_bits(data, dtype, i, in < 16 ? codes[in] & 15u : (unsigned)codes[in - 16] >> 4);
        }
    }
}

static void encode_integers(enum arch_dtype dtype, const float *values, int n, void *data,
                            void *factors)
{
    const int n_groups = (n + GROUP - 1) / GROUP;
    uint8_t blocks[FORMATS_Q8_0_BYTES];
    memset(data, dtype == ARCH_INT8 ? 0 : 0x88, device_matrix_row_bytes(dtype, n));
    memset(factors, 0, device_matrix_factor_bytes(dtype, n));
    for (int g = 0; g < n_groups; g++) {
        float group[GROUP] = {0};
        const int first = g * GROUP, here = n - first < GROUP ? n - first : GROUP;
        memcpy(group, values + first, (size_t)here * sizeof *group);
        if (dtype == ARCH_INT8) {
            formats_to_q8_0(group, blocks);
        } else {
            formats_to_q4_0(group, blocks);
        }
        memcpy((char *)factors + (size_t)g * 2, blocks, 2);
        for (int i = 0; i < here; i++) {
            const uint8_t *codes = blocks + 2;
            if (dtype == ARCH_INT8) {
                ((uint8_t *)data)[device_matrix_place(dtype, first + i)] = codes[i];
            } else {
                put_4_bits(data, dtype, first + i,
                           i < 16 ? codes[i] & 15u : (unsigned)codes[i - 16] >> 4);
            }
        }
    }
}

void device_encode_row(enum arch_dtype dtype, const float *values, int n_cols, const float *scales,
                       void *data, void *factors)
{
    if (dtype == ARCH_INT8 || dtype == ARCH_INT4) {
        encode_integers(dtype, values, n_cols, data, factors);
        return;
    }
    memset(data, 0, device_matrix_row_bytes(dtype, n_cols));
    memset(factors, 0, device_matrix_factor_bytes(dtype, n_cols));
    switch (dtype) {
    case ARCH_F32:
        memcpy(data, values, (size_t)n_cols * sizeof *values);
        break;
    case ARCH_BF16:
        encode_bf16(values, n_cols, data);
        break;
    case ARCH_FP8:
        encode_fp8(values, n_cols, scales, data);
        memcpy(factors, scales, device_matrix_factor_bytes(dtype, n_cols));
        break;
    case ARCH_MXFP4:
        encode_mxfp4(values, n_cols, data, factors);
        break;
    default:
        CHECK(!"a form that the device has");
    }
}
