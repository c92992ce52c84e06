#include "core/comm.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/clock.h"
#include "core/clocksync.h"

static struct comm *open_self(size_t max_msg_bytes)
{
    struct comm *c;
    struct err e = {0};
    assert_int_equal(comm_open(&c, &e), 0);
    assert_int_equal(comm_start(c, max_msg_bytes, &e), 0);
    return c;
}

static void knows_itself(void **state)
{
    (void)state;
    assert_false(comm_launched());
    struct comm *c = open_self(64);
    char host[65] = "";
    gethostname(host, sizeof host - 1);
    assert_int_equal(comm_rank(c), 0);
    assert_int_equal(comm_size(c), 1);
    assert_string_equal(comm_host(c, 0), host);
    assert_int_equal(comm_pid(c, 0), getpid());
    assert_int_equal(comm_ranks_on_this_host(c), 1);
    assert_int_equal(comm_index_on_this_host(c), 0);
    assert_string_equal(comm_library(), "none (single process)");
    comm_close(c);
}

static void messages_arrive_in_order(void **state)
{
    (void)state;
    struct comm *c = open_self(4096);
    struct comm_msg m;
    struct err e = {0};
    unsigned char text[4096];
    assert_int_equal(comm_poll(c, &m, &e), 0);
    for (int i = 0; i < 500; i++) {
        memset(text, i & 0xff, sizeof text);
        assert_int_equal(comm_post(c, 0, i, text, (size_t)(i * 8), &e), 0);
    }
    for (int i = 0; i < 500; i++) {
        memset(text, i & 0xff, sizeof text);
        assert_int_equal(comm_poll(c, &m, &e), 1);
        assert_int_equal(m.src, 0);
        assert_int_equal(m.tag, i);
        assert_int_equal(m.n_bytes, i * 8);
        assert_int_equal((uintptr_t)m.data % 8, 0);
        assert_memory_equal(m.data, text, m.n_bytes);
    }
    assert_int_equal(comm_poll(c, &m, &e), 0);
    assert_int_equal(comm_unsent(c), 0);
    comm_close(c);
}

static void a_message_outlives_the_posts_it_causes(void **state)
{
    (void)state;
    struct comm *c = open_self(64);
    struct comm_msg m;
    struct err e = {0};
    assert_int_equal(comm_post(c, 0, 1, "question", 9, &e), 0);
    assert_int_equal(comm_poll(c, &m, &e), 1);
    for (int i = 0; i < 100; i++) {
        assert_int_equal(comm_post(c, 0, 2, m.data, m.n_bytes, &e), 0);
    }
    assert_string_equal(m.data, "question");
    comm_close(c); // with messages still waiting
}

static void a_full_backlog_is_an_error(void **state)
{
    (void)state;
    size_t n_bytes = (size_t)16 << 20;
    char *big = calloc(1, n_bytes);
    struct comm *c = open_self(n_bytes);
    struct err e = {0};
    int n = 0;
    while (n < 1000 && comm_post(c, 0, 0, big, n_bytes, &e) == 0) {
        n++;
    }
    assert_in_range(n, 16, 999);
    assert_int_equal(e.code, ERR_ENV);
    assert_non_null(strstr(e.msg, "to itself"));
    comm_close(c);
    free(big);
}

