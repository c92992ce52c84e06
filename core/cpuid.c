#include "core/cpuid.h"

#if defined(__x86_64__)

#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

enum {
    F16C = 1 << 29,     // leaf 1, ecx
    AMX_BF16 = 1 << 22, // leaf 7, edx
    AMX_TILE = 1 << 24, // same
};

/* Compilers know the older names alone: the bits of these are asked for themselves. */
static bool has_f16c(void)
{
    unsigned a, b, c, d;
    return __get_cpuid(1, &a, &b, &c, &d) && (c & F16C) != 0;
}

static bool has_tiles(void)
{
    unsigned a, b, c, d;
    return __get_cpuid_count(7, 0, &a, &b, &c, &d) && (d & AMX_BF16) != 0 && (d & AMX_TILE) != 0;
}

/* The kernel gives a process the tiles' registers when it asks for them; once is enough. */
static bool tiles_permitted(void)
{
    enum {
        ARCH_REQ_XCOMP_PERM = 0x1023,
        XFEATURE_XTILEDATA = 18,
    };
    return syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0;
}

bool cpuid_has_avx2(void)
{
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && has_f16c();
}

bool cpuid_has_avx512(void)
{
    return cpuid_has_avx2() && __builtin_cpu_supports("avx512f") &&
           __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512vl");
}

bool cpuid_has_avx512_bf16(void)
{
    return cpuid_has_avx512() && __builtin_cpu_supports("avx512bf16") &&
           __builtin_cpu_supports("avx512vnni");
}

bool cpuid_has_amx(void)
{
    return cpuid_has_avx512_bf16() && has_tiles() && tiles_permitted();
}

#else

bool cpuid_has_avx2(void)
{
    return false;
}

bool cpuid_has_avx512(void)
{
    return false;
}

bool cpuid_has_avx512_bf16(void)
{
    return false;
}

bool cpuid_has_amx(void)
{
    return false;
}

#endif
