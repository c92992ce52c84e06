#include "core/http_plain.h"

#include "core/clock.h"
#include "core/http_answer.h"
#include "core/mem.h"
#include "core/str.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define READ_BYTES (256 << 10) // at a time, of one connection
#define HEAD_BYTES 192         // of a request's own head lines
#define SCHEME     "http://"
/* libcurl's codes for what happens here */
#define CODE_WEIRD_ANSWER 8
#define CODE_PARTIAL      18
#define CODE_WRITE        23
#define CODE_NOTHING      52
#define CODE_RECEIVE      56

/* What requests with the same URL and headers have in common. */
struct target {
    char *url;
    const struct http_headers *headers;
    bool is_post;
    struct str head; // request line and headers, but for those of one request
    struct origin *origin;
};

/* A server, and the idle connections to it. */
struct origin {
    char *host; // with its port
    struct http_conn *idle;
};

struct http_conn {
    struct http_plain *p;
    struct origin *origin;
    int fd;                 // < 0: free
    struct http_call *call; // NULL: idle
    bool was_used;          // has carried a whole answer
    bool wants_out;         // waits until the rest of the request can be written
    const struct target *target;
    size_t n_head_bytes;             // of `head`
    size_t n_sent, n_all;            // bytes of the request
    struct http_conn *next, *before; // idle, or free
    struct http_answer answer;
    char head[HEAD_BYTES];
};

struct http_plain {
    const struct http_settings *settings;
    struct http_curl *curl;
    int epoll_fd;
    struct target **targets; // (n_targets)
    size_t n_targets;
    struct origin **origins; // (n_origins)
    size_t n_origins;
    struct http_conn **conns; // (n_conns) ever made
    size_t n_conns, cap_conns;
    struct http_conn *free;
    int64_t t_read_ns; // of what is being read: its arrival
    int64_t unix_minus_now_ns;
    bool clock_stands; // the wall clock was not set since the last look
    char *bytes;       // (READ_BYTES)
};

struct http_plain *http_plain_open(const struct http_settings *s, struct http_curl *curl,
                                   int epoll_fd)
{
    struct http_plain *p = xcalloc(1, sizeof *p);
    p->settings = s;
    p->curl = curl;
    p->epoll_fd = epoll_fd;
    p->bytes = xmalloc(READ_BYTES);
    return p;
}

void http_plain_close(struct http_plain *p)
{
    for (size_t i = 0; i < p->n_conns; i++) {
        if (p->conns[i]->fd >= 0) {
            close(p->conns[i]->fd);
        }
        http_answer_free(&p->conns[i]->answer);
        free(p->conns[i]);
    }
    for (size_t i = 0; i < p->n_targets; i++) {
        free(p->targets[i]->url);
        str_free(&p->targets[i]->head);
        free(p->targets[i]);
    }
    for (size_t i = 0; i < p->n_origins; i++) {
        free(p->origins[i]->host);
        free(p->origins[i]);
    }
    free(p->targets);
    free(p->origins);
    free(p->conns);
    free(p->bytes);
    free(p);
}

/* --- targets ----------------------------------------------------------------------------------- */

static size_t host_bytes(const char *url)
{
    return strcspn(url + strlen(SCHEME), "/?#");
}

bool http_plain_takes(const char *url)
{
    if (strncmp(url, SCHEME, strlen(SCHEME)) != 0) {
        return false;
    }
    for (const char *at = url; *at; at++) { // what libcurl would have to translate
        if (!isgraph((unsigned char)*at)) {
            return false;
        }
    }
    size_t n = host_bytes(url);
    return n > 0 && !memchr(url + strlen(SCHEME), '@', n);
}

static struct origin *origin_of(struct http_plain *p, const char *url)
{
    const char *host = url + strlen(SCHEME);
    size_t n = host_bytes(url);
    for (size_t i = 0; i < p->n_origins; i++) {
        if (strncasecmp(p->origins[i]->host, host, n) == 0 && p->origins[i]->host[n] == '\0') {
            return p->origins[i];
        }
    }
    struct origin *o = xcalloc(1, sizeof *o);
    o->host = xasprintf("%.*s", (int)n, host);
    p->origins = xrealloc(p->origins, (p->n_origins + 1) * sizeof *p->origins);
    p->origins[p->n_origins++] = o;
    return o;
}

static bool has_header(const struct http_headers *headers, const char *name)
{
    size_t n = strlen(name);
    for (size_t i = 0; headers && i < headers->n; i++) {
        if (strncasecmp(headers->lines[i], name, n) == 0 && headers->lines[i][n] == ':') {
            return true;
        }
    }
    return false;
}

static void put_header(struct target *t, const char *name, const char *value)
{
    if (value && !has_header(t->headers, name)) {
        str_printf(&t->head, "%s: %s\r\n", name, value);
    }
}

