#include "results/vllm_json.h"

#include "core/mem.h"

#include <jansson.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define MAX_S     1e6   // a time or a duration
#define MAX_GAP_S 4000. // between two chunks: what 32 bits of us hold
#define NS        1e9
#define US        1e6

/* --- checking --------------------------------------------------------------------------------- */

struct place { // of what is being checked, for messages
    const char *name;
    size_t run; // from 1
};

static int bad(const struct place *p, struct err *e, const char *what)
{
    return err_set(e, ERR_INPUT, "%s: run %zu: %s", p->name, p->run, what);
}

static int check_number(const struct place *p, const json_t *v, const char *key, size_t i,
                        double max, struct err *e)
{
    double x = json_number_value(v);
    if (!json_is_number(v) || !(x >= 0 && x <= max)) {
        return err_set(e, ERR_INPUT, "%s: run %zu: %s[%zu] is not a number from 0 to %g", p->name,
                       p->run, key, i, max);
    }
    return 0;
}

/* A list of n numbers; its absence is fine where it may be. */
static int check_list(const struct place *p, const json_t *root, const char *key, size_t n,
                      double max, bool may_miss, struct err *e)
{
    const json_t *list = json_object_get(root, key);
    if (!list && may_miss) {
        return 0;
    }
    if (!json_is_array(list)) {
        return err_set(e, ERR_INPUT,
                       "%s: run %zu: has no list %s; vllm bench serve writes it with "
                       "--save-detailed",
                       p->name, p->run, key);
    }
    if (json_array_size(list) != n) {
        return err_set(e, ERR_INPUT, "%s: run %zu: %s has %zu values, input_lens has %zu", p->name,
                       p->run, key, json_array_size(list), n);
    }
    for (size_t i = 0; i < n; i++) {
        if (check_number(p, json_array_get(list, i), key, i, max, e)) {
            return -1;
        }
    }
    return 0;
}

static int check_itls(const struct place *p, const json_t *root, size_t n, struct err *e)
{
    const json_t *lists = json_object_get(root, "itls");
    if (!json_is_array(lists) || json_array_size(lists) != n) {
        return bad(p, e, "itls is not a list of as many lists as input_lens has values");
    }
    for (size_t i = 0; i < n; i++) {
        const json_t *list = json_array_get(lists, i);
        if (!json_is_array(list) || json_array_size(list) >= VLLM_JSON_MAX_TOKENS) {
            return err_set(e, ERR_INPUT, "%s: run %zu: itls[%zu] is not a list of gaps", p->name,
                           p->run, i);
        }
        for (size_t k = 0; k < json_array_size(list); k++) {
            if (check_number(p, json_array_get(list, k), "itls", i, MAX_GAP_S, e)) {
                return -1;
            }
        }
    }
    return 0;
}

static int check_errors(const struct place *p, const json_t *root, size_t n, struct err *e)
{
    const json_t *list = json_object_get(root, "errors");
    bool good = !list || (json_is_array(list) && json_array_size(list) == n);
    for (size_t i = 0; good && list && i < n; i++) {
        const json_t *v = json_array_get(list, i);
        good = json_is_string(v) || json_is_null(v);
    }
    return good ? 0 : bad(p, e, "errors is not a list of as many texts as input_lens has values");
}

/* request_rate and max_concurrency, into rate_rps and users. */
static int take_load(const struct place *p, struct vllm_json_run *run, struct err *e)
{
    const json_t *rate = json_object_get(run->root, "request_rate");
    const json_t *users = json_object_get(run->root, "max_concurrency");
    double max_users = json_number_value(users);
    bool paced = json_is_number(rate);
    if (paced ? !(json_number_value(rate) > 0 && json_number_value(rate) <= 1e9)
              : rate && !(json_is_string(rate) && strcmp(json_string_value(rate), "inf") == 0)) {
        return bad(p, e, "request_rate is neither a positive number nor \"inf\"");
    }
    if (users && !json_is_null(users) && !(max_users >= 1 && max_users <= 1e9)) {
        return bad(p, e, "max_concurrency is neither null nor a whole number from 1");
    }
    run->has_cap = max_users >= 1;
    run->rate_rps = paced ? json_number_value(rate) : 0;
    if (!paced) {
        run->users =
            max_users >= 1 && max_users < (double)run->n ? (uint32_t)max_users : (uint32_t)run->n;
    }
    return 0;
}

