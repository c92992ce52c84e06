#include "workers/cuda/gemm.h"

#include "core/mem.h"

#include <cublasLt.h>
#include <cuda_runtime.h>

#include <stdlib.h>
#include <string.h>

#define ALIGNMENT    16    // of rows of weights and inputs
#define WIDEN_ROWS   32768 // at most: rows are a grid's second side
#define LEAST_BUCKET 32

/* What one call of cuBLASLt computes: batch by batch y = x . w^T. */
struct call {
    cudaDataType_t type; // of w and x
    int m, n, k, n_batch;
    bool add;
    const void *w, *x;
    float *y;
    const float *bias;
    int64_t ldw, ldx, ldy, w_step, x_step, y_step;
};

/* What an algorithm depends on. */
struct kind {
    cudaDataType_t type;
    int m, n, k, n_batch; // m: a bucket's largest, or the one that needs its own
    int y_alignment;
    int add, has_bias;
    int64_t ldw, ldx, ldy, w_step, x_step, y_step;
};

struct choice {
    struct kind kind;
    cublasLtMatmulAlgo_t algo;
    size_t workspace_bytes;
    int checked_m; // the last m that it was found to take
};

struct gemm {
    cublasLtHandle_t lt;
    void *workspace;
    uint16_t *scratch;
    size_t scratch_bytes;
    struct choice *choices; // (n_choices)
    int n_choices, capacity;
};

/* A call's descriptors. */
struct shape {
    cublasLtMatmulDesc_t operation;
    cublasLtMatrixLayout_t w, x, y;
};

/* --- life --------------------------------------------------------------------------------------- */

int gemm_open(struct gemm **out, size_t scratch_bytes, struct err *e)
{
    struct gemm *g = xcalloc(1, sizeof *g);
    g->scratch_bytes = scratch_bytes;
    const cublasStatus_t status = cublasLtCreate(&g->lt);
    if (status != CUBLAS_STATUS_SUCCESS) {
        g->lt = NULL;
        err_set(e, ERR_ENV, "cublasLtCreate: %s", cublasLtGetStatusString(status));
        goto fail;
    }
    cudaError_t error = cudaMalloc(&g->workspace, GEMM_WORKSPACE_BYTES);
    if (error == cudaSuccess) {
        error = cudaMalloc((void **)&g->scratch, scratch_bytes);
    }
    if (error != cudaSuccess) {
        err_set(e, ERR_ENV, "cudaMalloc of %zu MiB for matrix products: %s",
                (GEMM_WORKSPACE_BYTES + scratch_bytes) >> 20, cudaGetErrorString(error));
        goto fail;
    }
    *out = g;
    return 0;
fail:
    gemm_close(g);
    return -1;
}

void gemm_close(struct gemm *g)
{
    if (!g) {
        return;
    }
    if (g->lt) {
        cublasLtDestroy(g->lt);
    }
    cudaFree(g->workspace);
    cudaFree(g->scratch);
    free(g->choices);
    free(g);
}

/* --- descriptors -------------------------------------------------------------------------------- */

/*
 * Row-major y = x . w^T is column-major y^T (n, m) = w (k, n)^T . x (k, m): matrices as they lie.
 */
static cublasStatus_t layout_init(cublasLtMatrixLayout_t *l, cudaDataType_t type, int n_inner,
                                  int n_outer, int64_t ld, int n_batch, int64_t step)
{
    cublasStatus_t s =
        cublasLtMatrixLayoutCreate(l, type, (uint64_t)n_inner, (uint64_t)n_outer, ld);
    const int32_t count = n_batch;
    if (s == CUBLAS_STATUS_SUCCESS && n_batch > 1) {
        s = cublasLtMatrixLayoutSetAttribute(*l, CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, &count,
                                             sizeof count);
    }
    if (s == CUBLAS_STATUS_SUCCESS && n_batch > 1) {
        s = cublasLtMatrixLayoutSetAttribute(*l, CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET, &step,
                                             sizeof step);
    }
    return s;
}

