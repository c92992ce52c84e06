/* A preset as a folder: the same model, value for value. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>

#include <cmocka.h>

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/mem.h"
#include "workers/weights/maker.h"
#include "workers/weights/tensors.h"
#include "workers/weights/weights.h"

static char folder[64];

static void remove_folder(void)
{
    DIR *dir = opendir(folder);
    struct dirent *entry;
    while (dir && (entry = readdir(dir)) != NULL) {
        char *path = xasprintf("%s/%s", folder, entry->d_name);
        unlink(path);
        free(path);
    }
    if (dir) {
        closedir(dir);
    }
    rmdir(folder);
}

static void make(const char *preset, int64_t shard_bytes, uint64_t seed)
{
    struct err e = {0};
    snprintf(folder, sizeof folder, "/tmp/tidemark-maker-%d", (int)getpid());
    const struct maker_config cfg = {
        .preset = preset, .folder = folder, .seed = seed, .shard_bytes = shard_bytes};
    if (maker_write(&cfg, &e)) {
        fail_msg("%s", e.msg);
    }
}

struct pair {
    struct weights *generated, *files;
    struct arch arch;
    size_t n_same, n_differ;
};

static void compare_tensor(struct pair *p, enum weights_id id, int layer, int expert)
{
    struct weights_tensor a, b;
    struct err e = {0};
    assert_int_equal(weights_find(p->generated, id, layer, expert, &a, &e), 0);
    if (weights_find(p->files, id, layer, expert, &b, &e)) {
        fail_msg("%s", e.msg);
    }
    assert_int_equal(a.stored, b.stored);
    a.dtype = b.dtype = ARCH_F32;
    size_t n = (size_t)(a.n_rows * a.n_cols);
    float *x = xcalloc(n, sizeof *x), *y = xcalloc(n, sizeof *y);
    const void *u = weights_rows(&a, 0, a.n_rows, x), *v = weights_rows(&b, 0, b.n_rows, y);
    bool same = memcmp(u, v, n * sizeof *x) == 0;
    p->n_same += same;
    p->n_differ += !same;
    free(x);
    free(y);
}

static void compare_layer(struct pair *p, int layer)
{
    for (int i = 0; i < WEIGHTS_N; i++) {
        enum weights_id id = (enum weights_id)i;
        if ((!tensors_is_of_layer(id) && layer > 0) || !tensors_has(&p->arch, id, layer)) {
            continue;
        }
        bool of_expert = tensors_is_of_expert(id);
        for (int x = of_expert ? 0 : -1; x < (of_expert ? p->arch.moe.n_experts : 0); x++) {
            compare_tensor(p, id, layer, x);
        }
    }
}

static struct pair compare(const char *preset)
{
    struct pair p = {0};
    struct arch again;
    struct err e = {0};
    char *name = xasprintf("preset:%s", preset);
    assert_int_equal(arch_open(name, &p.arch, &e), 0);
    if (arch_open(folder, &again, &e)) {
        fail_msg("%s", e.msg);
    }
    assert_memory_equal(&again, &p.arch, sizeof again);
    assert_int_equal(weights_open(&p.generated, name, &p.arch, &e), 0);
    if (weights_open(&p.files, folder, &p.arch, &e)) {
        fail_msg("%s", e.msg);
    }
    assert_int_equal(weights_check(folder, &p.arch, &e), 0);
    for (int layer = 0; layer < p.arch.n_layers; layer++) {
        compare_layer(&p, layer);
    }
    weights_close(p.generated);
    weights_close(p.files);
    free(name);
    return p;
}

static void every_family_in_one_file_and_in_many(void **state)
{
    (void)state;
    static const char *const presets[] = {"tiny",         "tiny-qwen2",    "tiny-gemma2",
                                          "tiny-gpt-oss", "tiny-deepseek", "tiny-deepseek-1l",
                                          "tiny-2l"};
    for (size_t i = 0; i < sizeof presets / sizeof *presets; i++) {
        for (int k = 0; k < 2; k++) {
            make(presets[i], k == 0 ? INT64_MAX : 200000, 0);
            struct pair p = compare(presets[i]);
            if (p.n_differ > 0 || p.n_same < 9) {
                fail_msg("%s: %zu tensors alike, %zu not", presets[i], p.n_same, p.n_differ);
            }
            char *single = xasprintf("%s/model.safetensors", folder);
            assert_int_equal(access(single, F_OK) == 0, k == 0);
            free(single);
            remove_folder();
        }
    }
}

static void another_seed_is_another_model(void **state)
{
    (void)state;
    make("tiny", INT64_MAX, 7);
    struct pair p = compare("tiny");
    assert_int_equal(p.n_same, 2 * 4 + 1); // norms
    assert_int_equal(p.n_differ, 7 * 4 + 2);
    struct err e = {0};
    const struct maker_config cfg = {.preset = "tiny", .folder = folder, .shard_bytes = INT64_MAX};
    assert_int_equal(maker_write(&cfg, &e), -1); // nothing is overwritten
    assert_int_equal(e.code, ERR_INPUT);
    assert_non_null(strstr(e.msg, "not empty"));
    remove_folder();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_family_in_one_file_and_in_many),
        cmocka_unit_test(another_seed_is_another_model),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