/* 0: none, or none that 64 bits can say. */
static int64_t read_date(const char *text)
{
    struct tm tm = {0};
    const char *end = strptime(text, "%Y%m%d-%H%M%S", &tm);
    int64_t date_s = end && *end == '\0' ? (int64_t)timegm(&tm) : 0;
    return date_s > 0 && date_s <= INT64_MAX / (int64_t)NS ? date_s * (int64_t)NS : 0;
}

/* --- values ----------------------------------------------------------------------------------- */

static double number(const struct vllm_json_run *run, const char *key, size_t i, double other)
{
    const json_t *list = json_object_get(run->root, key);
    return list ? json_number_value(json_array_get(list, i)) : other;
}

static const json_t *itls(const struct vllm_json_run *run, size_t i)
{
    return json_array_get(json_object_get(run->root, "itls"), i);
}

static double send_s(const struct vllm_json_run *run, size_t i)
{
    return number(run, "start_times", i, 0);
}

static double arrival_s(const struct vllm_json_run *run, size_t i)
{
    return send_s(run, i) - number(run, "queue_times", i, 0);
}

/* To the last chunk. Older files do not have it: then what its parts sum up to. */
static double latency_s(const struct vllm_json_run *run, size_t i)
{
    double sum = number(run, "ttfts", i, 0);
    for (size_t k = 0; k < json_array_size(itls(run, i)); k++) {
        sum += json_number_value(json_array_get(itls(run, i), k));
    }
    return fmax(number(run, "latencies", i, sum), number(run, "ttfts", i, 0));
}

static const char *error_text(const struct vllm_json_run *run, size_t i)
{
    const char *text = json_string_value(json_array_get(json_object_get(run->root, "errors"), i));
    return text ? text : "";
}

/* A failed request has a message; an old client's may be empty, but then it has no reply, either. */
static bool failed(const struct vllm_json_run *run, size_t i)
{
    return error_text(run, i)[0] || number(run, "output_lens", i, 0) <= 0 || latency_s(run, i) <= 0;
}

/* --- parsing ---------------------------------------------------------------------------------- */

static int take_run(const struct place *p, struct vllm_json_run *run, struct err *e)
{
    const json_t *lens = json_object_get(run->root, "input_lens");
    run->n = json_array_size(lens);
    if (json_is_array(lens) && run->n == 0) {
        return bad(p, e, "has no requests");
    }
    if (check_list(p, run->root, "input_lens", run->n, UINT32_MAX - 1., false, e) ||
        check_list(p, run->root, "output_lens", run->n, VLLM_JSON_MAX_TOKENS, false, e) ||
        check_list(p, run->root, "ttfts", run->n, MAX_S, false, e) ||
        check_list(p, run->root, "start_times", run->n, 1e10, false, e) ||
        check_list(p, run->root, "latencies", run->n, MAX_S, true, e) ||
        check_list(p, run->root, "queue_times", run->n, MAX_S, true, e) ||
        check_itls(p, run->root, run->n, e) || check_errors(p, run->root, run->n, e) ||
        take_load(p, run, e)) {
        return -1;
    }
    double last_s = -INFINITY;
    run->begin_s = INFINITY;
    for (size_t i = 0; i < run->n; i++) {
        run->begin_s = fmin(run->begin_s, arrival_s(run, i));
        last_s = fmax(last_s, send_s(run, i));
        if (latency_s(run, i) > MAX_S) {
            return bad(p, e, "a reply took more than 1e6 s");
        }
    }
    run->unix_ns = read_date(vllm_json_text(run, "date"));
    return last_s - run->begin_s <= MAX_S ? 0 : bad(p, e, "start_times span more than 1e6 s");
}

/* Outside of strings: Python's words for what JSON has no numbers for. No value used is negative. */
static void replace_words(char *text, size_t len)
{
    static const char *const words[] = {"NaN", "-Infinity", "Infinity"};
    bool in_string = false;
    for (size_t i = 0; i < len; i++) {
        if (in_string && text[i] == '\\') {
            i++;
        } else if (text[i] == '"') {
            in_string = !in_string;
        }
        for (int k = 0; !in_string && k < 3; k++) {
            size_t n = strlen(words[k]);
            if (len - i >= n && memcmp(text + i, words[k], n) == 0) {
                memset(text + i, ' ', n);
                memcpy(text + i, "-1", 2);
            }
        }
    }
}

static size_t skip_space(const char *text, size_t len, size_t at)
{
    while (at < len && memchr(" \t\r\n", text[at], 4)) {
        at++;
    }
    return at;
}

