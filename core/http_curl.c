#include "core/http_curl.h"

#include "core/clock.h"
#include "core/mem.h"

#include <curl/curl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define STREAMS            100 // that libcurl puts on one HTTP/2 connection
#define CONNECT_TIMEOUT_NS (30 * NS_PER_S)
#define DNS_SECONDS        600L             // that a resolved address is good for
#define ID_BYTES           96               // of the header with a call's id
#define LOOK_NS            (50 * NS_PER_US) // what is read so soon after a look has its time

struct shard {
    struct http_curl *q;
    uint32_t index;   // in q->shards
    bool is_connects; // what http_start may end, which whole calls are not
    CURLM *multi;
    uint32_t n_transfers; // under way
    bool multiplexes;     // its last answer came over HTTP/2
    int64_t deadline_ns;  // libcurl wants to be called by then; INT64_MAX: never
};

struct http_transfer {
    CURL *easy;
    struct shard *shard;
    struct http_call *call;
    void (*connected)(struct http_call *c, int fd); // NULL: a whole call
    struct http_transfer *next;                     // free
    struct curl_slist id_header;
    char id[ID_BYTES];
    char message[CURL_ERROR_SIZE];
    bool is_stopped;
};

struct http_curl {
    const struct http_settings *settings;
    CURLSH *share; // of resolved names
    int epoll_fd;
    struct shard **shards; // (n_shards)
    size_t n_shards;
    struct http_transfer **transfers; // (n_all) ever made
    size_t n_all, cap_all;
    struct http_transfer *free_calls, *free_connects;
    uint64_t n_calls;    // whole ones under way
    uint64_t n_sockets;  // open
    uint64_t n_connects; // begun
    int keep_fd;         // the socket that is being handed over; < 0: none
    int64_t t_socket_ns; // when the socket under way was looked at, or read
};

/* --- callbacks of libcurl --------------------------------------------------------------------- */

/* When the bytes under way were read. Between the look and them there may have been a handshake over another
 * socket, or our turn on the core ended: they may be younger than the look. */
static int64_t read_ns(struct http_curl *q)
{
    int64_t now_ns = clock_now_ns();
    q->t_socket_ns = now_ns - q->t_socket_ns < LOOK_NS ? q->t_socket_ns : now_ns;
    return q->t_socket_ns;
}

static size_t on_data(char *bytes, size_t size, size_t n, void *arg)
{
    struct http_transfer *t = arg;
    int64_t t_ns = read_ns(t->shard->q);
    (void)size; // always 1
    if (t->call->t_byte_ns < 0) {
        long version = CURL_HTTP_VERSION_NONE;
        curl_easy_getinfo(t->easy, CURLINFO_HTTP_VERSION, &version);
        t->shard->multiplexes = version == CURL_HTTP_VERSION_2_0;
        t->call->t_byte_ns = t_ns;
    }
    t->is_stopped = !http_call_data(t->call, bytes, n, t_ns);
    return t->is_stopped ? CURL_WRITEFUNC_ERROR : n;
}

static int on_timer(CURLM *multi, long ms, void *arg)
{
    struct shard *s = arg;
    (void)multi;
    s->deadline_ns = ms < 0 ? INT64_MAX : clock_local_ns() + ms * NS_PER_MS;
    return 0;
}

static uint64_t pack(const struct shard *s, int fd)
{
    return (uint64_t)s->index << 32 | (uint64_t)fd << 1 | HTTP_OF_CURL;
}

/* libcurl wants other events of a socket. Which ones it has now is kept with the socket. */
static int on_socket(CURL *easy, curl_socket_t fd, int what, void *arg, void *assigned)
{
    struct shard *s = arg;
    int epoll_fd = s->q->epoll_fd;
    (void)easy;
    if (what == CURL_POLL_REMOVE) {
        (void)epoll_ctl(epoll_fd, EPOLL_CTL_DEL, fd, NULL); // may be closed already
        return 0;
    }
    struct epoll_event ev = {
        .events = (what & CURL_POLL_IN ? EPOLLIN : 0U) | (what & CURL_POLL_OUT ? EPOLLOUT : 0U),
        .data.u64 = pack(s, fd),
    };
    if (epoll_ctl(epoll_fd, assigned ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, fd, &ev) != 0) {
        return -1;
    }
    if (!assigned) {
        (void)curl_multi_assign(s->multi, fd, s);
    }
    return 0;
}

