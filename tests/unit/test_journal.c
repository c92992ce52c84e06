#include "results/journal.h"

#include "core/mem.h"
#include "core/rng.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>

#include <cmocka.h>

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#define N_ENTRIES 6
#define HEAD      16u

static const size_t sizes[N_ENTRIES] = {9, 0, 64, 1, 200, 8};
static const enum journal_kind kinds[N_ENTRIES] = {JOURNAL_STEP,   JOURNAL_RECORDS, JOURNAL_SPANS,
                                                   JOURNAL_SERIES, JOURNAL_RECORDS, JOURNAL_DONE};

static uint8_t payload_byte(size_t entry, size_t i)
{
    return (uint8_t)rng_u64(4, RNG_TOKENS, entry, i);
}

static void append_all(struct journal *j)
{
    struct err e;
    for (size_t k = 0; k < N_ENTRIES; k++) {
        uint8_t bytes[256];
        for (size_t i = 0; i < sizes[k]; i++) {
            bytes[i] = payload_byte(k, i);
        }
        assert_int_equal(journal_append(j, kinds[k], bytes, sizes[k], &e), 0);
    }
}

/* Entries that can be read, each compared; *torn as the reader says. */
static size_t read_all(const char *path, bool *torn)
{
    struct err e;
    struct journal_reader *r;
    struct journal_entry entry;
    size_t n = 0;
    assert_int_equal(journal_open(&r, path, &e), 0);
    int more;
    while ((more = journal_next(r, &entry, &e)) == 1) {
        assert_in_range(n, 0, N_ENTRIES - 1);
        assert_int_equal(entry.kind, kinds[n]);
        assert_int_equal(entry.n_bytes, sizes[n]);
        assert_int_equal((uintptr_t)entry.payload % 8, 0);
        for (size_t i = 0; i < entry.n_bytes; i++) {
            uint8_t again;
            assert_int_equal(entry.payload[i], payload_byte(n, i));
            assert_int_equal(journal_pread(r, entry.file_offset + i, &again, 1, &e), 0);
            assert_int_equal(again, entry.payload[i]);
        }
        n++;
    }
    assert_int_equal(more, 0);
    *torn = journal_torn(r);
    journal_reader_close(r);
    return n;
}

struct fixture {
    char *dir, *path;
    uint8_t *whole; // (n)
    size_t n;
};

static int set_up(void **state)
{
    struct err e;
    struct journal *j;
    struct fixture *f = xcalloc(1, sizeof *f);
    f->dir = xasprintf("journal_%d", (int)getpid());
    f->path = journal_path(f->dir, 3);
    assert_int_equal(journal_create(&j, f->dir, 3, &e), 0);
    append_all(j);
    assert_int_equal(journal_sync(j, &e), 0);
    journal_close(j);
    f->whole = xmalloc(4096);
    FILE *in = fopen(f->path, "r");
    f->n = fread(f->whole, 1, 4096, in);
    fclose(in);
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;
    journal_remove(f->dir, 3);
    assert_int_not_equal(access(f->dir, F_OK), 0); // the empty folder goes too
    free(f->dir);
    free(f->path);
    free(f->whole);
    free(f);
    return 0;
}

static void write_file(const char *path, const uint8_t *bytes, size_t n)
{
    FILE *out = fopen(path, "w");
    assert_int_equal(fwrite(bytes, 1, n, out), n);
    fclose(out);
}

/* Where entry k ends in the file. */
static size_t end_of(size_t k)
{
    size_t at = 0;
    for (size_t i = 0; i <= k; i++) {
        at += HEAD + (sizes[i] + 7) / 8 * 8;
    }
    return at;
}

static void what_is_appended_is_read(void **state)
{
    struct fixture *f = *state;
    bool torn;
    assert_string_equal(strrchr(f->path, '/'), "/step_0003.journal");
    assert_int_equal(f->n, end_of(N_ENTRIES - 1));
    assert_int_equal(read_all(f->path, &torn), N_ENTRIES);
    assert_false(torn);
}

static void a_torn_tail_is_cut_at_every_byte(void **state)
{
    struct fixture *f = *state;
    for (size_t len = 0; len <= f->n; len++) {
        bool torn, at_end = len == 0;
        size_t whole = 0;
        for (size_t k = 0; k < N_ENTRIES; k++) {
            whole += end_of(k) <= len;
            at_end |= end_of(k) == len;
        }
        write_file(f->path, f->whole, len);
        assert_int_equal(read_all(f->path, &torn), whole);
        assert_int_equal(torn, !at_end);
    }
}

