#include "workers/cuda/gpu_ceilings.h"

#include <cublasLt.h>
#include <cuda_runtime.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/clock.h"
#include "core/mem.h"
#include "workers/cuda/gpu.h"
#include "workers/cuda/sweep.h"

#define DEADLINE_NS     (60 * NS_PER_S)
#define WORKSPACE_BYTES ((size_t)32 << 20)
#define ALGORITHMS      4 // that are tried of a kind of product

#ifdef GPU_ON_CPU // where rates mean nothing, and take long
const struct gpu_ceilings_plan gpu_ceilings_usual = {
    .sweep_bytes = 1 << 17,
    .host_bytes = 1 << 16,
    .side = 32,
    .wide_side = 16,
    .n_repeats = 1,
    .train = 1,
    .warm_ns = 0,
};
#else
const struct gpu_ceilings_plan gpu_ceilings_usual = {
    .sweep_bytes = (size_t)4 << 30,
    .host_bytes = (size_t)64 << 20,
    .side = 8192,
    .wide_side = 4096,
    .n_repeats = 3,
    .train = 8,
    .warm_ns = 300 * NS_PER_MS,
};
#endif

/* A kind of product, and bits that make words of random numbers of it: -2 to 2, int8's all. */
struct kind {
    const char *name, *how;
    cudaDataType_t type, sums; // of what is multiplied; of the result
    cublasComputeType_t compute;
    cudaDataType_t scale;
    bool is_wide, is_fast;
    int capability; // at least
    uint32_t random, fixed;
};

static const struct kind kinds[] = {
    {"float32", "cuBLASLt", CUDA_R_32F, CUDA_R_32F, CUBLAS_COMPUTE_32F, CUDA_R_32F, true, false, 0,
     0x81ffffffu, 0x3e000000u},
    {"bfloat16", "cuBLASLt", CUDA_R_16BF, CUDA_R_16BF, CUBLAS_COMPUTE_32F, CUDA_R_32F, false, false,
     80, 0x81ff81ffu, 0x3e003e00u},
    {"fp8", "cuBLASLt, e4m3, fast accumulation", CUDA_R_8F_E4M3, CUDA_R_16BF, CUBLAS_COMPUTE_32F,
     CUDA_R_32F, false, true, 89, 0xbfbfbfbfu, 0},
    {"int8", "cuBLASLt", CUDA_R_8I, CUDA_R_32I, CUBLAS_COMPUTE_32I, CUDA_R_32I, false, false, 80,
     0xffffffffu, 0},
};
#define N_KINDS (sizeof kinds / sizeof *kinds)

struct gpu_ceilings {
    struct gpu *g;
    struct gpu_ceilings_plan plan;
    struct ceilings best;
    cublasLtHandle_t lt;
    cudaEvent_t from, to;
    char *buffer; // (plan.sweep_bytes) what is read, and matrices
    char *host;   // (plan.host_bytes)
    void *workspace;
    uint32_t *sums; // (sweep_max_sums)
};

/* --- timing --------------------------------------------------------------------------------------- */

/* Something to be timed: `queue` says 0, -1 and an error, or 1: it cannot be done. */
struct work {
    int (*queue)(struct gpu_ceilings *c, const struct work *w, struct err *e);
    int shape;      // of a sweep
    double amount;  // bytes or operations of one queueing
    int n;          // queueings in a row
    const void *of; // more that it needs
};

static int said(struct gpu_ceilings *c, cudaError_t code, const char *call, struct err *e)
{
    return code == cudaSuccess ? 0 : gpu_launched(c->g, call, e);
}

/* Once: the rate, or 1 as above. */
static int once(struct gpu_ceilings *c, const struct work *w, double *per_s, struct err *e)
{
    float ms = 0;
    if (said(c, cudaEventRecord(c->from, gpu_stream(c->g)), "cudaEventRecord", e)) {
        return -1;
    }
    for (int i = 0; i < w->n; i++) {
        const int rc = w->queue(c, w, e);
        if (rc) {
            return rc;
        }
    }
    if (said(c, cudaEventRecord(c->to, gpu_stream(c->g)), "cudaEventRecord", e) ||
        gpu_launched(c->g, "a measurement", e) ||
        gpu_wait(c->g, clock_local_ns() + DEADLINE_NS, e) ||
        said(c, cudaEventElapsedTime(&ms, c->from, c->to), "cudaEventElapsedTime", e)) {
        return -1;
    }
    *per_s = ms > 0 ? w->amount * w->n * 1e3 / (double)ms : 0;
    return 0;
}