static curl_socket_t on_open_socket(void *arg, curlsocktype purpose, struct curl_sockaddr *a)
{
    struct http_curl *q = arg;
    (void)purpose;
    int fd = socket(a->family, a->socktype | SOCK_CLOEXEC, a->protocol);
    q->n_sockets += fd >= 0;
    return fd;
}

static int on_close_socket(void *arg, curl_socket_t fd)
{
    struct http_curl *q = arg;
    q->n_sockets--;
    if (fd == q->keep_fd) {
        q->keep_fd = -1;
        return 0;
    }
    return close(fd);
}

/* --- opening ---------------------------------------------------------------------------------- */

/* Whom to trust. libcurl reads a file of certificates once for all connections only where it has no
 * folder of them beside it, as Debian's has: else each new connection takes 50 ms of the core. */
static void set_authorities(CURL *easy, const struct http_settings *s)
{
    const char *file = s->ca_file ? s->ca_file : curl_version_info(CURLVERSION_NOW)->cainfo;
    if (file && (s->ca_file || access(file, R_OK) == 0)) {
        curl_easy_setopt(easy, CURLOPT_CAINFO, file);
        curl_easy_setopt(easy, CURLOPT_CAPATH, NULL);
    }
}

void *http_curl_easy(const struct http_settings *s)
{
    static const long versions[] = {
        [HTTP_AUTO] = CURL_HTTP_VERSION_2TLS,
        [HTTP_1_1] = CURL_HTTP_VERSION_1_1,
        [HTTP_2] = CURL_HTTP_VERSION_2_PRIOR_KNOWLEDGE,
    };
    int64_t connect_ns = s->connect_timeout_ns > 0 ? s->connect_timeout_ns : CONNECT_TIMEOUT_NS;
    CURL *easy = curl_easy_init();
    CHECK(easy);
    curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, versions[s->version]);
    curl_easy_setopt(easy, CURLOPT_PIPEWAIT, s->version == HTTP_2 || s->connects_rps > 0 ? 1L : 0L);
    curl_easy_setopt(easy, CURLOPT_PROXY, s->proxy ? s->proxy : "");
    curl_easy_setopt(easy, CURLOPT_SSL_VERIFYPEER, s->insecure ? 0L : 1L);
    curl_easy_setopt(easy, CURLOPT_SSL_VERIFYHOST, s->insecure ? 0L : 2L);
    curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS, (long)(connect_ns / NS_PER_MS));
    curl_easy_setopt(easy, CURLOPT_DNS_CACHE_TIMEOUT, DNS_SECONDS);
    curl_easy_setopt(easy, CURLOPT_USERAGENT, s->user_agent);
    curl_easy_setopt(easy, CURLOPT_SSLCERT, s->cert_file);
    curl_easy_setopt(easy, CURLOPT_SSLKEY, s->key_file);
    set_authorities(easy, s);
    return easy;
}

int http_curl_begin(struct err *e)
{
    static bool is_started;
    if (!is_started && curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK) {
        return err_set(e, ERR_ENV, "libcurl does not start");
    }
    is_started = true;
    return 0;
}

int http_curl_open(struct http_curl **out, const struct http_settings *s, int epoll_fd,
                   struct err *e)
{
    if (http_curl_begin(e) != 0) {
        return -1;
    }
    struct http_curl *q = xcalloc(1, sizeof *q);
    q->settings = s;
    q->epoll_fd = epoll_fd;
    q->keep_fd = -1;
    q->share = curl_share_init();
    CHECK(q->share);
    curl_share_setopt(q->share, CURLSHOPT_SHARE, CURL_LOCK_DATA_DNS);
    *out = q;
    return 0;
}

void http_curl_close(struct http_curl *q)
{
    for (size_t i = 0; i < q->n_all; i++) {
        struct http_transfer *t = q->transfers[i];
        if (t->shard) {
            curl_multi_remove_handle(t->shard->multi, t->easy);
        }
        curl_easy_cleanup(t->easy);
        free(t);
    }
    for (size_t i = 0; i < q->n_shards; i++) {
        curl_multi_cleanup(q->shards[i]->multi);
        free(q->shards[i]);
    }
    curl_share_cleanup(q->share);
    free(q->shards);
    free(q->transfers);
    free(q);
}

