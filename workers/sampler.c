#include "workers/sampler.h"

#include <float.h>
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "core/mem.h"
#include "core/rng.h"

#define BLOCK      64
#define LANES      4
#define DIGIT_BITS 11 // of a key at a time
#define MAX_TEMP   100.0F
#define EXP_LEAST  (-87.0F) // below, exp is taken for 0: it would be no normal float

struct sampler {
    int vocab, n_blocks;
    float *largest; // (n_blocks) logit of each block
    float *weights; // (n_blocks, BLOCK) of all ids, or of those in `ids`
    int32_t *ids;   // (n_blocks * BLOCK)
    double *mass;   // (n_blocks) of each block of weights
    float *active;  // (n_blocks * BLOCK) what descend still has to tell apart
};

/* What may be drawn: weights (n) in the order of ids. */
struct choice {
    const float *weights;
    const int32_t *ids; // NULL: 0, 1, 2 ...
    int n;
    float floor;        // lighter ones are out
    int64_t n_at_floor; // how many of the floor's own weight are in, lowest ids first
};

/* --- memory ----------------------------------------------------------------------------------- */

int sampler_create(struct sampler **out, int vocab, struct err *e)
{
    CHECK(vocab > 0);
    struct sampler *s = xcalloc(1, sizeof *s);
    s->vocab = vocab;
    s->n_blocks = (vocab + BLOCK - 1) / BLOCK;
    const size_t n_blocks = (size_t)s->n_blocks, n = n_blocks * BLOCK;
    s->largest = malloc(n_blocks * sizeof *s->largest);
    s->active = malloc(n * sizeof *s->active);
    s->weights = malloc(n * sizeof *s->weights);
    s->ids = malloc(n * sizeof *s->ids);
    s->mass = malloc(n_blocks * sizeof *s->mass);
    if (!s->largest || !s->active || !s->weights || !s->ids || !s->mass) {
        sampler_destroy(s);
        return err_set(e, ERR_ENV, "no memory to sample from %d ids", vocab);
    }
    *out = s;
    return 0;
}

void sampler_destroy(struct sampler *s)
{
    if (s) {
        free(s->largest);
        free(s->active);
        free(s->weights);
        free(s->ids);
        free(s->mass);
        free(s);
    }
}

/* --- blocks ------------------------------------------------------------------------------------- */

/* The block's logits, filled up with -inf. */
static void load(const struct sampler *s, const float *logits, int block, float v[BLOCK])
{
    const int first = block * BLOCK, n = s->vocab - first;
    if (n >= BLOCK) {
        memcpy(v, logits + first, BLOCK * sizeof *v);
        return;
    }
    memcpy(v, logits + first, (size_t)n * sizeof *v);
    for (int i = n; i < BLOCK; i++) {
        v[i] = -INFINITY;
    }
}

static float largest_of(const float v[BLOCK])
{
    float lanes[16], most = -INFINITY;
    for (int j = 0; j < 16; j++) {
        lanes[j] = -INFINITY;
    }
    for (int i = 0; i < BLOCK; i += 16) {
        for (int j = 0; j < 16; j++) {
            lanes[j] = v[i + j] > lanes[j] ? v[i + j] : lanes[j]; // NaN is not greater
        }
    }
    for (int j = 0; j < 16; j++) {
        most = lanes[j] > most ? lanes[j] : most;
    }
    return most;
}

static float measure_block(struct sampler *s, const float *logits, int block)
{
    float v[BLOCK];
    load(s, logits, block, v);
    return s->largest[block] = largest_of(v);
}

/* Fills s->largest; the largest of all. */
static float measure(struct sampler *s, const float *logits)
{
    float most = -INFINITY;
    for (int b = 0; b < s->n_blocks; b++) {
        float largest = measure_block(s, logits, b);
        most = largest > most ? largest : most;
    }
    return most;
}

static float largest_block(const struct sampler *s)
{
    float most = -INFINITY;
    for (int b = 0; b < s->n_blocks; b++) {
        most = s->largest[b] > most ? s->largest[b] : most;
    }
    return most;
}

/* The lowest id with this logit, which is the largest; 0 where none has a chance. */
static int32_t first_of(const struct sampler *s, const float *logits, float largest)
{
    for (int b = 0; b < s->n_blocks && largest > -INFINITY; b++) {
        if (s->largest[b] != largest) {
            continue;
        }
        int32_t id = b * BLOCK;
        while (logits[id] != largest) {
            id++;
        }
        return id;
    }
    return 0;
}

