#include "workers/cuda/device_encode.h"

#include <math.h>
#include <string.h>

#include "core/err.h"
#include "workers/weights/bf16.h"
#include "workers/weights/decode.h"
#include "workers/weights/formats.h"

enum {
    GROUP = DEVICE_MATRIX_GROUP,
    BLOCK = DEVICE_MATRIX_FP8_BLOCK,
    LANES = 4, // each has 8 columns of a group
};

/* --- groups of 32 columns to their places -------------------------------------------------------- */

/* A group's codes, a byte each. */
static void put_bytes(uint8_t *data, int group, const uint8_t *codes)
{
    uint8_t *chunk = data + (size_t)(group / 2) * 64 + (size_t)(group % 2) * 8;
    for (size_t lane = 0; lane < LANES; lane++) {
        memcpy(chunk + lane * 16, codes + lane * 8, 8);
    }
}

/* A lane's 8 codes of 4 bits, in pairs, the first one low: even ones go to the lower half, odd ones to the upper. */
static uint32_t word_of_pairs(const uint8_t *pairs)
{
    const uint32_t v =
        pairs[0] | (uint32_t)pairs[1] << 8 | (uint32_t)pairs[2] << 16 | (uint32_t)pairs[3] << 24;
    uint32_t halves[2] = {v & 0x0f0f0f0fu, v >> 4 & 0x0f0f0f0fu};
    for (int i = 0; i < 2; i++) {
        halves[i] = (halves[i] | halves[i] >> 4) & 0x00ff00ffu;
        halves[i] = (halves[i] | halves[i] >> 8) & 0xffffu;
    }
    return halves[0] | halves[1] << 16;
}

/* A group's codes in pairs (GROUP / 2). */
static void put_pairs(uint8_t *data, int group, const uint8_t *pairs)
{
    uint8_t *chunk = data + (size_t)(group / 4) * 64 + (size_t)(group % 4) * 4;
    for (size_t lane = 0; lane < LANES; lane++) {
        const uint32_t word = word_of_pairs(pairs + lane * 4);
        const uint8_t bytes[4] = {(uint8_t)word, (uint8_t)(word >> 8), (uint8_t)(word >> 16),
                                  (uint8_t)(word >> 24)};
        memcpy(chunk + lane * 16, bytes, sizeof bytes);
    }
}

/* GGUF's bytes have columns i and i + 16. */
static void put_gguf_pairs(uint8_t *data, int group, const uint8_t *codes)
{
    uint8_t pairs[GROUP / 2];
    for (size_t i = 0; i < GROUP / 4; i++) {
        const uint8_t a = codes[2 * i], b = codes[2 * i + 1];
        pairs[i] = (uint8_t)((a & 15) | b << 4);
        pairs[i + GROUP / 4] = (uint8_t)(a >> 4 | (b & 0xf0));
    }
    put_pairs(data, group, pairs);
}

/* One of GGUF's blocks: a float16, and integers of a byte or a half. */
static void put_block(enum arch_dtype dtype, const uint8_t *block, int group, void *data,
                      void *factors)
{
    memcpy((char *)factors + (size_t)group * 2, block, 2);
    if (dtype == ARCH_INT8) {
        put_bytes(data, group, block + 2);
    } else {
        put_gguf_pairs(data, group, block + 2);
    }
}

/* Zeros where no value comes: of the last chunk, and of the factors. */
static void clear_rest(enum arch_dtype dtype, int n_cols, void *data, void *factors)
{
    const int chunk = device_matrix_chunk(dtype), whole = n_cols / chunk * chunk;
    const size_t used = device_matrix_row_bytes(dtype, whole);
    const size_t all = device_matrix_row_bytes(dtype, n_cols);
    const size_t n = device_matrix_factor_bytes(dtype, n_cols);
    memset((char *)data + used, dtype == ARCH_INT4 ? 0x88 : 0, all - used);
    if (n > 0 && factors) {
        memset(factors, 0, n);
    }
}

/* --- from floats --------------------------------------------------------------------------------- */

static void encode_bf16(const float *values, int n, void *data)
{
    for (int i = 0; i < n; i++) {
        const uint16_t bits = bf16_from_f32(values[i]);
        memcpy((char *)data + (size_t)i * sizeof bits, &bits, sizeof bits);
    }
}

static void encode_integers(enum arch_dtype dtype, const float *values, int n, void *data,
                            void *factors)
{
    uint8_t block[FORMATS_Q8_0_BYTES];
    for (int first = 0; first < n; first += GROUP) {
        float group[GROUP] = {0};
        memcpy(group, values + first,
               (size_t)(n - first < GROUP ? n - first : GROUP) * sizeof *group);
        if (dtype == ARCH_INT8) {
            formats_to_q8_0(group, block);
        } else {
            formats_to_q4_0(group, block);
        }
        put_block(dtype, block, first / GROUP, data, factors);
    }
}

