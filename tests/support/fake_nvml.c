/*
 * A stand-in for NVIDIA's management library, as a shared object that TIDEMARK_NVML can name. What its GPUs
 * do is scripted by FAKE_NVML, words of the form key=value that spaces part:
 *
 *   devices=2       how many there are (1)
 *   power=300       W of the first, constant; each further one takes 10 W more (100)
 *   throttle=4:1:3  bits of its reasons from 1 s to 3 s after the library's start; 0 else
 *   mig=1           the GPU of this number is divided (none)
 *   without=energy+power   calls that its devices do not support
 *   init=9          nvmlInit_v2 fails with this code
 *   hang=2          asked for power the first time, a device answers after so many seconds (0)
 *
 * The counter of energy is exactly power times the time since the start. Types and codes are the
 * library's.
 */
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum {
    DONE = 0,
    INVALID = 2,
    NOT_SUPPORTED = 3,
    NOT_FOUND = 6,
    MOST = 32,
    START_MJ = 123456789, // counted before the library's start
};

struct device {
    int index;
};

struct utilisation {
    unsigned gpu, memory;
};

struct memory {
    unsigned long long total, free, used;
};

struct pci {
    char bus_legacy[16];
    unsigned domain, bus, device, id, subsystem;
    char bus_id[32];
};

static struct device devices[MOST];
static unsigned n_devices;
static double power_w, throttle_from_s, throttle_to_s, hang_s; // hang_s: of the next call
static unsigned long long throttle_bits;
static char without[128];
static struct timespec begin;

static double seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)(now.tv_sec - begin.tv_sec) + 1e-9 * (double)(now.tv_nsec - begin.tv_nsec);
}

static const char *value_of(const char *key)
{
    const char *script = getenv("FAKE_NVML");
    size_t n = strlen(key);
    for (const char *at = script; at && *at; at = strchr(at, ' ') ? strchr(at, ' ') + 1 : NULL) {
        if (strncmp(at, key, n) == 0 && at[n] == '=') {
            return at + n + 1;
        }
    }
    return NULL;
}

static double number_of(const char *key, double otherwise)
{
    const char *v = value_of(key);
    return v ? strtod(v, NULL) : otherwise;
}

static bool has(const char *call)
{
    size_t n = strlen(call);
    for (const char *at = without; *at != '\0';) {
        size_t len = strcspn(at, "+");
        if (len == n && strncmp(at, call, n) == 0) {
            return false;
        }
        at += len + (at[len] == '+');
    }
    return true;
}

int nvmlInit_v2(void);
int nvmlInit_v2(void)
{
    const char *list = value_of("without"), *throttle = value_of("throttle");
    clock_gettime(CLOCK_MONOTONIC, &begin);
    n_devices = (unsigned)number_of("devices", 1);
    power_w = number_of("power", 100);
    hang_s = number_of("hang", 0);
    snprintf(without, sizeof without, "%.*s", list ? (int)strcspn(list, " ") : 0, list ? list : "");
    throttle_bits = 0;
    if (throttle &&
        sscanf(throttle, "%llu:%lf:%lf", &throttle_bits, &throttle_from_s, &throttle_to_s) != 3) {
        return INVALID;
    }
    for (int i = 0; i < MOST; i++) {
        devices[i].index = i;
    }
    return (int)number_of("init", DONE);
}

int nvmlShutdown(void);
int nvmlShutdown(void)
{
    n_devices = 0;
    return DONE;
}

const char *nvmlErrorString(int code);
const char *nvmlErrorString(int code)
{
    return code == 9 ? "Driver Not Loaded" : "Some Error";
}

int nvmlSystemGetDriverVersion(char *text, unsigned cap);
int nvmlSystemGetDriverVersion(char *text, unsigned cap)
{
    snprintf(text, cap, "580.00");
    return DONE;
}

int nvmlDeviceGetCount_v2(unsigned *n);
int nvmlDeviceGetCount_v2(unsigned *n)
{
    *n = n_devices;
    return DONE;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned index, struct device **d);
int nvmlDeviceGetHandleByIndex_v2(unsigned index, struct device **d)
{
    if (index >= n_devices) {
        return INVALID;
    }
    *d = &devices[index];
    return DONE;
}

int nvmlDeviceGetHandleByPciBusId_v2(const char *text, struct device **d);
int nvmlDeviceGetHandleByPciBusId_v2(const char *text, struct device **d)
{
    unsigned domain, bus, device;
    if (sscanf(text, "%x:%x:%x.0", &domain, &bus, &device) != 3) {
        return INVALID;
    }
    if (domain != 0 || device != 0 || bus == 0 || bus > n_devices) {
        return NOT_FOUND;
    }
    *d = &devices[bus - 1];
    return DONE;
}

