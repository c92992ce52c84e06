#include "workers/cuda/sample.h"

#include "workers/cuda/rng.cuh"

extern "C" {
#include "core/err.h"
}

#include <float.h>

#define THREADS    1024
#define WARPS      (THREADS / 32)
#define DIGIT_BITS 11
#define DIGITS     (1 << DIGIT_BITS)
#define NO_THREAD  UINT32_MAX
#define HALF_BITS  12       // of a mantissa's 24
#define EXP_LEAST  (-87.0f) // below, exp is taken for 0: it would be no normal float

struct memory {
    uint32_t low[DIGITS], high[DIGITS]; // counts, or sums of the halves of mantissas
    float largest[THREADS];             // logit of each thread's
    double sums[WARPS];
    uint32_t counts[WARPS];
    uint64_t best[2][WARPS];
    uint32_t reached, lowest; // threads
    uint32_t digit;
    double above;
    int32_t id;
};

/*
 * A job's row. Each warp has a run of it, begin .. end - 1, and goes through it in the order of ids, 32 at
 * a time.
 */
struct row {
    float *logits, *weights; // (vocab)
    int vocab, begin, end;
    int lane, warp;
    memory *m;
};

/* What may be drawn, of the weights. */
struct bounds {
    float floor;        // lighter ones are out
    int64_t n_at_floor; // how many of the floor's own weight are in, lowest ids first
};

/* --- floats --------------------------------------------------------------------------------------- */

/* Floats as whole numbers of the same order. */
__device__ static uint32_t key_of(float x)
{
    const uint32_t bits = __float_as_uint(x);
    return bits >> 31 ? ~bits : bits | 1u << 31;
}

__device__ static float value_of(uint32_t key)
{
    return __uint_as_float(key >> 31 ? key & ~(1u << 31) : ~key);
}

/* sampler.c's exp_of, operation by operation: a product is never fused with a sum. */
__device__ static float exp_of(float x)
{
    if (!(x > EXP_LEAST)) {
        return 0;
    }
    const float n = __fsub_rn(__fadd_rn(__fmul_rn(x, 1.44269504f), 12582912.0f), 12582912.0f);
    const float r =
        __fadd_rn(__fsub_rn(x, __fmul_rn(n, 0.693359375f)), __fmul_rn(n, 2.12194440e-4f));
    float p = __fadd_rn(__fmul_rn(r, 1.9875691500e-4f), 1.3981999507e-3f);
    p = __fadd_rn(__fmul_rn(p, r), 8.3334519073e-3f);
    p = __fadd_rn(__fmul_rn(p, r), 4.1665795894e-2f);
    p = __fadd_rn(__fmul_rn(p, r), 1.6666665459e-1f);
    p = __fadd_rn(__fmul_rn(p, r), 5.0000001201e-1f);
    p = __fadd_rn(__fadd_rn(__fmul_rn(__fmul_rn(p, r), r), r), 1.0f);
    return __fmul_rn(p, __int_as_float(((int)n + 127) << 23));
}

__device__ static float weight_of(float logit, float most, float temperature)
{
    return exp_of(__fdiv_rn(__fsub_rn(logit, most), temperature));
}

/* --- over the block --------------------------------------------------------------------------------- */

__device__ static double warp_sum_of(double v)
{
    for (int bits = 16; bits > 0; bits /= 2) {
        v += __shfl_xor_sync(FULL_WARP, v, bits);
    }
    return v;
}

/* Every warp's sum to m->sums, for all to read. */
__device__ static void share_sums(const row &r, double v)
{
    v = warp_sum_of(v);
    __syncthreads();
    if (r.lane == 0) {
        r.m->sums[r.warp] = v;
    }
    __syncthreads();
}

__device__ static double total_of(const memory *m)
{
    double sum = 0;
    for (int i = 0; i < WARPS; i++) {
        sum += m->sums[i];
    }
    return sum;
}