static int look(struct gpu_ceilings *c, const char *name, enum ceilings_unit unit, const char *how,
                const struct work *w, struct err *e)
{
    for (int i = 0; i < c->plan.n_repeats; i++) {
        double per_s = 0;
        const int rc = once(c, w, &per_s, e);
        if (rc < 0) {
            return -1;
        }
        ceilings_keep(&c->best, name, unit, how, per_s);
        if (rc > 0) {
            break;
        }
    }
    return 0;
}

/* --- memory --------------------------------------------------------------------------------------- */

static int n_processors(const struct gpu_ceilings *c)
{
    return gpu_info(c->g)->n_processors;
}

static int queue_read(struct gpu_ceilings *c, const struct work *w, struct err *e)
{
    (void)e;
    sweep_read_queue(w->shape, n_processors(c), c->buffer, c->plan.sweep_bytes, c->sums,
                     gpu_stream(c->g));
    return 0;
}

/* One half onto the other. */
static int queue_copy(struct gpu_ceilings *c, const struct work *w, struct err *e)
{
    (void)e;
    const size_t half = c->plan.sweep_bytes / 2;
    sweep_copy_queue(w->shape, n_processors(c), c->buffer + half, c->buffer, half,
                     gpu_stream(c->g));
    return 0;
}

static int queue_drivers_copy(struct gpu_ceilings *c, const struct work *w, struct err *e)
{
    (void)w;
    const size_t half = c->plan.sweep_bytes / 2;
    return said(c,
                cudaMemcpyAsync(c->buffer + half, c->buffer, half, cudaMemcpyDeviceToDevice,
                                gpu_stream(c->g)),
                "cudaMemcpyAsync", e);
}

static int queue_in(struct gpu_ceilings *c, const struct work *w, struct err *e)
{
    (void)w;
    return gpu_copy_in(c->g, c->buffer, c->host, c->plan.host_bytes, e);
}

static int queue_out(struct gpu_ceilings *c, const struct work *w, struct err *e)
{
    (void)w;
    return gpu_copy_out(c->g, c->host, c->buffer, c->plan.host_bytes, e);
}

static int look_at_memory(struct gpu_ceilings *c, struct err *e)
{
    const double all = (double)c->plan.sweep_bytes;
    for (int i = 0; i < SWEEP_SHAPES; i++) {
        const struct work read = {queue_read, i, all, 1, NULL};
        const struct work copy = {queue_copy, i, all, 1, NULL};
        if (look(c, "read", CEILINGS_BYTES, sweep_shape_name(i), &read, e) ||
            look(c, "copy", CEILINGS_BYTES, sweep_shape_name(i), &copy, e)) {
            return -1;
        }
    }
    const struct work copy = {queue_drivers_copy, 0, all, 1, NULL};
    const struct work in = {queue_in, 0, (double)c->plan.host_bytes, 1, NULL};
    const struct work out = {queue_out, 0, (double)c->plan.host_bytes, 1, NULL};
    return look(c, "copy", CEILINGS_BYTES, "cudaMemcpy", &copy, e) ||
                   look(c, "host_to_device", CEILINGS_BYTES, "cudaMemcpy, pinned", &in, e) ||
                   look(c, "device_to_host", CEILINGS_BYTES, "cudaMemcpy, pinned", &out, e)
               ? -1
               : 0;
}

/* --- products ------------------------------------------------------------------------------------- */

/* Square matrices one behind the other in the buffer: y = x . w^T, and how it can be done. */
struct product {
    const struct kind *kind;
    size_t side;
    cublasLtMatmulDesc_t operation;
    cublasLtMatrixLayout_t factor, result;
    cublasLtMatmulHeuristicResult_t found[ALGORITHMS];
    int n_found, tried; // which of them is
};

