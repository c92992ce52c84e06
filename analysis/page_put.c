#include "analysis/page_put.h"

#include "analysis/svg.h"
#include "analysis/value.h"

#include <jansson.h>

#include <math.h>

void page_put_text(struct str *out, const json_t *o, const char *key)
{
    const char *s = json_string_value(json_object_get(o, key));
    svg_escape(out, s ? s : "\xe2\x80\x93");
}

void page_put_number(struct str *out, double x)
{
    double size = fabs(x);
    if (!isfinite(x)) {
        str_puts(out, "\xe2\x80\x93");
    } else if (size >= 999.5 && size < 1e12) {
        long long whole = llround(size);
        str_printf(out, "%s", x < 0 ? "\xe2\x88\x92" : "");
        if (whole >= 1000000) {
            str_printf(out, "%lld,%03lld,%03lld", whole / 1000000, whole / 1000 % 1000,
                       whole % 1000);
        } else {
            str_printf(out, "%lld,%03lld", whole / 1000, whole % 1000);
        }
    } else {
        int decimals = size >= 99.95 || size == 0 ? 0 : size >= 9.995 ? 1 : size >= 0.0995 ? 2 : 4;
        str_printf(out, "%.*f", decimals, x);
    }
}

void page_put_usd(struct str *out, double x)
{
    char buf[32];
    str_puts(out, isfinite(x) ? value_usd(x, buf, sizeof buf) : "\xe2\x80\x93");
}

void page_put_bounds(struct str *out, double lo, double hi, page_put_fn put)
{
    if (isnan(lo) || isnan(hi)) {
        str_puts(out, isnan(hi) ? "\xe2\x89\xa5 " : "\xe2\x89\xa4 ");
        put(out, isnan(hi) ? lo : hi);
        return;
    }
    put(out, lo);
    str_puts(out, " \xe2\x80\x93 ");
    put(out, hi);
}

void page_put_interval(struct str *out, double x, double lo, double hi, const char *mark,
                       page_put_fn put)
{
    put(out, x);
    str_puts(out, mark);
    if (!isnan(lo) || !isnan(hi)) {
        str_puts(out, "<small>");
        page_put_bounds(out, lo, hi, put);
        str_puts(out, "</small>");
    }
}

void page_put_cell(struct str *out, double x, double lo, double hi, const char *mark,
                   page_put_fn put)
{
    str_puts(out, "<td>");
    page_put_interval(out, x, lo, hi, mark, put);
    str_puts(out, "</td>");
}
