/*
 * An HTTP/1.1 server that decides when each packet leaves: one thread, epoll, non-blocking sockets.
 * A reply is a row of pieces. The app says when it wants to be asked for the next piece; the server
 * asks it then, hands its bytes to one send(2), and tells it when that was. A piece that the socket
 * does not take at once is sent on as it drains, and the app is not asked before it is gone.
 *
 * A request is shown to the app when it is whole. Until its reply has ended no further request of
 * that connection is read (pipelined ones wait). A client that goes away, or closes its sending
 * side, before the reply ended: closed() is called, and no more.
 *
 * All callbacks run in the thread of httpd_run. Times are clock_local_ns.
 */
#pragma once

#include <signal.h>
#include <stdint.h>

#include "core/err.h"
#include "core/http_request.h"
#include "core/str.h"

#define HTTPD_NEVER INT64_MAX

struct httpd;
struct httpd_conn;

enum httpd_then {
    HTTPD_MORE,  // ask again at next_ns
    HTTPD_END,   // the reply is whole; the connection waits for its next request
    HTTPD_CLOSE, // the reply is whole, or as whole as it will be; close
    HTTPD_RESET, // drop what is not sent, and reset the connection
};

struct httpd_piece {
    struct str *out;      // append the bytes here; none is allowed
    enum httpd_then then; // after them
    int64_t next_ns;      // HTTPD_MORE; HTTPD_NEVER: not before httpd_wake
    int64_t idle_ns;      // HTTPD_END: how long the connection may idle; 0: as configured
};

struct httpd_app {
    void *arg;
    /* `r` is valid during the call. Nothing is sent before httpd_wake(c, when). */
    void (*request)(void *arg, struct httpd_conn *c, const struct http_request_parts *r);
    void (*due)(void *arg, struct httpd_conn *c, struct httpd_piece *p);
    /* The piece's send(2) was called at before_ns and came back at after_ns. May be NULL. */
    void (*sent)(void *arg, struct httpd_conn *c, int64_t before_ns, int64_t after_ns);
    void (*closed)(void *arg, struct httpd_conn *c);
    /* Once per turn of the loop, for what comes from elsewhere; it may wait for a short time itself, and
       says how long the loop may then wait for sockets. -1 ends httpd_run. May be NULL. */
    int (*turn)(void *arg, int64_t *wait_ns, struct err *e);
};

struct httpd_config {
    const char *host; // a numeric address
    int port;         // 0: any that is free
    int64_t max_connections;
    size_t max_body_bytes;
    int64_t request_ns; // from a request's first byte to its last
    int64_t idle_ns;    // between requests
    int64_t write_ns;   // a client that takes nothing for so long is dropped
    int64_t spin_ns;    // before a timer the wait spins: exact to the microsecond, costs a core
    int64_t drain_ns;   // after the first stop signal replies in flight may end
};

/* Binds and listens. Raises RLIMIT_NOFILE as far as it may; with less the server holds fewer. */
int httpd_open(struct httpd **h, const struct httpd_config *config, const struct httpd_app *app,
               struct err *e) ERR_CHECKED;
int httpd_port(const struct httpd *h);

/*
 * Serve until *stop is 1, then until all replies have ended or drain_ns passed; return at once when
 * *stop is 2. Signals that the caller has blocked and that count *stop up are open while waiting.
 */
int httpd_run(struct httpd *h, const volatile sig_atomic_t *stop, struct err *e) ERR_CHECKED;
void httpd_close(struct httpd *h);

/* Ask the app for this connection's piece at at_ns. Only between its request and its reply's end. */
void httpd_wake(struct httpd_conn *c, int64_t at_ns);

/* When the read(2) that made the request whole came back. */
int64_t httpd_read_ns(const struct httpd_conn *c);

/* What the app keeps with a connection; NULL at first, kept from request to request. */
void *httpd_user(const struct httpd_conn *c);
void httpd_set_user(struct httpd_conn *c, void *user);

/* Read and send nothing from from_ns until to_ns: the whole server stands still. */
void httpd_stall(struct httpd *h, int64_t from_ns, int64_t to_ns);

int64_t httpd_connections(const struct httpd *h); // open now
