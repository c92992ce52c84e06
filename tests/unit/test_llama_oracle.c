/*
 * Logits and greedy ids against Hugging Face transformers on the tiny models of tests/golden
 * (make_tiny_models.py). Tolerance: sums in another order, so 1e-4 of the largest logit.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>

#include <cmocka.h>

#include "core/mem.h"
#include "tests/support/chain.h"
#include "workers/weights/safetensors.h"
#include "workers/weights/weights.h"

#include <jansson.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_IDS   256
#define TOLERANCE 1e-4 // of the largest absolute logit

struct oracle {
    char *folder;
    uint32_t n_prompt, n_positions, n_ids;
    int32_t prompt[MAX_IDS], positions[MAX_IDS], ids[MAX_IDS];
    struct safetensors *file;
    const float *logits; // (n_positions, vocab)
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
    o->logits = t->data;
}

static void close_oracle(struct oracle *o)
{
    safetensors_close(o->file);
    free(o->folder);
}

static void expect_close(const float *got, const float *want, int n)
{
    double largest = 0, worst = 0;
    for (int i = 0; i < n; i++) {
        assert_true(isfinite(got[i]));
        largest = fmax(largest, fabs((double)want[i]));
        worst = fmax(worst, fabs((double)got[i] - (double)want[i]));
    }
    if (worst > TOLERANCE * largest) {
        fail_msg("logits differ by %g, the largest is %g", worst, largest);
    }
}

static void expect_oracle(const char *name, int n_stages, int n_threads, const char *kernels)
{
    struct oracle o;
    open_oracle(&o, name);
    const struct chain_config cfg = {
        .model = o.folder,
        .n_stages = n_stages,
        .n_threads = n_threads,
        .kernels = kernels,
        .max_tokens = 256,
        .max_rows = 2,
        .n_slots = 2,
        .context = 320,
    };
    struct chain c;
    chain_open(&c, &cfg);
    uint32_t at = 0; // each chunk ends at a position that the oracle has
    for (uint32_t i = 0; i < o.n_positions; i++) {
        uint32_t end = (uint32_t)o.positions[i] + 1;
        const struct chain_row row = {
            .slot = 1, .pos = at, .tokens = o.prompt + at, .n = end - at, .sample = true};
        chain_step(&c, &row, 1);
        expect_close(c.logits, o.logits + (size_t)i * (size_t)c.arch.vocab, c.arch.vocab);
        at = end;
    }
    int32_t out[MAX_IDS];
    chain_generate(&c, o.prompt, o.n_prompt, MAX_IDS, out, o.n_ids);
    assert_memory_equal(out, o.ids, o.n_ids * sizeof *out);
    chain_close(&c);
    close_oracle(&o);
}

static void float32_weights(void **state)
{
    (void)state;
    expect_oracle("llama_tiny_f32", 1, 1, "auto");
    expect_oracle("llama_tiny_f32", 1, 1, "portable");
    expect_oracle("llama_tiny_f32", 3, 2, "auto");
}

static void bfloat16_weights(void **state)
{
    (void)state;
    expect_oracle("llama_tiny_bf16", 1, 1, "auto");
    expect_oracle("llama_tiny_bf16", 1, 1, "portable");
    expect_oracle("llama_tiny_bf16", 2, 3, "auto");
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
        cmocka_unit_test(every_tensor_of_the_shards_is_found),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