struct curl_slist *http_curl_list(char *const *lines, size_t n)
{
    struct curl_slist *list = NULL;
    for (size_t i = 0; i < n; i++) {
        list = curl_slist_append(list, lines[i]);
        CHECK(list);
    }
    return list;
}

void http_curl_free_list(struct curl_slist *list)
{
    curl_slist_free_all(list);
}

/* --- shards and transfers --------------------------------------------------------------------- */

static struct shard *add_shard(struct http_curl *q, bool is_connects)
{
    struct shard *s = xcalloc(1, sizeof *s);
    s->q = q;
    s->index = (uint32_t)q->n_shards;
    s->is_connects = is_connects;
    s->deadline_ns = INT64_MAX;
    s->multi = curl_multi_init();
    CHECK(s->multi);
    curl_multi_setopt(s->multi, CURLMOPT_SOCKETFUNCTION, on_socket);
    curl_multi_setopt(s->multi, CURLMOPT_SOCKETDATA, s);
    curl_multi_setopt(s->multi, CURLMOPT_TIMERFUNCTION, on_timer);
    curl_multi_setopt(s->multi, CURLMOPT_TIMERDATA, s);
    curl_multi_setopt(s->multi, CURLMOPT_MAXCONNECTS, 2L * HTTP_SHARD_CALLS);
    q->shards = xrealloc(q->shards, (q->n_shards + 1) * sizeof *q->shards);
    q->shards[q->n_shards++] = s;
    return s;
}

/* The first one with room: idle connections are used again rather than left to grow old. */
static struct shard *shard_with_room(const struct http_curl *q, bool is_connects)
{
    for (size_t i = 0; i < q->n_shards; i++) {
        struct shard *s = q->shards[i];
        if (s->is_connects == is_connects && s->n_transfers < HTTP_SHARD_CALLS) {
            return s;
        }
    }
    return NULL;
}

static struct shard *pick_shard(struct http_curl *q, bool is_connects)
{
    struct shard *s = shard_with_room(q, is_connects);
    return s ? s : add_shard(q, is_connects);
}

static struct http_transfer *make_transfer(struct http_curl *q)
{
    struct http_transfer *t = xcalloc(1, sizeof *t);
    t->easy = http_curl_easy(q->settings);
    curl_easy_setopt(t->easy, CURLOPT_SHARE, q->share);
    curl_easy_setopt(t->easy, CURLOPT_PRIVATE, t);
    curl_easy_setopt(t->easy, CURLOPT_ERRORBUFFER, t->message);
    curl_easy_setopt(t->easy, CURLOPT_WRITEFUNCTION, on_data);
    curl_easy_setopt(t->easy, CURLOPT_WRITEDATA, t);
    curl_easy_setopt(t->easy, CURLOPT_OPENSOCKETFUNCTION, on_open_socket);
    curl_easy_setopt(t->easy, CURLOPT_OPENSOCKETDATA, q);
    curl_easy_setopt(t->easy, CURLOPT_CLOSESOCKETFUNCTION, on_close_socket);
    curl_easy_setopt(t->easy, CURLOPT_CLOSESOCKETDATA, q);
    if (q->n_all == q->cap_all) {
        q->cap_all = q->cap_all > 0 ? 2 * q->cap_all : 64;
        q->transfers = xrealloc(q->transfers, q->cap_all * sizeof *q->transfers);
    }
    q->transfers[q->n_all++] = t;
    return t;
}

static struct http_transfer *take_transfer(struct http_curl *q, struct http_transfer **free_list)
{
    struct http_transfer *t = *free_list;
    if (t) {
        *free_list = t->next;
        return t;
    }
    return make_transfer(q);
}

/* The address that a connection leaves from, in turn. */
static void set_local_address(struct http_curl *q, struct http_transfer *t)
{
    const struct http_settings *s = q->settings;
    if (s->n_local_addresses > 0) {
        const char *address = s->local_addresses[q->n_connects++ % s->n_local_addresses];
        curl_easy_setopt(t->easy, CURLOPT_INTERFACE, address);
    }
}

/* libcurl has no more to do with it. */
static void leave(struct http_transfer *t)
{
    struct shard *s = t->shard;
    struct http_transfer **free_list = t->connected ? &s->q->free_connects : &s->q->free_calls;
    curl_multi_remove_handle(s->multi, t->easy);
    s->n_transfers--;
    s->q->n_calls -= t->connected == NULL;
    t->shard = NULL;
    t->call->transfer = NULL;
    t->next = *free_list;
    *free_list = t;
}

