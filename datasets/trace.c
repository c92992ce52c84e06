#include "datasets/trace.h"

#include "core/clock.h"

#include <math.h>
#include <stdbool.h>
#include <string.h>

#define HEADER     "TIMESTAMP,ContextTokens,GeneratedTokens"
#define MAX_TOKENS 1000000000 // of one request
#define YEAR_MIN   1970
#define YEAR_MAX   2200 // nanoseconds since 1970 fit into 64 bits until 2262
#define MAX_T_NS   (INT64_MAX / 4)

struct span {
    const char *s;
    size_t len;
};

struct reader {
    const struct dataset_config *cfg;
    uint32_t context;
    int64_t first_ns, last_ns; // of the lines so far, since 1970
    struct entries entries;
};

/* --- fields ----------------------------------------------------------------------------------- */

/* Take 1..max_digits digits from the front. */
static bool take_digits(struct span *f, size_t min_digits, size_t max_digits, int64_t *x)
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

static bool take_char(struct span *f, const char *any_of)
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
static bool take_date(struct span *f, int64_t *s)
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
static bool take_time(struct span *f, int64_t *ns)
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
static bool take_zone(struct span *f, int64_t *ns)
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

static bool parse_timestamp(struct span f, int64_t *ns)
{
    int64_t date_s, time_ns, zone_ns;
    if (!take_date(&f, &date_s) || !take_char(&f, " T") || !take_time(&f, &time_ns) ||
        !take_zone(&f, &zone_ns) || f.len != 0) {
        return false;
    }
    *ns = date_s * NS_PER_S + time_ns - zone_ns;
    return true;
}

static bool parse_count(struct span f, int64_t *n)
{
    return take_digits(&f, 1, 10, n) && f.len == 0 && *n <= MAX_TOKENS;
}

/* The text up to the next comma, which is taken too. */
static struct span next_field(struct span *line)
{
    const char *comma = memchr(line->s, ',', line->len);
    size_t n = comma != NULL ? (size_t)(comma - line->s) : line->len;
    struct span field = {line->s, n};
    size_t taken = comma != NULL ? n + 1 : n;
    line->s += taken;
    line->len -= taken;
    return field;
}

/* --- lines ------------------------------------------------------------------------------------ */

static enum entries_reason judge(const struct reader *r, int64_t since_ns, int64_t n_in,
                                 int64_t n_out)
{
    const struct opt_window *w = &r->cfg->window;
    if (since_ns < w->from_ns || (w->to_ns > 0 && since_ns >= w->to_ns)) {
        return ENTRIES_OUTSIDE_WINDOW;
    }
    if (n_in == 0 || n_out == 0) {
        return ENTRIES_ZERO_TOKENS;
    }
    return n_in + n_out > r->context ? ENTRIES_CONTEXT : ENTRIES_N_REASONS;
}

static int add_request(struct reader *r, int64_t t_ns, int64_t n_in, int64_t n_out, struct err *e)
{
    struct entries *s = &r->entries;
    uint64_t index = s->n_source++;
    int64_t since_ns = t_ns - r->first_ns;
    n_in = r->cfg->input_tokens > 0 ? r->cfg->input_tokens : n_in;
    n_out = r->cfg->output_tokens > 0 ? r->cfg->output_tokens : n_out;
    enum entries_reason reason = judge(r, since_ns, n_in, n_out);
    if (reason != ENTRIES_N_REASONS) {
        s->filtered[reason]++;
        return 0;
    }
    double scaled_ns = (double)(since_ns - r->cfg->window.from_ns) * r->cfg->time_scale;
    if (!(scaled_ns < (double)MAX_T_NS)) {
        return err_set(e, ERR_INPUT, "time_scale %g puts it too far away", r->cfg->time_scale);
    }
    struct entry entry = {
        .n_in = (uint32_t)n_in,
        .n_out = (uint32_t)n_out,
        .index = index,
        .t_ns = llround(scaled_ns),
    };
    return entries_add(s, &entry, e);
}

static int parse_line(struct reader *r, struct span line, struct err *e)
{
    int64_t t_ns, n_in, n_out;
    if (!parse_timestamp(next_field(&line), &t_ns)) {
        return err_set(e, ERR_INPUT, "TIMESTAMP is not YYYY-MM-DD HH:MM:SS[.fffffffff][Z]");
    }
    if (!parse_count(next_field(&line), &n_in)) {
        return err_set(e, ERR_INPUT, "ContextTokens is not a whole number (0..%d)", MAX_TOKENS);
    }
    struct span last = next_field(&line);
    if (!parse_count(last, &n_out) || line.s != last.s + last.len) {
        return err_set(e, ERR_INPUT,
                       "GeneratedTokens is not a whole number at the line's end (0..%d)",
                       MAX_TOKENS);
    }
    if (r->entries.n_source == 0) {
        r->first_ns = r->last_ns = t_ns;
    }
    if (t_ns < r->last_ns) {
        return err_set(e, ERR_INPUT,
                       "TIMESTAMP is before that of the line above (times must rise)");
    }
    r->last_ns = t_ns;
    return add_request(r, t_ns, n_in, n_out, e);
}

/* The next line without its end; an empty last line does not count. */
static bool next_line(const char **at, const char *end, struct span *line)
{
    if (*at == end) {
        return false;
    }
    const char *newline = memchr(*at, '\n', (size_t)(end - *at));
    const char *stop = newline != NULL ? newline : end;
    *line = (struct span){*at, (size_t)(stop - *at)};
    if (line->len > 0 && line->s[line->len - 1] == '\r') {
        line->len--;
    }
    *at = newline != NULL ? newline + 1 : end;
    return true;
}

static int parse_lines(struct reader *r, const char *text, size_t len, const char *where,
                       struct err *e)
{
    const char *at = text, *end = text + len;
    struct span line;
    if (!next_line(&at, end, &line) || line.len != strlen(HEADER) ||
        memcmp(line.s, HEADER, line.len) != 0) {
        return err_set(e, ERR_INPUT, "%s:1: the header is not %s", where, HEADER);
    }
    for (size_t n = 2; next_line(&at, end, &line); n++) {
        if (parse_line(r, line, e) != 0) {
            return err_wrap(e, "%s:%zu", where, n);
        }
    }
    return 0;
}

int trace_parse(struct entries *out, const struct dataset_config *cfg, uint32_t context,
                const char *text, size_t len, const char *where, struct err *e)
{
    struct reader r = {.cfg = cfg, .context = context};
    if (parse_lines(&r, text, len, where, e) != 0 ||
        entries_check(&r.entries, where, "request", e) != 0) {
        entries_free(&r.entries);
        return -1;
    }
    *out = r.entries;
    return 0;
}
