#include "cublasLt.h"

#include <string>

#include <math.h>
#include <string.h>

struct cublasLtContext {
    int unused;
};
struct cublasLtMatmulDescOpaque_t {
    cublasComputeType_t compute;
    int transposed_a;
    unsigned epilogue;
    const float *bias;
    signed char fast;
};
struct cublasLtMatrixLayoutOpaque_t {
    cudaDataType_t type;
    int64_t n_rows, n_cols, ld;
    int n_batch;
    int64_t step;
};
struct cublasLtMatmulPreferenceOpaque_t {
    size_t workspace;
    unsigned alignments[4]; // of A, B, C, D
};

namespace {

constexpr uint64_t MARK = 0x7469646d61726b21u;
constexpr size_t WORKSPACE = 1 << 20; // what every algorithm wants

std::string failing;
cublasStatus_t failing_with;
bool picky;
int asked, alive;

cublasStatus_t fate(const char *call)
{
    return failing == call ? failing_with : CUBLAS_STATUS_SUCCESS;
}

#define MAY_FAIL()                                                                                 \
    do {                                                                                           \
        const cublasStatus_t said = fate(__func__);                                                \
        if (said != CUBLAS_STATUS_SUCCESS) {                                                       \
            return said;                                                                           \
        }                                                                                          \
    } while (0)

template <class T> cublasStatus_t make(T **out)
{
    *out = new T();
    alive++;
    return CUBLAS_STATUS_SUCCESS;
}

template <class T> cublasStatus_t destroy(T *p)
{
    delete p;
    alive--;
    return CUBLAS_STATUS_SUCCESS;
}

template <class T> cublasStatus_t set(T *field, const void *value, size_t n_bytes)
{
    if (n_bytes != sizeof *field) {
        return CUBLAS_STATUS_INVALID_VALUE;
    }
    memcpy(field, value, n_bytes);
    return CUBLAS_STATUS_SUCCESS;
}

/* Whether A and B may be of this type, with C and D of that one. */
bool types_fit(const cublasLtMatmulDescOpaque_t &d, cudaDataType_t of, cudaDataType_t to)
{
    const bool has_bias = d.epilogue == CUBLASLT_EPILOGUE_BIAS;
    if (of == CUDA_R_8I) {
        return d.compute == CUBLAS_COMPUTE_32I && to == CUDA_R_32I && !has_bias;
    }
    if (of == CUDA_R_8F_E4M3) {
        return d.compute == CUBLAS_COMPUTE_32F && to == CUDA_R_16BF && !has_bias;
    }
    const bool is_float = of == CUDA_R_16BF || of == CUDA_R_32F;
    const bool narrow = of == CUDA_R_16BF && to == CUDA_R_16BF && !has_bias;
    return d.compute == CUBLAS_COMPUTE_32F && is_float && (to == CUDA_R_32F || narrow);
}

/* D (n, m) = A (k, n)^T . B (k, m): is it that? */
bool fits(const cublasLtMatmulDescOpaque_t &d, const cublasLtMatrixLayoutOpaque_t &a,
          const cublasLtMatrixLayoutOpaque_t &b, const cublasLtMatrixLayoutOpaque_t &c,
          const cublasLtMatrixLayoutOpaque_t &out)
{
    const bool types = a.type == b.type && c.type == out.type && types_fit(d, a.type, out.type);
    if (a.type == CUDA_R_8F_E4M3 && (a.n_rows % 16 != 0 || a.n_cols % 16 != 0 || b.n_cols % 16 != 0)) {
        return false;
    }
    const bool sizes = a.n_rows == b.n_rows && out.n_rows == a.n_cols && out.n_cols == b.n_cols &&
                       c.n_rows == out.n_rows && c.n_cols == out.n_cols && c.ld == out.ld;
    const bool batches = a.n_batch == b.n_batch && b.n_batch == c.n_batch && c.n_batch == out.n_batch;
    return d.transposed_a == CUBLAS_OP_T && types && sizes && batches;
}

double e4m3(unsigned code)
{
    const int exponent = (int)(code >> 3 & 15), mantissa = (int)(code & 7);
    const double v = exponent ? ldexp(8 + mantissa, exponent - 10) : ldexp(mantissa, -9);
    return (code & 0x7f) == 0x7f ? NAN : code & 0x80 ? -v : v;
}

double value_at(const void *p, cudaDataType_t type, int64_t at)
{
    switch (type) {
    case CUDA_R_32F:
        return (double)((const float *)p)[at];
    case CUDA_R_32I:
        return (double)((const int *)p)[at];
    case CUDA_R_8I:
        return (double)((const signed char *)p)[at];
    case CUDA_R_8F_E4M3:
        return e4m3(((const unsigned char *)p)[at]);
    default:
        return (double)__uint_as_float((unsigned)((const uint16_t *)p)[at] << 16);
    }
}

void put_at(void *p, cudaDataType_t type, int64_t at, double v)
{
    if (type == CUDA_R_32F) {
        ((float *)p)[at] = (float)v;
    } else if (type == CUDA_R_32I) {
        ((int *)p)[at] = (int)v;
    } else {
        const unsigned bits = __float_as_uint((float)v);
        ((uint16_t *)p)[at] = (uint16_t)((bits + 0x7fffu + (bits >> 16 & 1)) >> 16);
    }
}

struct product {
    cublasLtMatmulDescOpaque_t d;
    cublasLtMatrixLayoutOpaque_t a, b, out;
    const void *pa, *pb;
    void *y;
    double alpha, beta;
};

void compute(const product &p)
{
    for (int64_t batch = 0; batch < p.a.n_batch; batch++) {
        for (int64_t j = 0; j < p.out.n_cols; j++) {
            for (int64_t i = 0; i < p.out.n_rows; i++) {
                double sum = 0;
                for (int64_t k = 0; k < p.a.n_rows; k++) {
                    sum += value_at(p.pa, p.a.type, batch * p.a.step + i * p.a.ld + k) *
                           value_at(p.pb, p.b.type, batch * p.b.step + j * p.b.ld + k);
                }
                const int64_t at = batch * p.out.step + j * p.out.ld + i;
                sum *= p.alpha;
                sum += p.d.epilogue == CUBLASLT_EPILOGUE_BIAS ? p.d.bias[i] : 0;
                sum += p.beta != 0 ? p.beta * value_at(p.y, p.out.type, at) : 0;
                put_at(p.y, p.out.type, at, sum);
            }
        }
    }
}

bool aligned(const void *p, uint64_t to)
{
    return (uintptr_t)p % to == 0;
}

} // namespace

