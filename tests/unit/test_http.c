/*
 * The client against a server that the test plays: tests/support/http_rig.h. No proxy, no TLS: libcurl's
 * way has tests of whole runs (tests/cli/tls.py).
 */
#include "core/http.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/clock.h"
#include "tests/support/http_rig.h"

#define OK         "HTTP/1.1 200 OK\r\n"
#define OK_2       OK "Content-Length: 2\r\n\r\n"
#define BIG        (12 << 20) // more than the buffers of two sockets hold
#define N(list)    (sizeof(list) / sizeof((list)[0]))
#define ANSWERED_2 HTTP_ANSWERED, 200

static struct http_rig rig;
static struct http_rig_call call[12];

static int open_rig(void **state)
{
    (void)state;
    http_rig_open(&rig, NULL);
    return 0;
}

static int close_rig(void **state)
{
    (void)state;
    http_rig_close(&rig);
    for (size_t i = 0; i < N(call); i++) {
        http_rig_forget(&call[i]);
    }
    return 0;
}

/* The client again, with other settings. */
static void set(const struct http_settings *s)
{
    http_rig_close(&rig);
    http_rig_open(&rig, s);
}

/* A call from beginning to end over a connection that is new. */
static int serve_new(struct http_rig_call *c)
{
    http_rig_get(&rig, c);
    int fd = http_rig_accept(&rig);
    http_rig_serve(&rig, fd);
    http_rig_await(c, ANSWERED_2);
    return fd;
}

/* n calls at once, so that n connections are idle behind them. */
static void serve_side_by_side(int *fds, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        http_rig_get(&rig, &call[i]);
        fds[i] = http_rig_accept(&rig);
    }
    for (size_t i = 0; i < n; i++) {
        http_rig_serve(&rig, fds[i]);
        http_rig_await(&call[i], ANSWERED_2);
    }
}

/* --- what is sent ---------------------------------------------------------------------------------- */

static void is_sent(const struct http_request *request, const char *wanted)
{
    struct http_rig_call c = {0};
    struct str said = {0};
    http_rig_start(&rig, &c, request);
    int fd = http_rig_accept(&rig);
    http_rig_read(&rig, fd, &said, false);
    assert_string_equal(said.data, wanted);
    http_rig_send(fd, OK "Connection: close\r\nContent-Length: 2\r\n\r\nok");
    http_rig_await(&c, ANSWERED_2);
    http_rig_forget(&c);
    str_free(&said);
}

static void asks_for_what_the_url_says(void **state)
{
    (void)state;
    static const char *const cases[][2] = {
        {"", "/"},
        {"/", "/"},
        {"/v1/models?x=1&y=http://b/", "/v1/models?x=1&y=http://b/"},
        {"?x=1", "/?x=1"},
        {"/a#part", "/a"},
        {"#part", "/"},
    };
    for (size_t i = 0; i < N(cases); i++) {
        char url[128], wanted[256];
        snprintf(url, sizeof url, "http://127.0.0.1:%d%s", rig.port, cases[i][0]);
        snprintf(wanted, sizeof wanted,
                 "GET %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nAccept: */*\r\n\r\n", cases[i][1],
                 rig.port);
        is_sent(&(struct http_request){.url = url}, wanted);
    }
}

static void sends_headers_id_and_body(void **state)
{
    (void)state;
    static const char *const lines[] = {"host: other", "ACCEPT: text/event-stream", "X: 1"};
    struct http_headers *headers = http_headers_create(lines, N(lines));
    set(&(struct http_settings){.user_agent = "tidemark"});
    is_sent(
        &(struct http_request){.headers = headers, .id = "7-1", .body = "hello", .n_body_bytes = 5},
        "POST / HTTP/1.1\r\nUser-Agent: tidemark\r\nhost: other\r\nACCEPT: text/event-stream\r\n"
        "X: 1\r\nx-request-id: 7-1\r\nContent-Length: 5\r\n\r\nhello");
    is_sent(&(struct http_request){.headers = headers},
            "GET / HTTP/1.1\r\nUser-Agent: tidemark\r\nhost: other\r\nACCEPT: text/event-stream\r\n"
            "X: 1\r\n\r\n");
    is_sent(
        &(struct http_request){.headers = headers, .body = "", .n_body_bytes = 0},
        "POST / HTTP/1.1\r\nUser-Agent: tidemark\r\nhost: other\r\nACCEPT: text/event-stream\r\n"
        "X: 1\r\nContent-Length: 0\r\n\r\n");
    http_headers_free(headers);
}