/* --- the end of a transfer ---------------------------------------------------------------------- */

static enum http_fate fate_of(const struct http_transfer *t, CURLcode code)
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
        return t->is_stopped ? HTTP_STOPPED : HTTP_FAILED;
    default:
        return HTTP_FAILED;
    }
}

static const char *message_of(const struct http_transfer *t, CURLcode code)
{
    return t->message[0] ? t->message : curl_easy_strerror(code);
}

static void end_call(struct http_transfer *t, CURLcode code)
{
    struct http_call *c = t->call;
    curl_off_t first_byte_us = 0;
    curl_easy_getinfo(t->easy, CURLINFO_STARTTRANSFER_TIME_T, &first_byte_us);
    const struct http_end end = {
        .fate = fate_of(t, code),
        .status = http_curl_status(c),
        .code = (int)code,
        .message = message_of(t, code),
        .t_ns = t->shard->q->t_socket_ns,
        .first_byte_ns = first_byte_us > 0 ? first_byte_us * NS_PER_US : -1,
    };
    leave(t);
    http_call_end(c, &end);
}

/* The connection stands: its socket is not libcurl's any more. */
static void hand_over(struct http_transfer *t)
{
    struct http_curl *q = t->shard->q;
    struct http_call *c = t->call;
    curl_socket_t fd = CURL_SOCKET_BAD;
    curl_easy_getinfo(t->easy, CURLINFO_ACTIVESOCKET, &fd);
    q->keep_fd = fd;
    leave(t);
    bool is_kept = fd >= 0 && q->keep_fd < 0;
    q->keep_fd = -1;
    if (is_kept) {
        t->connected(c, fd);
    } else {
        http_call_fail(c, HTTP_FAILED, CURLE_COULDNT_CONNECT, "libcurl gave no connection");
    }
}

static void end_connect(struct http_transfer *t, CURLcode code)
{
    struct http_call *c = t->call;
    if (code == CURLE_OK) {
        hand_over(t);
        return;
    }
    enum http_fate fate = fate_of(t, code);
    leave(t);
    http_call_fail(c, fate, (int)code, message_of(t, code));
}

static void take_ended(struct shard *s)
{
    int n_left;
    for (CURLMsg *m; (m = curl_multi_info_read(s->multi, &n_left)) != NULL;) {
        if (m->msg == CURLMSG_DONE) {
            CURLcode code = m->data.result;
            char *private = NULL;
            curl_easy_getinfo(m->easy_handle, CURLINFO_PRIVATE, &private);
            struct http_transfer *t = (struct http_transfer *)(void *)private;
            if (t->connected) {
                end_connect(t, code);
            } else {
                end_call(t, code);
            }
        }
    }
}

/* --- beginning -------------------------------------------------------------------------------- */

/* Give it to libcurl, and let that do what it can at once. */
static void begin(struct http_curl *q, struct http_transfer *t, struct http_call *c)
{
    int n_running;
    t->call = c;
    t->message[0] = '\0';
    t->is_stopped = false;
    t->shard = pick_shard(q, t->connected != NULL);
    t->shard->n_transfers++;
    c->transfer = t;
    q->t_socket_ns = clock_now_ns();
    CHECK(curl_multi_add_handle(t->shard->multi, t->easy) == CURLM_OK);
    (void)curl_multi_socket_action(t->shard->multi, CURL_SOCKET_TIMEOUT, 0, &n_running);
}

/* What libcurl reads at a time: memory of every call in flight, so less when there are many. */
static long read_bytes(const struct http_curl *q)
{
    return q->n_calls < 64 ? 65536L : q->n_calls < 512 ? 16384L : 2048L;
}

static void set_request(const struct http_curl *q, struct http_transfer *t,
                        const struct http_request *r)
{
    struct curl_slist *headers = r->headers ? r->headers->list : NULL;
    if (r->id) {
        snprintf(t->id, sizeof t->id, "x-request-id: %s", r->id);
        t->id_header = (struct curl_slist){.data = t->id, .next = headers};
        headers = &t->id_header;
    }
    curl_easy_setopt(t->easy, CURLOPT_BUFFERSIZE, read_bytes(q));
    curl_easy_setopt(t->easy, CURLOPT_URL, r->url);
    curl_easy_setopt(t->easy, CURLOPT_HTTPHEADER, headers);
    if (r->body) {
        curl_easy_setopt(t->easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)r->n_body_bytes);
        curl_easy_setopt(t->easy, CURLOPT_POSTFIELDS, r->body);
    } else {
        curl_easy_setopt(t->easy, CURLOPT_HTTPGET, 1L);
    }
}

