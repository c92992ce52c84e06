#include "datasets/trace_line.h"

#include "core/clock.h"
#include "core/json_scan.h"
#include "core/mem.h"
#include "datasets/blocks.h"

#include <math.h>
#include <string.h>

#define YEAR_MIN    1970
#define YEAR_MAX    2200       // nanoseconds since 1970 fit into 64 bits until 2262
#define MAX_SECONDS 5000000000 // so do these

/* --- fields ----------------------------------------------------------------------------------- */

/* Take 1..max_digits digits from the front. */
static bool take_digits(struct trace_span *f, size_t min_digits, size_t max_digits, int64_t *x)
{
    size_t n = 0;
    *x = 0;
    while (n < f->len && n < max_digits && f->s[n] >= '0' && f->s[n] <= '9') {
        *x = *x * 10 + (f->s[n] - '0');
        n++;
    }
    f->s += n;
    f->len -= n;
    return n >= min_digits;
}

static bool take_char(struct trace_span *f, const char *any_of)
{
    if (f->len == 0 || f->s[0] == '\0' || strchr(any_of, f->s[0]) == NULL) {
        return false;
    }
    f->s++;
    f->len--;
    return true;
}

/*
 * Days from 1970-01-01 (proleptic Gregorian; H. Hinnant, "chrono-compatible low-level date
 * algorithms").
 */
static int64_t days_from_civil(int64_t y, int64_t m, int64_t d)
{
    y -= m <= 2;
    int64_t era = y / 400, yoe = y - era * 400;
    int64_t doy = (153 * (m > 2 ? m - 3 : m + 9) + 2) / 5 + d - 1;
    return era * 146097 + yoe * 365 + yoe / 4 - yoe / 100 + doy - 719468;
}

static int64_t days_in_month(int64_t y, int64_t m)
{
    static const int8_t days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    bool leap = (y % 4 == 0 && y % 100 != 0) || y % 400 == 0;
    return days[m - 1] + (m == 2 && leap);
}

/* "2023-11-16", to seconds. */
static bool take_date(struct trace_span *f, int64_t *s)
{
    int64_t y, m, d;
    bool ok = take_digits(f, 4, 4, &y) && take_char(f, "-") && take_digits(f, 2, 2, &m) &&
              take_char(f, "-") && take_digits(f, 2, 2, &d);
    if (!ok || y < YEAR_MIN || y > YEAR_MAX || m < 1 || m > 12 || d < 1 ||
        d > days_in_month(y, m)) {
        return false;
    }
    *s = days_from_civil(y, m, d) * 86400;
    return true;
}

/* "18:15:46.6805900": 0 to 9 digits of fraction. */
static bool take_time(struct trace_span *f, int64_t *ns)
{
    int64_t h, m, s, fraction = 0;
    bool ok = take_digits(f, 2, 2, &h) && take_char(f, ":") && take_digits(f, 2, 2, &m) &&
              take_char(f, ":") && take_digits(f, 2, 2, &s);
    if (!ok || h > 23 || m > 59 || s > 59) {
        return false;
    }
    if (take_char(f, ".")) {
        const char *digits = f->s;
        if (!take_digits(f, 1, 9, &fraction)) {
            return false;
        }
        for (size_t n = (size_t)(f->s - digits); n < 9; n++) {
            fraction *= 10;
        }
    }
    *ns = ((h * 60 + m) * 60 + s) * NS_PER_S + fraction;
    return true;
}

/* "", "Z", "+00:00": what to subtract to get UTC. */
static bool take_zone(struct trace_span *f, int64_t *ns)
{
    int64_t h, m;
    *ns = 0;
    if (f->len == 0 || take_char(f, "Z")) {
        return true;
    }
    bool west = f->s[0] == '-';
    if (!take_char(f, "+-") || !take_digits(f, 2, 2, &h) || !take_char(f, ":") ||
        !take_digits(f, 2, 2, &m) || h > 23 || m > 59) {
        return false;
    }
    *ns = (h * 60 + m) * 60 * NS_PER_S * (west ? -1 : 1);
    return true;
}

