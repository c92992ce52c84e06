#include "analysis/prices.h"

#include "core/clock.h"
#include "core/mem.h"
#include "core/str.h"

#include <jansson.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define HEADER                                                                                     \
    "provider,instance_type,accelerator,accel_count,region,pricing_model,usd_per_hour,as_of,"      \
    "source_url,note"
#define DAY_NS    (86400 * NS_PER_S)
#define MAX_COUNT 999999999 // accelerators of one instance

enum field {
    FIELD_PROVIDER,
    FIELD_INSTANCE,
    FIELD_ACCELERATOR,
    FIELD_COUNT,
    FIELD_REGION,
    FIELD_PRICING,
    FIELD_USD,
    FIELD_AS_OF,
    FIELD_URL,
    FIELD_NOTE,
    FIELD_N,
};

/* --- CSV ------------------------------------------------------------------------------------- */

struct reader {
    const char *at, *end;
    const char *where;
    size_t line; // of the text at `at`, from 1
    struct err *e;
};

static int fail(struct reader *r, const char *what)
{
    return err_set(r->e, ERR_INPUT, "%s line %zu: %s", r->where, r->line, what);
}

/* What is kept of a price is JSON: other bytes than UTF-8 could not be. */
static bool is_utf8(const struct str *s)
{
    json_t *text = json_stringn(s->data ? s->data : "", s->len);
    json_decref(text);
    return text != NULL;
}

static bool is_control(char c)
{
    return (unsigned char)c < ' ' || c == 0x7f;
}

/* A quoted field, after its first quote: up to the closing one. */
static int read_quoted(struct reader *r, struct str *field)
{
    while (r->at < r->end && *r->at != '\n' && *r->at != '\r') {
        if (is_control(*r->at)) {
            return fail(r, "a control character");
        }
        if (*r->at != '"') {
            str_append(field, r->at++, 1);
        } else if (r->end - r->at > 1 && r->at[1] == '"') {
            str_puts(field, "\"");
            r->at += 2;
        } else {
            r->at++;
            return 0;
        }
    }
    return fail(r, "a quoted field does not end on its line");
}

static bool at_field_end(const struct reader *r)
{
    return r->at == r->end || *r->at == ',' || *r->at == '\n' || *r->at == '\r';
}

static int read_field(struct reader *r, struct str *field)
{
    str_clear(field);
    if (r->at < r->end && *r->at == '"') {
        r->at++;
        return read_quoted(r, field) || (!at_field_end(r) && fail(r, "text after a closing quote"))
                   ? -1
                   : 0;
    }
    for (; !at_field_end(r); r->at++) {
        if (*r->at == '"') {
            return fail(r, "a quote inside a field that is not quoted");
        }
        if (is_control(*r->at)) {
            return fail(r, "a control character");
        }
        str_append(field, r->at, 1);
    }
    return 0;
}

/* "\n" or "\r\n" or the end of the text. */
static int read_line_end(struct reader *r)
{
    if (r->at < r->end && *r->at == '\r') {
        r->at++;
        if (r->at == r->end || *r->at != '\n') {
            return fail(r, "a carriage return that does not end the line");
        }
    }
    r->at += r->at < r->end;
    return 0;
}

static int read_row(struct reader *r, struct str *fields)
{
    for (int i = 0; i < FIELD_N; i++) {
        if (read_field(r, &fields[i])) {
            return -1;
        }
        if (!is_utf8(&fields[i])) {
            return fail(r, "text that is not UTF-8");
        }
        bool comma = r->at < r->end && *r->at == ',';
        if (comma != (i + 1 < FIELD_N)) {
            return err_set(r->e, ERR_INPUT, "%s line %zu: %s than %d fields", r->where, r->line,
                           comma ? "more" : "fewer", FIELD_N);
        }
        r->at += comma;
    }
    return read_line_end(r);
}

