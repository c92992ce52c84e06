/*
 * Logits and greedy ids of every family against Hugging Face transformers, on the tiny models of
 * tests/golden (make_tiny_models.py), for every kernel set that this machine runs. float32: sums in another
 * order, so 1e-4 of the largest logit, and the same 128 ids. Weights in fewer bits: relative L2 distance
 * up to 2e-2 and cosine from 0.999.
 *
 * And bit by bit: pipeline stages, threads, the size of prompt chunks, other requests in the batch and
 * computing anew after a preemption change nothing. TIDEMARK_FULL=1 tries every combination, otherwise
 * each pair of stages and threads gets some of the rest in turn.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>

#include <cmocka.h>

#include "core/mem.h"
#include "tests/support/chain.h"
#include "workers/cpu/kernels.h"
#include "workers/weights/safetensors.h"
#include "workers/weights/weights.h"

#include <jansson.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_IDS  256
#define ALL_SETS 100

/* --- what transformers said ------------------------------------------------------------------- */

struct oracle {
    char *folder;
    uint32_t n_prompt, n_positions, n_ids;
    int32_t prompt[MAX_IDS], positions[MAX_IDS], ids[MAX_IDS];
    struct safetensors *file;
    const float *logits; // (n_positions, vocab)
    size_t n_logits;
};

static uint32_t read_ids(const json_t *root, const char *key, int32_t *out)
{
    const json_t *list = json_object_get(root, key);
    uint32_t n = (uint32_t)json_array_size(list);
    assert_true(n > 0 && n <= MAX_IDS);
    for (uint32_t i = 0; i < n; i++) {
        out[i] = (int32_t)json_integer_value(json_array_get(list, i));
    }
    return n;
}

static void open_oracle(struct oracle *o, const char *name)
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
}

static void close_oracle(struct oracle *o)
{
    safetensors_close(o->file);
    free(o->folder);
}

/* --- how near ours are ------------------------------------------------------------------------ */

static void expect_equal_but_for_order(const float *got, const float *want, size_t n)
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

static void expect_near(const float *got, const float *want, size_t n, double distance)
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

/* --- one way to compute them ------------------------------------------------------------------ */

struct way {
    const char *kernels;
    enum arch_dtype kv_dtype;
    int n_stages, n_threads, n_tensor;
    uint32_t chunk; // tokens of a batch at most
    bool strangers; // other requests in every batch
    bool again;     // half of it computed before, then dropped
};

static void open_chain(struct chain *c, const struct oracle *o, const struct way *way)
{
    const struct chain_config cfg = {
        .model = o->folder,
        .n_stages = way->n_stages,
        .n_threads = way->n_threads,
        .n_tensor = way->n_tensor,
        .kernels = way->kernels,
        .kv_dtype = way->kv_dtype,
        .max_tokens = 256,
        .max_rows = 4,
        .n_slots = 4,
        .context = 320,
    };
    chain_open(c, &cfg);
}

