/*
 * One connection is in one state at a time and has one timer, whose meaning follows from the state:
 *
 *   IDLE     no request yet, or part of one: its deadline
 *   REPLY    the app's next piece; while bytes are left over: the client's deadline to take them
 *   CLOSING  all is sent and our side shut down: how long we wait for the client's end, so that
 *            unread input does not turn into a reset that overtakes the reply
 *
 * Sockets are edge-triggered and registered once: no epoll_ctl after accept.
 */
#include "core/httpd.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/clock.h"
#include "core/epoll_fine.h"
#include "core/http_reply.h"
#include "core/log.h"
#include "core/mem.h"
#include "core/timers.h"

#define READ_BYTES    (64 << 10)
#define KEEP_BYTES    (8 << 10) // input memory that an idle connection may hold
#define MAX_EVENTS    256
#define MAX_ACCEPTS   64 // per turn of the loop, as with the two others
#define MAX_PIECES    64
#define BACKLOG       65535
#define LINGER_NS     (1 * NS_PER_S)
#define STALL_LOOK_NS (20 * NS_PER_MS) // a standing server still looks for signals
#define SLAB_CONNS    256
#define SPARE_FDS     32

enum conn_state {
    CONN_FREE,
    CONN_IDLE,
    CONN_REPLY,
    CONN_CLOSING,
};

struct httpd_conn {
    struct timer timer; // first: a popped timer is its connection
    struct httpd *h;
    int fd;
    enum conn_state state;
    bool readable;         // bytes may wait in the kernel
    bool waits_for_client; // `left` is not empty
    enum httpd_then then;  // once `left` is gone
    int64_t next_ns;       // HTTPD_MORE
    int64_t idle_ns;       // of the present pause; 0: as configured
    int64_t read_ns;
    struct http_request_parser parser;
    struct str in;   // from the request's first byte on
    struct str left; // of a piece, what the socket did not take
    size_t left_at;
    void *user;
    struct httpd_conn *next; // in the free or the closed list
};

struct httpd {
    struct httpd_config config;
    struct httpd_app app;
    int epoll_fd, listen_fd, port;
    bool accepting;
    struct timers timers;
    struct httpd_conn **slabs; // (n_slabs) of SLAB_CONNS
    size_t n_slabs;
    struct httpd_conn *free, *closed; // closed: may still have events in this turn's list
    int64_t n_conns, n_replies, max_conns;
    int64_t stall_from_ns, stall_to_ns;
    int64_t app_wait_ns; // as long as the app lets the loop wait
    sigset_t wait_mask;  // open while waiting
    struct str out;      // the piece being made
    char *scratch;       // (READ_BYTES)
};

static void conn_parse(struct httpd_conn *c);

/* --- accessors ----------------------------------------------------------------------------------- */

int httpd_port(const struct httpd *h)
{
    return h->port;
}

int64_t httpd_connections(const struct httpd *h)
{
    return h->n_conns;
}

int64_t httpd_read_ns(const struct httpd_conn *c)
{
    return c->read_ns;
}

void *httpd_user(const struct httpd_conn *c)
{
    return c->user;
}

void httpd_set_user(struct httpd_conn *c, void *user)
{
    c->user = user;
}

void httpd_stall(struct httpd *h, int64_t from_ns, int64_t to_ns)
{
    h->stall_from_ns = from_ns;
    h->stall_to_ns = to_ns;
}

static void arm(struct httpd_conn *c, int64_t at_ns)
{
    if (at_ns == HTTPD_NEVER) {
        timers_disarm(&c->h->timers, &c->timer);
    } else {
        timers_arm(&c->h->timers, &c->timer, at_ns);
    }
}

void httpd_wake(struct httpd_conn *c, int64_t at_ns)
{
    CHECK(c->state == CONN_REPLY);
    c->next_ns = at_ns;
    if (!c->waits_for_client) {
        arm(c, at_ns);
    }
}

/* --- connections --------------------------------------------------------------------------------- */

static struct httpd_conn *conn_take(struct httpd *h)
{
    if (!h->free) {
        struct httpd_conn *slab = xcalloc(SLAB_CONNS, sizeof *slab);
        h->slabs = xrealloc(h->slabs, (h->n_slabs + 1) * sizeof *h->slabs);
        h->slabs[h->n_slabs++] = slab;
        for (int i = 0; i < SLAB_CONNS; i++) {
            slab[i].next = h->free;
            h->free = &slab[i];
        }
    }
    struct httpd_conn *c = h->free;
    h->free = c->next;
    return c;
}