static int read_header(struct reader *r)
{
    size_t len = strlen(HEADER);
    if ((size_t)(r->end - r->at) < len || memcmp(r->at, HEADER, len) != 0) {
        return fail(r, "the first line must be " HEADER);
    }
    r->at += len;
    if (r->at < r->end && *r->at != '\n' && *r->at != '\r') {
        return fail(r, "the first line must be " HEADER);
    }
    return read_line_end(r);
}

/* --- fields ---------------------------------------------------------------------------------- */

static const char *text_of(const struct str *s)
{
    return s->data ? s->data : "";
}

/* Digits only, at most nine of them. */
static int read_count(const struct str *s, int64_t *out)
{
    const char *t = text_of(s);
    size_t n = strspn(t, "0123456789");
    if (n == 0 || n > 9 || t[n] != '\0' || n != s->len) {
        return -1;
    }
    *out = strtoll(t, NULL, 10);
    return 0;
}

/* A plain decimal number above 0. */
static int read_usd(const struct str *s, double *out)
{
    const char *t = text_of(s);
    size_t n = strspn(t, "0123456789.");
    char *end;
    if (n == 0 || n > 30 || n != s->len) {
        return -1;
    }
    *out = strtod(t, &end);
    return *end == '\0' && *out > 0 && isfinite(*out) ? 0 : -1;
}

/* Days since 1970-01-01 of a civil date (Hinnant, "chrono-compatible low-level date algorithms"). */
static int64_t day_of(int year, int month, int day)
{
    int64_t y = month <= 2 ? year - 1 : year;
    int64_t era = y / 400, of_era = y - era * 400;
    int64_t of_year = (153 * (month + (month > 2 ? -3 : 9)) + 2) / 5 + day - 1;
    return era * 146097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719468;
}

/* "2026-11-20" */
static int read_day(const struct str *s, int64_t *out)
{
    static const int days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    const char *t = text_of(s);
    for (size_t i = 0; i < 10; i++) {
        bool dash = i == 4 || i == 7;
        if (s->len != 10 || (dash ? t[i] != '-' : t[i] < '0' || t[i] > '9')) {
            return -1;
        }
    }
    int year = (int)strtol(t, NULL, 10), month = (int)strtol(t + 5, NULL, 10);
    int day = (int)strtol(t + 8, NULL, 10);
    bool leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
    if (year < 1970 || month < 1 || month > 12 || day < 1 ||
        day > days[month - 1] + (month == 2 && leap)) {
        return -1;
    }
    *out = day_of(year, month, day);
    return 0;
}

static int check_fields(struct reader *r, const struct str *f, struct price *p)
{
    if (f[FIELD_INSTANCE].len == 0 || f[FIELD_PRICING].len == 0 || f[FIELD_REGION].len == 0) {
        return fail(r, "instance_type, region and pricing_model must not be empty");
    }
    if (read_count(&f[FIELD_COUNT], &p->accel_count)) {
        return fail(r, "accel_count must be a whole number >= 0");
    }
    if (read_usd(&f[FIELD_USD], &p->usd_per_hour)) {
        return fail(r, "usd_per_hour must be a plain number > 0");
    }
    if (read_day(&f[FIELD_AS_OF], &p->as_of_day)) {
        return fail(r, "as_of must be a date, YYYY-MM-DD: a price without one is worth nothing");
    }
    return 0;
}

static void keep_texts(const struct str *f, struct price *p)
{
    p->provider = xstrdup(text_of(&f[FIELD_PROVIDER]));
    p->instance_type = xstrdup(text_of(&f[FIELD_INSTANCE]));
    p->accelerator = xstrdup(text_of(&f[FIELD_ACCELERATOR]));
    p->region = xstrdup(text_of(&f[FIELD_REGION]));
    p->pricing_model = xstrdup(text_of(&f[FIELD_PRICING]));
    p->as_of = xstrdup(text_of(&f[FIELD_AS_OF]));
    p->source_url = xstrdup(text_of(&f[FIELD_URL]));
    p->note = xstrdup(text_of(&f[FIELD_NOTE]));
}

static void free_texts(struct price *p)
{
    char *texts[] = {p->provider,      p->instance_type, p->accelerator, p->region,
                     p->pricing_model, p->as_of,         p->source_url,  p->note};
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        free(texts[i]);
    }
}