static char *big_body(void)
{
    char *body = malloc(BIG);
    assert_non_null(body);
    for (size_t i = 0; i < BIG; i++) {
        body[i] = (char)('a' + i % 23);
    }
    return body;
}

static void sends_big_bodies_in_parts(void **state)
{
    (void)state;
    struct str said = {0};
    char *body = big_body();
    http_rig_start(&rig, &call[0], &(struct http_request){.body = body, .n_body_bytes = BIG});
    int fd = http_rig_accept(&rig);
    http_rig_turn(&rig); // what the buffers take is written
    http_rig_read(&rig, fd, &said, false);
    assert_memory_equal(said.data + said.len - BIG, body, BIG);
    http_rig_send(fd, OK_2 "ok");
    http_rig_await(&call[0], ANSWERED_2);
    http_rig_get(&rig, &call[1]); // over the same connection
    http_rig_serve(&rig, fd);
    http_rig_await(&call[1], ANSWERED_2);
    str_free(&said);
    free(body);
}

static void takes_answers_before_all_is_sent(void **state)
{
    (void)state;
    struct str said = {0};
    char *body = big_body();
    http_rig_start(&rig, &call[0], &(struct http_request){.body = body, .n_body_bytes = BIG});
    int fd = http_rig_accept(&rig);
    http_rig_read(&rig, fd, &said, true);
    http_rig_send(fd, "HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno");
    http_rig_await(&call[0], HTTP_ANSWERED, 413);
    assert_false(call[0].is_sent);
    free(body); // nothing reads it any more
    http_rig_await_close(&rig, fd);
    (void)serve_new(&call[1]);
    str_free(&said);
}

/* --- what is told ---------------------------------------------------------------------------------- */

static void tells_status_type_and_body(void **state)
{
    (void)state;
    static const char text[] = "HTTP/1.1 503 Busy\r\nContent-Type: text/plain; x\r\n"
                               "Transfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n";
    struct str said = {0};
    http_rig_get(&rig, &call[0]);
    int fd = http_rig_accept(&rig);
    http_rig_read(&rig, fd, &said, false);
    for (size_t i = 0; text[i]; i++) {
        http_rig_send(fd, (const char[]){text[i], '\0'});
        (void)http_poll(rig.h);
    }
    http_rig_await(&call[0], HTTP_ANSWERED, 503);
    assert_true(call[0].is_sent);
    assert_string_equal(call[0].body.data, "abc");
    assert_string_equal(call[0].type, "text/plain; x");
    assert_int_equal(call[0].status, 503);
    assert_int_equal(call[0].end.code, 0);
    str_free(&said);
}

/* A new connection: the request is read, `answer` sent, and the connection ended. */
static void breaks_with(const char *answer, bool reset, enum http_fate fate, int status, int code,
                        const char *message)
{
    struct http_rig_call c = {0};
    struct str said = {0};
    http_rig_get(&rig, &c);
    int fd = http_rig_accept(&rig);
    http_rig_read(&rig, fd, &said, false);
    http_rig_send(fd, answer);
    if (reset) { // which drops what was not read
        http_rig_turn(&rig);
    }
    http_rig_hang_up(&rig, fd, reset);
    http_rig_await(&c, fate, status);
    assert_int_equal(c.end.code, code);
    assert_string_equal(c.message, message);
    http_rig_turn(&rig);
    assert_false(http_rig_has_newcomer(&rig)); // not tried again
    http_rig_forget(&c);
    str_free(&said);
}