/* Logits of all threads' parts to m->largest; the largest of all. NaN is not greater. */
__device__ static float measure(const row &r)
{
    float most = -INFINITY;
    for (int i = r.begin + r.lane; i < r.end; i += 32) {
        most = r.logits[i] > most ? r.logits[i] : most;
    }
    __syncthreads();
    r.m->largest[threadIdx.x] = most;
    most = warp_max(most);
    if (r.lane == 0) {
        r.m->sums[r.warp] = (double)most;
    }
    __syncthreads();
    for (int i = 0; i < WARPS; i++) {
        most = fmaxf(most, (float)r.m->sums[i]);
    }
    __syncthreads();
    return most;
}

/* Larger for a larger logit, and of equals for a lower id; 0 for NaN. */
__device__ static uint64_t rank_of(float logit, int id)
{
    return isnan(logit) ? 0 : (uint64_t)key_of(logit + 0.0f) << 32 | (uint32_t)~id;
}

/* The largest rank below `limit` of this thread's. */
__device__ static uint64_t best_below(const row &r, uint64_t limit)
{
    uint64_t best = 0;
    for (int i = r.begin + r.lane; i < r.end; i += 32) {
        const uint64_t rank = rank_of(r.logits[i], i);
        best = rank > best && rank < limit ? rank : best;
    }
    return best;
}

/* The largest of the block's. `turn` is another one (0 or 1) than in the call before. */
__device__ static uint64_t best_of_block(const row &r, uint64_t best, int turn)
{
    for (int bits = 16; bits > 0; bits /= 2) {
        const uint64_t other = __shfl_xor_sync(FULL_WARP, (unsigned long long)best, bits);
        best = other > best ? other : best;
    }
    if (r.lane == 0) {
        r.m->best[turn][r.warp] = best;
    }
    __syncthreads();
    for (int i = 0; i < WARPS; i++) {
        best = r.m->best[turn][i] > best ? r.m->best[turn][i] : best;
    }
    return best;
}

/* The lowest id with the largest logit; 0 where none has a chance. */
__device__ static int32_t first_of(const row &r)
{
    const uint64_t best = best_of_block(r, best_below(r, UINT64_MAX), 0);
    const bool has_chance = best >> 32 > key_of(-INFINITY);
    return has_chance ? (int32_t)~(uint32_t)best : 0;
}

/* --- thresholds ----------------------------------------------------------------------------------- */

__device__ static void clear_digits(memory *m)
{
    __syncthreads();
    for (int i = (int)threadIdx.x; i < DIGITS; i += THREADS) {
        m->low[i] = 0;
        m->high[i] = 0;
    }
    if (threadIdx.x == 0) {
        m->reached = NO_THREAD;
        m->lowest = 0;
        m->digit = 0; // where there is no value at all
        m->above = 0;
    }
    __syncthreads();
}

/*
 * Positive floats of one exponent are whole numbers of it: added in two halves, 2^20 of them fit into 32 bits
 * each, and sums are exact in any order.
 */
template <bool by_value> __device__ static void add_digit(memory *m, uint32_t digit, float x)
{
    if (by_value) {
        const uint32_t mantissa = (__float_as_uint(x) & 0x7fffffu) | 0x800000u;
        atomicAdd(&m->low[digit], mantissa & ((1u << HALF_BITS) - 1));
        atomicAdd(&m->high[digit], mantissa >> HALF_BITS);
    } else {
        atomicAdd(&m->low[digit], 1u);
    }
}

/* What a digit's values add up to; `key` is the least of theirs. */
template <bool by_value> __device__ static double digit_sum(const memory *m, uint32_t digit, uint32_t key)
{
    if (!by_value) {
        return m->low[digit];
    }
    const double whole = (double)m->high[digit] * (1 << HALF_BITS) + m->low[digit];
    return ldexp(whole, (int)(key >> 23 & 0xff) - 150);
}

/*
 * The digit at which the sum from the largest down, on top of `above`, reaches `target`, to m->digit, and the
 * sum before it to m->above. Where it never does, the target was the whole but for rounding: the lowest.
 */