static void listen_again(struct httpd *h)
{
    struct epoll_event ev = {.events = EPOLLIN, .data.ptr = NULL};
    if (!h->accepting && h->listen_fd >= 0) {
        h->accepting = epoll_ctl(h->epoll_fd, EPOLL_CTL_ADD, h->listen_fd, &ev) == 0;
    }
}

static void listen_pause(struct httpd *h)
{
    if (h->accepting) {
        epoll_ctl(h->epoll_fd, EPOLL_CTL_DEL, h->listen_fd, NULL);
        h->accepting = false;
    }
}

static void conn_close(struct httpd_conn *c)
{
    struct httpd *h = c->h;
    bool in_reply = c->state == CONN_REPLY;
    timers_disarm(&h->timers, &c->timer);
    close(c->fd);
    c->fd = -1;
    c->state = CONN_FREE;
    str_free(&c->in);
    str_free(&c->left);
    c->next = h->closed;
    h->closed = c;
    h->n_conns--;
    h->n_replies -= in_reply;
    if (in_reply) {
        h->app.closed(h->app.arg, c);
    }
    listen_again(h);
}

static void conn_reset(struct httpd_conn *c)
{
    struct linger now = {.l_onoff = 1, .l_linger = 0}; // close(2) then sends RST
    setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
    conn_close(c);
}

/* All is sent: our end is shut, what the client still sends is read over. */
static void conn_linger(struct httpd_conn *c)
{
    c->h->n_replies -= c->state == CONN_REPLY;
    c->state = CONN_CLOSING;
    shutdown(c->fd, SHUT_WR);
    arm(c, clock_local_ns() + LINGER_NS);
}

static void drop_closed(struct httpd *h)
{
    while (h->closed) {
        struct httpd_conn *c = h->closed;
        h->closed = c->next;
        memset(c, 0, sizeof *c);
        c->next = h->free;
        h->free = c;
    }
}

/* --- sending ------------------------------------------------------------------------------------- */

/* The connection is ready for its next request, of which bytes may be here already. */
static void conn_next_request(struct httpd_conn *c)
{
    struct httpd *h = c->h;
    c->h->n_replies--;
    c->state = CONN_IDLE;
    c->parser = (struct http_request_parser){.max_body_bytes = h->config.max_body_bytes};
    if (c->in.cap > KEEP_BYTES && c->in.len == 0) {
        str_free(&c->in);
    }
    const int64_t idle_ns = c->idle_ns ? c->idle_ns : h->config.idle_ns;
    arm(c, clock_local_ns() + (c->in.len > 0 ? h->config.request_ns : idle_ns));
}

/* The piece's bytes are with the kernel. */
static void conn_piece_gone(struct httpd_conn *c)
{
    c->waits_for_client = false;
    switch (c->then) {
    case HTTPD_MORE:
        arm(c, c->next_ns);
        break;
    case HTTPD_END:
        conn_next_request(c);
        break;
    case HTTPD_CLOSE:
    case HTTPD_RESET:
        conn_linger(c);
        break;
    }
}

/* 0: all taken, 1: some left in *n, -1: the connection is gone. */
static int conn_send(struct httpd_conn *c, const char *bytes, size_t *n)
{
    ssize_t sent = *n ? send(c->fd, bytes, *n, MSG_NOSIGNAL | MSG_DONTWAIT) : 0;
    if (sent < 0 && errno != EAGAIN && errno != EINTR) {
        return -1;
    }
    *n -= sent > 0 ? (size_t)sent : 0;
    return *n ? 1 : 0;
}

static void conn_flush(struct httpd_conn *c)
{
    size_t left = c->left.len - c->left_at;
    size_t before = left;
    int rc = conn_send(c, c->left.data + c->left_at, &left);
    c->left_at = c->left.len - left;
    if (rc < 0) {
        conn_close(c);
    } else if (rc == 0) {
        str_free(&c->left);
        c->left_at = 0;
        conn_piece_gone(c);
    } else if (left < before) {
        arm(c, clock_local_ns() + c->h->config.write_ns);
    }
}

/* Hand h->out to the socket; what it does not take is kept. False when the connection is gone. */
static bool conn_put(struct httpd_conn *c)
{
    struct httpd *h = c->h;
    size_t left = h->out.len;
    int rc = conn_send(c, h->out.data, &left);
    if (rc < 0) {
        conn_close(c);
        return false;
    }
    c->waits_for_client = rc > 0;
    if (c->waits_for_client) {
        str_append(&c->left, h->out.data + h->out.len - left, left);
        arm(c, clock_local_ns() + h->config.write_ns);
    }
    return true;
}