/* "Name:" keeps a header away, as libcurl has it. */
static bool has_value(const char *line)
{
    const char *colon = strchr(line, ':');
    return colon && colon[1 + strspn(colon + 1, " \t")] != '\0';
}

static void write_head(const struct http_plain *p, struct target *t)
{
    const char *path = t->url + strlen(SCHEME) + host_bytes(t->url);
    str_printf(&t->head, "%s %s%.*s HTTP/1.1\r\n", t->is_post ? "POST" : "GET",
               *path == '/' ? "" : "/", (int)strcspn(path, "#"), path);
    put_header(t, "Host", t->origin->host);
    put_header(t, "User-Agent", p->settings->user_agent);
    put_header(t, "Accept", "*/*");
    for (size_t i = 0; t->headers && i < t->headers->n; i++) {
        if (has_value(t->headers->lines[i])) {
            str_printf(&t->head, "%s\r\n", t->headers->lines[i]);
        }
    }
}

static struct target *target_of(struct http_plain *p, const struct http_request *r)
{
    bool is_post = r->body != NULL;
    for (size_t i = 0; i < p->n_targets; i++) {
        struct target *t = p->targets[i];
        if (t->headers == r->headers && t->is_post == is_post && strcmp(t->url, r->url) == 0) {
            return t;
        }
    }
    struct target *t = xcalloc(1, sizeof *t);
    t->url = xstrdup(r->url);
    t->headers = r->headers;
    t->is_post = is_post;
    t->origin = origin_of(p, r->url);
    write_head(p, t);
    p->targets = xrealloc(p->targets, (p->n_targets + 1) * sizeof *p->targets);
    p->targets[p->n_targets++] = t;
    return t;
}

/* --- connections ------------------------------------------------------------------------------- */

static struct http_conn *take_conn(struct http_plain *p)
{
    struct http_conn *k = p->free;
    if (k) {
        p->free = k->next;
        return k;
    }
    k = xcalloc(1, sizeof *k);
    k->p = p;
    if (p->n_conns == p->cap_conns) {
        p->cap_conns = p->cap_conns > 0 ? 2 * p->cap_conns : 64;
        p->conns = xrealloc(p->conns, p->cap_conns * sizeof *p->conns);
    }
    p->conns[p->n_conns++] = k;
    return k;
}

static void add_idle(struct http_conn *k)
{
    struct origin *o = k->origin;
    k->before = NULL;
    k->next = o->idle;
    if (o->idle) {
        o->idle->before = k;
    }
    o->idle = k;
}

static void remove_idle(struct http_conn *k)
{
    if (k->before) {
        k->before->next = k->next;
    } else {
        k->origin->idle = k->next;
    }
    if (k->next) {
        k->next->before = k->before;
    }
}

static void close_conn(struct http_conn *k)
{
    close(k->fd);
    k->fd = -1;
    k->call = NULL;
    http_answer_free(&k->answer);
    k->next = k->p->free;
    k->p->free = k;
}

/* The call and its connection part. */
static struct http_call *leave(struct http_conn *k)
{
    struct http_call *c = k->call;
    k->call = NULL;
    c->conn = NULL;
    return c;
}

bool http_plain_has_idle(struct http_plain *p, const struct http_call *c)
{
    return target_of(p, &c->request)->origin->idle != NULL;
}

/* --- writing ----------------------------------------------------------------------------------- */

/* Wait until the socket takes more, or no longer. */
static void want_out(struct http_conn *k, bool wants_out)
{
    struct epoll_event ev = {.events = EPOLLIN | (wants_out ? EPOLLOUT : 0U), .data.ptr = k};
    if (k->wants_out != wants_out) {
        (void)epoll_ctl(k->p->epoll_fd, EPOLL_CTL_MOD, k->fd, &ev);
        k->wants_out = wants_out;
    }
}

/* What is left of the request: of its target's lines, of its own, of its body. */
static void unsent(struct http_conn *k, struct iovec part[3])
{
    const struct http_request *r = &k->call->request;
    part[0] = (struct iovec){k->target->head.data, k->target->head.len};
    part[1] = (struct iovec){k->head, k->n_head_bytes};
    part[2] = (struct iovec){(char *)(uintptr_t)r->body, r->n_body_bytes};
    size_t skip = k->n_sent;
    for (int i = 0; i < 3 && skip > 0; i++) {
        size_t n = skip < part[i].iov_len ? skip : part[i].iov_len;
        part[i].iov_base = (char *)part[i].iov_base + n;
        part[i].iov_len -= n;
        skip -= n;
    }
}

