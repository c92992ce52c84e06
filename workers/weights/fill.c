#include "workers/weights/fill.h"

#include "workers/weights/bf16.h"
#include "workers/weights/formats.h"

#define FILL_MEAN  131070   // of the sum of four fields
#define FILL_SCALE 0x1p-21f // exact: the sum has 18 bits
#define GOLDEN     0x9e3779b97f4a7c15u

uint64_t fill_key(const char *name)
{
    uint64_t h = 0xcbf29ce484222325u;
    for (; *name != '\0'; name++) {
        h = (h ^ (unsigned char)*name) * 0x100000001b3u;
    }
    return h;
}

static float value(uint64_t key, uint64_t i)
{
    uint64_t h = key + (i + 1) * GOLDEN;
    h = (h ^ h >> 30) * 0xbf58476d1ce4e5b9u;
    h = (h ^ h >> 27) * 0x94d049bb133111ebu;
    h ^= h >> 31;
    int32_t sum = (int32_t)((h & 0xffff) + (h >> 16 & 0xffff) + (h >> 32 & 0xffff) + (h >> 48));
    return (float)(sum - FILL_MEAN) * FILL_SCALE;
}

void fill_f32(uint64_t key, uint64_t first, size_t n, float *out)
{
    for (size_t i = 0; i < n; i++) {
        out[i] = value(key, first + i);
    }
}

void fill_bf16(uint64_t key, uint64_t first, size_t n, uint16_t *out)
{
    for (size_t i = 0; i < n; i++) {
        out[i] = bf16_from_f32(value(key, first + i));
    }
}

void fill_fp8(uint64_t key, uint64_t first, size_t n, float *out)
{
    for (size_t i = 0; i < n; i++) {
        out[i] = formats_e4m3(formats_to_e4m3(value(key, first + i) * 0x1p12f)) * 0x1p-12f;
    }
}

void fill_mxfp4(uint64_t key, uint64_t first, size_t n, float *out)
{
    for (size_t i = 0; i < n; i++) {
        out[i] = formats_e2m1(formats_to_e2m1(value(key, first + i) * 0x1p7f)) * 0x1p-7f;
    }
}