/* Our request's next tokens, between a stranger's prompt and another's single tokens. */
static void step(struct chain *c, const struct oracle *o, const struct way *way, uint32_t at,
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
static void compute(struct chain *c, const struct oracle *o, const struct way *way, float *out)
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

/* The variants 0 .. n - 1 to try: all, or the next `some` of them. */
struct turns {
    int at, n, some;
};

static bool is_full(void)
{
    return getenv("TIDEMARK_FULL") != NULL;
}

static bool is_due(const struct turns *t, int i)
{
    return is_full() || (i - t->at % t->n + t->n) % t->n < t->some;
}

static void expect_the_same_bits(const struct oracle *o, const struct way *first, const float *want)
{
    static const uint32_t chunks[] = {1, 3, 16, 256};
    static struct turns teams = {.n = 3, .some = 1}, variants = {.n = 8, .some = 2};
    float *got = xcalloc(o->n_logits, sizeof *got);
    for (int i = 0; i < 6; i++) {
        struct way way = *first;
        struct chain c;
        way.n_stages = 1 + i % 3;
        way.n_threads = 1 + i / 3;
        if (way.n_threads > 1 && !is_due(&teams, i % 3)) { // dear where cores are shared
            continue;
        }
        open_chain(&c, o, &way);
        for (int k = 0; k < 8; k++) {
            way.chunk = chunks[k % 4];
            way.strangers = k / 4;
            way.again = (i + k) % 3 == 0;
            if (is_due(&variants, k)) {
                compute(&c, o, &way, got);
                assert_memory_equal(got, want, o->n_logits * sizeof *got);
            }
        }
        variants.at += variants.some;
        chain_close(&c);
    }
    teams.at++;
    free(got);
}

static void expect_ids(struct chain *c, const struct oracle *o, uint32_t chunk)
{
    int32_t out[MAX_IDS];
    chain_generate(c, o->prompt, o->n_prompt, chunk, out, o->n_ids);
    assert_memory_equal(out, o->ids, o->n_ids * sizeof *out);
}

static void check_way(const struct oracle *o, const struct way *way, double distance, bool ids)
{
    struct chain c;
    float *logits = xcalloc(o->n_logits, sizeof *logits);
    open_chain(&c, o, way);
    compute(&c, o, way, logits);
    if (distance > 0) {
        expect_near(logits, o->logits, o->n_logits, distance);
    } else {
        expect_equal_but_for_order(logits, o->logits, o->n_logits);
    }
    if (ids) {
        expect_ids(&c, o, MAX_IDS);
    }
    chain_close(&c);
    expect_the_same_bits(o, way, logits);
    free(logits);
}

/* --- tests ------------------------------------------------------------------------------------ */

static const char *const families[] = {"llama", "qwen2", "gemma2", "gpt_oss", "deepseek_v3"};

static void check_model(const char *name, enum arch_dtype kv_dtype, int n_sets, double distance,
                        bool ids)
{
    struct oracle o;
    open_oracle(&o, name);
    const struct kernels *set;
    for (int s = 0; s < n_sets && (set = kernels_set(s)) != NULL; s++) {
        const struct way way = {.kernels = set->name,
                                .kv_dtype = kv_dtype,
                                .n_stages = 1,
                                .n_threads = 1,
                                .chunk = 256};
        print_message("%s, %s\n", name, set->name);
        check_way(&o, &way, distance, ids);
    }
    close_oracle(&o);
}

static void check_families(const char *stored, enum arch_dtype kv_dtype, double distance, bool ids)
{
    for (size_t i = 0; i < sizeof families / sizeof *families; i++) {
        char name[64];
        snprintf(name, sizeof name, "%s_tiny_%s", families[i], stored);
        check_model(name, kv_dtype, ALL_SETS, distance, ids);
    }
}

static void float32_weights(void **state)
{
    (void)state;
    check_families("f32", ARCH_F32, 0, true);
}

static void bfloat16_weights(void **state)
{
    (void)state;
    check_families("bf16", ARCH_BF16, 2e-2, false);
}

/* Where a router's choice is close to call, rounding turns it: not everything is near in everything. */
static void weights_of_8_and_4_bits(void **state)
{
    (void)state;
    check_model("gpt_oss_tiny_mxfp4", ARCH_BF16, ALL_SETS, 2e-2, false);
    check_model("deepseek_v3_tiny_fp8", ARCH_F32, ALL_SETS, 2e-2, false);
}

static void caches_of_8_bits(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof families / sizeof *families; i++) {
        char name[64];
        snprintf(name, sizeof name, "%s_tiny_bf16", families[i]);
        const bool turns = strcmp(families[i], "deepseek_v3") == 0;
        check_model(name, ARCH_INT8, 1, turns ? 1 : 4e-2, false);
        check_model(name, ARCH_FP8, 1, turns ? 1 : 8e-2, false);
    }
}

/* Partial sums are added in another order, so bits differ from those of one rank, but not otherwise. */
static void check_sharded(const char *family, const char *kernels)
{
    static const struct {
        const char *stored;
        enum arch_dtype kv_dtype;
        double distance;
    } kinds[] = {{"f32", ARCH_F32, 0}, {"bf16", ARCH_BF16, 2e-2}};
    for (size_t i = 0; i < (is_full() ? 2 : 1); i++) {
        struct way way = {.kernels = kernels,
                          .kv_dtype = kinds[i].kv_dtype,
                          .n_stages = 1,
                          .n_threads = 1,
                          .n_tensor = 2,
                          .chunk = 256};
        char name[64];
        struct oracle o;
        snprintf(name, sizeof name, "%s_tiny_%s", family, kinds[i].stored);
        open_oracle(&o, name);
        check_way(&o, &way, kinds[i].distance, i == 0);
        way.n_tensor = 4; // of 2 KV heads each is on two ranks
        if (strcmp(family, "gemma2") == 0 || strcmp(family, "deepseek_v3") == 0) {
            check_way(&o, &way, kinds[i].distance, i == 0);
        }
        close_oracle(&o);
    }
}

static void tensor_parallel_ranks(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof families / sizeof *families; i++) {
        const struct kernels *set;
        for (int s = 0; is_full() && (set = kernels_set(s)) != NULL; s++) {
            check_sharded(families[i], set->name);
        }
        if (!is_full()) {
            check_sharded(families[i], "auto");
        }
    }
}

static void every_tensor_of_the_shards_is_found(void **state)
{
    (void)state;
    struct oracle o;
    open_oracle(&o, "llama_tiny_f32");
    struct arch a;
    struct err e = {0};
    assert_int_equal(arch_open(o.folder, &a, &e), 0);
    assert_int_equal(weights_check(o.folder, &a, &e), 0);
    a.intermediate++;
    assert_int_equal(weights_check(o.folder, &a, &e), -1);
    assert_int_equal(e.code, ERR_INPUT);
    assert_non_null(strstr(e.msg, "wrong shape of tensor model.layers.0.mlp.gate_proj.weight: "
                                  "found F32 (40, 24), config.json needs F32 (41, 24)"));
    close_oracle(&o);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(float32_weights),
        cmocka_unit_test(bfloat16_weights),
        cmocka_unit_test(weights_of_8_and_4_bits),
        cmocka_unit_test(caches_of_8_bits),
        cmocka_unit_test(tensor_parallel_ranks),
        cmocka_unit_test(every_tensor_of_the_shards_is_found),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
