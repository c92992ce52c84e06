#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <jansson.h>

#include <stdlib.h>
#include <string.h>

#include "core/config.h"
#include "workers/batch.h"
#include "workers/target.h"

static struct arch arch_of(int n_layers)
{
    struct arch a;
    struct err e;
    assert_int_equal(arch_open("preset:tiny", &a, &e), 0);
    a.n_layers = n_layers;
    return a;
}

/* The settings that this YAML gives on top of the defaults. */
static int read_target(struct target_config *t, const char *yaml, struct err *e)
{
    json_t *root = NULL;
    memset(t, 0, sizeof *t);
    opt_defaults(target_options, t);
    int rc = config_parse(yaml, strlen(yaml), "test", &root, e);
    rc = rc == 0 ? opt_apply(target_options, t, root, e) : rc;
    json_decref(root);
    return rc;
}

static void test_defaults(void **state)
{
    (void)state;
    struct err e;
    struct target_config t;
    assert_int_equal(read_target(&t, "target: {}", &e), 0);
    assert_int_equal(t.kind, TARGET_STAGES);
    assert_null(t.model);
    assert_int_equal(t.backend, TARGET_BACKEND_AUTO);
    assert_int_equal(t.replicas, 1);
    assert_int_equal(t.pipeline, 1);
    assert_int_equal(t.tensor, 1);
    assert_int_equal(t.lanes, 0);
    assert_int_equal(t.layer_split.n, 0);
    assert_int_equal(t.max_running, 64);
    assert_int_equal(t.max_waiting, 4096);
    assert_int_equal(t.max_batch_tokens, 256);
    assert_true(t.idle_class);
    opt_free(target_options, &t);
}

static void test_kinds(void **state)
{
    (void)state;
    struct err e;
    struct target_config t;
    const char *null_kinds[] = {"target: {kind: null}", "target: {kind: 'null'}"};
    for (int i = 0; i < 2; i++) { // YAML's null and the word mean the same target
        assert_int_equal(read_target(&t, null_kinds[i], &e), 0);
        assert_int_equal(t.kind, TARGET_NULL);
        assert_int_equal(target_check(&t, NULL, &e), 0);
        opt_free(target_options, &t);
    }
    assert_int_equal(read_target(&t, "target: {kind: stage}", &e), -1);
    assert_int_equal(e.code, ERR_INPUT);
    assert_non_null(strstr(e.msg, "target.kind"));
    opt_free(target_options, &t);
}

static void test_derived_sizes(void **state)
{
    (void)state;
    struct err e;
    struct target_config t;
    struct arch a = arch_of(4);
    a.max_context = 2048;
    assert_int_equal(read_target(&t, "target: {pipeline: 3}", &e), 0);
    assert_int_equal(target_lanes(&t), 3);
    assert_int_equal(target_kv_blocks(&t, &a), 64 * 512 / BATCH_KV_BLOCK);
    t.lanes = 5;
    t.max_running = 2; // a quarter context each is less than two contexts
    assert_int_equal(target_lanes(&t), 5);
    assert_int_equal(target_kv_blocks(&t, &a), 2 * 2048 / BATCH_KV_BLOCK);
    t.kv_tokens = 33;
    assert_int_equal(target_kv_blocks(&t, &a), 3);
    opt_free(target_options, &t);
}

static void test_splits(void **state)
{
    (void)state;
    struct err e;
    struct target_config t;
    struct arch a = arch_of(10);
    int first[4];
    assert_int_equal(read_target(&t, "target: {model: m, pipeline: 3, layer_split: [4, 5, 1]}", &e),
                     0);
    assert_int_equal(target_check(&t, &a, &e), 0);
    assert_int_equal(target_split(&t, &a, first, &e), 0);
    const int want[] = {0, 4, 9, 10};
    assert_memory_equal(first, want, sizeof want);
    opt_free(target_options, &t);

    assert_int_equal(read_target(&t, "target: {model: m, pipeline: 3}", &e), 0);
    assert_int_equal(target_split(&t, &a, first, &e), 0); // by cost
    assert_true(first[0] == 0 && first[1] > 0 && first[2] > first[1] && first[3] == 10);
    opt_free(target_options, &t);
}

struct bad {
    const char *yaml, *says;
};

static void test_bad_settings(void **state)
{
    (void)state;
    static const struct bad bad[] = {
        {"target: {}", "target.model"},
        {"target: {model: m, pipeline: 11}", "10 layers"},
        {"target: {model: m, tensor: 7}", "target.tensor"},
        {"target: {model: m, pipeline: 2, layer_split: [10]}", "target.pipeline is 2"},
        {"target: {model: m, pipeline: 2, layer_split: [4, 5]}", "adds up to 9"},
        {"target: {model: m, pipeline: 2, layer_split: [4.5, 5.5]}", "4.5 is not a whole"},
        {"target: {model: m, kv_tokens: 1000000000000}", "target.kv_tokens"},
        {"target: {model: m, backend: sim, kernels: avx2}", "target.kernels: avx2"},
    };
    struct arch a = arch_of(10);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct err e;
        struct target_config t;
        assert_int_equal(read_target(&t, bad[i].yaml, &e), 0);
        assert_int_equal(target_check(&t, &a, &e), -1);
        assert_int_equal(e.code, ERR_INPUT);
        if (strstr(e.msg, bad[i].says) == NULL) {
            fail_msg("'%s' does not say '%s'", e.msg, bad[i].says);
        }
        opt_free(target_options, &t);
    }
}

static void test_bounds(void **state)
{
    (void)state;
    static const char *const yamls[] = {
        "target: {pipeline: 0}",     "target: {lanes: 256}",
        "target: {max_running: 0}",  "target: {max_batch_tokens: 0}",
        "target: {replicas: -1}",    "target: {layer_split: [0, 10]}",
        "target: {max_waiting: -1}", "target: {layer_splits: 3}",
        "target: {model: [a, b]}",
    };
    for (size_t i = 0; i < sizeof yamls / sizeof yamls[0]; i++) {
        struct err e;
        struct target_config t;
        assert_int_equal(read_target(&t, yamls[i], &e), -1);
        assert_int_equal(e.code, ERR_INPUT);
        assert_non_null(strstr(e.msg, "target."));
        opt_free(target_options, &t);
    }
}

/* What is chosen by name is that name: a second list of them would not do for long. */
static void test_kernels(void **state)
{
    (void)state;
    const char *choices = NULL;
    for (size_t i = 0; i < target_options.n_rows; i++) {
        const struct opt *o = &target_options.rows[i];
        choices = strcmp(o->key, "target.kernels") == 0 ? o->choices : choices;
    }
    assert_non_null(choices);
    for (int i = 0; *choices != '\0'; i++) {
        const struct target_config t = {.kernels = i};
        const size_t n = strcspn(choices, "|");
        assert_int_equal(strlen(target_kernels(&t)), n);
        assert_memory_equal(target_kernels(&t), choices, n);
        choices += n + (choices[n] == '|');
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_defaults),      cmocka_unit_test(test_kinds),
        cmocka_unit_test(test_derived_sizes), cmocka_unit_test(test_splits),
        cmocka_unit_test(test_bad_settings),  cmocka_unit_test(test_bounds),
        cmocka_unit_test(test_kernels),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