static void bulk_matches_by_tag(void **state)
{
    (void)state;
    struct comm *c = open_self(64);
    struct err e = {0};
    struct comm_req s1 = {0}, s2 = {0}, s3 = {0}, r1 = {0}, r2 = {0}, r3 = {0};
    char a[8] = "", b[8] = "", z[8] = "";
    assert_int_equal(comm_test(c, &r1, &e), 1); // nothing under way
    assert_int_equal(comm_isend(c, "one", 4, 0, 7, &s1, &e), 0);
    assert_int_equal(comm_isend(c, "two", 4, 0, 7, &s2, &e), 0);
    assert_int_equal(comm_test(c, &s1, &e), 0);
    assert_int_equal(comm_irecv(c, a, sizeof a, 0, 8, &r1, &e), 0);
    assert_int_equal(comm_test(c, &r1, &e), 0);
    assert_int_equal(comm_irecv(c, b, sizeof b, 0, 7, &r2, &e), 0);
    assert_int_equal(comm_test(c, &r2, &e), 1);
    assert_int_equal(r2.n_bytes, 4);
    assert_string_equal(b, "one");
    assert_int_equal(comm_test(c, &s1, &e), 1);
    assert_int_equal(comm_test(c, &s2, &e), 0);
    assert_int_equal(comm_isend(c, NULL, 0, 0, 8, &s3, &e), 0); // empty, to a waiting receive
    assert_int_equal(comm_test(c, &s3, &e), 1);
    assert_int_equal(comm_test(c, &r1, &e), 1);
    assert_int_equal(r1.n_bytes, 0);
    assert_int_equal(comm_irecv(c, z, 2, 0, 7, &r3, &e), 0); // too small for "two"
    assert_int_equal(comm_test(c, &r3, &e), -1);
    assert_non_null(strstr(e.msg, "2 bytes"));
    assert_int_equal(comm_test(c, &s2, &e), 1);
    comm_close(c);
}

static void a_cancelled_receive_takes_nothing(void **state)
{
    (void)state;
    struct comm *c = open_self(64);
    struct err e = {0};
    struct comm_req s = {0}, r = {0};
    char a[8] = "none", b[8] = "";
    assert_int_equal(comm_irecv(c, a, sizeof a, 0, 1, &r, &e), 0);
    comm_cancel(c, &r);
    assert_null(r.handle);
    comm_cancel(c, &r);
    assert_int_equal(comm_isend(c, "text", 5, 0, 1, &s, &e), 0);
    assert_int_equal(comm_irecv(c, b, sizeof b, 0, 1, &r, &e), 0);
    assert_int_equal(comm_test(c, &r, &e), 1);
    assert_string_equal(a, "none");
    assert_string_equal(b, "text");
    comm_close(c);
}

static void collectives_of_one(void **state)
{
    (void)state;
    struct comm *c = open_self(64);
    struct err e = {0};
    int x = 5, y = 0;
    assert_int_equal(comm_watch(c, NS_PER_S, &e), 0);
    assert_int_equal(comm_barrier(c, NS_PER_S, &e), 0);
    assert_int_equal(comm_bcast(c, &x, sizeof x, 0, &e), 0);
    assert_int_equal(comm_gather(c, &x, sizeof x, &y, &e), 0);
    assert_int_equal(y, 5);
    assert_int_equal(comm_pause(c, 0, &e), 0);
    assert_int_equal(comm_agree(c, &e), 0);
    err_set(&e, ERR_INPUT, "the key is wrong");
    assert_int_equal(comm_agree(c, &e), -1);
    assert_int_equal(e.code, ERR_INPUT);
    assert_string_equal(e.msg, "the key is wrong");
    struct clocksync sync = {1, 1};
    assert_int_equal(clocksync_measure(c, 10, &sync, &e), 0);
    assert_int_equal(sync.offset_ns, 0);
    assert_int_equal(sync.bound_ns, 0);
    comm_close(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(knows_itself),
        cmocka_unit_test(messages_arrive_in_order),
        cmocka_unit_test(a_message_outlives_the_posts_it_causes),
        cmocka_unit_test(a_full_backlog_is_an_error),
        cmocka_unit_test(bulk_matches_by_tag),
        cmocka_unit_test(a_cancelled_receive_takes_nothing),
        cmocka_unit_test(collectives_of_one),
    };
    unsetenv("OMPI_COMM_WORLD_SIZE");
    unsetenv("PMIX_RANK");
    return cmocka_run_group_tests(tests, NULL, NULL);
}