/* Several floats that are computed with together. */
typedef float floats __attribute__((vector_size(LANES * sizeof(float))));
typedef int32_t ints __attribute__((vector_size(LANES * sizeof(int32_t))));
typedef double doubles __attribute__((vector_size(LANES * sizeof(double))));

/*
 * exp of x <= 0, to 2 units in the last place: x = n ln 2 + r, |r| <= ln 2 / 2, exp(r) by its series
 * with the coefficients of Cephes' expf. What is below EXP_LEAST, or NaN, gives 0.
 */
static inline floats exp_of(floats x)
{
    const ints normal = x > EXP_LEAST;
    const floats in = (floats)((ints)x & normal);
    const floats n = in * 1.44269504F + 12582912.0F - 12582912.0F; // rounded
    const floats r = in - n * 0.693359375F + n * 2.12194440e-4F;
    floats p = r * 1.9875691500e-4F + 1.3981999507e-3F;
    p = p * r + 8.3334519073e-3F;
    p = p * r + 4.1665795894e-2F;
    p = p * r + 1.6666665459e-1F;
    p = p * r + 5.0000001201e-1F;
    p = p * r * r + r + 1.0F;
    const floats scale = (floats)((__builtin_convertvector(n, ints) + 127) * (1 << 23));
    return (floats)((ints)(p * scale) & normal);
}

/* exp((v - most) / temperature) of a block; their sum. */
static double weigh(const float v[BLOCK], float most, float temperature, float w[BLOCK])
{
    doubles sums = {0};
    for (int i = 0; i < BLOCK; i += LANES) {
        floats x;
        memcpy(&x, v + i, sizeof x);
        x = exp_of((x - most) / temperature);
        memcpy(w + i, &x, sizeof x);
        sums += __builtin_convertvector(x, doubles);
    }
    return (sums[0] + sums[2]) + (sums[1] + sums[3]);
}

/* Weights of all ids, and s->mass; the sum of all. */
static double weigh_all(struct sampler *s, const float *logits, float most, float temperature)
{
    double sum = 0;
    for (int b = 0; b < s->n_blocks; b++) {
        float v[BLOCK];
        load(s, logits, b, v);
        s->mass[b] = weigh(v, most, temperature, s->weights + (size_t)b * BLOCK);
        sum += s->mass[b];
    }
    return sum;
}

/* --- thresholds ----------------------------------------------------------------------------------- */

/* Floats as whole numbers of the same order. */
static uint32_t key_of(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits >> 31 ? ~bits : bits | 1U << 31;
}

