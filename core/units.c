#include "core/units.h"

#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define QUOTED_MAX   60 // bytes of the user's text in a message
#define FRACTION_MAX 18 // digits after the point: 10^18 times any factor fits 128 bits

struct unit {
    const char *name;
    int64_t factor;
};

static const struct unit duration_units[] = {
    {"h", 3600000000000}, {"m", 60000000000}, {"s", 1000000000},
    {"ms", 1000000},      {"us", 1000},       {"ns", 1},
};

static const struct unit byte_units[] = {
    {"TiB", 1LL << 40},
    {"GiB", 1LL << 30},
    {"MiB", 1LL << 20},
    {"KiB", 1LL << 10},
    {"TB", 1000000000000},
    {"GB", 1000000000},
    {"MB", 1000000},
    {"kB", 1000},
    {"KB", 1000},
    {"B", 1},
    {"", 1},
};

#define N_OF(a) (sizeof(a) / sizeof((a)[0]))

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

/* A quantity as written: mantissa / 10^n_fraction, and where its unit begins. */
struct decimal {
    int64_t mantissa;
    int n_fraction;
    const char *unit;
};

/* "12", "1.5", ".5": digits only, no sign and no exponent, so that the value is exact. */
static bool read_decimal(const char *s, struct decimal *d)
{
    int n_digits = 0;
    bool seen_point = false;
    *d = (struct decimal){0};
    for (; is_digit(*s) || (*s == '.' && !seen_point); s++) {
        if (*s == '.') {
            seen_point = true;
            continue;
        }
        if (__builtin_mul_overflow(d->mantissa, 10, &d->mantissa) ||
            __builtin_add_overflow(d->mantissa, *s - '0', &d->mantissa)) {
            return false;
        }
        d->n_fraction += seen_point;
        n_digits++;
    }
    d->unit = s;
    return n_digits > 0 && d->n_fraction <= FRACTION_MAX;
}

static const struct unit *find_unit(const struct unit *units, size_t n, const char *name)
{
    for (size_t i = 0; i < n; i++) {
        if (strcmp(units[i].name, name) == 0) {
            return &units[i];
        }
    }
    return NULL;
}

/* mantissa * factor / 10^n_fraction, to the nearest; *exact says whether nothing was lost. */
static bool scale_decimal(struct decimal d, int64_t factor, int64_t *out, bool *exact)
{
    __int128 x = (__int128)d.mantissa * factor;
    __int128 div = 1;
    for (int i = 0; i < d.n_fraction; i++) {
        div *= 10;
    }
    *exact = x % div == 0;
    x = (x + div / 2) / div;
    if (x > INT64_MAX) {
        return false;
    }
    *out = (int64_t)x;
    return true;
}

int units_parse_duration_ns(const char *s, int64_t *ns, struct err *e)
{
    struct decimal d;
    const struct unit *u = NULL;
    if (read_decimal(s, &d)) {
        u = find_unit(duration_units, N_OF(duration_units), d.unit);
    }
    if (u == NULL) {
        return err_set(e, ERR_INPUT,
                       "'%.*s' is not a duration (a number >= 0 with ns, us, ms, s, m or h: 500ms)",
                       QUOTED_MAX, s);
    }
    int64_t v;
    bool exact;
    if (!scale_decimal(d, u->factor, &v, &exact)) {
        return err_set(e, ERR_INPUT, "'%.*s' is too long (at most 2562047h)", QUOTED_MAX, s);
    }
    *ns = v;
    return 0;
}

int units_parse_bytes(const char *s, int64_t *bytes, struct err *e)
{
    struct decimal d;
    const struct unit *u = NULL;
    if (read_decimal(s, &d)) {
        u = find_unit(byte_units, N_OF(byte_units), d.unit);
    }
    int64_t v;
    bool exact;
    if (u == NULL || !scale_decimal(d, u->factor, &v, &exact) || !exact) {
        return err_set(e, ERR_INPUT,
                       "'%.*s' is not a size (whole bytes >= 0, or with kB, MB, GB, TB, KiB, MiB, "
                       "GiB, TiB: 4GiB)",
                       QUOTED_MAX, s);
    }
    *bytes = v;
    return 0;
}

/*
 * A decimal number (no hex, inf, nan or blanks) whose suffix is one of `suffixes`, each a power of
 * ten. The suffix goes into the exponent text, so that "1.1k" is the double nearest to 1100.
 */
struct suffix {
    char letter;
    int exponent;
};

static size_t span_digits(const char *s)
{
    size_t n = 0;
    while (is_digit(s[n])) {
        n++;
    }
    return n;
}