static size_t value_bytes(cudaDataType_t type)
{
    return type == CUDA_R_32F || type == CUDA_R_32I ? 4 : type == CUDA_R_16BF ? 2 : 1;
}

static size_t side_of(const struct gpu_ceilings_plan *plan, const struct kind *k)
{
    return (size_t)(k->is_wide ? plan->wide_side : plan->side);
}

static size_t matrices_bytes(const struct gpu_ceilings_plan *plan, const struct kind *k)
{
    const size_t side = side_of(plan, k);
    return side * side * (2 * value_bytes(k->type) + value_bytes(k->sums));
}

static cublasStatus_t describe(struct product *p)
{
    const struct kind *k = p->kind;
    const int32_t transposed = CUBLAS_OP_T;
    const int8_t fast = 1;
    cublasStatus_t s = cublasLtMatmulDescCreate(&p->operation, k->compute, k->scale);
    if (s == CUBLAS_STATUS_SUCCESS) {
        s = cublasLtMatmulDescSetAttribute(p->operation, CUBLASLT_MATMUL_DESC_TRANSA, &transposed,
                                           sizeof transposed);
    }
    if (s == CUBLAS_STATUS_SUCCESS && k->is_fast) {
        s = cublasLtMatmulDescSetAttribute(p->operation, CUBLASLT_MATMUL_DESC_FAST_ACCUM, &fast,
                                           sizeof fast);
    }
    if (s == CUBLAS_STATUS_SUCCESS) {
        s = cublasLtMatrixLayoutCreate(&p->factor, k->type, p->side, p->side, (int64_t)p->side);
    }
    if (s == CUBLAS_STATUS_SUCCESS) {
        s = cublasLtMatrixLayoutCreate(&p->result, k->sums, p->side, p->side, (int64_t)p->side);
    }
    return s;
}

static cublasStatus_t find(const struct gpu_ceilings *c, struct product *p)
{
    const size_t workspace = WORKSPACE_BYTES;
    cublasLtMatmulPreference_t preference = NULL;
    cublasStatus_t s = describe(p);
    if (s == CUBLAS_STATUS_SUCCESS) {
        s = cublasLtMatmulPreferenceCreate(&preference);
    }
    if (s == CUBLAS_STATUS_SUCCESS) {
        s = cublasLtMatmulPreferenceSetAttribute(
            preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &workspace, sizeof workspace);
    }
    if (s == CUBLAS_STATUS_SUCCESS) {
        s = cublasLtMatmulAlgoGetHeuristic(c->lt, p->operation, p->factor, p->factor, p->result,
                                           p->result, preference, ALGORITHMS, p->found,
                                           &p->n_found);
    }
    if (preference) {
        cublasLtMatmulPreferenceDestroy(preference);
    }
    return s;
}

static void product_free(struct product *p)
{
    if (p->operation) {
        cublasLtMatmulDescDestroy(p->operation);
    }
    if (p->factor) {
        cublasLtMatrixLayoutDestroy(p->factor);
    }
    if (p->result) {
        cublasLtMatrixLayoutDestroy(p->result);
    }
}

/* What this cuBLASLt does not take on this GPU is no error: 1. */
static int judge(const struct gpu_ceilings *c, const struct product *p, cublasStatus_t s,
                 struct err *e)
{
    if (s == CUBLAS_STATUS_SUCCESS) {
        return 0;
    }
    if (s == CUBLAS_STATUS_NOT_SUPPORTED || s == CUBLAS_STATUS_INVALID_VALUE) {
        return 1;
    }
    return err_set(e, ERR_ENV, "GPU %d (%s): cuBLASLt: %s product of %zu x %zu x %zu: %s",
                   gpu_info(c->g)->device, gpu_info(c->g)->name, p->kind->name, p->side, p->side,
                   p->side, cublasLtGetStatusString(s));
}

