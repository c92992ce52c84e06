#include "core/http.h"

#include "core/clock.h"
#include "core/mem.h"
#include "core/str.h"

#include <curl/curl.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#define EVENTS_PER_POLL    256
#define CONNECT_TIMEOUT_NS (30 * NS_PER_S)
#define READ_BYTES         4096L // what libcurl reads at a time, allocated per call in flight
#define DNS_SECONDS        600L  // that a resolved address is good for
#define MAX_BODY_BYTES     (16u << 20)
#define ID_MAX             96 // of the header with a call's id

struct http_headers {
    struct curl_slist *list;
};

struct shard {
    struct http *h;
    uint32_t index; // in h->shards
    CURLM *multi;
    uint32_t n_calls;    // in flight
    int64_t deadline_ns; // libcurl wants to be called by then; INT64_MAX: never
};

struct http_call {
    struct http *h;
    CURL *easy;
    struct shard *shard;    // NULL: waiting for its turn to connect
    struct http_call *next; // free, or waiting
    struct http_request request;
    struct curl_slist id_header;
    char id[ID_MAX];
    char message[CURL_ERROR_SIZE];
    int64_t t_start_ns, t_byte_ns;
    bool is_stopped;
};

struct http {
    struct http_settings settings;
    CURLSH *share; // of resolved names
    int epoll_fd;
    struct shard **shards; // (n_shards)
    size_t n_shards;
    struct http_call **calls; // (n_calls) ever made
    size_t n_calls, cap_calls;
    struct http_call *free;
    struct http_call *first_waiting, *last_waiting;
    uint64_t n_running;    // calls that libcurl has
    double connect_credit; // new connections that may be made now
    int64_t t_credit_ns;
    int64_t t_socket_ns; // when the socket under way was looked at
    uint64_t n_open;     // connections
    struct http_times times;
    struct epoll_event events[EVENTS_PER_POLL];
};

/* --- callbacks of libcurl --------------------------------------------------------------------- */

static size_t on_data(char *bytes, size_t size, size_t n, void *arg)
{
    struct http_call *c = arg;
    struct http *h = c->h;
    (void)size; // always 1
    if (c->t_byte_ns < 0) {
        c->t_byte_ns = h->t_socket_ns;
    }
    if (c->request.data && c->request.data(c->request.arg, c, bytes, n, h->t_socket_ns) != 0) {
        c->is_stopped = true;
        return CURL_WRITEFUNC_ERROR;
    }
    return n;
}

static int on_timer(CURLM *multi, long ms, void *arg)
{
    struct shard *s = arg;
    (void)multi;
    s->deadline_ns = ms < 0 ? INT64_MAX : clock_local_ns() + ms * NS_PER_MS;
    return 0;
}

/* libcurl wants other events of a socket. Which ones it has now is kept with the socket. */
static int on_socket(CURL *easy, curl_socket_t fd, int what, void *arg, void *assigned)
{
    struct shard *s = arg;
    struct http *h = s->h;
    (void)easy;
    if (what == CURL_POLL_REMOVE) {
        (void)epoll_ctl(h->epoll_fd, EPOLL_CTL_DEL, fd, NULL); // may be closed already
        return 0;
    }
    struct epoll_event ev = {
        .events = (what & CURL_POLL_IN ? EPOLLIN : 0U) | (what & CURL_POLL_OUT ? EPOLLOUT : 0U),
        .data.u64 = (uint64_t)s->index << 32 | (uint32_t)fd,
    };
    if (epoll_ctl(h->epoll_fd, assigned ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, fd, &ev) != 0) {
        return -1;
    }
    if (!assigned) {
        (void)curl_multi_assign(s->multi, fd, s);
    }
    return 0;
}

static curl_socket_t on_open_socket(void *arg, curlsocktype purpose, struct curl_sockaddr *a)
{
    struct http *h = arg;
    (void)purpose;
    int fd = socket(a->family, a->socktype | SOCK_CLOEXEC, a->protocol);
    if (fd >= 0) {
        h->n_open++;
    }
    return fd;
}