template <bool by_value>
__device__ static void find_digit(const row &r, uint32_t prefix, int shift, double above, double target)
{
    memory *m = r.m;
    const uint32_t upper = DIGITS - 1 - 2 * threadIdx.x, lower = upper - 1;
    const double a = digit_sum<by_value>(m, upper, prefix | upper << shift);
    const double b = digit_sum<by_value>(m, lower, prefix | lower << shift);
    double sum = a + b; // of the warp's digits down to these
    for (int n = 1; n < 32; n *= 2) {
        const double other = __shfl_up_sync(FULL_WARP, sum, (unsigned)n);
        sum += r.lane >= n ? other : 0;
    }
    if (r.lane == 31) {
        m->sums[r.warp] = sum;
    }
    double before = __shfl_up_sync(FULL_WARP, sum, 1u);
    __syncthreads();
    double base = above;
    for (int i = 0; i < r.warp; i++) {
        base += m->sums[i];
    }
    before = r.lane > 0 ? base + before : base;
    if (a > 0 || b > 0) {
        atomicMax(&m->lowest, threadIdx.x);
        if (base + sum >= target) {
            atomicMin(&m->reached, threadIdx.x);
        }
    }
    __syncthreads();
    const bool is_reached = m->reached != NO_THREAD;
    if (threadIdx.x == (is_reached ? m->reached : m->lowest) && (a > 0 || b > 0)) {
        const bool is_upper = a > 0 && ((is_reached && before + a >= target) || !(b > 0));
        m->digit = is_upper ? upper : lower;
        m->above = is_upper ? before : before + a;
    }
    __syncthreads();
}

/*
 * Going down from the largest of v (this warp's begin .. end - 1; those that reach `least`), the value at which
 * the sum reaches `target`: of the values themselves, which are positive, or of ones. *above: the sum before
 * it. The answer's key is found digit by digit.
 */
template <bool by_value>
__device__ static float descend(const row &r, const float *v, int begin, int end, float least, double target,
                                double *above)
{
    uint32_t found = 0, known = 0; // bits of the key
    *above = 0;
    for (int shift = 32 - DIGIT_BITS; known != UINT32_MAX; shift = shift > DIGIT_BITS ? shift - DIGIT_BITS : 0) {
        clear_digits(r.m);
        for (int i = begin + r.lane; i < end; i += 32) {
            const uint32_t key = key_of(v[i]);
            if (v[i] >= least && (key & known) == found) {
                add_digit<by_value>(r.m, key >> shift & (DIGITS - 1), v[i]);
            }
        }
        __syncthreads();
        // The last digit overlaps the one before it: those bits are in all its values alike.
        find_digit<by_value>(r, found & ~((uint32_t)(DIGITS - 1) << shift), shift, *above, target);
        found |= r.m->digit << shift;
        known |= (uint32_t)(DIGITS - 1) << shift;
        *above = r.m->above;
    }
    return value_of(found);
}

/* The k-th largest logit. That of the threads' largest bounds it: few are left to count. */
__device__ static float kth_largest(const row &r, uint32_t k)
{
    double above;
    float least = -INFINITY;
    if (k < THREADS) {
        const int first = r.warp * 32;
        least = descend<false>(r, r.m->largest, first, first + 32, least, k, &above);
    }
    return descend<false>(r, r.logits, r.begin, r.end, least, k, &above);
}

/* --- the draw --------------------------------------------------------------------------------------- */

/* Weights of logits that reach `least`, 0 of the others; the warps' sums in m->sums. */
__device__ static void weigh(const row &r, float least, float most, float temperature)
{
    double sum = 0;
    for (int i = r.begin + r.lane; i < r.end; i += 32) {
        const float x = r.logits[i], w = x >= least ? weight_of(x, most, temperature) : 0;
        r.weights[i] = w;
        sum += (double)w;
    }
    share_sums(r, sum);
}

