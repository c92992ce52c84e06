/*
 * Operations on vectors in AVX-512, as struct kernels has them, for all sets of that width. Entered
 * only where the CPU has it.
 */
#pragma once

#include "workers/cpu/kernels.h"

#define INLINE static inline __attribute__((always_inline))

#ifdef __clang__
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 16")
#endif

void vectors_512_rmsnorm(float *out, const float *x, const struct kernels_norm *norm, int n);
void vectors_512_round(float *x, int n);
void vectors_512_rope(float *x, const float *cosines, const float *sines, int half);
void vectors_512_gate(enum arch_activation act, float *out, const float *gate_up, int n_panels);
void vectors_512_softcap(float *x, int n, float cap);
float vectors_512_max(const float *x, int n);
float vectors_512_exp_sum(float *x, int n, float max);