static void tells_what_broke(void **state)
{
    (void)state;
    const char *cut = "connection closed before the answer was whole";
    const char *gone = strerror(ECONNRESET);
    breaks_with("", false, HTTP_BROKEN, 0, 52, "Empty reply from server");
    breaks_with("", true, HTTP_BROKEN, 0, 56, gone);
    breaks_with(OK_2 "a", false, HTTP_BROKEN, 200, 18, "connection closed with 1 bytes missing");
    breaks_with(OK_2 "a", true, HTTP_BROKEN, 200, 56, gone);
    breaks_with(OK "Transfer-Encoding: chunked\r\n\r\n2\r\nab\r\n", false, HTTP_BROKEN, 200, 18,
                cut);
    breaks_with(OK "X", false, HTTP_BROKEN, 200, 18, cut);
    breaks_with(OK "\r\nab", true, HTTP_BROKEN, 200, 56, gone);
    breaks_with(OK "\r\nab", false, HTTP_ANSWERED, 200, 0, ""); // to the end of the connection
    breaks_with("SSH-2.0\r\n", false, HTTP_FAILED, 0, 8, "not an answer of HTTP/1.1");
    breaks_with("HTTP/1.1 101 Switching\r\n\r\n", false, HTTP_FAILED, 0, 8,
                "a status that is none");
}

static void stops_when_told(void **state)
{
    (void)state;
    struct str said = {0};
    call[0].stops = true;
    http_rig_get(&rig, &call[0]);
    int fd = http_rig_accept(&rig);
    http_rig_read(&rig, fd, &said, false);
    http_rig_send(fd, OK "Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n1\r\nb\r\n0\r\n\r\n");
    http_rig_await(&call[0], HTTP_STOPPED, 200);
    assert_int_equal(call[0].n_data, 1);
    http_rig_await_close(&rig, fd);
    str_free(&said);
}

/* Nobody listens, nobody has the name, no such port: not told inside of http_start. */
static void tells_later_that_nobody_is_there(void **state)
{
    (void)state;
    static const struct {
        const char *before, *after;
        enum http_fate fate;
    } cases[] = {
        {"http://127.0.0.1:", "/", HTTP_REFUSED},
        {"http://somebody@127.0.0.1:", "/", HTTP_REFUSED}, // libcurl's way
        {"https://127.0.0.1:", "/", HTTP_REFUSED},
        {"http://no-such-host.invalid:", "/", HTTP_UNRESOLVED},
        {"http://somebody@no-such-host.invalid:", "/", HTTP_UNRESOLVED},
        {"http://127.0.0.1:99", "/", HTTP_FAILED}, // libcurl says so at once
        {"http://somebody@127.0.0.1:99", "/", HTTP_FAILED},
    };
    int fd, port = http_rig_dead_port(&fd);
    for (size_t i = 0; i < N(cases); i++) {
        struct http_rig_call c = {0};
        char url[128];
        snprintf(url, sizeof url, "%s%d%s", cases[i].before, port, cases[i].after);
        http_rig_start(&rig, &c, &(struct http_request){.url = url});
        assert_false(c.is_over);
        http_rig_await(&c, cases[i].fate, 0);
        assert_true(c.message[0] != '\0');
        http_rig_forget(&c);
    }
    close(fd);
}

static void goes_libcurls_way(void **state)
{
    (void)state;
    struct str said = {0};
    char url[128];
    snprintf(url, sizeof url, "http://a:b@127.0.0.1:%d/", rig.port);
    http_rig_start(&rig, &call[0],
                   &(struct http_request){.url = url, .body = "xy", .n_body_bytes = 2});
    int fd = http_rig_accept(&rig);
    http_rig_read(&rig, fd, &said, false);
    assert_non_null(strstr(said.data, "\r\nAuthorization: Basic YTpi\r\n"));
    http_rig_send(fd, OK_2 "ok");
    http_rig_await(&call[0], ANSWERED_2);
    assert_true(call[0].is_sent);
    assert_string_equal(call[0].body.data, "ok");
    str_free(&said);
}

/* --- connections, again and again ------------------------------------------------------------------ */