static void damage_ends_the_journal_there(void **state)
{
    struct fixture *f = *state;
    for (size_t at = 0; at < f->n; at++) {
        bool torn;
        size_t hit = 0;
        while (end_of(hit) <= at) {
            hit++;
        }
        size_t begin = hit == 0 ? 0 : end_of(hit - 1);
        bool padding = at >= begin + HEAD + sizes[hit];
        f->whole[at] ^= 0x10;
        write_file(f->path, f->whole, f->n);
        f->whole[at] ^= 0x10;
        assert_int_equal(read_all(f->path, &torn), padding ? N_ENTRIES : hit);
        assert_int_equal(torn, !padding);
    }
}

static void reading_outside_is_an_error(void **state)
{
    struct fixture *f = *state;
    struct err e = {0};
    struct journal_reader *r;
    uint8_t byte;
    assert_int_equal(journal_open(&r, f->path, &e), 0);
    assert_int_equal(journal_pread(r, f->n, &byte, 1, &e), -1);
    assert_int_equal(e.code, ERR_ENV);
    assert_int_equal(journal_pread(r, UINT64_MAX, &byte, 1, &e), -1);
    assert_int_equal(journal_pread(r, f->n - 1, &byte, 1, &e), 0);
    journal_reader_close(r);
}

static void a_missing_file_is_an_error(void **state)
{
    (void)state;
    struct err e = {0};
    struct journal_reader *r;
    assert_int_equal(journal_open(&r, "nowhere/step_0000.journal", &e), -1);
    assert_int_equal(e.code, ERR_ENV);
    assert_non_null(strstr(e.msg, "nowhere/step_0000.journal"));
}

/* The disk is full in the middle of an entry: what came before stays, and writing can go on. */
static void a_failed_append_leaves_no_half_entry(void **state)
{
    struct fixture *f = *state;
    struct err e = {0};
    struct journal *j;
    struct rlimit limit, old;
    uint8_t bytes[4096] = {0};
    bool torn;
    signal(SIGXFSZ, SIG_IGN);
    getrlimit(RLIMIT_FSIZE, &old);
    limit = (struct rlimit){.rlim_cur = f->n + 100, .rlim_max = old.rlim_max};
    assert_int_equal(journal_create(&j, f->dir, 3, &e), 0);
    append_all(j);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
    assert_int_equal(journal_append(j, JOURNAL_RECORDS, bytes, sizeof bytes, &e), -1);
    setrlimit(RLIMIT_FSIZE, &old);
    assert_int_equal(e.code, ERR_ENV);
    assert_int_equal(read_all(f->path, &torn), N_ENTRIES);
    assert_false(torn);
    journal_close(j);
}

static void leftover_steps_are_listed(void **state)
{
    struct fixture *f = *state;
    struct err e;
    struct journal *j;
    uint32_t *steps;
    size_t n;
    static const char *const others[] = {"step_1.journal", "step_0001.journal.old", "notes"};
    assert_int_equal(journal_create(&j, f->dir, 12345, &e), 0);
    journal_close(j);
    for (size_t i = 0; i < 3; i++) {
        char *path = xasprintf("%s/%s", f->dir, others[i]);
        write_file(path, f->whole, 1);
        free(path);
    }
    assert_int_equal(journal_list(f->dir, &steps, &n, &e), 0);
    assert_int_equal(n, 2);
    assert_int_equal(steps[0], 3);
    assert_int_equal(steps[1], 12345);
    free(steps);
    for (size_t i = 0; i < 3; i++) {
        char *path = xasprintf("%s/%s", f->dir, others[i]);
        unlink(path);
        free(path);
    }
    journal_remove(f->dir, 12345);
    assert_int_equal(journal_list("nowhere", &steps, &n, &e), 0);
    assert_int_equal(n, 0);
    free(steps);
}

#define with_journal(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        with_journal(what_is_appended_is_read),
        with_journal(a_torn_tail_is_cut_at_every_byte),
        with_journal(damage_ends_the_journal_there),
        with_journal(reading_outside_is_an_error),
        cmocka_unit_test(a_missing_file_is_an_error),
        with_journal(a_failed_append_leaves_no_half_entry),
        with_journal(leftover_steps_are_listed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
