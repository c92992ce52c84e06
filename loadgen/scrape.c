#include "loadgen/scrape.h"

#include "core/clock.h"
#include "core/http_get.h"
#include "core/mem.h"
#include "core/str.h"
#include "core/thread.h"
#include "loadgen/metrics.h"

#include <errno.h>
#include <math.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>

#define TIMEOUT_NS  NS_PER_S
#define MAX_SAMPLES 4096 // kept for the main thread
#define NOT_TOLD    UINT32_MAX

struct scrape {
    struct endpoint endpoint;
    struct http_getter *getter;
    char **urls; // (n_urls); NULL: nothing of use there
    size_t n_urls;
    int64_t period_ns;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t ending_changed;
    bool is_ending;
    struct series_point samples[MAX_SAMPLES]; // under lock
    size_t n_samples;
};

static uint32_t count_of(double v)
{
    return v >= 0.0 && v < (double)NOT_TOLD ? (uint32_t)v : NOT_TOLD;
}

static uint64_t tokens_of(double v)
{
    return v >= 0.0 && v < (double)INT64_MAX ? (uint64_t)v : 0;
}

static uint32_t sum_of(uint32_t a, uint32_t b)
{
    return a == NOT_TOLD || b == NOT_TOLD || a > NOT_TOLD - b ? NOT_TOLD : a + b;
}

/* What the metrics of URL i say now. False: nothing. */
static bool look(struct scrape *s, size_t i, struct series_point *p)
{
    struct str body = {0};
    struct err ignored;
    struct metrics m = {0};
    int status = 0;
    int64_t begin_ns = clock_now_ns();
    if (http_get_url(s->getter, s->urls[i], TIMEOUT_NS, &status, &body, &ignored) == 0 &&
        status == 200 && body.len > 0) {
        metrics_parse(body.data, body.len, &m);
    }
    str_free(&body);
    *p = (struct series_point){
        .t_ns = (begin_ns + clock_now_ns()) / 2,
        .in_flight = sum_of(count_of(m.waiting), count_of(m.running)),
        .waiting = count_of(m.waiting),
        .running = count_of(m.running),
        .kv_used = (float)m.kv_used,
        .replica = (uint16_t)i,
        .n_preempted = count_of(m.n_preempted),
        .prefix_query_tokens = tokens_of(m.prefix_query_tokens),
        .prefix_hit_tokens = tokens_of(m.prefix_hit_tokens),
    };
    return m.server != NULL;
}

static void look_at_all(struct scrape *s)
{
    for (size_t i = 0; i < s->n_urls; i++) {
        struct series_point p;
        if (!s->urls[i] || !look(s, i, &p)) {
            continue;
        }
        pthread_mutex_lock(&s->lock);
        if (s->n_samples < MAX_SAMPLES) {
            s->samples[s->n_samples++] = p;
        }
        pthread_mutex_unlock(&s->lock);
    }
}

/* Until `t_ns` of the local clock, or the end. False: the end. */
static bool wait_until(struct scrape *s, int64_t t_ns)
{
    const struct timespec until = {.tv_sec = t_ns / NS_PER_S, .tv_nsec = t_ns % NS_PER_S};
    pthread_mutex_lock(&s->lock);
    while (!s->is_ending &&
           pthread_cond_timedwait(&s->ending_changed, &s->lock, &until) != ETIMEDOUT) {
    }
    bool goes_on = !s->is_ending;
    pthread_mutex_unlock(&s->lock);
    return goes_on;
}

static void *run(void *arg)
{
    struct scrape *s = arg;
    struct sched_param normal = {0};
    (void)sched_setscheduler(0, SCHED_BATCH, &normal); // never in the way of the load
    int64_t next_ns = clock_local_ns();
    while (wait_until(s, next_ns)) {
        look_at_all(s);
        int64_t now_ns = clock_local_ns();
        next_ns += s->period_ns * (1 + (now_ns > next_ns ? (now_ns - next_ns) / s->period_ns : 0));
    }
    return NULL;
}

/* Where the metrics are, of those URLs that have any. How many. */
static size_t find_urls(struct scrape *s)
{
    const struct endpoint_config *c = s->endpoint.cfg;
    bool is_auto = strcmp(c->metrics, "auto") == 0;
    size_t n_found = 0;
    s->n_urls = is_auto ? c->urls.n : 1;
    s->urls = xcalloc(s->n_urls, sizeof *s->urls);
    for (size_t i = 0; i < s->n_urls; i++) {
        struct series_point unused;
        s->urls[i] =
            is_auto ? endpoint_sibling(&s->endpoint, i, "/metrics", true) : xstrdup(c->metrics);
        if (look(s, i, &unused)) {
            n_found++;
        } else {
            free(s->urls[i]);
            s->urls[i] = NULL;
        }
    }
    return n_found;
}

static void free_scrape(struct scrape *s)
{
    for (size_t i = 0; i < s->n_urls; i++) {
        free(s->urls[i]);
    }
    free(s->urls);
    http_get_close(s->getter);
    endpoint_close(&s->endpoint);
    free(s);
}

static int start_thread(struct scrape *s, struct err *e)
{
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_mutex_init(&s->lock, NULL);
    pthread_cond_init(&s->ending_changed, &monotonic);
    pthread_condattr_destroy(&monotonic);
    int rc = thread_start(&s->thread, "metrics", run, s);
    return rc == 0 ? 0 : err_set(e, ERR_ENV, "a thread for metrics: %s", strerror(rc));
}

int scrape_start(struct scrape **out, const struct endpoint_config *c, struct err *e)
{
    *out = NULL;
    if (strcmp(c->metrics, "none") == 0) {
        return 0;
    }
    struct scrape *s = xcalloc(1, sizeof *s);
    s->period_ns = (int64_t)((double)NS_PER_S / c->metrics_hz);
    if (endpoint_open(&s->endpoint, c, e) != 0) {
        free(s);
        return -1;
    }
    if (http_get_open(&s->getter, &s->endpoint.http, s->endpoint.headers, e) != 0) {
        goto fail;
    }
    if (find_urls(s) == 0) {
        free_scrape(s);
        return 0;
    }
    if (start_thread(s, e) != 0) {
        goto fail;
    }
    *out = s;
    return 0;
fail:
    free_scrape(s);
    return -1;
}

size_t scrape_take(struct scrape *s, struct series_point *out, size_t cap)
{
    if (!s || pthread_mutex_trylock(&s->lock) != 0) {
        return 0;
    }
    size_t n = s->n_samples < cap ? s->n_samples : cap;
    memcpy(out, s->samples, n * sizeof *out);
    memmove(s->samples, s->samples + n, (s->n_samples - n) * sizeof *out);
    s->n_samples -= n;
    pthread_mutex_unlock(&s->lock);
    return n;
}

void scrape_stop(struct scrape *s)
{
    if (!s) {
        return;
    }
    pthread_mutex_lock(&s->lock);
    s->is_ending = true;
    pthread_cond_signal(&s->ending_changed);
    pthread_mutex_unlock(&s->lock);
    pthread_join(s->thread, NULL);
    pthread_cond_destroy(&s->ending_changed);
    pthread_mutex_destroy(&s->lock);
    free_scrape(s);
}