static cublasStatus_t operation_init(cublasLtMatmulDesc_t *d, const float *bias)
{
    cublasStatus_t s = cublasLtMatmulDescCreate(d, CUBLAS_COMPUTE_32F, CUDA_R_32F);
    const int32_t transposed = CUBLAS_OP_T;
    const uint32_t epilogue = CUBLASLT_EPILOGUE_BIAS;
    if (s == CUBLAS_STATUS_SUCCESS) {
        s = cublasLtMatmulDescSetAttribute(*d, CUBLASLT_MATMUL_DESC_TRANSA, &transposed,
                                           sizeof transposed);
    }
    if (s == CUBLAS_STATUS_SUCCESS && bias) {
        s = cublasLtMatmulDescSetAttribute(*d, CUBLASLT_MATMUL_DESC_EPILOGUE, &epilogue,
                                           sizeof epilogue);
    }
    if (s == CUBLAS_STATUS_SUCCESS && bias) {
        s = cublasLtMatmulDescSetAttribute(*d, CUBLASLT_MATMUL_DESC_BIAS_POINTER,
                                           (const void *)&bias, sizeof bias);
    }
    return s;
}

static void shape_free(struct shape *s)
{
    if (s->operation) {
        cublasLtMatmulDescDestroy(s->operation);
    }
    if (s->w) {
        cublasLtMatrixLayoutDestroy(s->w);
    }
    if (s->x) {
        cublasLtMatrixLayoutDestroy(s->x);
    }
    if (s->y) {
        cublasLtMatrixLayoutDestroy(s->y);
    }
}

/* For a call as it is, but m. */
static cublasStatus_t shape_init(struct shape *s, const struct call *c, int m)
{
    memset(s, 0, sizeof *s);
    cublasStatus_t status = operation_init(&s->operation, c->bias);
    if (status == CUBLAS_STATUS_SUCCESS) {
        status = layout_init(&s->w, c->type, c->k, c->n, c->ldw, c->n_batch, c->w_step);
    }
    if (status == CUBLAS_STATUS_SUCCESS) {
        status = layout_init(&s->x, c->type, c->k, m, c->ldx, c->n_batch, c->x_step);
    }
    if (status == CUBLAS_STATUS_SUCCESS) {
        status = layout_init(&s->y, CUDA_R_32F, c->n, m, c->ldy, c->n_batch, c->y_step);
    }
    return status;
}

/* --- algorithms --------------------------------------------------------------------------------- */

static cublasStatus_t prefer(cublasLtMatmulPreference_t p, int y_alignment)
{
    // 256 bytes are taken for granted by default.
    const struct {
        cublasLtMatmulPreferenceAttributes_t attribute;
        uint32_t bytes;
    } alignments[] = {
        {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, ALIGNMENT},
        {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, ALIGNMENT},
        {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, (uint32_t)y_alignment},
        {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, (uint32_t)y_alignment},
    };
    const size_t workspace = GEMM_WORKSPACE_BYTES;
    cublasStatus_t s = cublasLtMatmulPreferenceSetAttribute(
        p, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &workspace, sizeof workspace);
    for (int i = 0; i < 4 && s == CUBLAS_STATUS_SUCCESS; i++) {
        s = cublasLtMatmulPreferenceSetAttribute(p, alignments[i].attribute, &alignments[i].bytes,
                                                 sizeof alignments[i].bytes);
    }
    return s;
}

/* The first of what cuBLASLt proposes for a call with the kind's m. */
static cublasStatus_t choose(const struct gemm *g, const struct call *c, struct choice *out)
{
    struct shape s;
    cublasLtMatmulPreference_t preference = NULL;
    cublasLtMatmulHeuristicResult_t found;
    int n_found = 0;
    cublasStatus_t status = shape_init(&s, c, out->kind.m);
    if (status == CUBLAS_STATUS_SUCCESS) {
        status = cublasLtMatmulPreferenceCreate(&preference);
    }
    if (status == CUBLAS_STATUS_SUCCESS) {
        status = prefer(preference, out->kind.y_alignment);
    }
    if (status == CUBLAS_STATUS_SUCCESS) {
        status = cublasLtMatmulAlgoGetHeuristic(g->lt, s.operation, s.w, s.x, s.y, s.y, preference,
                                                1, &found, &n_found);
    }
    if (status == CUBLAS_STATUS_SUCCESS) {
        status = n_found > 0 ? found.state : CUBLAS_STATUS_NOT_SUPPORTED;
    }
    if (status == CUBLAS_STATUS_SUCCESS) {
        out->algo = found.algo;
        out->workspace_bytes = found.workspaceSize;
    }
    if (preference) {
        cublasLtMatmulPreferenceDestroy(preference);
    }
    shape_free(&s);
    return status;
}