static int compare_runs(const void *a, const void *b)
{
    const struct vllm_json_run *x = a, *y = b;
    if (x->rate_rps < y->rate_rps || x->rate_rps > y->rate_rps) {
        return x->rate_rps < y->rate_rps ? -1 : 1;
    }
    if (x->users != y->users) {
        return x->users < y->users ? -1 : 1;
    }
    return (x->unix_ns > y->unix_ns) - (x->unix_ns < y->unix_ns);
}

static struct vllm_json_run *add_run(struct vllm_json *v, json_t *root)
{
    v->runs = xrealloc(v->runs, (v->n + 1) * sizeof *v->runs);
    v->runs[v->n] = (struct vllm_json_run){.root = root};
    return &v->runs[v->n++];
}

static int parse_next(struct vllm_json *v, const char *text, size_t len, size_t *at,
                      const char *name, struct err *e)
{
    json_error_t wrong;
    json_t *root = json_loadb(text + *at, len - *at, JSON_DISABLE_EOF_CHECK, &wrong);
    if (!root) {
        return err_set(e, ERR_INPUT, "%s: not JSON at byte %zu: %s", name,
                       *at + (size_t)(wrong.position > 0 ? wrong.position : 0), wrong.text);
    }
    *at += (size_t)wrong.position;
    const struct place p = {.name = name, .run = v->n + 1};
    return take_run(&p, add_run(v, root), e);
}

int vllm_json_parse(struct vllm_json *out, char *text, size_t len, const char *name, struct err *e)
{
    *out = (struct vllm_json){0};
    replace_words(text, len);
    int rc = 0;
    size_t at = skip_space(text, len, 0);
    while (rc == 0 && at < len) {
        rc = parse_next(out, text, len, &at, name, e);
        at = skip_space(text, len, at);
    }
    if (rc == 0 && out->n == 0) {
        rc = err_set(e, ERR_INPUT, "%s: is empty; a result of vllm bench serve was expected", name);
    }
    if (rc) {
        vllm_json_free(out);
        return -1;
    }
    qsort(out->runs, out->n, sizeof *out->runs, compare_runs);
    return 0;
}

void vllm_json_join(struct vllm_json *to, struct vllm_json *from)
{
    for (size_t i = 0; i < from->n; i++) {
        *add_run(to, NULL) = from->runs[i];
    }
    free(from->runs);
    *from = (struct vllm_json){0};
    qsort(to->runs, to->n, sizeof *to->runs, compare_runs);
}

void vllm_json_free(struct vllm_json *v)
{
    for (size_t i = 0; i < v->n; i++) {
        json_decref(v->runs[i].root);
    }
    free(v->runs);
    *v = (struct vllm_json){0};
}

const char *vllm_json_text(const struct vllm_json_run *run, const char *key)
{
    const char *text = json_string_value(json_object_get(run->root, key));
    return text ? text : "";
}

/* --- as records ------------------------------------------------------------------------------- */

/* By what vLLM's client writes: aiohttp's exceptions in a traceback, or the reason of an HTTP status. */
static void take_error(struct record *r, const char *text)
{
    static const struct {
        const char *part;
        enum outcome outcome;
        uint16_t status;
    } rows[] = {
        {"TimeoutError", OUTCOME_TIMEOUT_TOTAL, 0},
        {"ClientConnector", OUTCOME_CONNECT, 0},
        {"Cannot connect", OUTCOME_CONNECT, 0},
        {"CancelledError", OUTCOME_CANCELLED, 0},
        {"Traceback", OUTCOME_TRUNCATED, 0},
        {"Never received a valid chunk", OUTCOME_BAD_STREAM, 0},
        {"Bad Request", OUTCOME_HTTP_STATUS, 400},
        {"Unauthorized", OUTCOME_HTTP_STATUS, 401},
        {"Not Found", OUTCOME_HTTP_STATUS, 404},
        {"Too Many Requests", OUTCOME_HTTP_STATUS, 429},
        {"Internal Server Error", OUTCOME_HTTP_STATUS, 500},
        {"Bad Gateway", OUTCOME_HTTP_STATUS, 502},
        {"Service Unavailable", OUTCOME_HTTP_STATUS, 503},
        {"Gateway Timeout", OUTCOME_HTTP_STATUS, 504},
    };
    r->outcome = OUTCOME_BAD_STREAM;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        if (strstr(text, rows[i].part)) {
            r->outcome = (uint8_t)rows[i].outcome;
            r->http_status = rows[i].status;
            return;
        }
    }
}