static void uses_connections_again(void **state)
{
    (void)state;
    int fds[3];
    serve_side_by_side(fds, 3);
    for (size_t i = 3; i < 6; i++) { // the youngest first, while others are in use
        http_rig_get(&rig, &call[i]);
        struct str said = {0};
        http_rig_read(&rig, fds[5 - i], &said, false);
        str_free(&said);
    }
    http_rig_turn(&rig);
    assert_false(http_rig_has_newcomer(&rig));
    for (size_t i = 3; i < 6; i++) {
        http_rig_send(fds[5 - i], OK_2 "ok");
        http_rig_await(&call[i], ANSWERED_2);
    }
    for (size_t i = 6; i < 9; i++) { // the one that came last
        http_rig_get(&rig, &call[i]);
        http_rig_serve(&rig, fds[0]);
        http_rig_await(&call[i], ANSWERED_2);
    }
}

/* After `answer` the client closes the connection, and makes another. */
static void is_not_used_again(const char *answer)
{
    struct http_rig_call c = {0};
    struct str said = {0};
    http_rig_get(&rig, &c);
    int fd = http_rig_accept(&rig);
    http_rig_read(&rig, fd, &said, false);
    http_rig_send(fd, answer);
    http_rig_await(&c, ANSWERED_2);
    http_rig_await_close(&rig, fd);
    http_rig_hang_up(&rig, fd, false);
    http_rig_forget(&c);
    str_free(&said);
}

static void closes_what_is_of_no_more_use(void **state)
{
    (void)state;
    is_not_used_again(OK "Connection: close\r\nContent-Length: 2\r\n\r\nok");
    is_not_used_again("HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok");
    is_not_used_again(OK_2 "ok and more");
}

static void closes_idle_connections_that_speak(void **state)
{
    (void)state;
    int fd = serve_new(&call[0]);
    http_rig_send(fd, "HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n");
    http_rig_await_close(&rig, fd);
    (void)serve_new(&call[1]);
}

/* Said before the request was: no answer to it. */
static void takes_no_answer_that_came_before(void **state)
{
    (void)state;
    int fds[2];
    serve_side_by_side(fds, 2);
    http_rig_send(fds[1], "HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n");
    http_rig_get(&rig, &call[2]);
    http_rig_serve(&rig, fds[0]);
    http_rig_await(&call[2], ANSWERED_2);
    http_rig_await_close(&rig, fds[1]);
}

static void closes_idle_connections_that_end(void **state)
{
    (void)state;
    int fds[3];
    serve_side_by_side(fds, 3);
    http_rig_hang_up(&rig, fds[1], false); // the middle of the list
    http_rig_turn(&rig);
    http_rig_hang_up(&rig, fds[2], true);
    http_rig_turn(&rig);
    http_rig_get(&rig, &call[3]);
    http_rig_serve(&rig, fds[0]);
    http_rig_await(&call[3], ANSWERED_2);
    http_rig_hang_up(&rig, fds[0], false);
    http_rig_turn(&rig);
    (void)serve_new(&call[4]);
}

/* Ended before the client could see it: it goes through all of them to a new one. */
static void tries_again_when_idle_connections_ended(void **state)
{
    (void)state;
    int fds[3];
    struct str said = {0};
    serve_side_by_side(fds, 3);
    for (int i = 0; i < 3; i++) {
        http_rig_hang_up(&rig, fds[i], i == 1);
    }
    http_rig_start(&rig, &call[3], &(struct http_request){.body = "hello", .n_body_bytes = 5});
    int fd = http_rig_accept(&rig);
    http_rig_read(&rig, fd, &said, false);
    assert_string_equal(said.data + said.len - 5, "hello");
    http_rig_send(fd, OK_2 "ok");
    http_rig_await(&call[3], ANSWERED_2);
    assert_false(http_rig_has_newcomer(&rig));
    str_free(&said);
}

/* Ended with the request in it: once more over a new one, but no third time. */
static void tries_a_new_connection_once(void **state)
{
    (void)state;
    for (int reset = 0; reset < 2; reset++) {
        struct str said = {0}, again = {0};
        int fd = serve_new(&call[2 * reset]);
        struct http_rig_call *c = &call[2 * reset + 1];
        http_rig_start(&rig, c, &(struct http_request){.body = "hello", .n_body_bytes = 5});
        http_rig_read(&rig, fd, &said, false);
        http_rig_hang_up(&rig, fd, reset == 1);
        fd = http_rig_accept(&rig);
        http_rig_read(&rig, fd, &again, false);
        assert_string_equal(said.data, again.data);
        assert_false(c->is_over);
        http_rig_hang_up(&rig, fd, false);
        http_rig_await(c, HTTP_BROKEN, 0);
        assert_string_equal(c->message, "Empty reply from server");
        http_rig_turn(&rig);
        assert_false(http_rig_has_newcomer(&rig));
        str_free(&said);
        str_free(&again);
    }
}

