/*
 * The data model of GPUs: who the target's are, and how they fared, at 10 Hz. Pure data like
 * results/record.h, filled by workers/nvml.c. What a device does not tell is NAN, a text empty.
 */
#pragma once

#include <math.h>
#include <stdint.h>

/* What clocks can be held down by; the order is part of the file format: bit i of `throttle`. */
enum gpus_reason {
    GPUS_IDLE, // nothing runs
    GPUS_APPLICATION_CLOCKS,
    GPUS_POWER_CAP,
    GPUS_HW_SLOWDOWN,
    GPUS_SYNC_BOOST,
    GPUS_SW_THERMAL,
    GPUS_HW_THERMAL,
    GPUS_HW_POWER_BRAKE,
    GPUS_DISPLAY_CLOCKS,
    GPUS_REASON_N,
};
extern const char *const gpus_reason_names[GPUS_REASON_N];

/* Reasons that take speed from a device that has work: not idleness, nor clocks that somebody chose. */
#define GPUS_THROTTLED                                                                             \
    (1U << GPUS_POWER_CAP | 1U << GPUS_HW_SLOWDOWN | 1U << GPUS_SW_THERMAL |                       \
     1U << GPUS_HW_THERMAL | 1U << GPUS_HW_POWER_BRAKE)

/* One GPU of the target; samples name it by its place in the list. */
struct gpus_device {
    int32_t rank;  // that samples it
    int32_t index; // among its host's GPUs, by bus address
    char host[64];
    char name[64];
    char uuid[48];
    char pci[24]; // bus address
    char driver[32];
    double memory_bytes;
    double power_limit_w; // in force
};

struct gpus_sample {
    int64_t t_ns;
    double energy_j; // counted since the driver was loaded
    double memory_used_bytes;
    float power_w;
    float sm_mhz, memory_mhz;
    float gpu_util,
        memory_util; // shares of time that a kernel ran, that memory was read or written
    float temperature_c;
    uint32_t throttle; // bits of enum gpus_reason; UINT32_MAX: not told
    uint16_t device;
    uint16_t reserved;
};

/* One of which nothing has been told yet. */
static inline struct gpus_sample gpus_blank(int64_t t_ns)
{
    return (struct gpus_sample){
        .t_ns = t_ns,
        .energy_j = (double)NAN,
        .memory_used_bytes = (double)NAN,
        .power_w = NAN,
        .sm_mhz = NAN,
        .memory_mhz = NAN,
        .gpu_util = NAN,
        .memory_util = NAN,
        .temperature_c = NAN,
        .throttle = UINT32_MAX,
    };
}