static int on_close_socket(void *arg, curl_socket_t fd)
{
    struct http *h = arg;
    h->n_open--;
    return close(fd);
}

/* --- opening ---------------------------------------------------------------------------------- */

/* Settings that all easy handles have in common. */
static void set_common(CURL *easy, const struct http_settings *s)
{
    static const long versions[] = {
        [HTTP_AUTO] = CURL_HTTP_VERSION_2TLS,
        [HTTP_1_1] = CURL_HTTP_VERSION_1_1,
        [HTTP_2] = CURL_HTTP_VERSION_2_PRIOR_KNOWLEDGE,
    };
    int64_t connect_ns = s->connect_timeout_ns > 0 ? s->connect_timeout_ns : CONNECT_TIMEOUT_NS;
    curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, versions[s->version]);
    curl_easy_setopt(easy, CURLOPT_PIPEWAIT, s->version == HTTP_2 ? 1L : 0L);
    curl_easy_setopt(easy, CURLOPT_PROXY, s->proxy ? s->proxy : "");
    curl_easy_setopt(easy, CURLOPT_SSL_VERIFYPEER, s->insecure ? 0L : 1L);
    curl_easy_setopt(easy, CURLOPT_SSL_VERIFYHOST, s->insecure ? 0L : 2L);
    curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS, (long)(connect_ns / NS_PER_MS));
    curl_easy_setopt(easy, CURLOPT_DNS_CACHE_TIMEOUT, DNS_SECONDS);
    curl_easy_setopt(easy, CURLOPT_USERAGENT, s->user_agent);
    curl_easy_setopt(easy, CURLOPT_SSLCERT, s->cert_file);
    curl_easy_setopt(easy, CURLOPT_SSLKEY, s->key_file);
    if (s->ca_file) {
        curl_easy_setopt(easy, CURLOPT_CAINFO, s->ca_file);
    }
}

static int start_library(struct err *e)
{
    static bool is_started;
    if (!is_started && curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK) {
        return err_set(e, ERR_ENV, "libcurl does not start");
    }
    is_started = true;
    return 0;
}

int http_open(struct http **out, const struct http_settings *s, struct err *e)
{
    if (start_library(e) != 0) {
        return -1;
    }
    struct http *h = xcalloc(1, sizeof *h);
    h->settings = *s;
    h->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (h->epoll_fd < 0) {
        free(h);
        return err_set(e, ERR_ENV, "epoll_create1: %s", strerror(errno));
    }
    h->share = curl_share_init();
    CHECK(h->share);
    curl_share_setopt(h->share, CURLSHOPT_SHARE, CURL_LOCK_DATA_DNS);
    hist_reset(&h->times.to_stamp);
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
        struct http_call *c = h->calls[i];
        if (c->shard) {
            curl_multi_remove_handle(c->shard->multi, c->easy);
        }
        curl_easy_cleanup(c->easy);
        free(c);
    }
    for (size_t i = 0; i < h->n_shards; i++) {
        curl_multi_cleanup(h->shards[i]->multi);
        free(h->shards[i]);
    }
    curl_share_cleanup(h->share);
    free(h->shards);
    free(h->calls);
    close(h->epoll_fd);
    free(h);
}

struct http_headers *http_headers_create(const char *const *lines, size_t n)
{
    struct http_headers *headers = xcalloc(1, sizeof *headers);
    for (size_t i = 0; i < n; i++) {
        headers->list = curl_slist_append(headers->list, lines[i]);
        CHECK(headers->list);
    }
    return headers;
}

void http_headers_free(struct http_headers *headers)
{
    if (headers) {
        curl_slist_free_all(headers->list);
        free(headers);
    }
}

/* --- shards and calls ------------------------------------------------------------------------- */

