/*
 * Entries come back from the cache as they went in; what is damaged, of another key, or points outside
 * is not taken; of several processes that want the same, one makes it.
 */
#include "core/mem.h"
#include "core/str.h"
#include "datasets/ids_cache.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <xxhash.h>

static const struct ids_cache_key key = {
    .file_hash = 1, .file_len = 100 << 20, .tokenizer_hash = 2, .vocab = 50, .context = 100};

/* Three conversations of two turns. */
static int make(void *arg, struct entries *out, struct err *e)
{
    int *n_made = arg;
    ++*n_made;
    *out = (struct entries){.n_source = 5, .filtered[ENTRIES_CONTEXT] = 2, .n_turns_cut = 1};
    for (uint32_t i = 0; i < 3; i++) {
        struct entry x = {.index = i,
                          .data_at = out->ids.n,
                          .turn_at = out->n_turns,
                          .message_at = out->n_messages,
                          .n_data = 7,
                          .n_turns = 2};
        for (int32_t id = 0; id < 7; id++) {
            token_ids_push(&out->ids, id + (int32_t)i);
        }
        for (uint32_t k = 0; k < 3; k++) {
            struct message m = {.at = 10 * i + k, .len = 4, .role = k % 3};
            assert_int_equal(entries_add_message(out, &m, e), 0);
        }
        struct turn first = {.n_in = 3, .n_out = 2, .n_messages = 1};
        struct turn second = {.n_in = 7, .n_out = 9, .n_messages = 3};
        assert_int_equal(entries_add_turn(out, &first, e), 0);
        assert_int_equal(entries_add_turn(out, &second, e), 0);
        assert_int_equal(entries_add(out, &x, e), 0);
    }
    return 0;
}

static void check_same(const struct entries *a, const struct entries *b)
{
    assert_int_equal(a->n, b->n);
    assert_memory_equal(a->v, b->v, a->n * sizeof *a->v);
    assert_int_equal(a->n_turns, b->n_turns);
    assert_memory_equal(a->turns, b->turns, a->n_turns * sizeof *a->turns);
    assert_int_equal(a->n_messages, b->n_messages);
    assert_memory_equal(a->messages, b->messages, a->n_messages * sizeof *a->messages);
    assert_int_equal(a->ids.n, b->ids.n);
    assert_memory_equal(a->ids.v, b->ids.v, a->ids.n * sizeof *a->ids.v);
    assert_int_equal(a->n_source, b->n_source);
    assert_int_equal(a->n_turns_cut, b->n_turns_cut);
    assert_memory_equal(a->filtered, b->filtered, sizeof a->filtered);
}

/* --- bytes ------------------------------------------------------------------------------------ */

struct bytes {
    struct entries made;
    struct str s;
};

static struct bytes write_bytes(void)
{
    struct bytes b = {0};
    struct err e = {0};
    int n_made = 0;
    assert_int_equal(make(&n_made, &b.made, &e), 0);
    ids_cache_write(&b.made, &key, &b.s);
    return b;
}

static void free_bytes(struct bytes *b)
{
    entries_free(&b->made);
    str_free(&b->s);
}

static void test_bytes_come_back(void **state)
{
    (void)state;
    struct bytes b = write_bytes();
    struct entries got;
    assert_true(ids_cache_read(&got, &key, b.s.data, b.s.len));
    check_same(&got, &b.made);
    free_bytes(&b);
}

static void test_any_damage_is_seen(void **state)
{
    (void)state;
    struct bytes b = write_bytes();
    struct entries got;
    for (size_t len = 0; len < b.s.len; len++) {
        assert_false(ids_cache_read(&got, &key, b.s.data, len));
    }
    for (size_t i = 0; i < b.s.len; i++) {
        b.s.data[i] = (char)(b.s.data[i] ^ 1);
        assert_false(ids_cache_read(&got, &key, b.s.data, b.s.len));
        b.s.data[i] = (char)(b.s.data[i] ^ 1);
    }
    str_append(&b.s, "x", 1);
    assert_false(ids_cache_read(&got, &key, b.s.data, b.s.len));
    free_bytes(&b);
}

static void test_other_keys(void **state)
{
    (void)state;
    struct bytes b = write_bytes();
    for (size_t i = 0; i < sizeof key; i++) {
        struct ids_cache_key other = key;
        struct entries got;
        ((char *)&other)[i] ^= 1;
        assert_false(ids_cache_read(&got, &other, b.s.data, b.s.len));
    }
    free_bytes(&b);
}

/* Entries that are written whole but point outside: a program that is not ours made them. */
static void check_refused(const struct entries *s)
{
    struct str bytes = {0};
    struct entries got;
    ids_cache_write(s, &key, &bytes);
    assert_false(ids_cache_read(&got, &key, bytes.data, bytes.len));
    str_free(&bytes);
}

#define CHECK_REFUSED(b_, field_, value_)                                                          \
    do {                                                                                           \
        __typeof__(b_.made.field_) before = b_.made.field_;                                        \
        b_.made.field_ = (value_);                                                                 \
        check_refused(&b_.made);                                                                   \
        b_.made.field_ = before;                                                                   \
    } while (0)

