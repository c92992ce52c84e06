#include "core/opt_value.h"

#include "core/mem.h"
#include "core/str.h"
#include "core/units.h"

#include <jansson.h>

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define QUOTED_MAX 60 // bytes of the user's text in a message

/* --- one value: text to field ---------------------------------------------------------------- */

static void *field(const struct opt *o, void *base)
{
    return (char *)base + o->offset;
}

static const void *field_const(const struct opt *o, const void *base)
{
    return (const char *)base + o->offset;
}

bool opt_value_is_list(const struct opt *o)
{
    return o->type == OPT_NUMBERS || o->type == OPT_WINDOW || o->type == OPT_STRINGS ||
           o->type == OPT_MAPPINGS;
}

/* A bound as the user would write it. */
static const char *format_bound(const struct opt *o, double x, char *buf, size_t cap)
{
    if (o->type == OPT_DURATION && x >= 0.0 && x < 9e18) {
        return units_format_duration((int64_t)x, buf, cap);
    }
    bool is_whole = x == floor(x) && fabs(x) < 1e18;
    snprintf(buf, cap, is_whole ? "%.0f" : "%.15g", x);
    return buf;
}

static int check_range(const struct opt *o, double x, const char *text, struct err *e)
{
    if ((o->lo == 0.0 && o->hi == 0.0) || (x >= o->lo && x <= o->hi)) {
        return 0;
    }
    char lo[40], hi[40];
    format_bound(o, o->lo, lo, sizeof lo);
    if (isinf(o->hi)) {
        return err_set(e, ERR_INPUT, "%.*s is out of range (at least %s)", QUOTED_MAX, text, lo);
    }
    format_bound(o, o->hi, hi, sizeof hi);
    if (isinf(o->lo)) {
        return err_set(e, ERR_INPUT, "%.*s is out of range (at most %s)", QUOTED_MAX, text, hi);
    }
    return err_set(e, ERR_INPUT, "%.*s is out of range (%s..%s)", QUOTED_MAX, text, lo, hi);
}

static int parse_bool(const char *s, bool *v, struct err *e)
{
    static const char *const words[] = {"false", "true", "no", "yes", "off", "on"};
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
        if (strcmp(s, words[i]) == 0) {
            *v = i % 2 == 1;
            return 0;
        }
    }
    return err_set(e, ERR_INPUT, "'%.*s' is not true or false", QUOTED_MAX, s);
}

/* "12", "-3", and what is a whole number in the ways of units_parse_number: "10k", "1e6". */
static int parse_int(const char *s, int64_t *v, struct err *e)
{
    char *end;
    errno = 0;
    long long x = strtoll(s, &end, 10);
    if (errno == 0 && end != s && *end == '\0' && !isspace((unsigned char)*s)) {
        *v = x;
        return 0;
    }
    double d;
    struct err ignored;
    if (units_parse_number(s, &d, &ignored) == 0 && d == floor(d) && fabs(d) <= 0x1p53) {
        *v = (int64_t)d;
        return 0;
    }
    return err_set(e, ERR_INPUT, "'%.*s' is not a whole number", QUOTED_MAX, s);
}

static int parse_choice(const struct opt *o, const char *s, int *v, struct err *e)
{
    int i = str_choice(o->choices, s);
    if (i >= 0) {
        *v = i;
        return 0;
    }
    struct str list = {0};
    str_put_choices(&list, o->choices);
    err_set(e, ERR_INPUT, "'%.*s' is not one of %s", QUOTED_MAX, s, list.data);
    str_free(&list);
    return -1;
}

static int set_duration(const struct opt *o, int64_t *v, const char *s, struct err *e)
{
    int64_t ns;
    if (units_parse_duration_ns(s, &ns, e) != 0 || check_range(o, (double)ns, s, e) != 0) {
        return -1;
    }
    *v = ns;
    return 0;
}

static int set_int64(const struct opt *o, int64_t *v, const char *s, struct err *e)
{
    int64_t x;
    int rc = o->type == OPT_BYTES ? units_parse_bytes(s, &x, e) : parse_int(s, &x, e);
    if (rc != 0 || check_range(o, (double)x, s, e) != 0) {
        return -1;
    }
    *v = x;
    return 0;
}

static int set_double(const struct opt *o, double *v, const char *s, struct err *e)
{
    double x;
    int rc = o->type == OPT_SHARE ? units_parse_share(s, &x, e) : units_parse_number(s, &x, e);
    if (rc != 0 || check_range(o, x, s, e) != 0) {
        return -1;
    }
    *v = x;
    return 0;
}

