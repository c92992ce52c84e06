#include "core/http.h"

#include "core/clock.h"
#include "core/epoll_fine.h"
#include "core/http_call.h"
#include "core/http_curl.h"
#include "core/http_plain.h"
#include "core/mem.h"

#include <errno.h>
#include <stdlib.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <unistd.h>

#define EVENTS_PER_LOOK 256

struct queue {
    struct http_call *first, *last;
};

struct http {
    struct http_settings settings;
    int epoll_fd;
    struct http_curl *curl;
    struct http_plain *plain;
    struct http_call **calls; // (n_calls) ever made
    size_t n_calls, cap_calls;
    struct http_call *free;
    struct queue waiting;  // for their turn to connect
    struct queue failed;   // to be ended
    double connect_credit; // new connections that may be made now
    int64_t t_credit_ns;
    struct http_times times;
    struct epoll_event events[EVENTS_PER_LOOK];
};

/* --- queues of calls ---------------------------------------------------------------------------- */

static void push(struct queue *q, struct http_call *c)
{
    c->next = NULL;
    if (q->last) {
        q->last->next = c;
    } else {
        q->first = c;
    }
    q->last = c;
}

static struct http_call *pop(struct queue *q)
{
    struct http_call *c = q->first;
    q->first = c->next;
    q->last = q->first ? q->last : NULL;
    return c;
}

static void drop(struct queue *q, struct http_call *c)
{
    struct http_call *before = NULL;
    for (struct http_call **at = &q->first; *at; at = &(*at)->next) {
        if (*at == c) {
            *at = c->next;
            q->last = q->last == c ? before : q->last;
            return;
        }
        before = *at;
    }
}

/* --- opening ------------------------------------------------------------------------------------ */

int http_open(struct http **out, const struct http_settings *s, struct err *e)
{
    struct http *h = xcalloc(1, sizeof *h);
    h->settings = *s;
    h->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (h->epoll_fd < 0) {
        free(h);
        return err_set(e, ERR_ENV, "epoll_create1: %s", strerror(errno));
    }
    if (http_curl_open(&h->curl, &h->settings, h->epoll_fd, e) != 0) {
        close(h->epoll_fd);
        free(h);
        return -1;
    }
    h->plain = http_plain_open(&h->settings, h->curl, h->epoll_fd);
    hist_reset(&h->times.to_read);
    hist_reset(&h->times.handling);
    h->t_credit_ns = clock_local_ns();
    *out = h;
    return 0;
}

void http_close(struct http *h)
{
    if (!h) {
        return;
    }
    for (size_t i = 0; i < h->n_calls; i++) {
        free(h->calls[i]);
    }
    http_plain_close(h->plain);
    http_curl_close(h->curl);
    free(h->calls);
    close(h->epoll_fd);
    free(h);
}

struct http_headers *http_headers_create(const char *const *lines, size_t n)
{
    struct http_headers *headers = xcalloc(1, sizeof *headers);
    headers->lines = xcalloc(n > 0 ? n : 1, sizeof *headers->lines);
    for (size_t i = 0; i < n; i++) {
        headers->lines[headers->n++] = xstrdup(lines[i]);
    }
    headers->list = http_curl_list(headers->lines, n);
    return headers;
}

void http_headers_free(struct http_headers *headers)
{
    if (!headers) {
        return;
    }
    for (size_t i = 0; i < headers->n; i++) {
        free(headers->lines[i]);
    }
    http_curl_free_list(headers->list);
    free(headers->lines);
    free(headers);
}

/* --- the pool of calls ---------------------------------------------------------------------------- */

static struct http_call *take_call(struct http *h)
{
    struct http_call *c = h->free;
    if (c) {
        h->free = c->next;
        return c;
    }
    c = xcalloc(1, sizeof *c);
    c->h = h;
    if (h->n_calls == h->cap_calls) {
        h->cap_calls = h->cap_calls > 0 ? 2 * h->cap_calls : 64;
        h->calls = xrealloc(h->calls, h->cap_calls * sizeof *h->calls);
    }
    h->calls[h->n_calls++] = c;
    return c;
}

static void free_call(struct http_call *c)
{
    c->next = c->h->free;
    c->h->free = c;
}

struct http_plain *http_call_plain(const struct http_call *c)
{
    return c->h->plain;
}

/* --- pacing connections ------------------------------------------------------------------------- */

static bool is_plain(const struct http_settings *s, const char *url)
{
    return !s->proxy && s->version != HTTP_2 && http_plain_takes(url);
}

bool http_is_stamped(const struct http *h, const char *url)
{
    return is_plain(&h->settings, url);
}

/* Whether a call may begin now: an idle connection is there for it, or a new one may be made. */
static bool may_begin(const struct http_call *c)
{
    struct http *h = c->h;
    double rate = h->settings.connects_rps;
    if (rate <= 0.0 ||
        (c->is_plain ? http_plain_has_idle(h->plain, c) : http_curl_has_idle(h->curl))) {
        return true;
    }
    int64_t now_ns = clock_local_ns();
    double credit = h->connect_credit + (double)(now_ns - h->t_credit_ns) * rate / (double)NS_PER_S;
    h->t_credit_ns = now_ns;
    h->connect_credit = credit < 1.0 ? credit : 1.0;
    if (h->connect_credit < 1.0) {
        return false;
    }
    h->connect_credit -= 1.0;
    return true;
}