static struct shard *add_shard(struct http *h)
{
    struct shard *s = xcalloc(1, sizeof *s);
    s->h = h;
    s->index = (uint32_t)h->n_shards;
    s->deadline_ns = INT64_MAX;
    s->multi = curl_multi_init();
    CHECK(s->multi);
    curl_multi_setopt(s->multi, CURLMOPT_SOCKETFUNCTION, on_socket);
    curl_multi_setopt(s->multi, CURLMOPT_SOCKETDATA, s);
    curl_multi_setopt(s->multi, CURLMOPT_TIMERFUNCTION, on_timer);
    curl_multi_setopt(s->multi, CURLMOPT_TIMERDATA, s);
    curl_multi_setopt(s->multi, CURLMOPT_MAXCONNECTS, 2L * HTTP_SHARD_CALLS);
    h->shards = xrealloc(h->shards, (h->n_shards + 1) * sizeof *h->shards);
    h->shards[h->n_shards++] = s;
    return s;
}

/* The first one with room: idle connections are used again rather than left to grow old. */
static struct shard *pick_shard(struct http *h)
{
    for (size_t i = 0; i < h->n_shards; i++) {
        if (h->shards[i]->n_calls < HTTP_SHARD_CALLS) {
            return h->shards[i];
        }
    }
    return add_shard(h);
}

static struct http_call *make_call(struct http *h)
{
    struct http_call *c = xcalloc(1, sizeof *c);
    const struct http_settings *s = &h->settings;
    c->h = h;
    c->easy = curl_easy_init();
    CHECK(c->easy);
    set_common(c->easy, s);
    curl_easy_setopt(c->easy, CURLOPT_SHARE, h->share);
    curl_easy_setopt(c->easy, CURLOPT_PRIVATE, c);
    curl_easy_setopt(c->easy, CURLOPT_ERRORBUFFER, c->message);
    curl_easy_setopt(c->easy, CURLOPT_WRITEFUNCTION, on_data);
    curl_easy_setopt(c->easy, CURLOPT_WRITEDATA, c);
    curl_easy_setopt(c->easy, CURLOPT_OPENSOCKETFUNCTION, on_open_socket);
    curl_easy_setopt(c->easy, CURLOPT_OPENSOCKETDATA, h);
    curl_easy_setopt(c->easy, CURLOPT_CLOSESOCKETFUNCTION, on_close_socket);
    curl_easy_setopt(c->easy, CURLOPT_CLOSESOCKETDATA, h);
    if (s->n_local_addresses > 0) {
        const char *address = s->local_addresses[h->n_calls % s->n_local_addresses];
        curl_easy_setopt(c->easy, CURLOPT_INTERFACE, address);
    }
    if (h->n_calls == h->cap_calls) {
        h->cap_calls = h->cap_calls > 0 ? 2 * h->cap_calls : 64;
        h->calls = xrealloc(h->calls, h->cap_calls * sizeof *h->calls);
    }
    h->calls[h->n_calls++] = c;
    return c;
}

static struct http_call *take_call(struct http *h)
{
    struct http_call *c = h->free;
    if (!c) {
        return make_call(h);
    }
    h->free = c->next;
    return c;
}

static void free_call(struct http_call *c)
{
    c->next = c->h->free;
    c->h->free = c;
}

/* Give it to libcurl, and let that write the request at once. */
static void begin(struct http_call *c)
{
    struct http *h = c->h;
    int n_running;
    c->shard = pick_shard(h);
    c->shard->n_calls++;
    h->n_running++;
    h->t_socket_ns = clock_now_ns();
    CHECK(curl_multi_add_handle(c->shard->multi, c->easy) == CURLM_OK);
    (void)curl_multi_socket_action(c->shard->multi, CURL_SOCKET_TIMEOUT, 0, &n_running);
}

/* libcurl has no more to do with it. */
static void leave(struct http_call *c)
{
    curl_multi_remove_handle(c->shard->multi, c->easy);
    c->shard->n_calls--;
    c->shard = NULL;
    c->h->n_running--;
}