static bool parse_date(struct trace_span f, int64_t *ns)
{
    int64_t date_s, time_ns, zone_ns;
    if (!take_date(&f, &date_s) || !take_char(&f, " T") || !take_time(&f, &time_ns) ||
        !take_zone(&f, &zone_ns) || f.len != 0) {
        return false;
    }
    *ns = date_s * NS_PER_S + time_ns - zone_ns;
    return true;
}

static bool parse_count(struct trace_span f, int64_t *n)
{
    return take_digits(&f, 1, 10, n) && f.len == 0 && *n <= TRACE_LINE_MAX_TOKENS;
}

/* The text up to the next comma, which is taken too. */
static struct trace_span next_field(struct trace_span *line)
{
    const char *comma = memchr(line->s, ',', line->len);
    size_t n = comma != NULL ? (size_t)(comma - line->s) : line->len;
    struct trace_span field = {line->s, n};
    size_t taken = comma != NULL ? n + 1 : n;
    line->s += taken;
    line->len -= taken;
    return field;
}

/* Seconds since the trace began, with a fraction or without. */
static bool parse_seconds(struct trace_span f, int64_t *ns)
{
    int64_t s, fraction = 0;
    if (!take_digits(&f, 1, 10, &s) || s > MAX_SECONDS) {
        return false;
    }
    if (take_char(&f, ".")) {
        const char *digits = f.s;
        if (!take_digits(&f, 1, 9, &fraction)) {
            return false;
        }
        for (size_t n = (size_t)(f.s - digits); n < 9; n++) {
            fraction *= 10;
        }
    }
    *ns = s * NS_PER_S + fraction;
    return f.len == 0;
}

/* --- CSV -------------------------------------------------------------------------------------- */

struct trace_csv {
    const char *time, *in, *out; // columns, in any order among others
    bool (*parse_time)(struct trace_span f, int64_t *ns);
    const char *time_is;
};

static const struct trace_csv formats[] = {
    {"TIMESTAMP", "ContextTokens", "GeneratedTokens", parse_date,
     "YYYY-MM-DD HH:MM:SS[.fffffffff][Z]"},
    {"Timestamp", "Request tokens", "Response tokens", parse_seconds, "seconds (12 or 12.5)"},
};

#define N_FORMATS (sizeof formats / sizeof *formats)

static bool is(struct trace_span f, const char *name)
{
    return f.len == strlen(name) && memcmp(f.s, name, f.len) == 0;
}

static bool match(struct trace_columns *c, const struct trace_csv *format, struct trace_span line)
{
    *c = (struct trace_columns){.format = format, .time = -1, .in = -1, .out = -1};
    bool more = true;
    for (; more; c->n++) {
        more = memchr(line.s, ',', line.len) != NULL;
        struct trace_span field = next_field(&line);
        c->time = is(field, format->time) ? c->n : c->time;
        c->in = is(field, format->in) ? c->n : c->in;
        c->out = is(field, format->out) ? c->n : c->out;
    }
    return c->time >= 0 && c->in >= 0 && c->out >= 0;
}

int trace_line_header(struct trace_columns *c, struct trace_span line, struct err *e)
{
    for (size_t i = 0; i < N_FORMATS; i++) {
        if (match(c, &formats[i], line)) {
            return 0;
        }
    }
    return err_set(e, ERR_INPUT,
                   "neither conversations ('[' first), nor lines of a Mooncake trace ('{' first), "
                   "nor a header with %s,%s,%s (Azure) or %s,%s,%s (BurstGPT)",
                   formats[0].time, formats[0].in, formats[0].out, formats[1].time, formats[1].in,
                   formats[1].out);
}

static int take_column(const struct trace_columns *c, int column, struct trace_span field,
                       struct trace_request *r, struct err *e)
{
    const struct trace_csv *f = c->format;
    if (column == c->time && !f->parse_time(field, &r->t_ns)) {
        return err_set(e, ERR_INPUT, "%s is not %s", f->time, f->time_is);
    }
    if (column == c->in && !parse_count(field, &r->n_in)) {
        return err_set(e, ERR_INPUT, "%s is not a whole number (0..%d)", f->in,
                       TRACE_LINE_MAX_TOKENS);
    }
    if (column == c->out && !parse_count(field, &r->n_out)) {
        return err_set(e, ERR_INPUT, "%s is not a whole number (0..%d)", f->out,
                       TRACE_LINE_MAX_TOKENS);
    }
    return 0;
}