static int queue_product(struct gpu_ceilings *c, const struct work *w, struct err *e)
{
    const struct product *p = w->of;
    const size_t factor_bytes = p->side * p->side * value_bytes(p->kind->type);
    const float one = 1, zero = 0;
    const int32_t whole_one = 1, whole_zero = 0;
    const bool whole = p->kind->scale == CUDA_R_32I;
    void *y = c->buffer + 2 * factor_bytes;
    const cublasStatus_t s =
        cublasLtMatmul(c->lt, p->operation, whole ? (const void *)&whole_one : &one, c->buffer,
                       p->factor, c->buffer + factor_bytes, p->factor,
                       whole ? (const void *)&whole_zero : &zero, y, p->result, y, p->result,
                       &p->found[p->tried].algo, c->workspace, WORKSPACE_BYTES, gpu_stream(c->g));
    return judge(c, p, s, e);
}

static struct work work_of(const struct gpu_ceilings *c, const struct product *p)
{
    const double side = (double)p->side;
    const int n = p->kind->is_wide ? (c->plan.train + 3) / 4 : c->plan.train;
    return (struct work){queue_product, 0, 2 * side * side * side, n, p};
}

static int look_at_algorithms(struct gpu_ceilings *c, struct product *p, struct err *e)
{
    const struct kind *k = p->kind;
    const size_t factor_bytes = p->side * p->side * value_bytes(k->type);
    sweep_fill_queue(c->buffer, 2 * factor_bytes, 1, k->random, k->fixed, gpu_stream(c->g));
    for (p->tried = 0; p->tried < p->n_found; p->tried++) {
        const struct work w = work_of(c, p);
        if (p->found[p->tried].state == CUBLAS_STATUS_SUCCESS &&
            look(c, k->name, CEILINGS_OPERATIONS, k->how, &w, e)) {
            return -1;
        }
    }
    return 0;
}

static int look_at_product(struct gpu_ceilings *c, const struct kind *k, struct err *e)
{
    struct product p = {.kind = k, .side = side_of(&c->plan, k)};
    ceilings_keep(&c->best, k->name, CEILINGS_OPERATIONS, k->how, 0); // its place in the list
    if (gpu_info(c->g)->capability < k->capability) {
        return 0;
    }
    int rc = judge(c, &p, find(c, &p), e);
    if (rc == 0) {
        rc = look_at_algorithms(c, &p, e);
    }
    product_free(&p);
    return rc < 0 ? -1 : 0;
}

/* --- life ----------------------------------------------------------------------------------------- */

/* Idle clocks are a fraction of those under load, and come up within milliseconds of work. */
static int warm_up(struct gpu_ceilings *c, struct err *e)
{
    const int64_t end_ns = clock_local_ns() + c->plan.warm_ns;
    do {
        for (size_t i = 0; i < N_KINDS; i++) {
            if (look_at_product(c, &kinds[i], e)) {
                return -1;
            }
        }
    } while (clock_local_ns() < end_ns);
    return 0;
}

int gpu_ceilings_look(struct gpu_ceilings *c, struct err *e)
{
    if (look_at_memory(c, e)) {
        return -1;
    }
    for (size_t i = 0; i < N_KINDS; i++) {
        if (look_at_product(c, &kinds[i], e)) {
            return -1;
        }
    }
    return 0;
}

const struct ceilings *gpu_ceilings_best(const struct gpu_ceilings *c)
{
    return &c->best;
}

/* A clock that the driver does not tell is left out. */
static void add_clock(char *to, size_t cap, const char *what, enum cudaDeviceAttr attribute,
                      int device)
{
    int khz = 0;
    if (cudaDeviceGetAttribute(&khz, attribute, device) == cudaSuccess && khz > 0) {
        const size_t n = strlen(to);
        snprintf(to + n, cap - n, ", %s up to %d MHz", what, khz / 1000);
    }
    cudaGetLastError();
}

