/*
 * Values of the storage formats, decoded exactly, and the nearest code of a value where weights are
 * generated. Formulas:
 *
 *   e4m3   (-1)^s 2^(e-7) (1 + m/8), 2^-6 m/8 where e = 0; 0x7f and 0xff are NaN, there is no infinity
 *          (OCP 8-bit floating point 1.0). A weight is code * factor of its block, rounded to float32.
 *   e2m1   0, 0.5, 1, 1.5, 2, 3, 4, 6 by the lower three bits, sign above; times 2^(scale - 127)
 *          for 32 values (OCP MX 1.0). Exact in float32 and bfloat16.
 *   Q8_0   32 values: float16 factor, 32 int8. Exact in float32 (8 + 11 bits).
 *   Q4_0   32 values: float16 factor, 16 bytes; byte i holds values i (low) and i + 16 (high), less 8.
 *   GGUF's MXFP4: scale, then 16 bytes with values i and i + 16, where gpt-oss has 2i and 2i + 1.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#define FORMATS_GROUP       32 // values that share a factor, but in FP8
#define FORMATS_FP8_BLOCK   128
#define FORMATS_Q8_0_BYTES  34 // of a group
#define FORMATS_Q4_0_BYTES  18
#define FORMATS_MXFP4_BYTES 17

float formats_e4m3(uint8_t code);
float formats_e2m1(uint8_t code); // of the lower four bits
float formats_e8m0(uint8_t code); // 2^(code - 127); 255 is NaN

/* The nearest code, ties to the even one, the largest for what is above it; v is finite. */
uint8_t formats_to_e4m3(float v);
uint8_t formats_to_e2m1(float v);

/* n values, a multiple of FORMATS_GROUP but in FP8; out (n). */
void formats_fp8(const uint8_t *codes, float factor, size_t n, float *out);
void formats_mxfp4(const uint8_t *blocks /* (n / 2) */, const uint8_t *scales /* (n / 32) */,
                   size_t n, float *out);
void formats_gguf_mxfp4(const uint8_t *groups, size_t n, float *out);
void formats_q8_0(const uint8_t *groups, size_t n, float *out);
void formats_q4_0(const uint8_t *groups, size_t n, float *out);

/*
 * The nearest integers to 32 values: group (FORMATS_Q8_0_BYTES, FORMATS_Q4_0_BYTES). The factor is max|v| / 127, or the
 * largest value / -8, so that it comes out exact.
 */
void formats_to_q8_0(const float *values, uint8_t *group);
void formats_to_q4_0(const float *values, uint8_t *group);