extern "C" {

const char *cublasLtGetStatusString(cublasStatus_t status)
{
    return status == CUBLAS_STATUS_NOT_SUPPORTED    ? "CUBLAS_STATUS_NOT_SUPPORTED"
           : status == CUBLAS_STATUS_INVALID_VALUE ? "CUBLAS_STATUS_INVALID_VALUE"
                                                   : "CUBLAS_STATUS";
}

cublasStatus_t cublasLtCreate(cublasLtHandle_t *h)
{
    MAY_FAIL();
    return make(h);
}

cublasStatus_t cublasLtDestroy(cublasLtHandle_t h)
{
    return destroy(h);
}

cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t *d, cublasComputeType_t compute, cudaDataType_t scale)
{
    MAY_FAIL();
    if (scale != (compute == CUBLAS_COMPUTE_32I ? CUDA_R_32I : CUDA_R_32F)) {
        return CUBLAS_STATUS_NOT_SUPPORTED;
    }
    make(d);
    (*d)->compute = compute;
    (*d)->epilogue = CUBLASLT_EPILOGUE_DEFAULT;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t d, cublasLtMatmulDescAttributes_t a,
                                              const void *value, size_t n_bytes)
{
    MAY_FAIL();
    return a == CUBLASLT_MATMUL_DESC_TRANSA     ? set(&d->transposed_a, value, n_bytes)
           : a == CUBLASLT_MATMUL_DESC_EPILOGUE ? set(&d->epilogue, value, n_bytes)
           : a == CUBLASLT_MATMUL_DESC_FAST_ACCUM ? set(&d->fast, value, n_bytes)
                                                  : set(&d->bias, value, n_bytes);
}

cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t d)
{
    return destroy(d);
}

cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t *l, cudaDataType_t type, uint64_t n_rows,
                                          uint64_t n_cols, int64_t ld)
{
    MAY_FAIL();
    if (ld < (int64_t)n_rows || n_rows == 0 || n_cols == 0) {
        return CUBLAS_STATUS_INVALID_VALUE;
    }
    make(l);
    **l = {type, (int64_t)n_rows, (int64_t)n_cols, ld, 1, 0};
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatrixLayoutSetAttribute(cublasLtMatrixLayout_t l, cublasLtMatrixLayoutAttribute_t a,
                                                const void *value, size_t n_bytes)
{
    MAY_FAIL();
    return a == CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT ? set(&l->n_batch, value, n_bytes)
                                                   : set(&l->step, value, n_bytes);
}

cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t l)
{
    return destroy(l);
}

cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t *p)
{
    MAY_FAIL();
    make(p);
    **p = {0, {256, 256, 256, 256}};
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t p,
                                                    cublasLtMatmulPreferenceAttributes_t a, const void *value,
                                                    size_t n_bytes)
{
    MAY_FAIL();
    return a == CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES
               ? set(&p->workspace, value, n_bytes)
               : set(&p->alignments[a - CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES], value, n_bytes);
}

cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t p)
{
    return destroy(p);
}

cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t, cublasLtMatmulDesc_t d, cublasLtMatrixLayout_t a,
                                              cublasLtMatrixLayout_t b, cublasLtMatrixLayout_t c,
                                              cublasLtMatrixLayout_t out, cublasLtMatmulPreference_t p,
                                              int n_wanted, cublasLtMatmulHeuristicResult_t *results,
                                              int *n_results)
{
    *n_results = 0;
    MAY_FAIL();
    if (!fits(*d, *a, *b, *c, *out) || n_wanted < 1 || p->workspace < WORKSPACE) {
        return CUBLAS_STATUS_NOT_SUPPORTED;
    }
    asked++;
    const uint64_t algo[8] = {MARK,           (uint64_t)a->n_cols, (uint64_t)b->n_cols, (uint64_t)a->n_rows,
                              p->alignments[0], p->alignments[1],    p->alignments[2],    p->alignments[3]};
    memset(results, 0xff, sizeof *results);
    memcpy(results->algo.data, algo, sizeof algo);
    results->workspaceSize = WORKSPACE;
    results->state = CUBLAS_STATUS_SUCCESS;
    *n_results = 1;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulAlgoCheck(cublasLtHandle_t, cublasLtMatmulDesc_t d, cublasLtMatrixLayout_t a,
                                       cublasLtMatrixLayout_t b, cublasLtMatrixLayout_t c,
                                       cublasLtMatrixLayout_t out, const cublasLtMatmulAlgo_t *algo,
                                       cublasLtMatmulHeuristicResult_t *result)
{
    MAY_FAIL();
    const uint64_t *of = algo->data;
    if (!fits(*d, *a, *b, *c, *out) || of[0] != MARK || of[1] != (uint64_t)a->n_cols ||
        of[3] != (uint64_t)a->n_rows || (picky && of[2] != (uint64_t)b->n_cols)) {
        return CUBLAS_STATUS_NOT_SUPPORTED;
    }
    result->workspaceSize = WORKSPACE;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmul(cublasLtHandle_t h, cublasLtMatmulDesc_t d, const void *alpha, const void *a,
                              cublasLtMatrixLayout_t a_layout, const void *b, cublasLtMatrixLayout_t b_layout,
                              const void *beta, const void *c, cublasLtMatrixLayout_t c_layout, void *out,
                              cublasLtMatrixLayout_t out_layout, const cublasLtMatmulAlgo_t *algo,
                              void *workspace, size_t workspace_bytes, cudaStream_t stream)
{
    MAY_FAIL();
    cublasLtMatmulHeuristicResult_t checked;
    const cublasStatus_t status =
        cublasLtMatmulAlgoCheck(h, d, a_layout, b_layout, c_layout, out_layout, algo, &checked);
    if (status != CUBLAS_STATUS_SUCCESS) {
        return status;
    }
    const uint64_t *of = algo->data;
    if (!aligned(a, of[4]) || !aligned(b, of[5]) || !aligned(c, of[6]) || !aligned(out, of[7]) || c != out ||
        workspace == nullptr || !aligned(workspace, 256) || workspace_bytes < WORKSPACE ||
        (d->epilogue == CUBLASLT_EPILOGUE_BIAS && (d->bias == nullptr || a_layout->n_batch > 1))) {
        return CUBLAS_STATUS_INVALID_VALUE;
    }
    const bool whole = d->compute == CUBLAS_COMPUTE_32I;
    const product p = {*d, *a_layout, *b_layout, *out_layout, a, b, out,
                       whole ? (double)*(const int *)alpha : (double)*(const float *)alpha,
                       whole ? (double)*(const int *)beta : (double)*(const float *)beta};
    const cudaError_t e = gpu_on_cpu_launch(dim3(1), dim3(1), 0, stream, [=] { compute(p); });
    return e == cudaSuccess ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_EXECUTION_FAILED;
}

void cublaslt_on_cpu_fail(const char *call, cublasStatus_t status)
{
    failing = call ? call : "";
    failing_with = status;
}

void cublaslt_on_cpu_picky(int is_picky)
{
    picky = is_picky;
}

int cublaslt_on_cpu_asked(void)
{
    return asked;
}

int cublaslt_on_cpu_alive(void)
{
    return alive;
}

} // extern "C"
