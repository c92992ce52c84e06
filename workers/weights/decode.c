#include "workers/weights/decode.h"

#include "workers/weights/bf16.h"
#include "workers/weights/f16.h"
#include "workers/weights/fill.h"
#include "workers/weights/formats.h"

#include <string.h>

int64_t decode_row(const struct weights_tensor *t, int64_t row)
{
    const int64_t d = t->rotary_head;
    if (d == 0) {
        return row;
    }
    const int64_t head = row / d, at = row % d;
    return head * d + at % (d / 2) * 2 + at / (d / 2);
}

/* n values of two bytes, `step` bytes apart. */
static inline void read_halves(const char *from, size_t step, size_t n, bool is_bf16, float *out)
{
    for (size_t i = 0; i < n; i++) {
        uint16_t half;
        memcpy(&half, from + i * step, sizeof half);
        out[i] = is_bf16 ? bf16_to_f32(half) : f16_to_f32(half);
    }
}

static void read_floats(const struct weights_tensor *t, int64_t at, size_t n, float *out)
{
    const size_t bytes = t->stored == ARCH_F32 ? 4 : 2, step = (size_t)t->col_step * bytes;
    const char *from = (const char *)t->data + (size_t)at * bytes;
    const bool together = t->col_step == 1;
    if (t->stored == ARCH_F32 && together) {
        memcpy(out, from, n * sizeof *out);
    } else if (t->stored == ARCH_F32) {
        for (size_t i = 0; i < n; i++) {
            memcpy(&out[i], from + i * step, sizeof *out);
        }
    } else if (t->stored == ARCH_BF16 && together) { // each its own loop: this one is vectorised
        read_halves(from, sizeof(uint16_t), n, true, out);
    } else {
        read_halves(from, step, n, t->stored == ARCH_BF16, out);
    }
}

static void read_fp8(const struct weights_tensor *t, int64_t row, int64_t col, size_t n, float *out)
{
    const int64_t wide = (t->n_cols + FORMATS_FP8_BLOCK - 1) / FORMATS_FP8_BLOCK;
    const uint8_t *codes = (const uint8_t *)t->data + t->first + row * t->row_step + col;
    for (size_t i = 0; i < n; i += FORMATS_FP8_BLOCK) {
        const int64_t block =
            row / FORMATS_FP8_BLOCK * wide + (col + (int64_t)i) / FORMATS_FP8_BLOCK;
        float factor;
        memcpy(&factor, (const char *)t->scales + block * (int64_t)sizeof factor, sizeof factor);
        formats_fp8(codes + i, factor, n - i < FORMATS_FP8_BLOCK ? n - i : FORMATS_FP8_BLOCK,
                    out + i);
    }
}

static void read_groups(const struct weights_tensor *t, int64_t at, size_t n, float *out)
{
    const uint8_t *data = t->data;
    const int64_t group = at / FORMATS_GROUP;
    if (t->stored == ARCH_INT8) {
        formats_q8_0(data + group * FORMATS_Q8_0_BYTES, n, out);
    } else if (t->stored == ARCH_INT4) {
        formats_q4_0(data + group * FORMATS_Q4_0_BYTES, n, out);
    } else if (t->exponents) {
        formats_mxfp4(data + at / 2, t->exponents + group, n, out);
    } else {
        formats_gguf_mxfp4(data + group * FORMATS_MXFP4_BYTES, n, out);
    }
}

static void generate(const struct weights_tensor *t, uint64_t at, size_t n, float *out)
{
    switch (t->stored) {
    case ARCH_FP8:
        fill_fp8(t->key, at, n, out);
        break;
    case ARCH_MXFP4:
        fill_mxfp4(t->key, at, n, out);
        break;
    default:
        fill_f32(t->key, at, n, out);
    }
    for (size_t i = 0; i < n; i++) {
        if (t->stored == ARCH_BF16) {
            out[i] = bf16_to_f32(bf16_from_f32(out[i]));
        } else if (t->stored == ARCH_F16) {
            out[i] = f16_to_f32(f16_from_f32(out[i]));
        }
    }
}

static void generate_span(const struct weights_tensor *t, int64_t at, size_t n, float *out)
{
    if (t->is_norm) {
        for (size_t i = 0; i < n; i++) {
            out[i] = 1;
        }
    } else if (t->col_step == 1) {
        generate(t, (uint64_t)at, n, out);
    } else {
        for (size_t i = 0; i < n; i++) {
            generate(t, (uint64_t)(at + (int64_t)i * t->col_step), 1, &out[i]);
        }
    }
}

void decode_span(const struct weights_tensor *t, int64_t row, int64_t col, size_t n, float *out)
{
    const int64_t from = decode_row(t, row);
    const int64_t at = t->first + from * t->row_step + col * t->col_step;
    if (!t->data) {
        generate_span(t, at, n, out);
    } else if (t->stored == ARCH_FP8) {
        read_fp8(t, from, col, n, out);
    } else if (t->stored == ARCH_F32 || t->stored == ARCH_BF16 || t->stored == ARCH_F16) {
        read_floats(t, at, n, out);
    } else {
        read_groups(t, at, n, out);
    }
    for (size_t i = 0; t->add != 0 && i < n; i++) {
        out[i] += t->add;
    }
}