static void does_not_repeat_what_was_answered_in_part(void **state)
{
    (void)state;
    struct str said = {0};
    int fd = serve_new(&call[0]);
    http_rig_get(&rig, &call[1]);
    http_rig_read(&rig, fd, &said, false);
    http_rig_send(fd, "HTTP/1.1 100 Continue\r\n\r\nH");
    http_rig_hang_up(&rig, fd, false);
    for (int64_t t_ns = clock_local_ns(); !call[1].is_over;) {
        assert_true(clock_local_ns() - t_ns < 60 * NS_PER_S);
        (void)http_wait(rig.h, NS_PER_MS);
    }
    assert_int_equal(call[1].end.fate, HTTP_BROKEN);
    assert_int_equal(call[1].end.code, 18);
    http_rig_turn(&rig);
    assert_false(http_rig_has_newcomer(&rig));
    str_free(&said);
}

/* --- where from, how fast -------------------------------------------------------------------------- */

static void connects_from_addresses_in_turn(void **state)
{
    (void)state;
    char *const addresses[] = {(char[]){"127.0.0.2"}, (char[]){"127.0.0.3"}};
    set(&(struct http_settings){.local_addresses = addresses, .n_local_addresses = 2});
    int fds[5];
    serve_side_by_side(fds, N(fds));
    for (size_t i = 0; i < N(fds); i++) {
        struct sockaddr_in from;
        socklen_t n = sizeof from;
        assert_int_equal(getpeername(fds[i], (struct sockaddr *)&from, &n), 0);
        assert_string_equal(inet_ntoa(from.sin_addr), addresses[i % 2]);
    }
}

static void connects_over_ipv6(void **state)
{
    (void)state;
    close(rig.listen_fd);
    if (!http_rig_listen(&rig, "::1")) {
        rig.listen_fd = -1;
        skip();
    }
    char wanted[128];
    snprintf(wanted, sizeof wanted, "GET / HTTP/1.1\r\nHost: [::1]:%d\r\nAccept: */*\r\n\r\n",
             rig.port);
    is_sent(&(struct http_request){0}, wanted);
}

static void paces_connections(void **state)
{
    (void)state;
    int64_t begin_ns = clock_local_ns();
    set(&(struct http_settings){.connects_rps = 20.0});
    int fds[10];
    serve_side_by_side(fds, N(fds));
    assert_true(clock_local_ns() - begin_ns >= 400 * NS_PER_MS);
    for (size_t i = 0; i < N(fds); i++) {
        http_rig_forget(&call[i]);
    }
    begin_ns = clock_local_ns();
    for (size_t i = 0; i < N(fds); i++) { // these wait in a row
        http_rig_get(&rig, &call[i]);
    }
    for (size_t i = 0; i < N(fds); i++) { // and need no new connection
        http_rig_serve(&rig, fds[N(fds) - 1 - i]);
    }
    for (size_t i = 0; i < N(fds); i++) {
        http_rig_await(&call[i], ANSWERED_2);
    }
    assert_false(http_rig_has_newcomer(&rig));
}

/* --- dropped calls --------------------------------------------------------------------------------- */

static void forgets_calls_that_wait_for_their_turn(void **state)
{
    (void)state;
    set(&(struct http_settings){.connects_rps = 20.0});
    for (size_t i = 0; i < 4; i++) {
        http_rig_get(&rig, &call[i]);
    }
    http_rig_cancel(&call[3]);
    http_rig_cancel(&call[0]);
    http_rig_cancel(&call[2]);
    http_rig_get(&rig, &call[4]);
    int fds[] = {http_rig_accept(&rig), http_rig_accept(&rig)};
    http_rig_serve(&rig, fds[0]);
    http_rig_serve(&rig, fds[1]);
    http_rig_await(&call[1], ANSWERED_2);
    http_rig_await(&call[4], ANSWERED_2);
    http_rig_turn(&rig);
    assert_false(http_rig_has_newcomer(&rig));
}

