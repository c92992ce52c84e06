/*
 * The HTTP client, and sockets of a server that a test plays itself, in the same thread: each side moves
 * when the test says so, and nothing depends on who is faster. What waits lets the client look
 * at its sockets meanwhile, and fails the test (cmocka) after a deadline that only a hang reaches.
 */
#pragma once

#include "core/http.h"
#include "core/str.h"

#define HTTP_RIG_SOCKETS 32

struct http_rig {
    struct http *h;
    int listen_fd, port;
    char url[64];              // of the server's root
    bool is_starting;          // inside of http_start
    int fds[HTTP_RIG_SOCKETS]; // (n_fds) accepted; < 0: closed
    size_t n_fds;
};

/* A call, and what was said of it. */
struct http_rig_call { // zeroed, or with `stops`
    struct http_rig *rig;
    bool stops; // data: -1
    bool is_cancelled, is_over;
    bool is_sent; // the request was, at the last call of data
    struct http_call *call;
    struct str body;
    int n_data, status; // the latter as in the last call of data
    char type[64];
    int64_t t_data_ns; // of the last bytes
    struct http_end end;
    char message[128];
};

/* The server listens at `host` ("127.0.0.1", "::1"); false: no such address here. */
bool http_rig_listen(struct http_rig *r, const char *host);
void http_rig_open(struct http_rig *r, const struct http_settings *s); // both sides; NULL: plain
void http_rig_close(struct http_rig *r);

/* A port where nobody listens, until the socket is closed. */
int http_rig_dead_port(int *fd);

/* Start a call of `request` (its url NULL: of the server's root). */
void http_rig_start(struct http_rig *r, struct http_rig_call *c,
                    const struct http_request *request);
void http_rig_get(struct http_rig *r, struct http_rig_call *c);
void http_rig_cancel(struct http_rig_call *c);
void http_rig_forget(struct http_rig_call *c); // what was said

/* Until it is over, of this fate and status. */
void http_rig_await(struct http_rig_call *c, enum http_fate fate, int status);
/* Until its body has n bytes. */
void http_rig_await_body(struct http_rig_call *c, size_t n);
/* Let the client look some times. */
void http_rig_turn(struct http_rig *r);

/* The server's side. A request is read with its body; `head_only`: without. */
int http_rig_accept(struct http_rig *r);
bool http_rig_has_newcomer(struct http_rig *r);
void http_rig_read(struct http_rig *r, int fd, struct str *request, bool head_only);
void http_rig_send(int fd, const char *text);
void http_rig_await_close(struct http_rig *r, int fd); // by the client
void http_rig_hang_up(struct http_rig *r, int fd, bool reset);
/* One request in, one answer of "ok" out. */
void http_rig_serve(struct http_rig *r, int fd);
