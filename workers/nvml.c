#include "workers/nvml.h"

#include "core/clock.h"
#include "core/mem.h"

#include <dlfcn.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LIBRARY        "libnvidia-ml.so.1"
#define NAME_MAX_BYTES 128u

typedef int result; // 0: done
typedef void *device;

enum { // as the library numbers them
    CLOCK_SM = 1,
    CLOCK_MEMORY = 2,
    SENSOR_GPU = 0,
};

struct utilisation { // percent
    unsigned gpu, memory;
};

struct memory {
    unsigned long long total, free, used;
};

struct pci { // of the call's version 3
    char bus_legacy[16];
    unsigned domain, bus, device, id, subsystem;
    char bus_id[32];
    unsigned spare[16]; // should a later one write more
};

/* Each is NULL where the library has no such call. */
struct nvml {
    void *library;
    int count;
    result (*init)(void);
    result (*shutdown)(void);
    const char *(*error_string)(result);
    result (*driver_version)(char *, unsigned);
    result (*get_count)(unsigned *);
    result (*by_index)(unsigned, device *);
    result (*by_pci)(const char *, device *);
    result (*index)(device, unsigned *);
    result (*mig_mode)(device, unsigned *, unsigned *); // now, and after a reset
    result (*name)(device, char *, unsigned);
    result (*uuid)(device, char *, unsigned);
    result (*pci)(device, struct pci *);
    result (*power_limit)(device, unsigned *);      // mW
    result (*power)(device, unsigned *);            // mW
    result (*energy)(device, unsigned long long *); // mJ
    result (*clock)(device, int, unsigned *);       // MHz
    result (*utilisation)(device, struct utilisation *);
    result (*memory)(device, struct memory *);
    result (*throttle)(device, unsigned long long *);
    result (*temperature)(device, int, unsigned *); // C
};

/* --- opening -------------------------------------------------------------------------------------- */

/* A function's address: C has no cast for it. */
static void find(struct nvml *n, void *call, const char *name, const char *older)
{
    void *address = dlsym(n->library, name);
    if (!address && older) {
        address = dlsym(n->library, older);
    }
    memcpy(call, &address, sizeof address);
}

static void find_all(struct nvml *n)
{
    find(n, &n->init, "nvmlInit_v2", NULL);
    find(n, &n->shutdown, "nvmlShutdown", NULL);
    find(n, &n->error_string, "nvmlErrorString", NULL);
    find(n, &n->driver_version, "nvmlSystemGetDriverVersion", NULL);
    find(n, &n->get_count, "nvmlDeviceGetCount_v2", NULL);
    find(n, &n->by_index, "nvmlDeviceGetHandleByIndex_v2", NULL);
    find(n, &n->by_pci, "nvmlDeviceGetHandleByPciBusId_v2", NULL);
    find(n, &n->index, "nvmlDeviceGetIndex", NULL);
    find(n, &n->mig_mode, "nvmlDeviceGetMigMode", NULL);
    find(n, &n->name, "nvmlDeviceGetName", NULL);
    find(n, &n->uuid, "nvmlDeviceGetUUID", NULL);
    find(n, &n->pci, "nvmlDeviceGetPciInfo_v3", NULL);
    find(n, &n->power_limit, "nvmlDeviceGetEnforcedPowerLimit", NULL);
    find(n, &n->power, "nvmlDeviceGetPowerUsage", NULL);
    find(n, &n->energy, "nvmlDeviceGetTotalEnergyConsumption", NULL);
    find(n, &n->clock, "nvmlDeviceGetClockInfo", NULL);
    find(n, &n->utilisation, "nvmlDeviceGetUtilizationRates", NULL);
    find(n, &n->memory, "nvmlDeviceGetMemoryInfo", NULL);
    find(n, &n->throttle, "nvmlDeviceGetCurrentClocksEventReasons",
         "nvmlDeviceGetCurrentClocksThrottleReasons");
    find(n, &n->temperature, "nvmlDeviceGetTemperature", NULL);
}

static const char *error_text(const struct nvml *n, result r)
{
    const char *text = n->error_string ? n->error_string(r) : NULL;
    return text ? text : "unknown error";
}

/* Whether the library works here; begins its use. */
static bool begin(struct nvml *n, const char *path, char *why, size_t cap)
{
    unsigned count = 0;
    if (!n->init || !n->shutdown || !n->get_count || !n->by_index) {
        snprintf(why, cap, "%s: not NVIDIA's management library", path);
        return false;
    }
    result r = n->init();
    if (r != 0) {
        snprintf(why, cap, "%s: cannot start: %s", path, error_text(n, r));
        return false;
    }
    r = n->get_count(&count);
    n->count = count < INT16_MAX ? (int)count : INT16_MAX;
    if (r != 0 || count == 0) {
        snprintf(why, cap, "%s: %s", path, r == 0 ? "finds no GPU" : error_text(n, r));
        n->shutdown();
        return false;
    }
    return true;
}

