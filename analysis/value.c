#include "analysis/value.h"

#include <jansson.h>

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

json_t *value_number(double x)
{
    return isfinite(x) ? json_real(x) : json_null();
}

json_t *value_interval(struct stats_interval v)
{
    json_t *o = json_object();
    value_set(o, "value", v.value);
    value_set(o, "lo95", v.lo);
    value_set(o, "hi95", v.hi);
    return o;
}

void value_set(json_t *obj, const char *key, double x)
{
    json_object_set_new(obj, key, value_number(x));
}

const json_t *value_at(const json_t *obj, const char *key)
{
    return json_object_get(obj, key);
}

bool value_has(const json_t *obj, const char *key)
{
    return json_is_number(value_at(obj, key));
}

double value_get(const json_t *obj, const char *key)
{
    const json_t *v = value_at(obj, key);
    return json_is_number(v) ? json_number_value(v) : STATS_NONE;
}

const char *value_usd(double x, char *buf, size_t cap)
{
    int decimals = x >= 100 ? 2 : 3;
    if (!isfinite(x)) {
        snprintf(buf, cap, "-");
        return buf;
    }
    if (x > 0 && x < 0.1) {
        decimals = 2 - (int)floor(log10(x));
        decimals = decimals < 9 ? decimals : 9;
    }
    snprintf(buf, cap, "%.*f", decimals, x);
    return buf;
}

void value_note(json_t *list, const char *fmt, ...)
{
    char *text;
    va_list ap;
    va_start(ap, fmt);
    int n = vasprintf(&text, fmt, ap);
    va_end(ap);
    if (n >= 0) {
        json_array_append_new(list, json_string(text));
        free(text);
    }
}