__device__ static bounds bounds_of(const row &r, const sample_job &job)
{
    bounds b = {0, INT64_MAX};
    if (job.top_p < 1) {
        double above;
        const double target = (double)job.top_p * total_of(r.m);
        b.floor = descend<true>(r, r.weights, r.begin, r.end, FLT_MIN, target, &above);
        const double n = ceil((target - above) / (double)b.floor);
        b.n_at_floor = n > 1 ? (int64_t)n : 1;
    }
    if (job.min_p > b.floor) { // the likeliest weighs 1
        b = {job.min_p, INT64_MAX};
    }
    return b;
}

/* The weight of entry i, if it is in; else 0. A warp asks in order; *n_equal counts those of the floor's weight. */
__device__ static float weight_in(const row &r, const bounds &b, int i, int64_t *n_equal)
{
    const float w = i < r.end ? r.weights[i] : 0;
    if (b.n_at_floor == INT64_MAX) {
        return w >= b.floor ? w : 0;
    }
    const unsigned equal = __ballot_sync(FULL_WARP, w == b.floor);
    const int64_t rank = *n_equal + __popc(equal & ((1u << r.lane) - 1));
    *n_equal += __popc(equal);
    return w > b.floor || (w == b.floor && rank < b.n_at_floor) ? w : 0;
}

/* How many weights in the runs of lower warps equal the floor. */
__device__ static int64_t equals_before(const row &r, const bounds &b)
{
    if (b.n_at_floor == INT64_MAX) {
        return 0;
    }
    uint32_t n = 0;
    for (int i = r.begin + r.lane; i < r.end; i += 32) {
        n += r.weights[i] == b.floor;
    }
    n = __reduce_add_sync(FULL_WARP, n);
    if (r.lane == 0) {
        r.m->counts[r.warp] = n;
    }
    __syncthreads();
    int64_t before = 0;
    for (int i = 0; i < r.warp; i++) {
        before += r.m->counts[i];
    }
    return before;
}

/* The warps' sums of what is in, in m->sums. */
__device__ static void sum_in(const row &r, const bounds &b, int64_t n_equal)
{
    double sum = 0;
    for (int i = r.begin; i < r.end; i += 32) {
        sum += (double)weight_in(r, b, i + r.lane, &n_equal);
    }
    share_sums(r, sum);
}

/* In this warp's run, where the sum of what is in goes past `target`, to m->id; `at`: before the run. */
__device__ static void invert_run(const row &r, const bounds &b, int64_t n_equal, double at, double target)
{
    int id = -1;
    bool is_past = false;
    for (int i = r.begin; i < r.end && !is_past; i += 32) {
        const float w = weight_in(r, b, i + r.lane, &n_equal);
        double sum = (double)w;
        for (int n = 1; n < 32; n *= 2) {
            const double other = __shfl_up_sync(FULL_WARP, sum, (unsigned)n);
            sum += r.lane >= n ? other : 0;
        }
        const unsigned in = __ballot_sync(FULL_WARP, w > 0);
        const unsigned past = __ballot_sync(FULL_WARP, w > 0 && at + sum > target);
        is_past = past != 0;
        id = is_past ? i + __ffs((int)past) - 1 : in ? i + 31 - __clz((int)in) : id;
        at += __shfl_sync(FULL_WARP, sum, 31);
    }
    if (r.lane == 0) {
        r.m->id = id;
    }
}

/* With m->sums of what is in: the entry at which the sum goes past u times the whole; -1: there is none. */
__device__ static int32_t invert(const row &r, const bounds &b, int64_t n_equal, double u)
{
    const double target = u * total_of(r.m);
    double at = 0, before = 0, sum = 0;
    int warp = -1;
    bool is_past = false;
    for (int i = 0; i < WARPS && !is_past; i++) {
        if (r.m->sums[i] > 0) {
            warp = i;
            before = sum;
        }
        sum += r.m->sums[i];
        is_past = sum > target;
    }
    at = before;
    if (warp == r.warp) {
        invert_run(r, b, n_equal, at, target);
    }
    __syncthreads();
    return warp < 0 ? -1 : r.m->id;
}