void device_encode_row(enum arch_dtype dtype, const float *values, int n_cols, void *data,
                       void *factors)
{
    clear_rest(dtype, n_cols, data, factors);
    switch (dtype) {
    case ARCH_F32:
        memcpy(data, values, (size_t)n_cols * sizeof *values);
        break;
    case ARCH_BF16:
        encode_bf16(values, n_cols, data);
        break;
    case ARCH_INT8:
    case ARCH_INT4:
        encode_integers(dtype, values, n_cols, data, factors);
        break;
    default:
        CHECK(!"a form that is made of floats");
    }
}

/* --- as stored ----------------------------------------------------------------------------------- */

/* Values that share a factor are not taken apart. */
bool device_encode_can_take(const struct weights_tensor *t, int first_col, int n_cols)
{
    const int unit = t->stored == ARCH_FP8                             ? BLOCK
                     : t->stored == ARCH_F32 || t->stored == ARCH_BF16 ? 1
                                                                       : GROUP;
    const bool cut =
        first_col % unit == 0 && (n_cols % unit == 0 || first_col + n_cols == t->n_cols);
    return t->data && t->stored != ARCH_F16 && t->col_step == 1 && !(t->add != 0) && cut;
}

static bool take_fp8(const struct weights_tensor *t, int64_t at, int64_t block, int n_cols,
                     uint8_t *data, void *factors)
{
    const uint8_t *codes = (const uint8_t *)t->data + at;
    unsigned not_numbers = 0;
    memcpy(data, codes, (size_t)n_cols);
    for (int i = 0; i < n_cols; i++) {
        not_numbers |= (codes[i] & 0x7fu) == 0x7fu;
    }
    for (int i = 0; factors && i < (n_cols + BLOCK - 1) / BLOCK; i++) {
        float factor;
        memcpy(&factor, (const char *)t->scales + (size_t)(block + i) * sizeof factor,
               sizeof factor);
        memcpy((char *)factors + (size_t)i * sizeof factor, &factor, sizeof factor);
        not_numbers |= isfinite(factor) ? 0 : 1u;
    }
    return !not_numbers;
}

static bool take_mxfp4(const struct weights_tensor *t, int64_t at, int n_groups, void *data,
                       uint8_t *factors)
{
    unsigned not_numbers = 0;
    for (int g = 0; g < n_groups; g++) {
        const int64_t group = at / GROUP + g;
        const uint8_t *codes = (const uint8_t *)t->data;
        if (t->exponents) {
            factors[g] = t->exponents[group];
            put_pairs(data, g, codes + group * (GROUP / 2));
        } else {
            factors[g] = codes[group * FORMATS_MXFP4_BYTES];
            put_gguf_pairs(data, g, codes + group * FORMATS_MXFP4_BYTES + 1);
        }
        not_numbers |= factors[g] == 0xff;
    }
    return !not_numbers;
}

static void take_blocks(const struct weights_tensor *t, int64_t at, int n_groups, void *data,
                        void *factors)
{
    const int64_t bytes = t->stored == ARCH_INT8 ? FORMATS_Q8_0_BYTES : FORMATS_Q4_0_BYTES;
    for (int g = 0; g < n_groups; g++) {
        put_block(t->stored, (const uint8_t *)t->data + (at / GROUP + g) * bytes, g, data, factors);
    }
}

bool device_encode_stored(const struct weights_tensor *t, int64_t row, int first_col, int n_cols,
                          void *data, void *factors)
{
    const int64_t from = decode_row(t, row), at = t->first + from * t->row_step + first_col;
    const int64_t blocks = (t->n_cols + BLOCK - 1) / BLOCK;
    const size_t bytes = t->stored == ARCH_F32 ? 4 : 2;
    CHECK(device_encode_can_take(t, first_col, n_cols));
    clear_rest(t->stored, n_cols, data, factors);
    switch (t->stored) {
    case ARCH_FP8:
        return take_fp8(t, at, from / BLOCK * blocks + first_col / BLOCK, n_cols, data, factors);
    case ARCH_MXFP4:
        return take_mxfp4(t, at, n_cols / GROUP, data, factors);
    case ARCH_INT8:
    case ARCH_INT4:
        take_blocks(t, at, n_cols / GROUP, data, factors);
        return true;
    default:
        memcpy(data, (const char *)t->data + (size_t)at * bytes, (size_t)n_cols * bytes);
        return true;
    }
}
