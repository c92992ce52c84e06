/*
 * Not a test: a bare reader of SSE streams, epoll and recv and nothing else, as the yardstick for
 * clients and the load for the null server. N connections, each with one stream after another for
 * so long; counts events and prints one line of key=value pairs.
 *
 * usage: sse_reader PORT STREAMS TOKENS SECONDS [SPREAD_S]     the first requests spread over so long
 *
 * Reader and server on a core each (tests/perf/serve_speed.sh). CPU seconds: its own from getrusage,
 * the server's from its /metrics before and after.
 */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/clock.h"
#include "core/err.h"
#include "core/mem.h"

#define READ_BYTES (256 << 10)
#define END        "\r\n0\r\n\r\n" // of a chunked body
#define END_BYTES  7

struct reader {
    int epoll_fd, port;
    char request[512];
    size_t n_request;
    char (*tails)[END_BYTES]; // (connection) the last bytes that came
    int *fds;
    uint64_t n_events, n_bytes, n_packets, n_streams;
    bool stopping;
    int n_live;
};

static int dial(int port)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), one = 1;
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    CHECK(fd >= 0);
    if (connect(fd, (struct sockaddr *)&to, sizeof to)) {
        perror("connect");
        exit(1);
    }
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    return fd;
}

static void ask(struct reader *r, int i)
{
    CHECK(send(r->fds[i], r->request, r->n_request, MSG_NOSIGNAL) == (ssize_t)r->n_request);
    memset(r->tails[i], 0, END_BYTES);
    r->n_streams++;
}

/* Empty lines: each ends an event. `last` is the byte before these. */
static uint64_t count_events(char last, const char *bytes, size_t n)
{
    uint64_t found = last == '\n' && bytes[0] == '\n';
    const char *end = bytes + n;
    for (const char *at = bytes; (at = memmem(at, (size_t)(end - at), "\n\n", 2)); at += 2) {
        found++;
    }
    return found;
}

static void keep_tail(char tail[END_BYTES], const char *bytes, size_t n)
{
    size_t keep = n < END_BYTES ? END_BYTES - n : 0;
    memmove(tail, tail + END_BYTES - keep, keep);
    memcpy(tail + keep, bytes + n - (END_BYTES - keep), END_BYTES - keep);
}

static void take(struct reader *r, int i, char *buf)
{
    ssize_t n = recv(r->fds[i], buf, READ_BYTES, 0);
    CHECK(n > 0);
    r->n_bytes += (uint64_t)n;
    r->n_packets++;
    r->n_events += count_events(r->tails[i][END_BYTES - 1], buf, (size_t)n);
    keep_tail(r->tails[i], buf, (size_t)n);
    if (memcmp(r->tails[i], END, END_BYTES) != 0) {
        return;
    }
    if (r->stopping) {
        r->n_live--;
    } else {
        ask(r, i);
    }
}

static void open_all(struct reader *r, int n)
{
    r->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    r->fds = xcalloc((size_t)n, sizeof *r->fds);
    r->tails = xcalloc((size_t)n, sizeof *r->tails);
    for (int i = 0; i < n; i++) {
        struct epoll_event ev = {.events = EPOLLIN, .data.u32 = (uint32_t)i};
        r->fds[i] = dial(r->port);
        epoll_ctl(r->epoll_fd, EPOLL_CTL_ADD, r->fds[i], &ev);
    }
    r->n_live = n;
}

static void read_until(struct reader *r, int64_t until_ns)
{
    char *buf = xmalloc(READ_BYTES);
    while (r->n_live > 0 && (r->stopping || clock_local_ns() < until_ns)) {
        struct epoll_event events[256];
        int n = epoll_wait(r->epoll_fd, events, 256, r->stopping ? -1 : 1);
        for (int k = 0; k < n; k++) {
            take(r, (int)events[k].data.u32, buf);
        }
    }
    free(buf);
}

/* process_cpu_seconds_total of the server. */
static double server_cpu_s(int port)
{
    static const char get[] = "GET /metrics HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    char text[8192];
    size_t n = 0;
    ssize_t got;
    int fd = dial(port);
    CHECK(send(fd, get, sizeof get - 1, 0) == sizeof get - 1);
    while ((got = recv(fd, text + n, sizeof text - 1 - n, 0)) > 0) {
        n += (size_t)got;
    }
    close(fd);
    text[n] = '\0';
    const char *at = strstr(text, "\nprocess_cpu_seconds_total ");
    CHECK(at != NULL);
    return strtod(at + strlen("\nprocess_cpu_seconds_total "), NULL);
}

static double own_cpu_s(void)
{
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
           (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}

int main(int argc, char **argv)
{
    struct reader r = {0};
    char body[128];
    if (argc < 5 || argc > 6) {
        fprintf(stderr, "usage: sse_reader PORT STREAMS TOKENS SECONDS [SPREAD_S]\n");
        return 2;
    }
    int n_streams = atoi(argv[2]);
    r.port = atoi(argv[1]);
    snprintf(body, sizeof body,
             "{\"model\":\"null\",\"prompt\":\"a\",\"stream\":true,\"max_tokens\":%d}",
             atoi(argv[3]));
    r.n_request = (size_t)snprintf(r.request, sizeof r.request,
                                   "POST /v1/completions HTTP/1.1\r\nHost: a\r\nContent-Type: "
                                   "application/json\r\nContent-Length: %zu\r\n\r\n%s",
                                   strlen(body), body);
    open_all(&r, n_streams);
    double server_s = server_cpu_s(r.port), own_s = own_cpu_s();
    int64_t begin_ns = clock_local_ns();
    double spread_ns = argc > 5 ? atof(argv[5]) * 1e9 : 0.0;
    for (int i = 0; i < n_streams; i++) {
        read_until(&r, begin_ns + (int64_t)(spread_ns * i / n_streams));
        ask(&r, i);
    }
    read_until(&r, begin_ns + (int64_t)(atof(argv[4]) * 1e9));
    r.stopping = true;
    read_until(&r, 0);
    double s = (double)(clock_local_ns() - begin_ns) / 1e9;
    own_s = own_cpu_s() - own_s;
    server_s = server_cpu_s(r.port) - server_s;
    r.n_events -= r.n_streams; // [DONE] is none
    printf("streams=%llu events=%llu events_per_s=%.0f bytes_per_s=%.0f events_per_recv=%.2f "
           "seconds=%.2f reader_cpu_s=%.2f server_cpu_s=%.2f events_per_reader_cpu_s=%.0f "
           "events_per_server_cpu_s=%.0f\n",
           (unsigned long long)r.n_streams, (unsigned long long)r.n_events, (double)r.n_events / s,
           (double)r.n_bytes / s, (double)r.n_events / (double)r.n_packets, s, own_s, server_s,
           (double)r.n_events / own_s, (double)r.n_events / server_s);
    return 0;
}
