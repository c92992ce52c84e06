#include "tests/support/http_rig.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/clock.h"

#define DEADLINE_NS   (60 * NS_PER_S)
#define PIECE         65536 // read at a time
#define RECEIVE_BYTES 16384 // of the server's sockets: writers are soon held up

/* --- both sides ----------------------------------------------------------------------------------- */

/* Once around a wait that began at t_ns. */
static void go_on(struct http_rig *r, int64_t t_ns)
{
    assert_true(clock_local_ns() - t_ns < DEADLINE_NS);
    (void)http_wait(r->h, NS_PER_MS);
}

static int bound_socket(const char *host, int *port)
{
    struct addrinfo *a, hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICHOST};
    struct sockaddr_storage at;
    socklen_t n = sizeof at;
    assert_int_equal(getaddrinfo(host, "0", &hints, &a), 0);
    int fd = socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    bool is_bound = fd >= 0 && bind(fd, a->ai_addr, a->ai_addrlen) == 0;
    freeaddrinfo(a);
    if (!is_bound) {
        close(fd);
        return -1;
    }
    assert_int_equal(getsockname(fd, (struct sockaddr *)&at, &n), 0);
    *port = ntohs(at.ss_family == AF_INET6 ? ((struct sockaddr_in6 *)&at)->sin6_port
                                           : ((struct sockaddr_in *)&at)->sin_port);
    return fd;
}

bool http_rig_listen(struct http_rig *r, const char *host)
{
    int n = RECEIVE_BYTES;
    r->listen_fd = bound_socket(host, &r->port);
    if (r->listen_fd < 0) {
        return false;
    }
    assert_int_equal(setsockopt(r->listen_fd, SOL_SOCKET, SO_RCVBUF, &n, sizeof n), 0);
    assert_int_equal(listen(r->listen_fd, HTTP_RIG_SOCKETS), 0);
    snprintf(r->url, sizeof r->url, strchr(host, ':') ? "http://[%s]:%d/" : "http://%s:%d/", host,
             r->port);
    return true;
}

void http_rig_open(struct http_rig *r, const struct http_settings *s)
{
    struct err e = {0};
    *r = (struct http_rig){0};
    assert_true(http_rig_listen(r, "127.0.0.1"));
    assert_int_equal(http_open(&r->h, s ? s : &(struct http_settings){0}, &e), 0);
}

void http_rig_close(struct http_rig *r)
{
    http_close(r->h);
    close(r->listen_fd);
    for (size_t i = 0; i < r->n_fds; i++) {
        if (r->fds[i] >= 0) {
            close(r->fds[i]);
        }
    }
}

int http_rig_dead_port(int *fd)
{
    int port = 0;
    *fd = bound_socket("127.0.0.1", &port);
    assert_true(*fd >= 0);
    return port;
}

void http_rig_turn(struct http_rig *r)
{
    for (int i = 0; i < 20; i++) {
        go_on(r, clock_local_ns());
    }
}

/* --- the client ----------------------------------------------------------------------------------- */

static int on_data(void *arg, const struct http_call *call, const char *bytes, size_t n,
                   int64_t t_ns)
{
    struct http_rig_call *c = arg;
    assert_false(c->is_over || c->is_cancelled);
    str_append(&c->body, bytes, n);
    c->n_data++;
    c->status = http_status(call);
    c->is_sent = http_is_sent(call);
    snprintf(c->type, sizeof c->type, "%s", http_content_type(call));
    assert_true(t_ns <= clock_now_ns());
    c->t_data_ns = t_ns;
    return c->stops ? -1 : 0;
}

static void on_end(void *arg, const struct http_end *end)
{
    struct http_rig_call *c = arg;
    assert_false(c->is_over || c->is_cancelled || c->rig->is_starting);
    c->is_over = true;
    c->end = *end;
    snprintf(c->message, sizeof c->message, "%s", end->message);
    c->end.message = c->message;
}

