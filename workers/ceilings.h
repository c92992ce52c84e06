/*
 * What the device that computes can do at most, measured in this process: the rates that a kernel's speed is
 * a share of. Each is the best of many short looks, so that other users of the machine count as little as
 * possible. workers/cpu/cpu_ceilings.h and workers/cuda/gpu_ceilings.h look.
 */
#pragma once

#ifdef __cplusplus
extern "C" {
#endif

#define CEILINGS_MAX 16

enum ceilings_unit {
    CEILINGS_BYTES,
    CEILINGS_OPERATIONS, // two of a multiply-add
};

struct ceiling {
    const char *name; // "read", "float32"; static
    enum ceilings_unit unit;
    const char *how; // the instruction or call that it was reached by; static, may be ""
    double per_s;    // 0: the device cannot
};

struct ceilings {
    char of[160]; // what they are ceilings of: "2 threads"
    int n;
    struct ceiling v[CEILINGS_MAX]; // (n), in the order in which they were first kept
};

/* One look's rate: kept where it is the best of that name. Names and `how` are not copied. */
void ceilings_keep(struct ceilings *c, const char *name, enum ceilings_unit unit, const char *how,
                   double per_s);

/* NULL, or 0: no such rate. */
const struct ceiling *ceilings_find(const struct ceilings *c, const char *name);
double ceilings_rate(const struct ceilings *c, const char *name);

#ifdef __cplusplus
}
#endif