static bool same_key(const struct price *a, const struct price *b)
{
    return strcmp(a->instance_type, b->instance_type) == 0 && strcmp(a->region, b->region) == 0 &&
           strcmp(a->pricing_model, b->pricing_model) == 0;
}

static int keep_row(struct reader *r, const struct str *fields, struct prices *out)
{
    struct price p = {.line = r->line};
    if (check_fields(r, fields, &p)) {
        return -1;
    }
    out->rows = xrealloc(out->rows, (out->n + 1) * sizeof *out->rows);
    keep_texts(fields, &p);
    out->rows[out->n++] = p;
    for (size_t i = 0; i + 1 < out->n; i++) {
        if (same_key(&out->rows[i], &p)) {
            return err_set(r->e, ERR_INPUT, "%s line %zu: %s, %s, %s is already on line %zu",
                           r->where, r->line, p.instance_type, p.region, p.pricing_model,
                           out->rows[i].line);
        }
    }
    return 0;
}

int prices_parse(struct prices *out, const char *text, size_t len, const char *where, struct err *e)
{
    struct reader r = {.at = text, .end = text + len, .where = where, .line = 1, .e = e};
    struct str fields[FIELD_N] = {0};
    struct prices p = {0};
    int rc = read_header(&r);
    while (rc == 0 && r.at < r.end) {
        r.line++;
        rc = read_row(&r, fields) || keep_row(&r, fields, &p) ? -1 : 0;
    }
    for (int i = 0; i < FIELD_N; i++) {
        str_free(&fields[i]);
    }
    if (rc) {
        prices_free(&p);
        return -1;
    }
    *out = p;
    return 0;
}

int prices_load(struct prices *out, const char *path, struct err *e)
{
    struct str text = {0};
    int rc = str_read_file(&text, path, PRICES_MAX_BYTES, e);
    if (rc == 0) {
        rc = prices_parse(out, text.data ? text.data : "", text.len, path, e);
    }
    str_free(&text);
    return rc;
}

void prices_free(struct prices *p)
{
    for (size_t i = 0; i < p->n; i++) {
        free_texts(&p->rows[i]);
    }
    free(p->rows);
    *p = (struct prices){0};
}

/* --- looking up ------------------------------------------------------------------------------ */

/* Append value to "a, b, c" unless it is there; only the first dozen. */
static void list_once(struct str *list, int *n, const char *value)
{
    const char *found = list->data ? strstr(list->data, value) : NULL;
    size_t len = strlen(value);
    for (; found; found = strstr(found + 1, value)) {
        bool whole =
            (found == list->data || found[-1] == ' ') && (found[len] == ',' || found[len] == '\0');
        if (whole) {
            return;
        }
    }
    if ((*n)++ < 12) {
        str_printf(list, "%s%s", list->len ? ", " : "", value);
    }
}

/* Error that names the values that rows matching so far have. */
static int not_there(const struct prices *p, const char *where, const char *key, const char *value,
                     const char *instance_type, const char *pricing_model, struct err *e)
{
    struct str list = {0};
    int n = 0;
    for (size_t i = 0; i < p->n; i++) {
        const struct price *r = &p->rows[i];
        if (instance_type && strcmp(r->instance_type, instance_type) != 0) {
            continue;
        }
        if (pricing_model && strcmp(r->pricing_model, pricing_model) != 0) {
            continue;
        }
        list_once(&list, &n,
                  !instance_type   ? r->instance_type
                  : !pricing_model ? r->pricing_model
                                   : r->region);
    }
    err_set(e, ERR_INPUT, "cost.%s: %s has no %s%s%s; it has: %.300s", key, where,
            value ? value : "single region", instance_type ? " for " : "",
            instance_type ? instance_type : "", list.len ? list.data : "nothing");
    str_free(&list);
    return -1;
}