/* Ask the app for the piece that is due, and send it. */
static void conn_due(struct httpd_conn *c)
{
    struct httpd *h = c->h;
    struct httpd_piece p = {.out = &h->out, .next_ns = HTTPD_NEVER};
    str_clear(&h->out);
    h->app.due(h->app.arg, c, &p);
    c->then = p.then;
    c->next_ns = p.next_ns;
    c->idle_ns = p.idle_ns;
    int64_t before_ns = clock_local_ns();
    if (!conn_put(c)) {
        return;
    }
    if (h->app.sent) {
        h->app.sent(h->app.arg, c, before_ns, clock_local_ns());
    }
    if (c->then == HTTPD_RESET) {
        conn_reset(c);
    } else if (!c->waits_for_client) {
        conn_piece_gone(c);
        if (c->state == CONN_IDLE) {
            conn_parse(c); // pipelined
        }
    }
}

/* --- reading ------------------------------------------------------------------------------------- */

/* Not the app's business: one line, and the connection ends. */
static void conn_refuse(struct httpd_conn *c, int status)
{
    char text[64];
    int n = snprintf(text, sizeof text, "%d %s\n", status, http_reply_reason(status));
    str_clear(&c->h->out);
    http_reply_put(&c->h->out, status, "text/plain", false, NULL, text, (size_t)n);
    c->then = HTTPD_CLOSE;
    if (conn_put(c) && !c->waits_for_client) {
        conn_linger(c);
    }
}

static void conn_request(struct httpd_conn *c, size_t used)
{
    struct httpd *h = c->h;
    struct http_request_parts r;
    http_request_view(&c->parser, c->in.data, &r);
    c->state = CONN_REPLY;
    h->n_replies++;
    timers_disarm(&h->timers, &c->timer);
    h->app.request(h->app.arg, c, &r);
    memmove(c->in.data, c->in.data + used, c->in.len - used);
    c->in.len -= used;
}

static void conn_parse(struct httpd_conn *c)
{
    size_t used;
    if (c->in.len == 0) {
        return;
    }
    switch (http_request_feed(&c->parser, c->in.data, c->in.len, &used)) {
    case HTTP_REQUEST_DONE:
        conn_request(c, used);
        break;
    case HTTP_REQUEST_BAD:
        conn_refuse(c, c->parser.status);
        break;
    case HTTP_REQUEST_MORE:
        if (c->parser.expects_continue) {
            static const char go_on[] = "HTTP/1.1 100 Continue\r\n\r\n";
            size_t n = sizeof go_on - 1;
            c->parser.expects_continue = false;
            if (conn_send(c, go_on, &n) != 0) {
                conn_close(c);
            }
        }
        break;
    }
}

/* Input while IDLE is the request's; while CLOSING it is read over; while REPLY it waits. */
static void conn_read(struct httpd_conn *c)
{
    struct httpd *h = c->h;
    while (c->readable && (c->state == CONN_IDLE || c->state == CONN_CLOSING)) {
        ssize_t n = recv(c->fd, h->scratch, READ_BYTES, MSG_DONTWAIT);
        if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR)) {
            conn_close(c);
            return;
        }
        c->readable = n == READ_BYTES;
        if (n > 0 && c->state == CONN_IDLE) {
            c->read_ns = clock_local_ns();
            if (c->in.len == 0) {
                arm(c, c->read_ns + h->config.request_ns);
            }
            str_append(&c->in, h->scratch, (size_t)n);
            conn_parse(c);
        }
    }
}

static void conn_event(struct httpd_conn *c, uint32_t events)
{
    if (c->state == CONN_FREE) {
        return; // closed earlier in this turn
    }
    c->readable |= (events & EPOLLIN) != 0;
    if ((events & (EPOLLERR | EPOLLHUP)) ||
        ((events & EPOLLRDHUP) && (c->state == CONN_REPLY || c->state == CONN_CLOSING))) {
        conn_close(c);
        return;
    }
    if ((events & EPOLLOUT) && c->waits_for_client) {
        conn_flush(c);
        if (c->state == CONN_IDLE) {
            conn_parse(c);
        }
    }
    conn_read(c);
    if ((events & EPOLLRDHUP) && c->state == CONN_REPLY) {
        conn_close(c); // its end came with its request: no other event tells of it
    }
}

/* --- the loop ------------------------------------------------------------------------------------ */

static void conn_timer(struct httpd_conn *c)
{
    switch (c->state) {
    case CONN_REPLY:
        if (c->waits_for_client) {
            conn_close(c);
            return;
        }
        conn_due(c);
        conn_read(c);
        break;
    case CONN_IDLE:
        if (c->in.len) {
            conn_refuse(c, 408);
        } else {
            conn_close(c);
        }
        break;
    case CONN_CLOSING:
    case CONN_FREE:
        conn_close(c);
        break;
    }
}

