/* Whatever happened to the bytes of a result file, reading it ends in an error or in data: never in a
 * crash. */
#include "results/store.h"

#include "core/mem.h"
#include "core/rng.h"
#include "core/str.h"
#include "tests/support/run_files.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define N_FLIPS       100
#define N_TRUNCATIONS 30
#define SEED          8

struct fixture {
    char *folder, *path;
    struct str whole;
};

static int set_up(void **state)
{
    struct err e;
    struct fixture *f = xcalloc(1, sizeof *f);
    f->folder = run_files_folder("store_damage");
    f->path = xasprintf("%s/run.h5", f->folder);
    struct store *s = run_files_create(f->path);
    assert_int_equal(run_files_step(s, f->path, 0, 40, &e), 0);
    struct store_rank after[2] = {{.rank = 0}, {.rank = 1}};
    assert_int_equal(store_finish(s, after, 2, &e), 0);
    store_close(s);
    assert_int_equal(str_read_file(&f->whole, f->path, 1 << 24, &e), 0);
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;
    unlink(f->path);
    rmdir(f->folder);
    str_free(&f->whole);
    free(f->folder);
    free(f->path);
    free(f);
    return 0;
}

static void count_line(void *arg, const char *text)
{
    ++*(int *)arg;
    assert_true(strlen(text) > 0 && strchr(text, '\n') == NULL);
}

static void read_all(struct store *s)
{
    struct err e;
    struct store_meta m;
    if (store_read_meta(s, &m, &e) == 0) {
        store_meta_free(&m);
    }
    for (size_t i = 0; i < store_n_steps(s); i++) {
        struct step_data d;
        uint64_t *offsets;
        uint32_t *dt_us;
        if (store_read_step(s, i, &d, &e) != 0) {
            continue;
        }
        if (store_read_tokens(s, i, 0, d.n, &offsets, &dt_us, &e) == 0) {
            free(offsets);
            free(dt_us);
        }
        step_data_free(&d);
    }
}

/* Whether the file is as good as new. */
static bool exercise(const char *path, const char *bytes, size_t n)
{
    struct err e = {0};
    struct store *s;
    int n_findings = 0, n_lines = 0;
    FILE *out = fopen(path, "w");
    assert_int_equal(fwrite(bytes, 1, n, out), n);
    fclose(out);
    if (store_validate(path, count_line, &n_lines, &n_findings, &e) != 0) {
        assert_int_equal(e.code, ERR_INPUT);
        return false;
    }
    assert_int_equal(n_findings, n_lines);
    if (store_open(&s, path, false, &e) == 0) {
        read_all(s);
        store_close(s);
    }
    return n_findings == 0;
}

static void flipped_bits_do_no_harm(void **state)
{
    struct fixture *f = *state;
    size_t n_noticed = 0;
    assert_true(exercise(f->path, f->whole.data, f->whole.len));
    for (uint64_t i = 0; i < N_FLIPS; i++) {
        size_t at = rng_below(f->whole.len, SEED, RNG_ENTRY, i, 0);
        char mask = (char)(1 << rng_below(8, SEED, RNG_ENTRY, i, 1));
        f->whole.data[at] ^= mask;
        n_noticed += !exercise(f->path, f->whole.data, f->whole.len);
        f->whole.data[at] ^= mask;
    }
    assert_true(n_noticed > 0);
}

static void a_cut_file_is_refused(void **state)
{
    struct fixture *f = *state;
    for (uint64_t i = 0; i < N_TRUNCATIONS; i++) {
        size_t n = rng_below(f->whole.len, SEED, RNG_SHUFFLE, i, 0);
        assert_false(exercise(f->path, f->whole.data, n));
    }
}

static void zeroed_blocks_do_no_harm(void **state)
{
    struct fixture *f = *state;
    char *copy = xmalloc(f->whole.len);
    for (size_t at = 0; at < f->whole.len; at += f->whole.len / 15) {
        size_t n = f->whole.len - at < 512 ? f->whole.len - at : 512;
        memcpy(copy, f->whole.data, f->whole.len);
        memset(copy + at, 0, n);
        exercise(f->path, copy, f->whole.len);
    }
    free(copy);
}

#define with_file(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        with_file(flipped_bits_do_no_harm),
        with_file(a_cut_file_is_refused),
        with_file(zeroed_blocks_do_no_harm),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