void http_curl_start(struct http_curl *q, struct http_call *c)
{
    bool is_new = q->free_calls == NULL;
    struct http_transfer *t = take_transfer(q, &q->free_calls);
    if (is_new) {
        set_local_address(q, t);
    }
    t->connected = NULL;
    q->n_calls++;
    set_request(q, t, &c->request);
    begin(q, t, c);
}

void http_curl_connect(struct http_curl *q, struct http_call *c,
                       void (*connected)(struct http_call *c, int fd))
{
    struct http_transfer *t = take_transfer(q, &q->free_connects);
    set_local_address(q, t);
    t->connected = connected;
    curl_easy_setopt(t->easy, CURLOPT_CONNECT_ONLY, 1L);
    curl_easy_setopt(t->easy, CURLOPT_FRESH_CONNECT, 1L);
    curl_easy_setopt(t->easy, CURLOPT_URL, c->request.url);
    begin(q, t, c);
    take_ended(t->shard);
}

void http_curl_cancel(struct http_call *c)
{
    leave(c->transfer);
}

bool http_curl_is_sent(const struct http_call *c)
{
    curl_off_t n = 0;
    curl_easy_getinfo(c->transfer->easy, CURLINFO_SIZE_UPLOAD_T, &n);
    return (uint64_t)n == c->request.n_body_bytes;
}

int http_curl_status(const struct http_call *c)
{
    long status = 0;
    curl_easy_getinfo(c->transfer->easy, CURLINFO_RESPONSE_CODE, &status);
    return (int)status;
}

const char *http_curl_content_type(const struct http_call *c)
{
    const char *type = NULL;
    curl_easy_getinfo(c->transfer->easy, CURLINFO_CONTENT_TYPE, &type);
    return type ? type : "";
}

bool http_curl_has_idle(const struct http_curl *q)
{
    const struct shard *s = shard_with_room(q, false);
    return s && s->multiplexes ? s->n_transfers < STREAMS : q->n_sockets > q->n_calls;
}

/* --- going on ----------------------------------------------------------------------------------- */

void http_curl_ready(struct http_curl *q, uint64_t data, uint32_t events, int64_t t_ns)
{
    struct shard *s = q->shards[data >> 32];
    int fd = (int)((data & UINT32_MAX) >> 1);
    int what = (events & (EPOLLIN | EPOLLHUP | EPOLLERR) ? CURL_CSELECT_IN : 0) |
               (events & EPOLLOUT ? CURL_CSELECT_OUT : 0) |
               (events & (EPOLLERR | EPOLLHUP) ? CURL_CSELECT_ERR : 0);
    int n_running;
    q->t_socket_ns = t_ns;
    (void)curl_multi_socket_action(s->multi, fd, what, &n_running);
    take_ended(s);
}

void http_curl_run_timers(struct http_curl *q)
{
    int64_t now_ns = clock_local_ns();
    for (size_t i = 0; i < q->n_shards; i++) {
        struct shard *s = q->shards[i];
        if (s->deadline_ns <= now_ns) {
            int n_running;
            s->deadline_ns = INT64_MAX;
            q->t_socket_ns = clock_now_ns();
            (void)curl_multi_socket_action(s->multi, CURL_SOCKET_TIMEOUT, 0, &n_running);
            take_ended(s);
        }
    }
}

int64_t http_curl_next_timer_ns(const struct http_curl *q)
{
    int64_t t_ns = INT64_MAX;
    for (size_t i = 0; i < q->n_shards; i++) {
        int64_t s_ns = q->shards[i]->deadline_ns;
        t_ns = s_ns < t_ns ? s_ns : t_ns;
    }
    return t_ns;
}

bool http_curl_has_h2c(void)
{
    return curl_version_info(CURLVERSION_NOW)->version_num >= 0x080000;
}

const char *http_curl_library(void)
{
    return curl_version();
}