/* A listener whose queue is full: who comes now gets no answer. */
static int full_port(int fds[4])
{
    struct sockaddr_in at;
    socklen_t n = sizeof at;
    int port = http_rig_dead_port(&fds[0]);
    assert_int_equal(listen(fds[0], 0), 0);
    assert_int_equal(getsockname(fds[0], (struct sockaddr *)&at, &n), 0);
    for (int i = 1; i < 4; i++) {
        fds[i] = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
        (void)connect(fds[i], (struct sockaddr *)&at, n);
    }
    return port;
}

static void forgets_calls_that_connect(void **state)
{
    (void)state;
    static const int turns[] = {0, 1};
    int fds[4];
    char url[128];
    snprintf(url, sizeof url, "http://127.0.0.1:%d/", full_port(fds));
    for (size_t i = 0; i < N(turns); i++) {
        http_rig_start(&rig, &call[i], &(struct http_request){.url = url});
        if (turns[i]) {
            http_rig_turn(&rig);
        }
        assert_false(call[i].is_over);
        http_rig_cancel(&call[i]);
    }
    int dead, port = http_rig_dead_port(&dead); // failed, and not told yet
    snprintf(url, sizeof url, "http://127.0.0.1:%d/", port);
    http_rig_start(&rig, &call[2], &(struct http_request){.url = url});
    http_rig_cancel(&call[2]);
    snprintf(url, sizeof url, "http://no-such-host.invalid:%d/", port);
    http_rig_start(&rig, &call[3], &(struct http_request){.url = url});
    http_rig_cancel(&call[3]);
    http_rig_turn(&rig);
    (void)serve_new(&call[4]);
    close(dead);
    for (int i = 0; i < 4; i++) {
        close(fds[i]);
    }
}

static void gives_up_on_connecting(void **state)
{
    (void)state;
    int fds[4];
    char url[128];
    snprintf(url, sizeof url, "http://127.0.0.1:%d/", full_port(fds));
    set(&(struct http_settings){.connect_timeout_ns = 100 * NS_PER_MS});
    http_rig_start(&rig, &call[0], &(struct http_request){.url = url});
    http_rig_await(&call[0], HTTP_FAILED, 0);
    assert_int_equal(call[0].end.code, 28); // timed out
    for (int i = 0; i < 4; i++) {
        close(fds[i]);
    }
}

static void forgets_calls_half_way(void **state)
{
    (void)state;
    struct str said = {0};
    for (size_t i = 0; i < 2; i++) { // before the answer, and inside of it
        http_rig_get(&rig, &call[i]);
        int fd = http_rig_accept(&rig);
        http_rig_read(&rig, fd, &said, false);
        if (i == 1) {
            http_rig_send(fd, OK_2 "o");
            http_rig_await_body(&call[i], 1);
            http_rig_send(fd, "k"); // has come, is not read
        }
        http_rig_cancel(&call[i]);
        http_rig_await_close(&rig, fd);
    }
    (void)serve_new(&call[2]);
    str_free(&said);
}

/* Closed with a call in each state; nothing is told, nothing leaks. */
static void closes_with_calls_in_flight(void **state)
{
    (void)state;
    int fds[4], dead, port = http_rig_dead_port(&dead);
    char url[4][128];
    struct str said = {0};
    snprintf(url[0], sizeof url[0], "http://127.0.0.1:%d/", full_port(fds));
    snprintf(url[1], sizeof url[1], "http://127.0.0.1:%d/", port);
    snprintf(url[2], sizeof url[2], "http://no-such-host.invalid:%d/", port);
    snprintf(url[3], sizeof url[3], "http://a@127.0.0.1:%d/", rig.port);
    http_rig_get(&rig, &call[4]);
    int fd = http_rig_accept(&rig);
    http_rig_read(&rig, fd, &said, false);
    http_rig_send(fd, OK_2 "o");
    http_rig_await_body(&call[4], 1);
    (void)serve_new(&call[5]);
    for (size_t i = 0; i < 4; i++) {
        http_rig_start(&rig, &call[i], &(struct http_request){.url = url[i]});
    }
    http_close(rig.h);
    rig.h = NULL;
    for (size_t i = 0; i < 5; i++) {
        assert_false(call[i].is_over);
    }
    close(dead);
    for (int i = 0; i < 4; i++) {
        close(fds[i]);
    }
    str_free(&said);
}