struct nvml *nvml_open(char *why, size_t cap)
{
    const char *path = getenv("TIDEMARK_NVML");
    path = path && path[0] ? path : LIBRARY;
    struct nvml *n = xcalloc(1, sizeof *n);
    n->library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!n->library) {
        const char *text = dlerror();
        snprintf(why, cap, "%s", text ? text : "cannot be opened");
        free(n);
        return NULL;
    }
    find_all(n);
    if (!begin(n, path, why, cap)) {
        dlclose(n->library);
        free(n);
        return NULL;
    }
    return n;
}

void nvml_close(struct nvml *n)
{
    if (n) {
        n->shutdown();
        dlclose(n->library);
        free(n);
    }
}

int nvml_count(const struct nvml *n)
{
    return n->count;
}

int nvml_find(const struct nvml *n, const char *pci)
{
    device d;
    unsigned index;
    if (!n->by_pci || !n->index || n->by_pci(pci, &d) != 0 || n->index(d, &index) != 0 ||
        index >= (unsigned)n->count) {
        return -1;
    }
    return (int)index;
}

bool nvml_is_divided(const struct nvml *n, int index)
{
    device d;
    unsigned now = 0, later;
    return n->mig_mode && n->by_index((unsigned)index, &d) == 0 &&
           n->mig_mode(d, &now, &later) == 0 && now != 0;
}

/* --- a device ------------------------------------------------------------------------------------- */

/* Into text (cap), cut where it is longer; empty where the device does not tell. */
static void text_of(device d, result (*call)(device, char *, unsigned), char *text, size_t cap)
{
    char whole[NAME_MAX_BYTES] = "";
    bool told = call && call(d, whole, sizeof whole) == 0;
    snprintf(text, cap, "%.*s", told ? (int)sizeof whole - 1 : 0, whole);
}

static double number_of(device d, result (*call)(device, unsigned *), double scale)
{
    unsigned v;
    return call && call(d, &v) == 0 ? v * scale : (double)NAN;
}

static float choice_of(device d, result (*call)(device, int, unsigned *), int which)
{
    unsigned v;
    return call && call(d, which, &v) == 0 ? (float)v : NAN;
}

static struct memory memory_of(const struct nvml *n, device d, bool *told)
{
    struct memory m = {0};
    *told = n->memory && n->memory(d, &m) == 0;
    return m;
}

void nvml_describe(const struct nvml *n, int index, struct gpus_device *out)
{
    device d;
    struct pci pci = {.domain = 0};
    *out = (struct gpus_device){.index = index, .memory_bytes = NAN, .power_limit_w = NAN};
    char driver[NAME_MAX_BYTES] = "";
    if (n->driver_version && n->driver_version(driver, sizeof driver) == 0) {
        snprintf(out->driver, sizeof out->driver, "%.*s", (int)sizeof out->driver - 1, driver);
    }
    if (n->by_index((unsigned)index, &d) != 0) {
        return;
    }
    text_of(d, n->name, out->name, sizeof out->name);
    text_of(d, n->uuid, out->uuid, sizeof out->uuid);
    if (n->pci && n->pci(d, &pci) == 0) {
        snprintf(out->pci, sizeof out->pci, "%.*s", (int)sizeof out->pci - 1, pci.bus_id);
    }
    out->power_limit_w = number_of(d, n->power_limit, 1e-3);
    bool told;
    struct memory m = memory_of(n, d, &told);
    out->memory_bytes = told ? (double)m.total : (double)NAN;
}

static uint32_t throttle_of(const struct nvml *n, device d)
{
    unsigned long long bits;
    if (!n->throttle || n->throttle(d, &bits) != 0) {
        return UINT32_MAX;
    }
    return (uint32_t)bits & ((1U << GPUS_REASON_N) - 1);
}

static double energy_of(const struct nvml *n, device d)
{
    unsigned long long mj;
    return n->energy && n->energy(d, &mj) == 0 ? (double)mj * 1e-3 : (double)NAN;
}

void nvml_sample(const struct nvml *n, int index, struct gpus_sample *s)
{
    device d;
    struct utilisation u;
    int64_t begin_ns = clock_now_ns();
    *s = gpus_blank(begin_ns);
    if (n->by_index((unsigned)index, &d) != 0) {
        return;
    }
    begin_ns = clock_now_ns();
    s->energy_j = energy_of(n, d);
    s->t_ns = begin_ns + (clock_now_ns() - begin_ns) / 2;
    s->power_w = (float)number_of(d, n->power, 1e-3);
    s->sm_mhz = choice_of(d, n->clock, CLOCK_SM);
    s->memory_mhz = choice_of(d, n->clock, CLOCK_MEMORY);
    s->temperature_c = choice_of(d, n->temperature, SENSOR_GPU);
    if (n->utilisation && n->utilisation(d, &u) == 0) {
        s->gpu_util = (float)(u.gpu * 0.01);
        s->memory_util = (float)(u.memory * 0.01);
    }
    bool told;
    struct memory m = memory_of(n, d, &told);
    s->memory_used_bytes = told ? (double)m.used : (double)NAN;
    s->throttle = throttle_of(n, d);
}