static float value_of(uint32_t key)
{
    const uint32_t bits = key >> 31 ? key & ~(1U << 31) : ~key;
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

/* What the values with one more digit of the key add up to. */
struct digits {
    double sums[1 << DIGIT_BITS];
    bool any[1 << DIGIT_BITS];
};

/*
 * The digit at which the sum from the largest down, on top of *above, reaches `target`; then *above is the
 * sum before it. Where it never does, the target was the whole but for rounding: the lowest digit.
 */
static uint32_t find_digit(const struct digits *d, double target, double *above)
{
    uint32_t lowest = 0;
    double before_lowest = *above, sum = *above;
    for (uint32_t digit = 1 << DIGIT_BITS; digit-- > 0;) {
        if (!d->any[digit]) {
            continue;
        }
        lowest = digit;
        before_lowest = sum;
        sum += d->sums[digit];
        if (sum >= target) {
            break;
        }
    }
    *above = before_lowest;
    return lowest;
}

/*
 * Going down from the largest of v (n >= 1), the value at which the sum reaches `target`: of the values
 * themselves, or of ones. *above: the sum before it. The answer's key is found digit by digit.
 */
static float descend(struct sampler *s, const float *v, int n, bool by_value, double target,
                     double *above)
{
    uint32_t found = 0;
    *above = 0;
    for (int shift = 32 - DIGIT_BITS; n > 0; shift = shift > DIGIT_BITS ? shift - DIGIT_BITS : 0) {
        const uint32_t mask = (1U << DIGIT_BITS) - 1;
        struct digits d = {0};
        int n_next = 0;
        for (int i = 0; i < n; i++) {
            const uint32_t digit = key_of(v[i]) >> shift & mask;
            d.sums[digit] += by_value ? (double)v[i] : 1.0;
            d.any[digit] = true;
        }
        const uint32_t digit = find_digit(&d, target, above);
        for (int i = 0; i < n; i++) {
            const float x = v[i];
            s->active[n_next] = x;
            n_next += (key_of(x) >> shift & mask) == digit;
        }
        found = (found & ~(mask << shift)) | digit << shift;
        v = s->active;
        n = shift > 0 ? n_next : 0;
    }
    return value_of(found);
}

/* A logit that at least k reach: the k-th largest of the blocks' largest. */
static float low_bound(struct sampler *s, uint32_t k)
{
    double above;
    if (k >= (uint32_t)s->n_blocks) {
        return -INFINITY;
    }
    return descend(s, s->largest, s->n_blocks, false, k, &above);
}

/* Logits of at least `floor`, in s->weights, and their ids; how many. */
static int collect(struct sampler *s, const float *logits, float floor)
{
    int n = 0;
    for (int b = 0; b < s->n_blocks; b++) {
        const int first = b * BLOCK, end = first + BLOCK < s->vocab ? first + BLOCK : s->vocab;
        for (int i = first; i < end && s->largest[b] >= floor; i++) {
            s->weights[n] = logits[i];
            s->ids[n] = i;
            n += logits[i] >= floor;
        }
    }
    return n;
}

/* Of the n in s->weights and s->ids (NULL: all ids), those of at least `floor`. */
static int keep(struct sampler *s, int n, bool all_ids, float floor)
{
    int n_kept = 0;
    for (int i = 0; i < n; i++) {
        const float w = s->weights[i];
        s->ids[n_kept] = all_ids ? i : s->ids[i];
        s->weights[n_kept] = w;
        n_kept += w >= floor;
    }
    return n_kept;
}

/* --- the draw --------------------------------------------------------------------------------------- */

/* The ids of the k largest logits and those equal to the k-th, with their weights. */
static struct choice take_top_k(struct sampler *s, const float *logits, float most,
                                const struct wire_sampling *how)
{
    double above;
    int n = collect(s, logits, low_bound(s, how->top_k));
    const float floor =
        (uint32_t)n > how->top_k ? descend(s, s->weights, n, false, how->top_k, &above) : -INFINITY;
    n = keep(s, n, false, floor);
    for (int i = n; i % BLOCK; i++) {
        s->weights[i] = -INFINITY;
    }
    for (int i = 0; i < n; i += BLOCK) {
        float v[BLOCK];
        memcpy(v, s->weights + i, sizeof v);
        s->mass[i / BLOCK] = weigh(v, most, how->temperature, s->weights + i);
    }
    return (struct choice){.weights = s->weights, .ids = s->ids, .n = n};
}

static double mass_of(const struct sampler *s, int n)
{
    double sum = 0;
    for (int b = 0; b * BLOCK < n; b++) {
        sum += s->mass[b];
    }
    return sum;
}

/* Whoever together with all lighter ones weighs less than 1 - top_p is out: below `least` all are. */
static void bound_mass(struct sampler *s, struct choice *c, const struct wire_sampling *how)
{
    const double sum = mass_of(s, c->n), target = (double)how->top_p * sum;
    const float least = (float)((sum - target) / c->n * 0.999);
    double above;
    c->n = keep(s, c->n, c->ids == NULL, least > 0 ? least : FLT_MIN);
    c->ids = s->ids;
    c->floor = descend(s, c->weights, c->n, true, target, &above);
    c->n = keep(s, c->n, false, c->floor);
    c->n_at_floor = (int64_t)ceil((target - above) / (double)c->floor);
    c->n_at_floor = c->n_at_floor < 1 ? 1 : c->n_at_floor;
}

/* Whether entry i is in; *n_left counts down those of the floor's weight. */
static bool is_in(const struct choice *c, int i, int64_t *n_left)
{
    const float w = c->weights[i];
    return w > c->floor || (w == c->floor && w > 0 && (*n_left)-- > 0);
}

static int32_t id_at(const struct choice *c, int i)
{
    return c->ids ? c->ids[i] : i;
}

/* The entry at which the sum of what is in goes past u times the whole. */
static int32_t invert(const struct choice *c, double u)
{
    double sum = 0, at = 0;
    int64_t n_left = c->n_at_floor;
    for (int i = 0; i < c->n; i++) {
        sum += is_in(c, i, &n_left) ? (double)c->weights[i] : 0;
    }
    int32_t id = -1;
    n_left = c->n_at_floor;
    for (int i = 0; i < c->n && at <= u * sum; i++) {
        if (is_in(c, i, &n_left)) {
            at += (double)c->weights[i];
            id = id_at(c, i);
        }
    }
    return id;
}

/* The same where all are in: whole blocks first. */
static int32_t invert_all(const struct sampler *s, double sum, double u)
{
    double at = 0;
    int32_t id = -1;
    for (int b = 0; b < s->n_blocks; b++) {
        if (at + s->mass[b] <= u * sum && b + 1 < s->n_blocks) {
            at += s->mass[b];
            continue;
        }
        for (int i = b * BLOCK; i < (b + 1) * BLOCK && at <= u * sum; i++) {
            at += (double)s->weights[i];
            id = s->weights[i] > 0 ? i : id;
        }
        if (at > u * sum) {
            break;
        }
    }
    return id;
}

/* -1 where no id has a weight. */
static int32_t draw(struct sampler *s, const float *logits, float most,
                    const struct wire_sampling *how, uint32_t index)
{
    const double u = rng_uniform(how->seed, RNG_SAMPLE, index, 0);
    struct choice c = {.weights = s->weights, .n = s->vocab};
    if (how->top_k > 0 && how->top_k < (uint32_t)s->vocab) {
        c = take_top_k(s, logits, most, how);
    } else {
        const double sum = weigh_all(s, logits, most, how->temperature);
        if (how->top_p >= 1 && how->min_p <= 0) {
            return invert_all(s, sum, u);
        }
    }
    c.n_at_floor = INT64_MAX;
    if (how->top_p < 1) {
        bound_mass(s, &c, how);
    } else if (how->min_p > 0) {
        c.n = keep(s, c.n, c.ids == NULL, how->min_p);
        c.ids = s->ids;
    }
    if (how->min_p > c.floor) { // the likeliest weighs 1
        c.floor = how->min_p;
        c.n_at_floor = INT64_MAX;
    }
    return invert(&c, u);
}

/* --- log-probabilities ---------------------------------------------------------------------------- */

/* The n_top likeliest ids into job->top; a later one must be larger to go before. */
static void list_top(struct sampler *s, const float *logits, double log_sum, uint32_t n_top,
                     struct sampler_job *job)
{
    float values[WIRE_MAX_TOP];
    const int n = n_top > 0 ? collect(s, logits, low_bound(s, n_top)) : 0;
    job->n_top = 0;
    for (int i = 0; i < n; i++) {
        uint32_t at = job->n_top;
        for (; at > 0 && s->weights[i] > values[at - 1]; at--) {
            if (at < n_top) {
                values[at] = values[at - 1];
                job->top[at] = job->top[at - 1];
            }
        }
        if (at < n_top) {
            values[at] = s->weights[i];
            job->top[at].id = s->ids[i];
            job->top[at].logprob = (float)((double)values[at] - log_sum);
            job->n_top += job->n_top < n_top;
        }
    }
}

void sampler_run(struct sampler *s, float *logits, struct sampler_job *job)
{
    const struct wire_sampling *how = job->how;
    float most = measure(s, logits);
    double log_sum = 0;
    if (how->logprobs > 0) {
        log_sum = (double)most + log(weigh_all(s, logits, most, 1));
        list_top(s, logits, log_sum, how->logprobs - 1, job);
    }
    for (uint32_t i = 0; i < job->n_banned; i++) {
        if (job->banned[i] >= 0 && job->banned[i] < s->vocab) {
            logits[job->banned[i]] = -INFINITY;
            measure_block(s, logits, job->banned[i] / BLOCK);
        }
    }
    most = job->n_banned > 0 ? largest_block(s) : most;
    job->id = how->temperature > 0 ? draw(s, logits, most, how, job->index) : -1;
    if (job->id < 0) {
        job->id = first_of(s, logits, most);
    }
    job->logprob = how->logprobs > 0 ? (float)((double)logits[job->id] - log_sum) : 0;
}

int sampler_check(const struct wire_sampling *how, enum err_code code, struct err *e)
{
    if (!(how->temperature >= 0 && how->temperature <= MAX_TEMP) ||
        !(how->top_p > 0 && how->top_p <= 1) || !(how->min_p >= 0 && how->min_p <= 1)) {
        return err_set(e, code,
                       "sampling with temperature %g (0 to %g), top_p %g (above 0, to 1), min_p %g "
                       "(0 to 1)",
                       (double)how->temperature, (double)MAX_TEMP, (double)how->top_p,
                       (double)how->min_p);
    }
    if (how->logprobs > WIRE_MAX_TOP + 1 || how->n_stop_ids > WIRE_MAX_STOP_IDS ||
        how->reserved != 0) {
        return err_set(e, code, "sampling with %u alternatives (at most %d), %u stop ids (%d)",
                       how->logprobs - 1, WIRE_MAX_TOP, how->n_stop_ids, WIRE_MAX_STOP_IDS);
    }
    return 0;
}