static void test_what_points_outside_is_refused(void **state)
{
    (void)state;
    struct bytes b = write_bytes();
    CHECK_REFUSED(b, v[1].data_at, 15);
    CHECK_REFUSED(b, v[1].data_at, SIZE_MAX);
    CHECK_REFUSED(b, v[2].n_data, 8);
    CHECK_REFUSED(b, v[2].n_data, 6); // its last turn has 7
    CHECK_REFUSED(b, v[1].turn_at, 5);
    CHECK_REFUSED(b, v[1].turn_at, SIZE_MAX);
    CHECK_REFUSED(b, v[1].n_turns, 0);
    CHECK_REFUSED(b, v[1].message_at, 8);
    CHECK_REFUSED(b, turns[1].n_in, 0);
    CHECK_REFUSED(b, turns[1].n_out, 94); // over the context
    CHECK_REFUSED(b, turns[1].n_messages, 0);
    CHECK_REFUSED(b, turns[5].n_messages, 4);
    CHECK_REFUSED(b, messages[0].at, key.file_len - 3);
    CHECK_REFUSED(b, messages[0].role, 3);
    CHECK_REFUSED(b, ids.v[0], -1);
    CHECK_REFUSED(b, ids.v[20], 50);
    struct entries got;
    assert_true(ids_cache_read(&got, &key, b.s.data, b.s.len)); // as it was
    free_bytes(&b);
}

/* --- files ------------------------------------------------------------------------------------ */

static char *folder;

static int set_up(void **state)
{
    (void)state;
    folder = xstrdup("/tmp/tm_ids_cache_XXXXXX");
    return mkdtemp(folder) == NULL || setenv("TIDEMARK_CACHE", folder, 1) != 0;
}

static int tear_down(void **state)
{
    (void)state;
    char *command = xasprintf("rm -r %s", folder);
    int rc = system(command);
    free(command);
    free(folder);
    return rc;
}

static bool get(const struct ids_cache_key *k, int *n_made)
{
    struct entries got = {0}, made = {0};
    struct err e = {0};
    bool was_cached;
    int ignored = 0;
    assert_int_equal(ids_cache_get(&got, k, make, n_made, &was_cached, &e), 0);
    assert_int_equal(make(&ignored, &made, &e), 0);
    check_same(&got, &made);
    entries_free(&got);
    entries_free(&made);
    return was_cached;
}

static void test_second_time(void **state)
{
    (void)state;
    int n_made = 0;
    assert_false(get(&key, &n_made));
    assert_true(get(&key, &n_made));
    assert_int_equal(n_made, 1);
    struct ids_cache_key other = key;
    other.context = 101;
    assert_false(get(&other, &n_made));
    other.file_len = 1000; // too small to be worth a file
    assert_false(get(&other, &n_made));
    assert_false(get(&other, &n_made));
    assert_int_equal(n_made, 4);
}

static void test_damaged_file_is_made_anew(void **state)
{
    (void)state;
    int n_made = 0;
    struct ids_cache_key k = key;
    k.file_hash = 77;
    assert_false(get(&k, &n_made));
    char *path = xasprintf("%s/ids-%016llx", folder, (unsigned long long)XXH64(&k, sizeof k, 0));
    assert_int_equal(truncate(path, 200), 0);
    assert_false(get(&k, &n_made));
    assert_true(get(&k, &n_made));
    assert_int_equal(n_made, 2);
    free(path);
}

static void test_no_folder(void **state)
{
    (void)state;
    int n_made = 0;
    struct ids_cache_key k = key;
    k.file_hash = 78;
    setenv("TIDEMARK_CACHE", "/proc/nowhere", 1);
    assert_false(get(&k, &n_made));
    assert_false(get(&k, &n_made));
    setenv("TIDEMARK_CACHE", folder, 1);
    assert_int_equal(n_made, 2);
}

static int make_slowly(void *arg, struct entries *out, struct err *e)
{
    usleep(200000);
    return make(arg, out, e);
}

/* Eight processes at once: one of them makes it. */
static void test_one_makes_it(void **state)
{
    (void)state;
    enum {
        N = 8
    };
    pid_t pids[N];
    int n_makers = 0;
    struct ids_cache_key k = key;
    k.file_hash = 79;
    for (int i = 0; i < N; i++) {
        pids[i] = fork();
        if (pids[i] == 0) {
            struct entries got = {0};
            struct err e = {0};
            bool was_cached;
            int n_made = 0;
            int rc = ids_cache_get(&got, &k, make_slowly, &n_made, &was_cached, &e);
            _exit(rc == 0 && got.n == 3 ? n_made : 99);
        }
        assert_true(pids[i] > 0);
    }
    for (int i = 0; i < N; i++) {
        int status;
        assert_int_equal(waitpid(pids[i], &status, 0), pids[i]);
        assert_true(WIFEXITED(status) && WEXITSTATUS(status) <= 1);
        n_makers += WEXITSTATUS(status);
    }
    assert_int_equal(n_makers, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bytes_come_back),
        cmocka_unit_test(test_any_damage_is_seen),
        cmocka_unit_test(test_other_keys),
        cmocka_unit_test(test_what_points_outside_is_refused),
        cmocka_unit_test(test_second_time),
        cmocka_unit_test(test_damaged_file_is_made_anew),
        cmocka_unit_test(test_no_folder),
        cmocka_unit_test(test_one_makes_it),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
