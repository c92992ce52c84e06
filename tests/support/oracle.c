#include "tests/support/oracle.h"

#include <stdarg.h>
#include <setjmp.h>

#include <cmocka.h>

#include "core/mem.h"
#include "workers/weights/safetensors.h"

#include <jansson.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* --- what transformers said ------------------------------------------------------------------- */

static uint32_t read_ids(const json_t *root, const char *key, int32_t *out)
{
    const json_t *list = json_object_get(root, key);
    uint32_t n = (uint32_t)json_array_size(list);
    assert_true(n > 0 && n <= ORACLE_MAX_IDS);
    for (uint32_t i = 0; i < n; i++) {
        out[i] = (int32_t)json_integer_value(json_array_get(list, i));
    }
    return n;
}

void oracle_open(struct oracle *o, const char *name)
{
    const char *source = getenv("TIDEMARK_SOURCE");
    o->folder = xasprintf("%s/tests/golden/%s", source ? source : ".", name);
    char *path = xasprintf("%s/golden.json", o->folder);
    json_t *root = json_load_file(path, 0, NULL);
    assert_non_null(root);
    o->n_prompt = read_ids(root, "prompt_ids", o->prompt);
    o->n_positions = read_ids(root, "positions", o->positions);
    o->n_ids = read_ids(root, "ids", o->ids);
    json_decref(root);
    free(path);
    path = xasprintf("%s/golden.safetensors", o->folder);
    struct err e = {0};
    assert_int_equal(safetensors_open(&o->file, path, &e), 0);
    free(path);
    const struct safetensors_tensor *t = safetensors_find(o->file, "logits");
    assert_non_null(t);
    assert_int_equal(t->shape[0], o->n_positions);
    o->n_logits = (size_t)(t->shape[0] * t->shape[1]);
    o->logits = t->data;
    o->may_turn = strncmp(name, "deepseek", 8) == 0;
}

void oracle_close(struct oracle *o)
{
    safetensors_close(o->file);
    free(o->folder);
}

/* --- how near ours are ------------------------------------------------------------------------ */

void oracle_expect_equal(const float *got, const float *want, size_t n)
{
    double largest = 0, worst = 0;
    for (size_t i = 0; i < n; i++) {
        assert_true(isfinite(got[i]));
        largest = fmax(largest, fabs((double)want[i]));
        worst = fmax(worst, fabs((double)got[i] - (double)want[i]));
    }
    if (worst > 1e-4 * largest) {
        fail_msg("logits differ by %g, the largest is %g", worst, largest);
    }
}

void oracle_expect_near(const float *got, const float *want, size_t n, double distance)
{
    double apart = 0, gg = 0, gw = 0, ww = 0;
    for (size_t i = 0; i < n; i++) {
        const double g = (double)got[i], w = (double)want[i];
        assert_true(isfinite(g));
        apart += (g - w) * (g - w);
        gg += g * g;
        gw += g * w;
        ww += w * w;
    }
    const double l2 = sqrt(apart / ww), cosine = gw / sqrt(gg * ww);
    if (l2 > distance || cosine < 1 - distance / 20) {
        fail_msg("relative L2 distance %g (%g allowed), cosine %g", l2, distance, cosine);
    }
}

static double distance_of(const float *got, const float *want, size_t n)
{
    double apart = 0, all = 0;
    for (size_t i = 0; i < n; i++) {
        const double g = (double)got[i], w = (double)want[i];
        assert_true(isfinite(g));
        apart += (g - w) * (g - w);
        all += w * w;
    }
    return sqrt(apart / all);
}

void oracle_expect_most_near(const float *got, const float *want, size_t n, size_t n_positions,
                             double distance)
{
    const size_t each = n / n_positions;
    size_t n_near = 0, n_far = 0;
    for (size_t p = 0; p < n_positions; p++) {
        const double d = distance_of(got + p * each, want + p * each, each);
        n_near += d <= distance;
        n_far += d > 3 * distance;
    }
    if (2 * n_near < n_positions || 5 * n_far > n_positions) {
        fail_msg("of %zu positions %zu are within %g, %zu beyond three times that", n_positions,
                 n_near, distance, n_far);
    }
}

