#include "workers/weights/fill.h"

#include "core/cpuid.h"
#include "workers/weights/fill_loops.h"
#include "workers/weights/formats.h"

uint64_t fill_key(const char *name)
{
    uint64_t h = 0xcbf29ce484222325u;
    for (; *name != '\0'; name++) {
        h = (h ^ (unsigned char)*name) * 0x100000001b3u;
    }
    return h;
}

/* --- sets ------------------------------------------------------------------------------------- */

static void f32(uint64_t state, size_t n, float *out)
{
    fill_loop_f32(state, n, out);
}

static void bf16(uint64_t state, size_t n, uint16_t *out)
{
    fill_loop_bf16(state, n, out);
}

static const struct fill_set portable = {"portable", f32, bf16};

const struct fill_set *fill_set(int i)
{
#ifdef TIDEMARK_X86_64
    if (cpuid_has_avx512() && i-- == 0) {
        return &fill_avx512;
    }
    if (cpuid_has_avx2() && i-- == 0) {
        return &fill_avx2;
    }
#endif
    return i == 0 ? &portable : NULL;
}

/* --- values ----------------------------------------------------------------------------------- */

void fill_f32(uint64_t key, uint64_t first, size_t n, float *out)
{
    fill_set(0)->f32(key + first * FILL_GOLDEN, n, out);
}

void fill_bf16(uint64_t key, uint64_t first, size_t n, uint16_t *out)
{
    fill_set(0)->bf16(key + first * FILL_GOLDEN, n, out);
}

void fill_fp8(uint64_t key, uint64_t first, size_t n, float *out)
{
    fill_f32(key, first, n, out);
    for (size_t i = 0; i < n; i++) {
        out[i] = formats_e4m3(formats_to_e4m3(out[i] * 0x1p12f)) * 0x1p-12f;
    }
}

void fill_mxfp4(uint64_t key, uint64_t first, size_t n, float *out)
{
    fill_f32(key, first, n, out);
    for (size_t i = 0; i < n; i++) {
        out[i] = formats_e2m1(formats_to_e2m1(out[i] * 0x1p7f)) * 0x1p-7f;
    }
}