/* --- pacing connections ------------------------------------------------------------------------- */

/* Whether a call may begin now: an idle connection is there for it, or a new one may be made. */
static bool may_begin(struct http *h)
{
    double rate = h->settings.connects_rps;
    if (rate <= 0.0 || h->n_open > h->n_running) {
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

static void wait_turn(struct http_call *c)
{
    struct http *h = c->h;
    c->next = NULL;
    if (h->last_waiting) {
        h->last_waiting->next = c;
    } else {
        h->first_waiting = c;
    }
    h->last_waiting = c;
}

static void begin_waiting(struct http *h)
{
    while (h->first_waiting && may_begin(h)) {
        struct http_call *c = h->first_waiting;
        h->first_waiting = c->next;
        h->last_waiting = c->next ? h->last_waiting : NULL;
        begin(c);
    }
}

static void forget_waiting(struct http_call *c)
{
    struct http *h = c->h;
    struct http_call *before = NULL;
    for (struct http_call **at = &h->first_waiting; *at; at = &(*at)->next) {
        if (*at == c) {
            *at = c->next;
            h->last_waiting = h->last_waiting == c ? before : h->last_waiting;
            return;
        }
        before = *at;
    }
}

/* --- starting and ending calls ------------------------------------------------------------------ */

/* What libcurl reads at a time: memory of every call in flight, so less when there are many. */
static long read_bytes(const struct http *h)
{
    return h->n_running < 64 ? 65536L : h->n_running < 512 ? 16384L : 2048L;
}

static void set_request(struct http_call *c, const struct http_request *r)
{
    struct curl_slist *headers = r->headers ? r->headers->list : NULL;
    if (r->id) {
        snprintf(c->id, sizeof c->id, "x-request-id: %s", r->id);
        c->id_header = (struct curl_slist){.data = c->id, .next = headers};
        headers = &c->id_header;
    }
    curl_easy_setopt(c->easy, CURLOPT_BUFFERSIZE, read_bytes(c->h));
    curl_easy_setopt(c->easy, CURLOPT_URL, r->url);
    curl_easy_setopt(c->easy, CURLOPT_HTTPHEADER, headers);
    curl_easy_setopt(c->easy, CURLOPT_TIMEOUT_MS, (long)(r->timeout_ns / NS_PER_MS));
    if (r->body) {
        curl_easy_setopt(c->easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)r->n_body_bytes);
        curl_easy_setopt(c->easy, CURLOPT_POSTFIELDS, r->body);
    } else {
        curl_easy_setopt(c->easy, CURLOPT_HTTPGET, 1L);
    }
}

struct http_call *http_start(struct http *h, const struct http_request *r)
{
    struct http_call *c = take_call(h);
    c->request = *r;
    c->is_stopped = false;
    c->message[0] = '\0';
    c->t_byte_ns = -1;
    c->t_start_ns = clock_now_ns();
    set_request(c, r);
    if (!h->first_waiting && may_begin(h)) {
        begin(c);
    } else {
        wait_turn(c);
    }
    return c;
}

void http_cancel(struct http_call *c)
{
    if (c->shard) {
        leave(c);
    } else {
        forget_waiting(c);
    }
    free_call(c);
}

static enum http_fate fate_of(const struct http_call *c, CURLcode code)
{
    switch (code) {
    case CURLE_OK:
        return HTTP_ANSWERED;
    case CURLE_COULDNT_RESOLVE_HOST:
    case CURLE_COULDNT_RESOLVE_PROXY:
        return HTTP_UNRESOLVED;
    case CURLE_COULDNT_CONNECT:
    case CURLE_INTERFACE_FAILED:
        return HTTP_REFUSED;
    case CURLE_SSL_CONNECT_ERROR:
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_SSL_CERTPROBLEM:
    case CURLE_SSL_CIPHER:
    case CURLE_SSL_CACERT_BADFILE:
    case CURLE_SSL_ISSUER_ERROR:
        return HTTP_TLS;
    case CURLE_GOT_NOTHING:
    case CURLE_PARTIAL_FILE:
    case CURLE_RECV_ERROR:
    case CURLE_SEND_ERROR:
    case CURLE_HTTP2:
    case CURLE_HTTP2_STREAM:
        return HTTP_BROKEN;
    case CURLE_WRITE_ERROR:
        return c->is_stopped ? HTTP_STOPPED : HTTP_FAILED;
    default:
        return HTTP_FAILED;
    }
}

static void end_call(struct http_call *c, CURLcode code)
{
    struct http_request r = c->request;
    curl_off_t first_byte_us = 0;
    curl_easy_getinfo(c->easy, CURLINFO_STARTTRANSFER_TIME_T, &first_byte_us);
    int status = http_status(c);
    leave(c);
    const struct http_end end = {
        .fate = fate_of(c, code),
        .status = status,
        .library_code = (int)code,
        .message = c->message[0] ? c->message : curl_easy_strerror(code),
        .first_byte_ns = first_byte_us > 0 ? first_byte_us * NS_PER_US : -1,
    };
    if (r.end) {
        r.end(r.arg, &end);
    }
    free_call(c);
}

int http_status(const struct http_call *c)
{
    long status = 0;
    curl_easy_getinfo(c->easy, CURLINFO_RESPONSE_CODE, &status);
    return (int)status;
}

const char *http_content_type(const struct http_call *c)
{
    const char *type = NULL;
    curl_easy_getinfo(c->easy, CURLINFO_CONTENT_TYPE, &type);
    return type ? type : "";
}

/* --- reading and writing ------------------------------------------------------------------------ */

static void take_ended(struct shard *s)
{
    int n_left;
    for (CURLMsg *m; (m = curl_multi_info_read(s->multi, &n_left)) != NULL;) {
        if (m->msg == CURLMSG_DONE) {
            CURLcode code = m->data.result;
            char *call = NULL;
            curl_easy_getinfo(m->easy_handle, CURLINFO_PRIVATE, &call);
            end_call((struct http_call *)(void *)call, code);
        }
    }
}

static void run_timers(struct http *h)
{
    int64_t now_ns = clock_local_ns();
    for (size_t i = 0; i < h->n_shards; i++) {
        struct shard *s = h->shards[i];
        if (s->deadline_ns <= now_ns) {
            int n_running;
            s->deadline_ns = INT64_MAX;
            h->t_socket_ns = clock_now_ns();
            (void)curl_multi_socket_action(s->multi, CURL_SOCKET_TIMEOUT, 0, &n_running);
            take_ended(s);
        }
    }
}

static void run_sockets(struct http *h, int n)
{
    int64_t ready_ns = clock_now_ns();
    for (int i = 0; i < n; i++) {
        const struct epoll_event *ev = &h->events[i];
        struct shard *s = h->shards[ev->data.u64 >> 32];
        int what = (ev->events & (EPOLLIN | EPOLLHUP | EPOLLERR) ? CURL_CSELECT_IN : 0) |
                   (ev->events & EPOLLOUT ? CURL_CSELECT_OUT : 0) |
                   (ev->events & (EPOLLERR | EPOLLHUP) ? CURL_CSELECT_ERR : 0);
        int n_running;
        h->t_socket_ns = clock_now_ns();
        (void)curl_multi_socket_action(s->multi, (int)(ev->data.u64 & UINT32_MAX), what,
                                       &n_running);
        if (what & CURL_CSELECT_IN) {
            hist_record(&h->times.to_stamp, h->t_socket_ns - ready_ns);
            hist_record(&h->times.handling, clock_now_ns() - h->t_socket_ns);
        }
        take_ended(s);
    }
}

static int64_t next_timer_ns(const struct http *h)
{
    int64_t t_ns = h->first_waiting ? clock_local_ns() + NS_PER_MS : INT64_MAX;
    for (size_t i = 0; i < h->n_shards; i++) {
        int64_t s_ns = h->shards[i]->deadline_ns;
        t_ns = s_ns < t_ns ? s_ns : t_ns;
    }
    return t_ns;
}

static int look(struct http *h, int64_t wait_ns)
{
    struct timespec wait = {.tv_sec = wait_ns / NS_PER_S, .tv_nsec = wait_ns % NS_PER_S};
    int n = epoll_pwait2(h->epoll_fd, h->events, EVENTS_PER_POLL, &wait, NULL);
    if (n > 0) {
        run_sockets(h, n);
    }
    run_timers(h);
    begin_waiting(h);
    return n > 0 ? n : 0;
}

int http_poll(struct http *h)
{
    return look(h, 0);
}

int http_wait(struct http *h, int64_t wait_ns)
{
    int64_t left_ns = next_timer_ns(h);
    left_ns = left_ns == INT64_MAX ? wait_ns : left_ns - clock_local_ns();
    left_ns = left_ns < wait_ns ? left_ns : wait_ns;
    return look(h, left_ns > 0 ? left_ns : 0);
}

struct http_times *http_times(struct http *h)
{
    return &h->times;
}

/* --- outside of any load -------------------------------------------------------------------------- */

static size_t on_body(char *bytes, size_t size, size_t n, void *arg)
{
    struct str *body = arg;
    if (body->len + size * n > MAX_BODY_BYTES) {
        return CURL_WRITEFUNC_ERROR;
    }
    str_append(body, bytes, size * n);
    return size * n;
}

struct http_getter {
    CURL *easy;
    char message[CURL_ERROR_SIZE];
};

int http_getter_open(struct http_getter **out, const struct http_settings *s,
                     struct http_headers *headers, struct err *e)
{
    if (start_library(e) != 0) {
        return -1;
    }
    struct http_getter *g = xcalloc(1, sizeof *g);
    g->easy = curl_easy_init();
    CHECK(g->easy);
    set_common(g->easy, s);
    curl_easy_setopt(g->easy, CURLOPT_HTTPHEADER, headers ? headers->list : NULL);
    curl_easy_setopt(g->easy, CURLOPT_ERRORBUFFER, g->message);
    curl_easy_setopt(g->easy, CURLOPT_WRITEFUNCTION, on_body);
    *out = g;
    return 0;
}

int http_getter_get(struct http_getter *g, const char *url, int64_t timeout_ns, int *status,
                    struct str *body, struct err *e)
{
    long response = 0;
    g->message[0] = '\0';
    curl_easy_setopt(g->easy, CURLOPT_URL, url);
    curl_easy_setopt(g->easy, CURLOPT_TIMEOUT_MS, (long)(timeout_ns / NS_PER_MS));
    curl_easy_setopt(g->easy, CURLOPT_WRITEDATA, body);
    CURLcode code = curl_easy_perform(g->easy);
    curl_easy_getinfo(g->easy, CURLINFO_RESPONSE_CODE, &response);
    *status = (int)response;
    if (code != CURLE_OK) {
        return err_set(e, ERR_ENV, "%s: %s", url,
                       g->message[0] ? g->message : curl_easy_strerror(code));
    }
    return 0;
}

void http_getter_close(struct http_getter *g)
{
    if (g) {
        curl_easy_cleanup(g->easy);
        free(g);
    }
}

int http_get(const struct http_settings *s, const char *url, struct http_headers *headers,
             int64_t timeout_ns, int *status, struct str *body, struct err *e)
{
    struct http_getter *g;
    if (http_getter_open(&g, s, headers, e) != 0) {
        return -1;
    }
    int rc = http_getter_get(g, url, timeout_ns, status, body, e);
    http_getter_close(g);
    return rc;
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
    return curl_version_info(CURLVERSION_NOW)->version_num >= 0x080000;
}

const char *http_library(void)
{
    return curl_version();
}