int trace_line_csv(const struct trace_columns *c, struct trace_span line, struct trace_request *r,
                   struct err *e)
{
    int column = 0;
    for (bool more = true; more; column++) {
        more = memchr(line.s, ',', line.len) != NULL;
        if (take_column(c, column, next_field(&line), r, e) != 0) {
            return -1;
        }
    }
    if (column != c->n) {
        return err_set(e, ERR_INPUT, "%d fields where the header has %d", column, c->n);
    }
    return 0;
}

/* --- Mooncake --------------------------------------------------------------------------------- */

static void take_blocks(struct json_scan *s, struct trace_request *r)
{
    r->n_blocks = 0;
    for (json_scan_list(s); json_scan_item(s);) {
        int64_t name = 0;
        json_scan_whole(s, &name);
        if (r->n_blocks == r->blocks_cap) {
            r->blocks_cap = 2 * r->blocks_cap + 64;
            r->blocks = xrealloc(r->blocks, r->blocks_cap * sizeof *r->blocks);
        }
        r->blocks[r->n_blocks++] = (uint64_t)name;
    }
}

static int check_mooncake(const struct trace_request *r, double ms, struct err *e)
{
    if (!(ms >= 0.0 && ms <= MAX_SECONDS * 1e3)) {
        return err_set(e, ERR_INPUT, "\"timestamp\" is missing, or not in 0..%lld ms",
                       (long long)MAX_SECONDS * 1000);
    }
    if (r->n_in < 0 || r->n_in > TRACE_LINE_MAX_TOKENS || r->n_out < 0 ||
        r->n_out > TRACE_LINE_MAX_TOKENS) {
        return err_set(e, ERR_INPUT,
                       "\"input_length\" or \"output_length\" is missing, or not in 0..%d",
                       TRACE_LINE_MAX_TOKENS);
    }
    int64_t n_blocks = (r->n_in + BLOCKS_TOKENS - 1) / BLOCKS_TOKENS;
    if ((int64_t)r->n_blocks < n_blocks) {
        return err_set(e, ERR_INPUT,
                       "%zu \"hash_ids\" for %lld tokens: one for each %d is %lld of them",
                       r->n_blocks, (long long)r->n_in, BLOCKS_TOKENS, (long long)n_blocks);
    }
    return 0;
}

int trace_line_mooncake(struct trace_span line, struct trace_request *r, struct err *e)
{
    struct json_scan s;
    struct json_text key;
    double ms = -1.0;
    r->n_in = r->n_out = -1;
    r->n_blocks = 0;
    json_scan_init(&s, line.s, line.len);
    for (json_scan_object(&s); json_scan_key(&s, &key);) {
        if (json_text_is(key, "timestamp")) {
            json_scan_number(&s, &ms);
        } else if (json_text_is(key, "input_length")) {
            json_scan_whole(&s, &r->n_in);
        } else if (json_text_is(key, "output_length")) {
            json_scan_whole(&s, &r->n_out);
        } else if (json_text_is(key, "hash_ids")) {
            take_blocks(&s, r);
        } else {
            json_scan_skip(&s);
        }
    }
    if (!json_scan_end(&s)) {
        const char *bad = s.bad != NULL ? s.bad : s.at;
        return err_set(e, ERR_INPUT,
                       "not {\"timestamp\": ms, \"input_length\": n, \"output_length\": n, "
                       "\"hash_ids\": [n, ...]} at column %zu",
                       (size_t)(bad - line.s) + 1);
    }
    if (check_mooncake(r, ms, e) != 0) {
        return -1;
    }
    r->t_ns = (int64_t)ms * NS_PER_MS + llround((ms - floor(ms)) * (double)NS_PER_MS);
    return 0;
}
