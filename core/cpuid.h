/*
 * The vector instruction sets of this CPU, as far as the system lets a process use them. Each has all
 * of the one before. None on a CPU that is no x86-64.
 */
#pragma once

#include <stdbool.h>

bool cpuid_has_avx2(void);        // with FMA and F16C
bool cpuid_has_avx512(void);      // F, BW, DQ and VL
bool cpuid_has_avx512_bf16(void); // with VNNI
bool cpuid_has_amx(void);         // tiles of bfloat16; asks the system to let this process use them