/* Set a row that is no list from one text. */
static int set_scalar(const struct opt *o, void *base, const char *s, struct err *e)
{
    CHECK(!opt_value_is_list(o));
    void *f = field(o, base);
    switch (o->type) {
    case OPT_STRING:
        free(*(char **)f);
        *(char **)f = xstrdup(s);
        return 0;
    case OPT_BOOL:
        return parse_bool(s, f, e);
    case OPT_INT:
    case OPT_BYTES:
        return set_int64(o, f, s, e);
    case OPT_NUMBER:
    case OPT_SHARE:
        return set_double(o, f, s, e);
    case OPT_DURATION:
        return set_duration(o, f, s, e);
    case OPT_CHOICE:
        return parse_choice(o, s, f, e);
    case OPT_NUMBERS:
    case OPT_WINDOW:
    case OPT_STRINGS:
    case OPT_MAPPINGS:
        break;
    }
    return -1;
}

/* --- lists ----------------------------------------------------------------------------------- */

/* Texts of a list's elements; NULL where the element is null. */
struct words {
    char **w; // (n)
    size_t n;
};

static void words_free(struct words *w)
{
    for (size_t i = 0; i < w->n; i++) {
        free(w->w[i]);
    }
    free(w->w);
    *w = (struct words){0};
}

static void words_add(struct words *w, const char *s, size_t len)
{
    w->w = xrealloc(w->w, (w->n + 1) * sizeof *w->w);
    w->w[w->n] = NULL;
    if (s != NULL) {
        w->w[w->n] = xmalloc(len + 1);
        memcpy(w->w[w->n], s, len);
        w->w[w->n][len] = '\0';
    }
    w->n++;
}

/* "a, b,c": blanks around elements do not count; an empty last element is null ("60s,"). */
static void words_split(struct words *w, const char *s)
{
    for (;;) {
        s += strspn(s, " ");
        size_t n = strcspn(s, ",");
        size_t len = n;
        while (len > 0 && s[len - 1] == ' ') {
            len--;
        }
        words_add(w, len > 0 ? s : NULL, len);
        if (s[n] == '\0') {
            return;
        }
        s += n + 1;
    }
}

static int set_numbers(const struct opt *o, void *base, const struct words *w, struct err *e)
{
    double *v = xmalloc((w->n + 1) * sizeof *v);
    for (size_t i = 0; i < w->n; i++) {
        if (w->w[i] == NULL) {
            err_set(e, ERR_INPUT, "element %zu of the list is empty", i + 1);
            goto drop;
        }
        if (set_double(o, &v[i], w->w[i], e) != 0) {
            goto drop;
        }
    }
    struct opt_numbers *f = field(o, base);
    free(f->v);
    *f = (struct opt_numbers){.v = v, .n = w->n};
    return 0;
drop:
    free(v);
    return -1;
}

static int set_window(const struct opt *o, void *base, const struct words *w, struct err *e)
{
    if (w->n < 1 || w->n > 2 || w->w[0] == NULL) {
        return err_set(e, ERR_INPUT, "a window is [from, to] or [from, ] (durations)");
    }
    struct opt_window v = {.to_ns = -1};
    if (set_duration(o, &v.from_ns, w->w[0], e) != 0) {
        return -1;
    }
    if (w->n == 2 && w->w[1] != NULL && set_duration(o, &v.to_ns, w->w[1], e) != 0) {
        return -1;
    }
    if (v.to_ns >= 0 && v.to_ns <= v.from_ns) {
        return err_set(e, ERR_INPUT, "the window [%.*s, %.*s] is empty (to must be after from)",
                       QUOTED_MAX, w->w[0], QUOTED_MAX, w->w[1]);
    }
    *(struct opt_window *)field(o, base) = v;
    return 0;
}

static void strings_free(struct opt_strings *f)
{
    for (size_t i = 0; i < f->n; i++) {
        free(f->v[i]);
    }
    free(f->v);
    *f = (struct opt_strings){0};
}

static int set_strings(const struct opt *o, void *base, const struct words *w, struct err *e)
{
    for (size_t i = 0; i < w->n; i++) {
        if (w->w[i] == NULL) {
            return err_set(e, ERR_INPUT, "element %zu of the list is empty", i + 1);
        }
    }
    struct opt_strings *f = field(o, base);
    strings_free(f);
    f->v = xmalloc((w->n + 1) * sizeof *f->v);
    for (; f->n < w->n; f->n++) {
        f->v[f->n] = xstrdup(w->w[f->n]);
    }
    return 0;
}

static int set_list(const struct opt *o, void *base, const struct words *w, struct err *e)
{
    switch (o->type) {
    case OPT_NUMBERS:
        return set_numbers(o, base, w, e);
    case OPT_STRINGS:
        return set_strings(o, base, w, e);
    case OPT_MAPPINGS:
        return err_set(e, ERR_INPUT, "a list of mappings is wanted: [{key: value, ...}, ...]");
    default:
        return set_window(o, base, w, e);
    }
}

