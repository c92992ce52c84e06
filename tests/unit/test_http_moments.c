/*
 * The HTTP client at moments that are hard to meet: its turn on the core ends between a look at a socket and
 * the read, a call ends in the moment it begins. Reads, also libcurl's, come through here.
 */
#include "core/http.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "core/clock.h"
#include "tests/support/http_rig.h"

#define AWAY_NS (20 * NS_PER_MS)

static struct http_rig rig;
static struct http_rig_call call;
static int late_fd = -1;       // before the next read, time passes and bytes come from there
static int64_t t_late_ns = -1; // when they were sent

static void before_read(void)
{
    int fd = late_fd;
    if (fd >= 0) {
        late_fd = -1;
        clock_sleep_until_ns(clock_local_ns() + AWAY_NS);
        t_late_ns = clock_now_ns();
        http_rig_send(fd, "late");
    }
}

ssize_t recv(int fd, void *to, size_t n, int flags)
{
    before_read();
    return recvfrom(fd, to, n, flags, NULL, NULL);
}

ssize_t recvmsg(int fd, struct msghdr *m, int flags)
{
    before_read();
    return syscall(SYS_recvmsg, fd, m, flags);
}

static int close_rig(void **state)
{
    (void)state;
    http_rig_close(&rig);
    http_rig_forget(&call);
    return 0;
}

/* The client again, with other settings, before the same server. */
static void set(const struct http_settings *s)
{
    struct err e = {0};
    http_close(rig.h);
    assert_int_equal(http_open(&rig.h, s, &e), 0);
}

/* A stamp is never of before its bytes were sent. */
static void check_stamp_of_late_bytes(const char *url)
{
    struct str said = {0};
    const int64_t slack_ns = NS_PER_MS; // the kernel's stamps are of another clock
    http_rig_start(&rig, &call, &(struct http_request){.url = url});
    int fd = http_rig_accept(&rig);
    http_rig_read(&rig, fd, &said, false);
    http_rig_send(fd, "HTTP/1.1 200 OK\r\n\r\n");
    http_rig_turn(&rig);
    late_fd = fd;
    http_rig_send(fd, "soon ");
    http_rig_await_body(&call, strlen("soon late"));
    assert_true(late_fd < 0 && t_late_ns >= 0);
    assert_true(call.t_data_ns >= t_late_ns - slack_ns);
    str_free(&said);
}

static void stamps_what_came_before_a_late_read(void **state)
{
    (void)state;
    http_rig_open(&rig, NULL);
    check_stamp_of_late_bytes(NULL);
}

static void stamps_what_came_before_a_late_read_of_libcurl(void **state)
{
    (void)state;
    http_rig_open(&rig, NULL);
    set(&(struct http_settings){.proxy = rig.url});
    check_stamp_of_late_bytes("http://127.0.0.1/");
}

/* No socket will ever tell of it. */
static void tells_what_ended_as_it_began(void **state)
{
    (void)state;
    static char address[] = "192.0.2.1";
    char *const not_ours[] = {address};
    const struct http_settings s = {.local_addresses = not_ours, .n_local_addresses = 1};
    http_rig_open(&rig, &s);
    int64_t begin_ns = clock_local_ns();
    http_rig_start(&rig, &call, &(struct http_request){.url = "https://127.0.0.1:1/"});
    (void)http_wait(rig.h, 10 * NS_PER_S);
    assert_true(call.is_over);
    assert_int_equal(call.end.fate, HTTP_REFUSED);
    assert_true(clock_local_ns() - begin_ns < 10 * NS_PER_S);
}

#define TEST(f) cmocka_unit_test_teardown(f, close_rig)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(stamps_what_came_before_a_late_read),
        TEST(stamps_what_came_before_a_late_read_of_libcurl),
        TEST(tells_what_ended_as_it_began),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