void oracle_expect_logits(const struct oracle *o, const float *got, double distance)
{
    if (distance == 0) {
        oracle_expect_equal(got, o->logits, o->n_logits);
    } else if (o->may_turn) {
        oracle_expect_most_near(got, o->logits, o->n_logits, o->n_positions, distance);
    } else {
        oracle_expect_near(got, o->logits, o->n_logits, distance);
    }
}

/* --- one way to compute them ------------------------------------------------------------------ */

void oracle_chain(struct chain *c, const struct oracle *o, const struct oracle_way *way)
{
    const struct chain_config cfg = {
        .backend = way->backend,
        .model = o->folder,
        .n_stages = way->n_stages,
        .n_threads = way->n_threads,
        .n_tensor = way->n_tensor,
        .group = way->group,
        .ends = way->ends,
        .sums = way->sums,
        .index = way->index,
        .n_neighbours = way->n_neighbours,
        .kernels = way->kernels,
        .kv_dtype = way->kv_dtype,
        .max_tokens = way->max_tokens > 0 ? way->max_tokens : 256,
        .max_rows = 4,
        .n_slots = 4,
        .context = 320,
    };
    chain_open(c, &cfg);
}

/* Our request's next tokens, between a stranger's prompt and another's single tokens. */
static void step(struct chain *c, const struct oracle *o, const struct oracle_way *way, uint32_t at,
                 uint32_t n, bool sample, uint32_t turn)
{
    const uint32_t other = 7 * (turn % 20), third = turn % 150;
    const struct chain_row rows[] = {
        {.slot = 3, .pos = other, .tokens = o->prompt + 3, .n = 7, .sample = true},
        {.slot = 1, .pos = at, .tokens = o->prompt + at, .n = n, .sample = sample},
        {.slot = 0, .pos = third, .tokens = o->ids + turn % 100, .n = 1, .sample = true},
    };
    if (way->strangers) {
        chain_step(c, rows, 3);
    } else {
        chain_step(c, rows + 1, 1);
    }
}

/* Logits of the oracle's positions: out (n_positions, vocab). */
void oracle_compute(struct chain *c, const struct oracle *o, const struct oracle_way *way,
                    float *out)
{
    uint32_t turn = 0;
    if (way->again) {
        step(c, o, way, 0, o->n_prompt / 2, false, turn++);
    }
    const size_t vocab = (size_t)c->arch.vocab;
    for (uint32_t at = 0, i = 0; i < o->n_positions; turn++) {
        const uint32_t left = (uint32_t)o->positions[i] + 1 - at;
        const uint32_t n = left < way->chunk ? left : way->chunk;
        step(c, o, way, at, n, n == left, turn);
        at += n;
        if (n == left) { // ours is the second of those that sample
            const float *logits = c->logits + (way->strangers ? vocab : 0);
            memcpy(out + (size_t)i++ * vocab, logits, vocab * sizeof *out);
            for (int r = 1; r < c->cfg.n_tensor; r++) { // all ranks have the same
                const size_t rank = (size_t)r * c->cfg.max_rows;
                assert_memory_equal(logits + rank * vocab, logits, vocab * sizeof *out);
                assert_memory_equal(c->ids + rank, c->ids, c->batch->n_rows * sizeof *c->ids);
            }
        }
    }
}

void oracle_expect_ids(struct chain *c, const struct oracle *o, uint32_t chunk)
{
    int32_t out[ORACLE_MAX_IDS];
    chain_generate(c, o->prompt, o->n_prompt, chunk, out, o->n_ids);
    assert_memory_equal(out, o->ids, o->n_ids * sizeof *out);
}