static void begin(struct http_call *c)
{
    c->t_start_ns = clock_now_ns();
    if (c->request.begins) {
        c->request.begins(c->request.arg, c->t_start_ns);
    }
    if (c->is_plain) {
        http_plain_start(c->h->plain, c);
    } else {
        http_curl_start(c->h->curl, c);
    }
}

static void begin_waiting(struct http *h)
{
    while (h->waiting.first && may_begin(h->waiting.first)) {
        begin(pop(&h->waiting));
    }
}

/* --- calls from beginning to end ------------------------------------------------------------------ */

struct http_call *http_start(struct http *h, const struct http_request *r)
{
    struct http_call *c = take_call(h);
    c->request = *r;
    c->is_plain = is_plain(&h->settings, r->url);
    c->t_byte_ns = -1;
    if (!h->waiting.first && may_begin(c)) {
        begin(c);
    } else {
        push(&h->waiting, c);
    }
    return c;
}

void http_cancel(struct http_call *c)
{
    if (c->transfer) {
        http_curl_cancel(c);
    } else if (c->conn) {
        http_plain_cancel(c);
    } else {
        drop(&c->h->waiting, c);
        drop(&c->h->failed, c);
    }
    free_call(c);
}

bool http_call_data(struct http_call *c, const char *bytes, size_t n, int64_t t_ns)
{
    return !c->request.data || c->request.data(c->request.arg, c, bytes, n, t_ns) == 0;
}

void http_call_end(struct http_call *c, const struct http_end *end)
{
    if (c->request.end) {
        c->request.end(c->request.arg, end);
    }
    free_call(c);
}

void http_call_fail(struct http_call *c, enum http_fate fate, int code, const char *message)
{
    snprintf(c->message, sizeof c->message, "%s", message);
    c->end =
        (struct http_end){.fate = fate, .code = code, .message = c->message, .first_byte_ns = -1};
    push(&c->h->failed, c);
}

bool http_is_sent(const struct http_call *c)
{
    return c->transfer ? http_curl_is_sent(c) : http_plain_is_sent(c);
}

int http_status(const struct http_call *c)
{
    return c->transfer ? http_curl_status(c) : http_plain_status(c);
}

const char *http_content_type(const struct http_call *c)
{
    return c->transfer ? http_curl_content_type(c) : http_plain_content_type(c);
}

/* --- looking at the sockets ------------------------------------------------------------------------ */

static void run_sockets(struct http *h, int n)
{
    int64_t ready_ns = clock_now_ns(), t_ns = ready_ns;
    http_plain_look(h->plain);
    for (int i = 0; i < n; i++) {
        const struct epoll_event *ev = &h->events[i];
        int64_t arrived_ns = ready_ns;
        if (ev->data.u64 & HTTP_OF_CURL) {
            http_curl_ready(h->curl, ev->data.u64, ev->events, t_ns);
        } else {
            arrived_ns = http_plain_ready(h->plain, ev->data.ptr, ev->events, t_ns);
        }
        int64_t done_ns = clock_now_ns();
        if (ev->events & (EPOLLIN | EPOLLHUP | EPOLLERR)) {
            hist_record(&h->times.to_read, t_ns - arrived_ns);
            hist_record(&h->times.handling, done_ns - t_ns);
        }
        t_ns = done_ns;
    }
}

static int look(struct http *h, int64_t wait_ns)
{
    int n = epoll_fine_wait(h->epoll_fd, h->events, EVENTS_PER_LOOK, wait_ns, NULL);
    if (n > 0) {
        run_sockets(h, n);
    }
    http_curl_run_timers(h->curl);
    begin_waiting(h);
    while (h->failed.first) {
        struct http_call *c = pop(&h->failed);
        http_call_end(c, &c->end);
    }
    return n > 0 ? n : 0;
}

int http_poll(struct http *h)
{
    return look(h, 0);
}

/* How long from now something is to be done without any socket; 0: at once. */
static int64_t timer_left_ns(const struct http *h, int64_t most_ns)
{
    int64_t next_ns = http_curl_next_timer_ns(h->curl), now_ns = clock_local_ns();
    int64_t left_ns = h->failed.first ? 0 : next_ns == INT64_MAX ? most_ns : next_ns - now_ns;
    left_ns = h->waiting.first && left_ns > NS_PER_MS ? NS_PER_MS : left_ns;
    return left_ns < 0 ? 0 : left_ns < most_ns ? left_ns : most_ns;
}

int http_wait(struct http *h, int64_t wait_ns)
{
    return look(h, timer_left_ns(h, wait_ns));
}

struct http_times *http_times(struct http *h)
{
    return &h->times;
}

uint64_t http_raise_open_files(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0) {
        return 0;
    }
    limit.rlim_cur = limit.rlim_max;
    (void)setrlimit(RLIMIT_NOFILE, &limit);
    return getrlimit(RLIMIT_NOFILE, &limit) == 0 ? limit.rlim_cur : 0;
}

bool http_has_h2c(void)
{
    return http_curl_has_h2c();
}

const char *http_library(void)
{
    return http_curl_library();
}