int prices_find(const struct prices *p, const char *where, const char *instance_type,
                const char *pricing_model, const char *region, const struct price **out,
                struct err *e)
{
    size_t n_instance = 0, n_model = 0, n_all = 0;
    const struct price *found = NULL;
    for (size_t i = 0; i < p->n; i++) {
        const struct price *r = &p->rows[i];
        bool instance = strcmp(r->instance_type, instance_type) == 0;
        bool model = instance && strcmp(r->pricing_model, pricing_model) == 0;
        bool all = model && (!region || strcmp(r->region, region) == 0);
        n_instance += instance;
        n_model += model;
        n_all += all;
        found = all ? r : found;
    }
    if (n_instance == 0) {
        return not_there(p, where, "instance", instance_type, NULL, NULL, e);
    }
    if (n_model == 0) {
        return not_there(p, where, "pricing_model", pricing_model, instance_type, NULL, e);
    }
    if (n_all != 1) {
        return not_there(p, where, "region", region, instance_type, pricing_model, e);
    }
    *out = found;
    return 0;
}

int prices_pick(struct prices *table, const struct cost_config *c, const struct price **row,
                struct err *e)
{
    if (prices_load(table, c->prices, e)) {
        return err_wrap(e, "cost.prices");
    }
    if (prices_find(table, c->prices, c->instance, c->pricing_model, c->region, row, e)) {
        prices_free(table);
        return -1;
    }
    return 0;
}

bool prices_is_example(const struct price *p)
{
    return strncmp(p->instance_type, "example-", strlen("example-")) == 0 ||
           strcmp(p->provider, "example") == 0;
}

int64_t prices_age_days(const struct price *p, int64_t unix_ns)
{
    int64_t today = unix_ns / DAY_NS - (unix_ns % DAY_NS < 0);
    return today - p->as_of_day;
}

/* --- a kept row ------------------------------------------------------------------------------ */

json_t *prices_dump(const struct price *row)
{
    json_t *o =
        json_pack("{s:s, s:s, s:s, s:I, s:s, s:s, s:f, s:s, s:s, s:s}", "provider", row->provider,
                  "instance_type", row->instance_type, "accelerator", row->accelerator,
                  "accel_count", (json_int_t)row->accel_count, "region", row->region,
                  "pricing_model", row->pricing_model, "usd_per_hour", row->usd_per_hour, "as_of",
                  row->as_of, "source_url", row->source_url, "note", row->note);
    CHECK(o);
    return o;
}

/* Empty where a table could not say it either. */
static char *kept_text(const json_t *kept, const char *column)
{
    const char *text = json_string_value(json_object_get(kept, column));
    for (const char *at = text; at && *at; at++) {
        text = is_control(*at) ? NULL : text;
    }
    return xstrdup(text ? text : "");
}

static struct price kept_row(const json_t *kept)
{
    return (struct price){
        .provider = kept_text(kept, "provider"),
        .instance_type = kept_text(kept, "instance_type"),
        .accelerator = kept_text(kept, "accelerator"),
        .region = kept_text(kept, "region"),
        .pricing_model = kept_text(kept, "pricing_model"),
        .as_of = kept_text(kept, "as_of"),
        .source_url = kept_text(kept, "source_url"),
        .note = kept_text(kept, "note"),
        .accel_count = json_integer_value(json_object_get(kept, "accel_count")),
        .usd_per_hour = json_number_value(json_object_get(kept, "usd_per_hour")),
    };
}

int prices_undump(struct prices *out, const json_t *kept, const char *where, struct err *e)
{
    struct price p = kept_row(kept);
    const struct str day = {.data = p.as_of, .len = strlen(p.as_of)};
    bool named = p.instance_type[0] && p.region[0] && p.pricing_model[0];
    bool counted = p.accel_count >= 0 && p.accel_count <= MAX_COUNT;
    if (!named || !counted || p.usd_per_hour <= 0 || read_day(&day, &p.as_of_day)) {
        free_texts(&p);
        return err_set(e, ERR_INPUT, "%s: not a row of a price table", where);
    }
    out->rows = xcalloc(1, sizeof *out->rows);
    out->rows[0] = p;
    out->n = 1;
    return 0;
}