/* Length of "[+-]digits[.digits]" at s, 0 when it is none. */
static size_t span_mantissa(const char *s)
{
    size_t n = *s == '+' || *s == '-';
    size_t n_whole = span_digits(s + n);
    size_t n_fraction = 0;
    n += n_whole;
    if (s[n] == '.') {
        n_fraction = span_digits(s + n + 1);
        n += 1 + n_fraction;
    }
    return n_whole + n_fraction > 0 ? n : 0;
}

/* Length of "e[+-]digits" at s, 0 when it is none; *exponent is clipped far outside doubles. */
static size_t span_exponent(const char *s, int *exponent)
{
    *exponent = 0;
    if (*s != 'e' && *s != 'E') {
        return 0;
    }
    size_t n = 1 + (s[1] == '+' || s[1] == '-');
    size_t n_digits = span_digits(s + n);
    for (size_t i = 0; i < n_digits && *exponent < 100000; i++) {
        *exponent = *exponent * 10 + (s[n + i] - '0');
    }
    *exponent = s[1] == '-' ? -*exponent : *exponent;
    return n_digits > 0 ? n + n_digits : 0;
}

static bool read_real(const char *s, const struct suffix *suffixes, size_t n_suffixes, double *x)
{
    char text[400];
    size_t n = span_mantissa(s);
    int exponent;
    size_t n_exponent = n == 0 ? 0 : span_exponent(s + n, &exponent);
    if (n == 0 || n >= sizeof text - 16) {
        return false;
    }
    const char *rest = s + n + n_exponent;
    if (*rest != '\0') {
        size_t i = 0;
        while (i < n_suffixes && suffixes[i].letter != *rest) {
            i++;
        }
        if (i == n_suffixes || rest[1] != '\0') {
            return false;
        }
        exponent += suffixes[i].exponent;
    }
    snprintf(text, sizeof text, "%.*se%d", (int)n, s, exponent);
    double v = strtod(text, NULL);
    if (!isfinite(v)) {
        return false;
    }
    *x = v;
    return true;
}

int units_parse_share(const char *s, double *share, struct err *e)
{
    static const struct suffix percent[] = {{'%', -2}};
    double v;
    if (!read_real(s, percent, N_OF(percent), &v) || v < 0.0 || v > 1.0) {
        return err_set(e, ERR_INPUT, "'%.*s' is not a share (0 to 1, or 0%% to 100%%: 20%%)",
                       QUOTED_MAX, s);
    }
    *share = v + 0.0; // -0 becomes 0
    return 0;
}

int units_parse_number(const char *s, double *x, struct err *e)
{
    static const struct suffix powers[] = {{'k', 3}, {'M', 6}, {'G', 9}};
    double v;
    if (!read_real(s, powers, N_OF(powers), &v)) {
        return err_set(e, ERR_INPUT, "'%.*s' is not a number (3, 2.5k, 1M, 1e-3)", QUOTED_MAX, s);
    }
    *x = v + 0.0;
    return 0;
}

/* value / factor without trailing zeros: its length, or 0 when it is below 1 or not exact. */
static int put_exact(char *buf, size_t cap, int64_t value, const struct unit *u)
{
    int64_t whole = value / u->factor;
    int64_t rest = value % u->factor;
    if (whole == 0) {
        return 0;
    }
    int n = snprintf(buf, cap, "%lld", (long long)whole);
    const char *dot = ".";
    while (rest != 0) {
        __int128 tenfold = (__int128)rest * 10;
        n += snprintf(buf + n, cap - (size_t)n, "%s%d", dot, (int)(tenfold / u->factor));
        rest = (int64_t)(tenfold % u->factor);
        dot = "";
        if (n > 18) { // longer than the parser reads, or endless
            return 0;
        }
    }
    return n + snprintf(buf + n, cap - (size_t)n, "%s", u->name);
}

/* The shortest of the exact texts over all units; at equal length the larger unit. */
static const char *format_shortest(int64_t value, const struct unit *units, size_t n_units,
                                   char *buf, size_t cap)
{
    CHECK(cap >= 32 && value > 0);
    int best = 0;
    for (size_t i = 0; i < n_units; i++) {
        char text[48];
        int n = put_exact(text, sizeof text, value, &units[i]);
        if (n > 0 && (best == 0 || n < best)) {
            best = n;
            memcpy(buf, text, (size_t)n + 1);
        }
    }
    return buf;
}

const char *units_format_duration(int64_t ns, char *buf, size_t cap)
{
    if (ns == 0) {
        return memcpy(buf, "0s", sizeof "0s");
    }
    return format_shortest(ns, duration_units, N_OF(duration_units), buf, cap);
}

const char *units_format_bytes(int64_t bytes, char *buf, size_t cap)
{
    if (bytes == 0) {
        return memcpy(buf, "0", sizeof "0");
    }
    return format_shortest(bytes, byte_units, N_OF(byte_units), buf, cap);
}