static int64_t to_ns(double s)
{
    return (int64_t)llround(s * NS);
}

/* Token times: whole us since the send, so that rounding does not add up. A quarter ns is added to times that
 * are whole ns, mostly: a sum of gaps that lies at half a us would go up or down by its last bit. */
static uint32_t *spread_tokens(const struct vllm_json_run *run, size_t i, uint32_t n_tokens)
{
    size_t n_chunks = 1 + json_array_size(itls(run, i));
    uint32_t *dt_us = xcalloc(n_tokens, sizeof *dt_us);
    double at_s = number(run, "ttfts", i, 0) > 0 ? number(run, "ttfts", i, 0) : latency_s(run, i);
    int64_t before_us = 0;
    for (size_t chunk = 0, token = 0; chunk < n_chunks && token < n_tokens; chunk++) {
        at_s += chunk ? json_number_value(json_array_get(itls(run, i), chunk - 1)) : 0;
        int64_t at_us = llround(at_s * US + 0.25e-3);
        dt_us[token] = (uint32_t)(at_us - before_us < UINT32_MAX ? at_us - before_us : UINT32_MAX);
        before_us = at_us;
        token = (chunk + 1) * (size_t)n_tokens / n_chunks; // the others of the chunk keep 0
    }
    return dt_us;
}

static uint32_t max_gap_us(const uint32_t *dt_us, uint32_t n)
{
    uint32_t most = 0;
    for (uint32_t i = 1; i < n; i++) {
        most = dt_us[i] > most ? dt_us[i] : most;
    }
    return most;
}

/* tokens: at least one per chunk, as they arrived, beside vLLM's own count. */
static uint32_t *take_reply(const struct vllm_json_run *run, size_t i, struct record *r)
{
    double ttft_s = number(run, "ttfts", i, 0);
    uint32_t n_counted = (uint32_t)number(run, "output_lens", i, 0);
    uint32_t n_chunks = (uint32_t)(1 + json_array_size(itls(run, i)));
    r->n_out = n_counted > n_chunks ? n_counted : n_chunks;
    r->n_out_usage = n_counted;
    r->n_chunks = n_chunks;
    r->t_last_ns = r->t_send_ns + to_ns(latency_s(run, i));
    r->t_first_ns = ttft_s > 0 ? r->t_send_ns + to_ns(ttft_s) : r->t_last_ns; // not streamed
    r->t_byte_ns = r->t_content_ns = r->t_first_ns;
    uint32_t *dt_us = spread_tokens(run, i, r->n_out);
    r->itl_max_us = max_gap_us(dt_us, r->n_out);
    return dt_us;
}

uint32_t *vllm_json_record(const struct vllm_json_run *run, size_t i, struct record *r)
{
    record_init(r);
    r->id = i;
    r->t_sched_ns = to_ns(arrival_s(run, i) - run->begin_s);
    r->t_send_ns = to_ns(send_s(run, i) - run->begin_s);
    if (run->has_cap) { // else the wait is the client's own
        r->cap_wait_us = (uint32_t)fmin(number(run, "queue_times", i, 0) * US, UINT32_MAX);
    }
    r->n_in = (uint32_t)number(run, "input_lens", i, 0);
    r->n_out_req = (uint32_t)number(run, "output_lens", i, 0);
    if (failed(run, i)) {
        take_error(r, error_text(run, i));
        return xcalloc(1, sizeof(uint32_t));
    }
    return take_reply(run, i, r);
}

struct step_info vllm_json_step(const struct vllm_json_run *run)
{
    double last_s = 0, end_s = 0;
    for (size_t i = 0; i < run->n; i++) {
        last_s = fmax(last_s, arrival_s(run, i) - run->begin_s);
        end_s = fmax(end_s, send_s(run, i) + latency_s(run, i) - run->begin_s);
    }
    double paced_s = run->rate_rps > 0 ? fmin((double)run->n / run->rate_rps, 3 * MAX_S) : end_s;
    struct step_info s = {
        .kind = STEP_SWEEP,
        .rate_rps = run->rate_rps,
        .users = run->users,
        .t_end_ns = to_ns(fmax(paced_s, last_s)) + 1,
        .n_scheduled = run->n,
        .poll_gap_p50_ns = (double)NAN,
        .poll_gap_p99_ns = (double)NAN,
        .load_cpu_share = (double)NAN,
    };
    s.t_drain_ns = to_ns(end_s) > s.t_end_ns ? to_ns(end_s) : s.t_end_ns;
    return s;
}
