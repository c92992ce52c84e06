#include "loadgen/progress.h"

#include "core/clock.h"
#include "core/hist.h"

#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define PERIOD_NS   (250 * NS_PER_MS)
#define CLEAR_LINE  "\r\033[K"
#define MIN_COLUMNS 20

int progress_columns(void)
{
    const char *given = getenv("TIDEMARK_TTY");
    int columns = 0;
    if (given) {
        columns = (int)strtol(given, NULL, 10);
    } else if (isatty(STDERR_FILENO)) {
        struct winsize size = {0};
        columns = ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col ? size.ws_col : 80;
    }
    if (columns < MIN_COLUMNS) {
        return 0;
    }
    return columns < PROGRESS_MAX_COLUMNS ? columns : PROGRESS_MAX_COLUMNS;
}

void progress_begin_step(struct progress *p, const struct wire_step *step)
{
    p->step = step->index + 1;
    p->kind = (enum step_kind)step->kind;
    p->rate_rps = step->rate_rps;
    p->users = step->users;
    p->t_end_ns = step->t_end_ns;
    p->n_sent = p->n_in_flight = p->n_done = 0;
    p->ttft_p50_us = p->ttft_p99_us = -1;
    p->t_drawn_ns = INT64_MIN / 2;
}

/* --- the line --------------------------------------------------------------------------------------- */

struct line {
    char text[512];
    size_t len;
};

__attribute__((format(printf, 2, 3))) static void put(struct line *l, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(l->text + l->len, sizeof l->text - l->len, fmt, ap);
    va_end(ap);
    l->len += n > 0 ? (size_t)n : 0;
    l->len = l->len < sizeof l->text ? l->len : sizeof l->text - 1;
}

static void put_latency(struct line *l, const char *name, int64_t us)
{
    if (us < 10000) {
        put(l, "%s %.3g ms", name, (double)us / 1e3);
    } else if (us < 10000000) {
        put(l, "%s %.0f ms", name, (double)us / 1e3);
    } else {
        put(l, "%s %.0f s", name, (double)us / 1e6);
    }
}

static void put_duration(struct line *l, int64_t ns)
{
    int64_t s = ns > 0 ? (ns + NS_PER_S - 1) / NS_PER_S : 0;
    if (s < 120) {
        put(l, "%d s", (int)s);
    } else if (s < 7200) {
        put(l, "%d min", (int)((s + 59) / 60));
    } else {
        put(l, "%.1f h", (double)s / 3600.0);
    }
}

static void put_load(struct line *l, const struct progress *p)
{
    if (p->most_steps > 0) {
        put(l, "step %u/%lld", p->step, (long long)p->most_steps);
    } else {
        put(l, "step %u", p->step);
    }
    put(l, " %s  ", record_step_kind_names[p->kind]);
    if (p->users > 0) {
        put(l, "%u users", p->users);
    } else {
        put(l, "%.4g req/s", p->rate_rps);
    }
}

static void put_left(struct line *l, const struct progress *p, int64_t now_ns)
{
    int64_t left_ns = p->t_end_ns - now_ns;
    if (left_ns <= 0) {
        put(l, "  draining");
        left_ns = 0;
    } else {
        put(l, "  ");
        put_duration(l, left_ns);
        put(l, " left");
    }
    if (p->most_steps > p->step) {
        int64_t rest = p->most_steps - p->step;
        put(l, ", run <= ");
        put_duration(l, left_ns + rest * (p->step_ns + p->drain_ns));
    }
}

void progress_format(const struct progress *p, int64_t now_ns, int columns, char *out)
{
    struct line l = {0};
    put_load(&l, p);
    put(&l, "  sent %llu in flight %llu done %llu", (unsigned long long)p->n_sent,
        (unsigned long long)p->n_in_flight, (unsigned long long)p->n_done);
    if (p->ttft_p50_us >= 0) {
        put_latency(&l, "  TTFT p50", p->ttft_p50_us);
        put_latency(&l, " p99", p->ttft_p99_us);
    }
    put_left(&l, p, now_ns);
    size_t n = l.len < (size_t)columns ? l.len : (size_t)columns;
    memcpy(out, l.text, n);
    out[n] = '\0';
}

/* --- the terminal ----------------------------------------------------------------------------------- */

/* A terminal that takes nothing (stopped, slow) costs a line, not the run its time. */
static void write_now(const char *text, size_t len)
{
    struct pollfd fd = {.fd = STDERR_FILENO, .events = POLLOUT};
    if (poll(&fd, 1, 0) == 1 && (fd.revents & POLLOUT) && write(STDERR_FILENO, text, len) < 0) {
        return;
    }
}

static void count(struct progress *p, const struct loop *l, int load_ranks)
{
    const struct loop_live *live = loop_live(l);
    const struct hist *ttft = loop_ttft(l);
    uint64_t n = (uint64_t)load_ranks;
    p->n_sent = live->n_sent * n;
    p->n_in_flight = live->n_in_flight * n;
    p->n_done = live->n_done * n;
    p->ttft_p50_us = ttft->n > 0 ? hist_quantile(ttft, 0.5) : -1;
    p->ttft_p99_us = ttft->n > 0 ? hist_quantile(ttft, 0.99) : -1;
}

void progress_draw(struct progress *p, const struct loop *l, int load_ranks, int64_t now_ns)
{
    if (p->columns == 0 || now_ns - p->t_drawn_ns < PERIOD_NS) {
        return;
    }
    p->t_drawn_ns = now_ns;
    count(p, l, load_ranks);
    char text[sizeof CLEAR_LINE + PROGRESS_MAX_COLUMNS + 1] = CLEAR_LINE;
    progress_format(p, now_ns, p->columns - 1, text + strlen(CLEAR_LINE)); // no wrap at the edge
    strcat(text, "\r"); // what other ranks say begins at the line's begin, too
    write_now(text, strlen(text));
}

void progress_clear(struct progress *p)
{
    if (p->columns > 0) {
        write_now(CLEAR_LINE, strlen(CLEAR_LINE));
    }
}