static void accept_one(struct httpd *h, int fd)
{
    struct httpd_conn *c = conn_take(h);
    memset(c, 0, sizeof *c);
    c->h = h;
    c->fd = fd;
    c->state = CONN_IDLE;
    c->parser.max_body_bytes = h->config.max_body_bytes;
    h->n_conns++;
    arm(c, clock_local_ns() + h->config.idle_ns);
    struct epoll_event ev = {.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, .data.ptr = c};
    if (epoll_ctl(h->epoll_fd, EPOLL_CTL_ADD, fd, &ev)) {
        conn_close(c);
    }
}

static void accept_all(struct httpd *h)
{
    for (int i = 0; i < MAX_ACCEPTS; i++) {
        if (h->n_conns >= h->max_conns) {
            listen_pause(h);
            return;
        }
        int fd = accept4(h->listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0) {
            if (errno == EMFILE || errno == ENFILE || errno == ENOMEM) {
                listen_pause(h); // until a connection ends
            }
            return;
        }
        accept_one(h, fd);
    }
}

/* In the stall's window nothing happens but its passing. */
static void stand_still(struct httpd *h, const volatile sig_atomic_t *stop)
{
    int64_t now_ns = clock_local_ns();
    while (now_ns >= h->stall_from_ns && now_ns < h->stall_to_ns && *stop == 0) {
        int64_t left_ns = h->stall_to_ns - now_ns;
        struct timespec look = {.tv_nsec = left_ns < STALL_LOOK_NS ? left_ns : STALL_LOOK_NS};
        pselect(0, NULL, NULL, NULL, &look, &h->wait_mask);
        now_ns = clock_local_ns();
    }
}

static void run_due(struct httpd *h, const volatile sig_atomic_t *stop)
{
    int64_t now_ns = clock_local_ns(); // what is armed during this turn is for the next
    for (int i = 0; i < MAX_PIECES; i++) {
        stand_still(h, stop);
        struct timer *t = timers_pop(&h->timers, now_ns);
        if (!t) {
            return;
        }
        conn_timer((struct httpd_conn *)t);
    }
}

/* How long the next wait may last; 0 while it spins towards a timer. */
static int64_t wait_time_ns(const struct httpd *h, int64_t drain_until_ns)
{
    int64_t now_ns = clock_local_ns();
    int64_t next_ns = timers_next_ns(&h->timers);
    int64_t ns = next_ns == INT64_MAX ? NS_PER_S : next_ns - now_ns - h->config.spin_ns;
    if (h->stall_from_ns > now_ns && h->stall_from_ns - now_ns < ns) {
        ns = h->stall_from_ns - now_ns;
    }
    if (drain_until_ns && drain_until_ns - now_ns < ns) {
        ns = drain_until_ns - now_ns;
    }
    ns = ns > h->app_wait_ns ? h->app_wait_ns : ns;
    return ns < 0 ? 0 : ns;
}

static int take_events(struct httpd *h, const volatile sig_atomic_t *stop, int64_t drain_until_ns,
                       struct err *e)
{
    struct epoll_event events[MAX_EVENTS];
    int64_t wait_ns = wait_time_ns(h, drain_until_ns);
    int n = epoll_fine_wait(h->epoll_fd, events, MAX_EVENTS, wait_ns, &h->wait_mask);
    if (n < 0 && errno != EINTR) {
        return err_set(e, ERR_ENV, "serve: epoll_wait: %s", strerror(errno));
    }
    stand_still(h, stop);
    for (int i = 0; i < n; i++) {
        if (events[i].data.ptr) {
            conn_event(events[i].data.ptr, events[i].events);
        } else if (h->listen_fd >= 0) {
            accept_all(h);
        }
    }
    drop_closed(h);
    return 0;
}

static void stop_listening(struct httpd *h)
{
    listen_pause(h);
    close(h->listen_fd);
    h->listen_fd = -1;
}

int httpd_run(struct httpd *h, const volatile sig_atomic_t *stop, struct err *e)
{
    int64_t drain_until_ns = 0;
    pthread_sigmask(SIG_SETMASK, NULL, &h->wait_mask);
    sigdelset(&h->wait_mask, SIGTERM);
    sigdelset(&h->wait_mask, SIGINT);
    clock_tight_timers();
    while (*stop < 2) {
        if (*stop && !drain_until_ns) {
            stop_listening(h);
            drain_until_ns = clock_local_ns() + h->config.drain_ns;
        }
        if (*stop && (h->n_replies == 0 || clock_local_ns() >= drain_until_ns)) {
            break;
        }
        if (h->app.turn && h->app.turn(h->app.arg, &h->app_wait_ns, e)) {
            return -1;
        }
        run_due(h, stop);
        if (take_events(h, stop, drain_until_ns, e)) {
            return -1;
        }
    }
    return 0;
}

