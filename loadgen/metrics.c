#include "loadgen/metrics.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

enum field {
    WAITING,
    RUNNING,
    KV_USED,
    PREEMPTED,
    PREFIX_QUERIES,
    PREFIX_HITS,
    N_FIELDS,
};

static const struct {
    const char *name, *server;
    enum field field;
} known[] = {
    {"vllm:num_requests_waiting", "vllm", WAITING},
    {"vllm:num_requests_running", "vllm", RUNNING},
    {"vllm:kv_cache_usage_perc", "vllm", KV_USED},
    {"vllm:gpu_cache_usage_perc", "vllm", KV_USED},
    {"vllm:num_preemptions_total", "vllm", PREEMPTED},
    {"vllm:prefix_cache_queries_total", "vllm", PREFIX_QUERIES},
    {"vllm:prefix_cache_hits_total", "vllm", PREFIX_HITS},
    {"vllm:gpu_prefix_cache_queries_total", "vllm", PREFIX_QUERIES},
    {"vllm:gpu_prefix_cache_hits_total", "vllm", PREFIX_HITS},
    {"sglang:num_queue_reqs", "sglang", WAITING},
    {"sglang:num_running_reqs", "sglang", RUNNING},
    {"sglang:token_usage", "sglang", KV_USED},
    {"tgi_queue_size", "tgi", WAITING},
    {"tgi_batch_current_size", "tgi", RUNNING},
    {"llamacpp:requests_deferred", "llama.cpp", WAITING},
    {"llamacpp:requests_processing", "llama.cpp", RUNNING},
    {"llamacpp:kv_cache_usage_ratio", "llama.cpp", KV_USED},
};

struct sums {
    double sum[N_FIELDS];
    int n[N_FIELDS];
    const char *server;
};

/* Past the labels, if any: where the value begins, or NULL. */
static const char *skip_labels(const char *at, const char *end)
{
    bool in_quotes = false;
    if (at < end && *at == '{') {
        for (; at < end && (in_quotes || *at != '}'); at++) {
            if (in_quotes && *at == '\\' && at + 1 < end) {
                at++;
            } else if (*at == '"') {
                in_quotes = !in_quotes;
            }
        }
        if (at == end) {
            return NULL;
        }
        at++;
    }
    return at < end && (*at == ' ' || *at == '\t') ? at : NULL;
}

/* The value of a sample; NAN where it is none. A time stamp may follow. */
static double value_at(const char *at, const char *end)
{
    char text[64], *stop;
    while (at < end && (*at == ' ' || *at == '\t')) {
        at++;
    }
    size_t n = 0;
    while (at < end && *at != ' ' && *at != '\t' && *at != '\r' && n + 1 < sizeof text) {
        text[n++] = *at++;
    }
    text[n] = '\0';
    double v = strtod(text, &stop);
    return n > 0 && *stop == '\0' && isfinite(v) ? v : (double)NAN;
}

static void take_line(struct sums *s, const char *line, const char *end)
{
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        size_t n = strlen(known[i].name);
        if ((size_t)(end - line) <= n || memcmp(line, known[i].name, n) != 0) {
            continue;
        }
        const char *at = skip_labels(line + n, end);
        double v = at ? value_at(at, end) : (double)NAN;
        if (!isnan(v)) {
            s->sum[known[i].field] += v;
            s->n[known[i].field]++;
            s->server = known[i].server;
        }
    }
}

static double sum_of(const struct sums *s, enum field f)
{
    return s->n[f] > 0 ? s->sum[f] : (double)NAN;
}

void metrics_parse(const char *text, size_t len, struct metrics *out)
{
    struct sums s = {0};
    for (const char *at = text, *end = text + len; at < end;) {
        const char *newline = memchr(at, '\n', (size_t)(end - at));
        take_line(&s, at, newline ? newline : end);
        at = newline ? newline + 1 : end;
    }
    *out = (struct metrics){
        .server = s.server,
        .waiting = sum_of(&s, WAITING),
        .running = sum_of(&s, RUNNING),
        .kv_used = s.n[KV_USED] > 0 ? s.sum[KV_USED] / s.n[KV_USED] : (double)NAN,
        .n_preempted = sum_of(&s, PREEMPTED),
        .prefix_query_tokens = sum_of(&s, PREFIX_QUERIES),
        .prefix_hit_tokens = sum_of(&s, PREFIX_HITS),
    };
}