static void name_device(struct gpu_ceilings *c)
{
    const struct gpu_info *i = gpu_info(c->g);
    char *to = c->best.of;
    const size_t cap = sizeof c->best.of;
    snprintf(to, cap, "%.48s, %d multiprocessors", i->name, i->n_processors);
    add_clock(to, cap, "processors", cudaDevAttrClockRate, i->device);
    add_clock(to, cap, "memory", cudaDevAttrMemoryClockRate, i->device);
    const size_t n = strlen(to);
    snprintf(to + n, cap - n, ", CUDA %d.%d, driver's %d.%d", i->runtime / 1000,
             i->runtime % 1000 / 10, i->driver / 1000, i->driver % 1000 / 10);
}

/* Rates of memory stand first. */
static void name_rates(struct gpu_ceilings *c)
{
    static const char *const names[] = {"read", "copy", "host_to_device", "device_to_host"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        ceilings_keep(&c->best, names[i], CEILINGS_BYTES, "", 0);
    }
}

/* The sweeps' buffer is as planned, or half of what is free; matrices must fit it. */
static int plan_buffer(struct gpu_ceilings *c, struct err *e)
{
    int64_t left = 0;
    size_t least = 2 * c->plan.host_bytes;
    for (size_t i = 0; i < N_KINDS; i++) {
        const size_t n = matrices_bytes(&c->plan, &kinds[i]);
        least = n > least ? n : least;
    }
    if (gpu_free_bytes(c->g, &left, e)) {
        return -1;
    }
    const size_t half = (size_t)left / 2 / 4096 * 4096;
    c->plan.sweep_bytes = half < c->plan.sweep_bytes ? half : c->plan.sweep_bytes;
    c->plan.sweep_bytes = least > c->plan.sweep_bytes ? least : c->plan.sweep_bytes;
    return 0;
}

static int take_memory(struct gpu_ceilings *c, struct err *e)
{
    const size_t sums_bytes = sweep_max_sums(n_processors(c)) * sizeof *c->sums;
    if (plan_buffer(c, e) ||
        gpu_take(c->g, c->plan.sweep_bytes, "the memory that bandwidth is measured on",
                 (void **)&c->buffer, e) ||
        gpu_take(c->g, WORKSPACE_BYTES, "cuBLASLt's workspace", &c->workspace, e) ||
        gpu_take(c->g, sums_bytes, "sums", (void **)&c->sums, e) ||
        gpu_take_host(c->g, c->plan.host_bytes, "the copies that are measured", (void **)&c->host,
                      e)) {
        return -1;
    }
    memset(c->host, 1, c->plan.host_bytes);
    sweep_fill_queue(c->buffer, c->plan.sweep_bytes, 0, 0xffffffffu, 0, gpu_stream(c->g));
    return gpu_launched(c->g, "filling memory", e);
}

int gpu_ceilings_open(struct gpu_ceilings **out, struct gpu *g,
                      const struct gpu_ceilings_plan *plan, struct err *e)
{
    struct gpu_ceilings *c = xcalloc(1, sizeof *c);
    c->g = g;
    c->plan = *plan;
    name_device(c);
    name_rates(c);
    const cublasStatus_t s = cublasLtCreate(&c->lt);
    if (s != CUBLAS_STATUS_SUCCESS) {
        c->lt = NULL;
        err_set(e, ERR_ENV, "GPU %d (%s): cublasLtCreate: %s", gpu_info(g)->device,
                gpu_info(g)->name, cublasLtGetStatusString(s));
        goto fail;
    }
    if (said(c, cudaEventCreateWithFlags(&c->from, 0), "cudaEventCreate", e) ||
        said(c, cudaEventCreateWithFlags(&c->to, 0), "cudaEventCreate", e) || take_memory(c, e) ||
        warm_up(c, e)) {
        goto fail;
    }
    *out = c;
    return 0;
fail:
    gpu_ceilings_close(c);
    return -1;
}

void gpu_ceilings_close(struct gpu_ceilings *c)
{
    if (!c) {
        return;
    }
    if (c->lt) {
        cublasLtDestroy(c->lt);
    }
    if (c->from) {
        cudaEventDestroy(c->from);
    }
    if (c->to) {
        cudaEventDestroy(c->to);
    }
    free(c);
}