int nvmlDeviceGetIndex(const struct device *d, unsigned *index);
int nvmlDeviceGetIndex(const struct device *d, unsigned *index)
{
    *index = (unsigned)d->index;
    return DONE;
}

int nvmlDeviceGetMigMode(const struct device *d, unsigned *now, unsigned *later);
int nvmlDeviceGetMigMode(const struct device *d, unsigned *now, unsigned *later)
{
    *now = *later = d->index == (int)number_of("mig", -1);
    return DONE;
}

int nvmlDeviceGetName(const struct device *d, char *text, unsigned cap);
int nvmlDeviceGetName(const struct device *d, char *text, unsigned cap)
{
    (void)d;
    snprintf(text, cap, "Scripted GPU");
    return DONE;
}

int nvmlDeviceGetUUID(const struct device *d, char *text, unsigned cap);
int nvmlDeviceGetUUID(const struct device *d, char *text, unsigned cap)
{
    snprintf(text, cap, "GPU-%08x-0000-4000-8000-000000000000", (unsigned)d->index + 0xa0);
    return DONE;
}

int nvmlDeviceGetPciInfo_v3(const struct device *d, struct pci *pci);
int nvmlDeviceGetPciInfo_v3(const struct device *d, struct pci *pci)
{
    *pci = (struct pci){.bus = (unsigned)d->index + 1};
    snprintf(pci->bus_id, sizeof pci->bus_id, "00000000:%02X:00.0", pci->bus);
    return DONE;
}

int nvmlDeviceGetEnforcedPowerLimit(const struct device *d, unsigned *mw);
int nvmlDeviceGetEnforcedPowerLimit(const struct device *d, unsigned *mw)
{
    (void)d;
    *mw = 700000;
    return has("power_limit") ? DONE : NOT_SUPPORTED;
}

static double watts(const struct device *d)
{
    return power_w + 10.0 * d->index;
}

int nvmlDeviceGetPowerUsage(const struct device *d, unsigned *mw);
int nvmlDeviceGetPowerUsage(const struct device *d, unsigned *mw)
{
    struct timespec hang = {.tv_sec = (time_t)hang_s, .tv_nsec = (long)(1e9 * fmod(hang_s, 1))};
    hang_s = 0;
    nanosleep(&hang, NULL);
    *mw = (unsigned)(watts(d) * 1e3);
    return has("power") ? DONE : NOT_SUPPORTED;
}

int nvmlDeviceGetTotalEnergyConsumption(const struct device *d, unsigned long long *mj);
int nvmlDeviceGetTotalEnergyConsumption(const struct device *d, unsigned long long *mj)
{
    *mj = START_MJ + (unsigned long long)(watts(d) * seconds() * 1e3);
    return has("energy") ? DONE : NOT_SUPPORTED;
}

int nvmlDeviceGetClockInfo(const struct device *d, int which, unsigned *mhz);
int nvmlDeviceGetClockInfo(const struct device *d, int which, unsigned *mhz)
{
    (void)d;
    *mhz = which == 1 ? 1980 : which == 2 ? 3201 : 0;
    return has("clock") ? DONE : NOT_SUPPORTED;
}

int nvmlDeviceGetUtilizationRates(const struct device *d, struct utilisation *u);
int nvmlDeviceGetUtilizationRates(const struct device *d, struct utilisation *u)
{
    (void)d;
    *u = (struct utilisation){.gpu = 80, .memory = 25};
    return has("utilisation") ? DONE : NOT_SUPPORTED;
}

int nvmlDeviceGetMemoryInfo(const struct device *d, struct memory *m);
int nvmlDeviceGetMemoryInfo(const struct device *d, struct memory *m)
{
    (void)d;
    *m = (struct memory){.total = 1ULL << 37, .free = 3ULL << 35, .used = 1ULL << 35};
    return has("memory") ? DONE : NOT_SUPPORTED;
}

int nvmlDeviceGetCurrentClocksThrottleReasons(const struct device *d, unsigned long long *bits);
int nvmlDeviceGetCurrentClocksThrottleReasons(const struct device *d, unsigned long long *bits)
{
    (void)d;
    double s = seconds();
    *bits = s >= throttle_from_s && s < throttle_to_s ? throttle_bits : 0;
    return has("throttle") ? DONE : NOT_SUPPORTED;
}

int nvmlDeviceGetTemperature(const struct device *d, int sensor, unsigned *c);
int nvmlDeviceGetTemperature(const struct device *d, int sensor, unsigned *c)
{
    (void)d;
    *c = 55;
    return sensor == 0 && has("temperature") ? DONE : NOT_SUPPORTED;
}