/* --- stamps ------------------------------------------------------------------------------------------ */

/* Sent, then 50 ms nobody looks. Whether the stamp says when they came; else, when they were found. */
static bool is_stamped_on_arrival(int fd, struct http_rig_call *c)
{
    const int64_t sleep_ns = 50 * NS_PER_MS, slack_ns = NS_PER_MS;
    int64_t before_ns = clock_now_ns();
    http_rig_send(fd, "x");
    int64_t after_ns = clock_now_ns();
    clock_sleep_until_ns(clock_local_ns() + sleep_ns);
    http_rig_await_body(c, c->body.len + 1);
    assert_true(c->t_data_ns >= before_ns - slack_ns);
    bool is_on_arrival = c->t_data_ns <= after_ns + slack_ns;
    assert_true(is_on_arrival || c->t_data_ns >= after_ns + sleep_ns);
    return is_on_arrival;
}

static void stamps_bytes_when_they_arrive(void **state)
{
    (void)state;
    struct str said = {0};
    int n_on_arrival = 0;
    http_rig_get(&rig, &call[0]);
    int fd = http_rig_accept(&rig);
    http_rig_read(&rig, fd, &said, false);
    http_rig_send(fd, OK "\r\n");
    http_rig_turn(&rig);
    for (int i = 0; i < 8; i++) {
        n_on_arrival += is_stamped_on_arrival(fd, &call[0]);
    }
    assert_true(n_on_arrival >= 4); // not all: a clock that was read too slowly is not trusted
    str_free(&said);
}

static void stamps_the_first_byte(void **state)
{
    (void)state;
    struct str said = {0};
    int64_t begin_ns = clock_now_ns();
    http_rig_get(&rig, &call[0]);
    int fd = http_rig_accept(&rig);
    http_rig_read(&rig, fd, &said, false);
    clock_sleep_until_ns(clock_local_ns() + 20 * NS_PER_MS);
    http_rig_send(fd, OK);
    http_rig_turn(&rig);
    int64_t sent_ns = clock_now_ns();
    clock_sleep_until_ns(clock_local_ns() + 20 * NS_PER_MS);
    http_rig_send(fd, "Content-Length: 2\r\n\r\nok");
    http_rig_await(&call[0], ANSWERED_2);
    assert_true(call[0].end.first_byte_ns >= 20 * NS_PER_MS - NS_PER_MS);
    assert_true(call[0].end.first_byte_ns <= sent_ns - begin_ns);
    assert_true(http_times(rig.h)->to_read.n > 0);
    str_free(&said);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, open_rig, close_rig)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(asks_for_what_the_url_says),
        TEST(sends_headers_id_and_body),
        TEST(sends_big_bodies_in_parts),
        TEST(takes_answers_before_all_is_sent),
        TEST(tells_status_type_and_body),
        TEST(tells_what_broke),
        TEST(stops_when_told),
        TEST(tells_later_that_nobody_is_there),
        TEST(goes_libcurls_way),
        TEST(uses_connections_again),
        TEST(closes_what_is_of_no_more_use),
        TEST(closes_idle_connections_that_speak),
        TEST(takes_no_answer_that_came_before),
        TEST(closes_idle_connections_that_end),
        TEST(tries_again_when_idle_connections_ended),
        TEST(tries_a_new_connection_once),
        TEST(does_not_repeat_what_was_answered_in_part),
        TEST(connects_from_addresses_in_turn),
        TEST(connects_over_ipv6),
        TEST(paces_connections),
        TEST(forgets_calls_that_wait_for_their_turn),
        TEST(forgets_calls_that_connect),
        TEST(gives_up_on_connecting),
        TEST(forgets_calls_half_way),
        TEST(closes_with_calls_in_flight),
        TEST(stamps_bytes_when_they_arrive),
        TEST(stamps_the_first_byte),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