void http_rig_start(struct http_rig *r, struct http_rig_call *c, const struct http_request *request)
{
    struct http_request q = *request;
    q.url = q.url ? q.url : r->url;
    q.arg = c;
    q.data = on_data;
    q.end = on_end;
    c->rig = r;
    r->is_starting = true;
    c->call = http_start(r->h, &q);
    r->is_starting = false;
}

void http_rig_get(struct http_rig *r, struct http_rig_call *c)
{
    http_rig_start(r, c, &(struct http_request){0});
}

void http_rig_cancel(struct http_rig_call *c)
{
    c->is_cancelled = true;
    http_cancel(c->call);
}

void http_rig_forget(struct http_rig_call *c)
{
    str_free(&c->body);
    *c = (struct http_rig_call){0};
}

void http_rig_await(struct http_rig_call *c, enum http_fate fate, int status)
{
    for (int64_t t_ns = clock_local_ns(); !c->is_over;) {
        go_on(c->rig, t_ns);
    }
    assert_int_equal(c->end.fate, fate);
    assert_int_equal(c->end.status, status);
    assert_true((c->end.first_byte_ns >= 0) == (status > 0 || c->end.code == 8));
}

void http_rig_await_body(struct http_rig_call *c, size_t n)
{
    for (int64_t t_ns = clock_local_ns(); c->body.len < n;) {
        go_on(c->rig, t_ns);
    }
    assert_int_equal(c->body.len, n);
}

/* --- the server ----------------------------------------------------------------------------------- */

bool http_rig_has_newcomer(struct http_rig *r)
{
    struct pollfd p = {.fd = r->listen_fd, .events = POLLIN};
    return poll(&p, 1, 0) == 1;
}

int http_rig_accept(struct http_rig *r)
{
    for (int64_t t_ns = clock_local_ns(); !http_rig_has_newcomer(r);) {
        go_on(r, t_ns);
    }
    int fd = accept(r->listen_fd, NULL, NULL);
    assert_true(fd >= 0 && r->n_fds < HTTP_RIG_SOCKETS);
    r->fds[r->n_fds++] = fd;
    return fd;
}

static bool is_whole(const struct str *s, bool head_only)
{
    const char *end = s->len > 0 ? strstr(s->data, "\r\n\r\n") : NULL;
    const char *length = s->len > 0 ? strstr(s->data, "\r\nContent-Length: ") : NULL;
    size_t n_body = length && length < end ? strtoull(length + 18, NULL, 10) : 0;
    return end && (head_only || s->len == (size_t)(end + 4 - s->data) + n_body);
}

void http_rig_read(struct http_rig *r, int fd, struct str *request, bool head_only)
{
    char piece[PIECE];
    str_clear(request);
    for (int64_t t_ns = clock_local_ns(); !is_whole(request, head_only);) {
        ssize_t n = recv(fd, piece, head_only ? 1 : sizeof piece, MSG_DONTWAIT);
        assert_true(n > 0 || (n < 0 && errno == EAGAIN));
        str_append(request, piece, n > 0 ? (size_t)n : 0);
        if (n < 0) {
            go_on(r, t_ns);
        }
    }
}

void http_rig_send(int fd, const char *text)
{
    size_t n = strlen(text);
    assert_int_equal(send(fd, text, n, MSG_NOSIGNAL), n);
}

void http_rig_await_close(struct http_rig *r, int fd)
{
    char piece[PIECE];
    ssize_t n;
    for (int64_t t_ns = clock_local_ns(); (n = recv(fd, piece, sizeof piece, MSG_DONTWAIT)) != 0;) {
        if (n < 0 && errno != EAGAIN) {
            assert_int_equal(errno, ECONNRESET);
            return;
        }
        go_on(r, t_ns);
    }
}

void http_rig_hang_up(struct http_rig *r, int fd, bool reset)
{
    struct linger linger = {.l_onoff = reset};
    assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof linger), 0);
    for (size_t i = 0; i < r->n_fds; i++) {
        r->fds[i] = r->fds[i] == fd ? -1 : r->fds[i];
    }
    close(fd);
}

void http_rig_serve(struct http_rig *r, int fd)
{
    struct str request = {0};
    http_rig_read(r, fd, &request, false);
    http_rig_send(fd, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    str_free(&request);
}