/* -1 where no id has a weight. */
__device__ static int32_t draw(const row &r, const sample_job &job, float most)
{
    float least = -INFINITY;
    if (job.top_k > 0 && job.top_k < (uint32_t)r.vocab) {
        least = kth_largest(r, job.top_k);
    }
    weigh(r, least, most, job.temperature);
    bounds b = {0, INT64_MAX};
    int64_t n_equal = 0;
    if (job.top_p < 1 || job.min_p > 0) {
        b = bounds_of(r, job);
        n_equal = equals_before(r, b);
        sum_in(r, b, n_equal);
    }
    return invert(r, b, n_equal, device_rng_uniform(job.seed, RNG_SAMPLE, job.index, 0));
}

/* --- log-probabilities ---------------------------------------------------------------------------- */

/* The log of the sum of all logits' exponentials. */
__device__ static double log_sum_of(const row &r, float most)
{
    double sum = 0;
    for (int i = r.begin + r.lane; i < r.end; i += 32) {
        sum += (double)weight_of(r.logits[i], most, 1);
    }
    share_sums(r, sum);
    return (double)most + log(total_of(r.m));
}

/* The likeliest ids, one after the other; only who had the last one looks for another. */
__device__ static void list_top(const row &r, double log_sum, uint32_t n_top, sample_found *found)
{
    uint64_t mine = n_top > 0 ? best_below(r, UINT64_MAX) : 0;
    uint32_t n = 0;
    for (; n < n_top; n++) {
        const uint64_t best = best_of_block(r, mine, (int)(n % 2));
        if (best == 0) {
            break;
        }
        const int id = (int)~(uint32_t)best;
        if (threadIdx.x == 0) {
            found->top[n].id = id;
            found->top[n].logprob = (float)((double)r.logits[id] - log_sum);
        }
        if (mine == best) {
            mine = best_below(r, best);
        }
    }
    if (threadIdx.x == 0) {
        found->n_top = n;
    }
    __syncthreads();
}

/* --- a job ------------------------------------------------------------------------------------------ */

__global__ static void __launch_bounds__(THREADS) sample_kernel(sample_rows s)
{
    __shared__ memory m;
    const sample_job job = s.jobs[blockIdx.x];
    sample_found *found = s.found + blockIdx.x;
    const int run = (s.vocab + THREADS - 1) / THREADS * 32;
    const int warp = (int)threadIdx.x / 32, begin = min(warp * run, s.vocab);
    const row r = {s.logits + job.row * (size_t)s.vocab, s.weights + blockIdx.x * (size_t)s.vocab,
                   s.vocab, begin, min(begin + run, s.vocab), (int)threadIdx.x % 32, warp, &m};
    float most = measure(r);
    double log_sum = 0;
    if (job.logprobs > 0) {
        log_sum = log_sum_of(r, most);
    }
    list_top(r, log_sum, job.logprobs > 0 ? job.logprobs - 1 : 0, found);
    if (job.n_banned > 0) {
        for (uint32_t i = threadIdx.x; i < job.n_banned; i += THREADS) {
            const int32_t id = s.banned[job.first_banned + i];
            if (id >= 0 && id < s.vocab) {
                r.logits[id] = -INFINITY;
            }
        }
        __syncthreads();
        most = measure(r);
    }
    int32_t id = job.temperature > 0 ? draw(r, job, most) : -1;
    if (id < 0) {
        id = first_of(r);
    }
    if (threadIdx.x == 0) {
        found->id = id;
        found->logprob = job.logprobs > 0 ? (float)((double)r.logits[id] - log_sum) : 0;
    }
}

void sample_queue(const struct sample_rows *s, struct CUstream_st *stream)
{
    CHECK(s->vocab > 0 && s->vocab <= SAMPLE_MAX_VOCAB);
    if (s->n > 0) {
        launch(sample_kernel, dim3((unsigned)s->n), dim3(THREADS), 0, stream, *s);
    }
}