static struct kind kind_of(const struct call *c, int m)
{
    struct kind k;
    memset(&k, 0, sizeof k); // compared by its bytes
    k.type = c->type;
    k.m = m;
    k.n = c->n;
    k.k = c->k;
    k.n_batch = c->n_batch;
    k.y_alignment = (uintptr_t)c->y % ALIGNMENT == 0 ? ALIGNMENT : (int)sizeof *c->y;
    k.add = c->add;
    k.has_bias = c->bias != NULL;
    k.ldw = c->ldw;
    k.ldx = c->ldx;
    k.ldy = c->ldy;
    k.w_step = c->w_step;
    k.x_step = c->x_step;
    k.y_step = c->y_step;
    return k;
}

/* The algorithm of a call's kind, that kind's m being given. */
static cublasStatus_t choice_of(struct gemm *g, const struct call *c, int m, struct choice **out)
{
    const struct kind kind = kind_of(c, m);
    for (int i = 0; i < g->n_choices; i++) {
        if (memcmp(&g->choices[i].kind, &kind, sizeof kind) == 0) {
            *out = &g->choices[i];
            return CUBLAS_STATUS_SUCCESS;
        }
    }
    struct choice made = {.kind = kind, .checked_m = m};
    const cublasStatus_t status = choose(g, c, &made);
    if (status != CUBLAS_STATUS_SUCCESS) {
        return status;
    }
    if (g->n_choices == g->capacity) {
        g->capacity = g->capacity ? 2 * g->capacity : 32;
        g->choices = xrealloc(g->choices, (size_t)g->capacity * sizeof *g->choices);
    }
    g->choices[g->n_choices] = made;
    g->choices[g->n_choices].kind = kind;
    *out = &g->choices[g->n_choices++];
    return CUBLAS_STATUS_SUCCESS;
}

static int bucket_of(int m)
{
    int b = LEAST_BUCKET;
    while (b < m && b <= (1 << 29)) {
        b *= 2;
    }
    return b;
}

/* The bucket's algorithm if it takes this m, too; otherwise this m's own. */
static cublasStatus_t suiting(struct gemm *g, const struct call *c, const struct shape *s,
                              struct choice **out)
{
    cublasStatus_t status = choice_of(g, c, bucket_of(c->m), out);
    if (status == CUBLAS_STATUS_SUCCESS && (*out)->checked_m == c->m) {
        return status;
    }
    if (status == CUBLAS_STATUS_SUCCESS) {
        cublasLtMatmulHeuristicResult_t checked;
        status = cublasLtMatmulAlgoCheck(g->lt, s->operation, s->w, s->x, s->y, s->y, &(*out)->algo,
                                         &checked);
        if (status == CUBLAS_STATUS_SUCCESS && checked.workspaceSize <= GEMM_WORKSPACE_BYTES) {
            (*out)->checked_m = c->m;
            return status;
        }
    }
    return choice_of(g, c, c->m, out);
}

/* --- calls -------------------------------------------------------------------------------------- */