/* A server that takes no more may have answered: reading will say what became of it. */
static void write_request(struct http_conn *k)
{
    struct iovec part[3];
    struct msghdr m = {.msg_iov = part, .msg_iovlen = 3};
    unsent(k, part);
    ssize_t n = sendmsg(k->fd, &m, MSG_NOSIGNAL | MSG_DONTWAIT);
    k->n_sent += n > 0 ? (size_t)n : 0;
    bool takes_more = n >= 0 || errno == EAGAIN || errno == EINTR;
    want_out(k, takes_more && k->n_sent < k->n_all);
}

static void carry(struct http_conn *k, struct http_call *c)
{
    const struct http_request *r = &c->request;
    int n = r->id ? snprintf(k->head, sizeof k->head, "x-request-id: %s\r\n", r->id) : 0;
    if (r->body) {
        n += snprintf(k->head + n, sizeof k->head - (size_t)n, "Content-Length: %zu\r\n",
                      r->n_body_bytes);
    }
    n += snprintf(k->head + n, sizeof k->head - (size_t)n, "\r\n");
    CHECK((size_t)n < sizeof k->head);
    k->target = target_of(k->p, r);
    k->n_head_bytes = (size_t)n;
    k->n_all = k->target->head.len + k->n_head_bytes + r->n_body_bytes;
    k->n_sent = 0;
    k->call = c;
    c->conn = k;
    http_answer_begin(&k->answer);
    write_request(k);
}

/* libcurl has made a connection for this call. */
static void on_connected(struct http_call *c, int fd)
{
    struct http_plain *p = http_call_plain(c);
    struct http_conn *k = take_conn(p);
    struct epoll_event ev = {.events = EPOLLIN, .data.ptr = k};
    int on = 1;
    k->fd = fd;
    k->origin = target_of(p, &c->request)->origin;
    k->was_used = k->wants_out = false;
    (void)setsockopt(fd, SOL_SOCKET, SO_TIMESTAMPNS, &on, sizeof on);
    if (epoll_ctl(p->epoll_fd, EPOLL_CTL_ADD, fd, &ev) != 0) {
        http_call_fail(c, HTTP_FAILED, 0, strerror(errno));
        close_conn(k);
        return;
    }
    carry(k, c);
}

/* An idle connection over which nothing has come: what has is no answer to the next request. */
static struct http_conn *take_idle(struct origin *o)
{
    for (struct http_conn *k; (k = o->idle) != NULL;) {
        char byte;
        remove_idle(k);
        if (recv(k->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) < 0 && errno == EAGAIN) {
            return k;
        }
        close_conn(k);
    }
    return NULL;
}

void http_plain_start(struct http_plain *p, struct http_call *c)
{
    struct http_conn *k = take_idle(target_of(p, &c->request)->origin);
    if (k) {
        carry(k, c);
    } else {
        http_curl_connect(p->curl, c, on_connected);
    }
}

void http_plain_cancel(struct http_call *c)
{
    struct http_conn *k = c->conn;
    (void)leave(k);
    close_conn(k);
}

/* --- the end of a call --------------------------------------------------------------------------- */

static void end(struct http_call *c, enum http_fate fate, int status, int code, const char *message)
{
    http_call_end(c, &(const struct http_end){
                         .fate = fate,
                         .status = status,
                         .code = code,
                         .message = message,
                         .t_ns = http_call_plain(c)->t_read_ns,
                         .first_byte_ns = c->t_byte_ns < 0 ? -1 : c->t_byte_ns - c->t_start_ns,
                     });
}

/* The answer is whole; the connection serves another call if nothing speaks against it. */
static void finish(struct http_conn *k, bool is_clean)
{
    int status = k->answer.status;
    bool stays = is_clean && k->answer.keeps_open && k->n_sent == k->n_all;
    struct http_call *c = leave(k);
    if (stays) {
        k->was_used = true;
        add_idle(k);
    } else {
        close_conn(k);
    }
    end(c, HTTP_ANSWERED, status, 0, "");
}

static void fail(struct http_conn *k, enum http_fate fate, int code, const char *message)
{
    int status = k->answer.status;
    struct http_call *c = leave(k);
    close_conn(k);
    end(c, fate, status, code, message);
}

static void say_missing(const struct http_answer *a, char *message, size_t n)
{
    if (a->status > 0 && a->has_length && !a->is_chunked) {
        snprintf(message, n, "connection closed with %" PRIu64 " bytes missing", a->left);
    } else {
        snprintf(message, n, "connection closed before the answer was whole");
    }
}