static int set_text(const struct opt *o, void *base, const char *s, struct err *e)
{
    if (!opt_value_is_list(o)) {
        return set_scalar(o, base, s, e);
    }
    struct words w = {0};
    words_split(&w, s);
    int rc = set_list(o, base, &w, e);
    words_free(&w);
    return rc;
}

/* --- defaults -------------------------------------------------------------------------------- */

void opt_value_clear(const struct opt *o, void *base)
{
    static const size_t sizes[] = {
        [OPT_STRING] = sizeof(char *),
        [OPT_BOOL] = sizeof(bool),
        [OPT_INT] = sizeof(int64_t),
        [OPT_NUMBER] = sizeof(double),
        [OPT_DURATION] = sizeof(int64_t),
        [OPT_SHARE] = sizeof(double),
        [OPT_BYTES] = sizeof(int64_t),
        [OPT_CHOICE] = sizeof(int),
        [OPT_NUMBERS] = sizeof(struct opt_numbers),
        [OPT_WINDOW] = sizeof(struct opt_window),
        [OPT_STRINGS] = sizeof(struct opt_strings),
        [OPT_MAPPINGS] = sizeof(json_t *),
    };
    void *f = field(o, base);
    if (o->type == OPT_STRING) {
        free(*(char **)f);
    } else if (o->type == OPT_NUMBERS) {
        free(((struct opt_numbers *)f)->v);
    } else if (o->type == OPT_STRINGS) {
        strings_free(f);
    } else if (o->type == OPT_MAPPINGS) {
        json_decref(*(json_t **)f);
    }
    memset(f, 0, sizes[o->type]);
}

void opt_value_default(const struct opt *o, void *base)
{
    struct err e = {0};
    opt_value_clear(o, base);
    if (o->def != NULL && set_text(o, base, o->def, &e) != 0) {
        err_check_failed(o->key, 0, e.msg);
    }
}

/* A scalar as text: scalars of config files are strings, of stored configs also numbers. */
static bool scalar_text(const json_t *v, struct str *s)
{
    str_clear(s);
    if (json_is_string(v)) {
        str_append(s, json_string_value(v), strlen(json_string_value(v)));
    } else if (json_is_integer(v)) {
        str_printf(s, "%lld", (long long)json_integer_value(v));
    } else if (json_is_real(v)) {
        str_printf(s, "%.17g", json_real_value(v));
    } else if (json_is_boolean(v)) {
        str_puts(s, json_is_true(v) ? "true" : "false");
    } else {
        return false;
    }
    return true;
}

static int apply_array(const struct opt *o, void *base, const json_t *list, struct err *e)
{
    if (!opt_value_is_list(o)) {
        return err_set(e, ERR_INPUT, "a list is not allowed here (one value is)");
    }
    int rc = 0;
    struct words w = {0};
    struct str s = {0};
    for (size_t i = 0; i < json_array_size(list) && rc == 0; i++) {
        const json_t *v = json_array_get(list, i);
        if (json_is_null(v)) {
            words_add(&w, NULL, 0);
        } else if (scalar_text(v, &s)) {
            words_add(&w, s.data, s.len);
        } else {
            rc = err_set(e, ERR_INPUT, "element %zu of the list is not a single value", i + 1);
        }
    }
    if (rc == 0) {
        rc = set_list(o, base, &w, e);
    }
    str_free(&s);
    words_free(&w);
    return rc;
}

/* At least one, each a mapping; what they hold is their owner's business. */
static int apply_mappings(const struct opt *o, void *base, const json_t *list, struct err *e)
{
    for (size_t i = 0; i < json_array_size(list); i++) {
        if (!json_is_object(json_array_get(list, i))) {
            return err_set(e, ERR_INPUT, "element %zu of the list is not a mapping (key: value)",
                           i + 1);
        }
    }
    if (json_array_size(list) == 0) {
        return err_set(e, ERR_INPUT, "the list is empty");
    }
    opt_value_clear(o, base);
    *(json_t **)field(o, base) = json_deep_copy(list);
    return 0;
}

int opt_value_apply(const struct opt *o, void *base, const struct json_t *v, struct err *e)
{
    int rc;
    struct str s = {0};
    if (json_is_null(v) && o->type == OPT_CHOICE && str_choice(o->choices, "null") >= 0) {
        rc = set_text(o, base, "null", e); // YAML's null where null is a choice
    } else if (json_is_null(v)) {
        opt_value_default(o, base);
        return 0;
    } else if (json_is_array(v) && o->type == OPT_MAPPINGS) {
        rc = apply_mappings(o, base, v, e);
    } else if (json_is_array(v)) {
        rc = apply_array(o, base, v, e);
    } else if (scalar_text(v, &s)) {
        rc = set_text(o, base, s.data, e);
    } else {
        rc = err_set(e, ERR_INPUT, "a mapping is not allowed here");
    }
    str_free(&s);
    return rc == 0 ? 0 : err_wrap(e, "%s", o->key);
}