static int call_queue(struct gemm *g, const struct call *c, cudaStream_t stream, struct err *e)
{
    const float one = 1, onto = c->add ? 1 : 0;
    struct shape s;
    struct choice *choice = NULL;
    cublasStatus_t status = shape_init(&s, c, c->m);
    if (status == CUBLAS_STATUS_SUCCESS) {
        status = suiting(g, c, &s, &choice);
    }
    if (status == CUBLAS_STATUS_SUCCESS) {
        status =
            cublasLtMatmul(g->lt, s.operation, &one, c->w, s.w, c->x, s.x, &onto, c->y, s.y, c->y,
                           s.y, &choice->algo, g->workspace, GEMM_WORKSPACE_BYTES, stream);
    }
    shape_free(&s);
    if (status != CUBLAS_STATUS_SUCCESS) {
        return err_set(e, ERR_ENV, "cuBLASLt: product of %d tokens and a matrix of %d x %d: %s",
                       c->m, c->n, c->k, cublasLtGetStatusString(status));
    }
    return 0;
}

/* Weights as they lie. */
static struct call call_of(const struct matmul *p)
{
    const bool wide = p->w.dtype == ARCH_F32;
    const size_t row_bytes = device_matrix_row_bytes(p->w.dtype, p->w.n_cols);
    const int64_t ldw = (int64_t)(row_bytes / (wide ? 4 : 2));
    return (struct call){
        .type = wide ? CUDA_R_32F : CUDA_R_16BF,
        .m = p->m,
        .n = p->w.n_rows,
        .k = p->w.n_cols,
        .n_batch = p->n_batch > 1 ? p->n_batch : 1,
        .add = p->add,
        .w = p->w.data,
        .x = p->x,
        .y = p->y,
        .bias = p->bias,
        .ldw = ldw,
        .ldx = p->ldx,
        .ldy = p->ldy,
        .w_step = p->n_batch > 1 ? ldw * p->w.n_rows : 0,
        .x_step = p->n_batch > 1 ? p->x_step : 0,
        .y_step = p->n_batch > 1 ? p->y_step : 0,
    };
}

/* Rows that are widened at once; by eights, so that columns of y stay aligned. */
static int rows_at_once(const struct gemm *g, int64_t ld)
{
    const int64_t fit = (int64_t)g->scratch_bytes / 2 / ld;
    CHECK(fit > 0);
    return fit > WIDEN_ROWS ? WIDEN_ROWS : (int)(fit < 8 ? fit : fit / 8 * 8);
}

/* One matrix of a batch, in tiles of rows that are widened one after the other. */
static int widened(struct gemm *g, const struct matmul *p, int batch, cudaStream_t stream,
                   struct err *e)
{
    const int64_t ld = ((int64_t)p->w.n_cols + 7) / 8 * 8;
    const int most = rows_at_once(g, ld);
    struct call c = call_of(p);
    c.n_batch = 1;
    c.w = g->scratch;
    c.ldw = ld;
    c.w_step = c.x_step = c.y_step = 0;
    c.x = (const uint16_t *)p->x + batch * p->x_step;
    for (int row = 0; row < p->w.n_rows; row += most) {
        c.n = p->w.n_rows - row < most ? p->w.n_rows - row : most;
        c.y = p->y + batch * p->y_step + row;
        c.bias = p->bias ? p->bias + row : NULL;
        const struct matmul_widen widen = {
            .w = p->w, .first = batch * p->w.n_rows + row, .n = c.n, .out = g->scratch, .ld = ld};
        matmul_widen_queue(&widen, stream);
        if (call_queue(g, &c, stream, e) != 0) {
            return -1;
        }
    }
    return 0;
}

int gemm_queue(struct gemm *g, const struct matmul *p, struct CUstream_st *stream, struct err *e)
{
    const bool plain = p->w.dtype == ARCH_F32 || p->w.dtype == ARCH_BF16;
    if (p->m <= (plain ? MATMUL_FEW : MATMUL_MOST)) {
        matmul_queue(p, stream);
        return 0;
    }
    CHECK(p->n_batch <= 1 || !p->bias);
    if (plain) {
        const struct call c = call_of(p);
        return call_queue(g, &c, stream, e);
    }
    for (int b = 0; b < (p->n_batch > 1 ? p->n_batch : 1); b++) {
        if (widened(g, p, b, stream, e) != 0) {
            return -1;
        }
    }
    return 0;
}
