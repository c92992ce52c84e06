/*
 * Random weights without a file: each value is a pure function of (tensor name, element index), so
 * every shard makes its own part, in any order, with the same bits on every machine.
 *
 *   key(name)   = FNV-1a, 64 bit, of the name's bytes
 *   h           = splitmix64's output function (Steele, Lea, Flood 2014) at state key + (i + 1) g,
 *                 g = 0x9e3779b97f4a7c15
 *   value       = (sum of the four 16-bit fields of h - 131070) * 2^-21
 *
 * The sum of four uniform fields is near-normal with standard deviation 65536/sqrt(3); scaled,
 * 0.01804, which is what trained models are initialised to (0.02). The scaling is exact in float32
 * and the one rounding to bfloat16 is to nearest even. In FP8 a weight is the same value rounded to
 * e4m3 under a factor of 2^-12, in MXFP4 to e2m1 under 2^-7: finite codes only. A norm's weights are
 * such that it does nothing but norm.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

uint64_t fill_key(const char *name);

/* Elements first .. first + n - 1 of the tensor, row-major. */
void fill_f32(uint64_t key, uint64_t first, size_t n, float *out);
void fill_bf16(uint64_t key, uint64_t first, size_t n, uint16_t *out);
/* The nearest that FP8 and MXFP4 have, as values. */
void fill_fp8(uint64_t key, uint64_t first, size_t n, float *out);
void fill_mxfp4(uint64_t key, uint64_t first, size_t n, float *out);

/* How an instruction set makes them: n values from state key + first * g on. Each gives the same bits. */
struct fill_set {
    const char *name;
    void (*f32)(uint64_t state, size_t n, float *out);
    void (*bf16)(uint64_t state, size_t n, uint16_t *out);
};

#ifdef TIDEMARK_X86_64
extern const struct fill_set fill_avx2, fill_avx512;
#endif

/* The sets that can run here: the fastest, which the above take, first; NULL behind the last. */
const struct fill_set *fill_set(int i);