/* --- fields to the tree ---------------------------------------------------------------------- */

static json_t *dump_number(double x)
{
    return isfinite(x) ? json_real(x) : json_null();
}

static json_t *dump_duration(int64_t ns)
{
    char buf[32];
    return ns < 0 ? json_null() : json_string(units_format_duration(ns, buf, sizeof buf));
}

static json_t *dump_numbers(const struct opt_numbers *f)
{
    json_t *list = json_array();
    for (size_t i = 0; i < f->n; i++) {
        json_array_append_new(list, dump_number(f->v[i]));
    }
    return list;
}

static json_t *dump_strings(const struct opt_strings *f)
{
    json_t *list = json_array();
    for (size_t i = 0; i < f->n; i++) {
        json_array_append_new(list, json_string(f->v[i]));
    }
    return list;
}

static json_t *dump_choice(const struct opt *o, int v)
{
    const char *c = o->choices;
    for (int i = 0; i < v; i++) {
        c += strcspn(c, "|");
        CHECK(*c == '|');
        c++;
    }
    return json_stringn(c, strcspn(c, "|"));
}

/* A row without a default that still holds zero was never set; zero may be out of its bounds. */
static bool is_unset(const struct opt *o, const void *f)
{
    if (o->type == OPT_STRING) {
        return *(char *const *)f == NULL;
    }
    if (o->def != NULL) {
        return false;
    }
    switch (o->type) {
    case OPT_STRING:
    case OPT_BOOL:
    case OPT_CHOICE:
        return false;
    case OPT_INT:
    case OPT_DURATION:
    case OPT_BYTES:
        return *(const int64_t *)f == 0;
    case OPT_NUMBER:
    case OPT_SHARE:
        return *(const double *)f == 0.0;
    case OPT_NUMBERS:
        return ((const struct opt_numbers *)f)->n == 0;
    case OPT_STRINGS:
        return ((const struct opt_strings *)f)->n == 0;
    case OPT_WINDOW:
        return ((const struct opt_window *)f)->from_ns == 0 &&
               ((const struct opt_window *)f)->to_ns == 0;
    case OPT_MAPPINGS:
        return *(json_t *const *)f == NULL;
    }
    return false;
}

struct json_t *opt_value_dump(const struct opt *o, const void *base)
{
    const void *f = field_const(o, base);
    char buf[32];
    if (is_unset(o, f)) {
        return json_null();
    }
    switch (o->type) {
    case OPT_STRING:
        return json_string(*(char *const *)f);
    case OPT_BOOL:
        return json_boolean(*(const bool *)f);
    case OPT_INT:
        return json_integer(*(const int64_t *)f);
    case OPT_NUMBER:
    case OPT_SHARE:
        return dump_number(*(const double *)f);
    case OPT_DURATION:
        return dump_duration(*(const int64_t *)f);
    case OPT_BYTES:
        return json_string(units_format_bytes(*(const int64_t *)f, buf, sizeof buf));
    case OPT_CHOICE:
        return dump_choice(o, *(const int *)f);
    case OPT_NUMBERS:
        return dump_numbers(f);
    case OPT_STRINGS:
        return dump_strings(f);
    case OPT_WINDOW:
        return json_pack("[o, o]", dump_duration(((const struct opt_window *)f)->from_ns),
                         dump_duration(((const struct opt_window *)f)->to_ns));
    case OPT_MAPPINGS:
        return json_deep_copy(*(json_t *const *)f);
    }
    return json_null();
}

void opt_value_put_type(const struct opt *o, struct str *s)
{
    static const char *const names[] = {
        [OPT_STRING] = "text",       [OPT_BOOL] = "true|false", [OPT_INT] = "integer",
        [OPT_NUMBER] = "number",     [OPT_DURATION] = "time",   [OPT_SHARE] = "share",
        [OPT_BYTES] = "bytes",       [OPT_CHOICE] = "",         [OPT_NUMBERS] = "numbers",
        [OPT_WINDOW] = "[from, to]", [OPT_STRINGS] = "texts",   [OPT_MAPPINGS] = "[{..}, ..]",
    };
    str_puts(s, o->type == OPT_CHOICE ? o->choices : names[o->type]);
    if (o->lo == 0.0 && o->hi == 0.0) {
        return;
    }
    char lo[40] = "", hi[40] = "";
    if (!isinf(o->lo)) {
        format_bound(o, o->lo, lo, sizeof lo);
    }
    if (!isinf(o->hi)) {
        format_bound(o, o->hi, hi, sizeof hi);
    }
    str_printf(s, " %s..%s", lo, hi);
}