/* --- opening and closing ------------------------------------------------------------------------- */

/* What the process may hold open now. */
static int64_t raise_file_limit(int64_t wanted)
{
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    rlim_t want = (rlim_t)wanted + SPARE_FDS;
    if (limit.rlim_cur < want) {
        struct rlimit more = {want, limit.rlim_max > want ? limit.rlim_max : want};
        if (setrlimit(RLIMIT_NOFILE, &more)) { // above the hard limit only as root
            more = (struct rlimit){limit.rlim_max, limit.rlim_max};
            setrlimit(RLIMIT_NOFILE, &more);
        }
        getrlimit(RLIMIT_NOFILE, &limit);
    }
    int64_t room = (int64_t)limit.rlim_cur - SPARE_FDS;
    return room < wanted ? room : wanted;
}

static int listen_on(struct httpd *h, const struct addrinfo *at, struct err *e)
{
    int one = 1;
    struct sockaddr_in6 bound; // either family fits, the port is at one place in both
    socklen_t len = sizeof bound;
    h->listen_fd = socket(at->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (h->listen_fd < 0) {
        return err_set(e, ERR_ENV, "serve: socket: %s", strerror(errno));
    }
    setsockopt(h->listen_fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    setsockopt(h->listen_fd, IPPROTO_TCP, TCP_NODELAY, &one,
               sizeof one); // accepted ones inherit it
    if (bind(h->listen_fd, at->ai_addr, at->ai_addrlen) || listen(h->listen_fd, BACKLOG) ||
        getsockname(h->listen_fd, (struct sockaddr *)&bound, &len)) {
        return err_set(e, ERR_ENV, "serve: %s port %d: %s", h->config.host, h->config.port,
                       strerror(errno));
    }
    h->port = ntohs(bound.sin6_port);
    return 0;
}

static int open_sockets(struct httpd *h, struct err *e)
{
    struct addrinfo hints = {.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV | AI_PASSIVE,
                             .ai_socktype = SOCK_STREAM};
    struct addrinfo *at;
    char port[16];
    snprintf(port, sizeof port, "%d", h->config.port);
    if (getaddrinfo(h->config.host, port, &hints, &at)) {
        return err_set(e, ERR_INPUT, "serve.host: '%.80s' is no numeric address (127.0.0.1, ::1)",
                       h->config.host);
    }
    int rc = listen_on(h, at, e);
    freeaddrinfo(at);
    if (rc == 0) {
        h->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
        listen_again(h);
        rc = h->accepting ? 0 : err_set(e, ERR_ENV, "serve: epoll: %s", strerror(errno));
    }
    return rc;
}

int httpd_open(struct httpd **out, const struct httpd_config *config, const struct httpd_app *app,
               struct err *e)
{
    struct httpd *h = xcalloc(1, sizeof *h);
    h->config = *config;
    h->app = *app;
    h->epoll_fd = h->listen_fd = -1;
    h->scratch = xmalloc(READ_BYTES);
    h->max_conns = raise_file_limit(config->max_connections);
    h->app_wait_ns = NS_PER_S;
    if (open_sockets(h, e)) {
        httpd_close(h);
        return -1;
    }
    if (h->max_conns < config->max_connections) {
        log_warn("serve", "the limit of open files leaves room for %lld connections",
                 (long long)h->max_conns);
    }
    *out = h;
    return 0;
}

void httpd_close(struct httpd *h)
{
    for (size_t s = 0; h && s < h->n_slabs; s++) {
        for (int i = 0; i < SLAB_CONNS; i++) {
            struct httpd_conn *c = &h->slabs[s][i];
            if (c->state != CONN_FREE) {
                conn_close(c);
            }
        }
    }
    if (!h) {
        return;
    }
    for (size_t s = 0; s < h->n_slabs; s++) {
        free(h->slabs[s]);
    }
    if (h->listen_fd >= 0) {
        close(h->listen_fd);
    }
    if (h->epoll_fd >= 0) {
        close(h->epoll_fd);
    }
    timers_free(&h->timers);
    str_free(&h->out);
    free(h->scratch);
    free(h->slabs);
    free(h);
}
