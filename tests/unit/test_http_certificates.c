/*
 * What a new connection costs the thread that makes it. The rest of the client is tested through the command
 * line, tests/cli/endpoint.py and tls.py, where servers are whole.
 */
#include "core/http.h"

#include "core/clock.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#define LATER_CALLS 8
#define BUNDLE_NS   (10 * NS_PER_MS) // less was no whole bundle of certificates

/* A server that ends each connection as soon as it is there. */
static int listen_anywhere(char *url, size_t size)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t n = sizeof a;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&a, n), 0);
    assert_int_equal(listen(fd, LATER_CALLS), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&a, &n), 0);
    snprintf(url, size, "https://127.0.0.1:%d/", ntohs(a.sin_port));
    return fd;
}

static void on_end(void *arg, const struct http_end *end)
{
    *(enum http_fate *)arg = end->fate;
}

/* One call over a connection of its own: the thread's time for it. */
static int64_t call_ns(struct http *h, const char *url, int server)
{
    enum http_fate fate = HTTP_ANSWERED;
    const struct http_request r = {.url = url, .arg = &fate, .end = on_end};
    int64_t t_cpu_ns = clock_thread_cpu_ns();
    (void)http_start(h, &r);
    while (fate == HTTP_ANSWERED) {
        (void)http_wait(h, NS_PER_MS);
        int fd = accept(server, NULL, NULL);
        if (fd >= 0) {
            close(fd);
        }
    }
    assert_int_equal(fate, HTTP_TLS);
    return clock_thread_cpu_ns() - t_cpu_ns;
}

static void the_systems_certificates_are_read_once(void **state)
{
    (void)state;
    const struct http_settings settings = {0};
    struct http *h;
    struct err e = {0};
    char url[64];
    int server = listen_anywhere(url, sizeof url);
    assert_int_equal(http_open(&h, &settings, &e), 0);
    int64_t first_ns = call_ns(h, url, server);
    int64_t later_ns = 0;
    for (int i = 0; i < LATER_CALLS; i++) {
        later_ns += call_ns(h, url, server);
    }
    http_close(h);
    close(server);
    if (first_ns < BUNDLE_NS) {
        skip(); // this machine trusts nobody, or reads faster than can be seen
    }
    if (later_ns > LATER_CALLS * first_ns / 4) {
        fail_msg("%d more connections took %.1f ms, the first one %.1f ms", LATER_CALLS,
                 (double)later_ns / 1e6, (double)first_ns / 1e6);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_systems_certificates_are_read_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