/* The connection has ended, with errno `error`, or 0 where the server closed it. */
static void take_end(struct http_conn *k, int error)
{
    struct http_call *c = k->call;
    if (!c) {
        remove_idle(k);
        close_conn(k);
    } else if (c->t_byte_ns < 0 && k->was_used) { // the server let go of it as the request came
        struct http_plain *p = k->p;
        (void)leave(k);
        close_conn(k);
        http_plain_start(p, c);
    } else if (error == 0 && http_answer_ends_with_connection(&k->answer)) {
        finish(k, false);
    } else if (error != 0) {
        fail(k, HTTP_BROKEN, CODE_RECEIVE, strerror(error));
    } else if (c->t_byte_ns < 0) {
        fail(k, HTTP_BROKEN, CODE_NOTHING, "Empty reply from server");
    } else {
        say_missing(&k->answer, c->message, sizeof c->message);
        fail(k, HTTP_BROKEN, CODE_PARTIAL, c->message);
    }
}

/* --- reading ----------------------------------------------------------------------------------- */

bool http_plain_is_sent(const struct http_call *c)
{
    return c->conn && c->conn->n_sent == c->conn->n_all;
}

int http_plain_status(const struct http_call *c)
{
    return c->conn ? c->conn->answer.status : 0;
}

const char *http_plain_content_type(const struct http_call *c)
{
    return c->conn ? c->conn->answer.type : "";
}

void http_plain_look(struct http_plain *p)
{
    const int64_t most_jitter_ns = 50 * NS_PER_US;
    int64_t before_ns = p->unix_minus_now_ns;
    p->unix_minus_now_ns = clock_unix_ns() - clock_now_ns();
    int64_t change_ns = p->unix_minus_now_ns - before_ns;
    p->clock_stands = change_ns < most_jitter_ns && change_ns > -most_jitter_ns;
}

/* When the kernel took in what was read; where it does not say, or no sensible time, now. The look, at t_ns, was
 * before the read, maybe long before: what came between is read too. */
static int64_t arrival_ns(const struct http_conn *k, struct msghdr *m, int64_t t_ns)
{
    const struct cmsghdr *cm = CMSG_FIRSTHDR(m);
    struct timespec ts;
    if (!cm || cm->cmsg_level != SOL_SOCKET || cm->cmsg_type != SCM_TIMESTAMPNS ||
        !k->p->clock_stands) {
        return clock_now_ns();
    }
    memcpy(&ts, CMSG_DATA(cm), sizeof ts);
    int64_t at_ns = (int64_t)ts.tv_sec * NS_PER_S + ts.tv_nsec - k->p->unix_minus_now_ns;
    int64_t most_ns = at_ns < t_ns ? t_ns : clock_now_ns();
    return at_ns < most_ns && (!k->call || at_ns >= k->call->t_start_ns) ? at_ns : most_ns;
}

static void take_bytes(struct http_conn *k, const char *at, const char *end_of_bytes)
{
    struct http_call *c = k->call;
    for (;;) {
        struct http_answer_span span;
        switch (http_answer_take(&k->answer, &at, end_of_bytes, &span)) {
        case HTTP_ANSWER_BODY:
            if (!http_call_data(c, span.bytes, span.n, k->p->t_read_ns)) {
                fail(k, HTTP_STOPPED, CODE_WRITE, "enough");
                return;
            }
            break;
        case HTTP_ANSWER_MORE:
            return;
        case HTTP_ANSWER_OVER:
            finish(k, at == end_of_bytes);
            return;
        case HTTP_ANSWER_BAD:
            fail(k, HTTP_FAILED, CODE_WEIRD_ANSWER, k->answer.bad);
            return;
        }
    }
}

static int64_t read_answer(struct http_plain *p, struct http_conn *k, int64_t t_ns)
{
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(sizeof(struct timespec))];
    } control;
    struct iovec into = {p->bytes, READ_BYTES};
    struct msghdr m = {.msg_iov = &into,
                       .msg_iovlen = 1,
                       .msg_control = &control,
                       .msg_controllen = sizeof control};
    ssize_t n = recvmsg(k->fd, &m, MSG_DONTWAIT);
    p->t_read_ns = t_ns;
    if (n <= 0 || !k->call) { // an idle connection has nothing to say but its end
        if (n >= 0 || (errno != EAGAIN && errno != EINTR)) {
            take_end(k, n < 0 ? errno : 0);
        }
        return t_ns;
    }
    p->t_read_ns = arrival_ns(k, &m, t_ns);
    if (k->call->t_byte_ns < 0) {
        k->call->t_byte_ns = p->t_read_ns;
    }
    take_bytes(k, p->bytes, p->bytes + n);
    return p->t_read_ns;
}

int64_t http_plain_ready(struct http_plain *p, struct http_conn *k, uint32_t events, int64_t t_ns)
{
    if (k->fd >= 0 && events & EPOLLOUT && k->call) {
        write_request(k);
    }
    if (k->fd >= 0 && events & (EPOLLIN | EPOLLHUP | EPOLLERR)) {
        return read_answer(p, k, t_ns);
    }
    return t_ns;
}
