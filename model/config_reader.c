#include "model/config_reader.h"

#include <jansson.h>

#include <math.h>
#include <string.h>

const json_t *config_reader_get(const json_t *object, const char *key)
{
    const json_t *v = json_object_get(object, key);
    return json_is_null(v) ? NULL : v;
}

static int missing(const struct config_reader *r, const char *key)
{
    return err_set(r->e, ERR_INPUT, "%s: %s is missing", r->where, key);
}

int config_reader_int(const struct config_reader *r, const json_t *object, const char *key, int lo,
                      int hi, const int *def, int *out)
{
    const json_t *v = config_reader_get(object, key);
    if (!v && !def) {
        return missing(r, key);
    }
    json_int_t i = v ? json_integer_value(v) : *def;
    if ((v && !json_is_integer(v)) || i < lo || i > hi) {
        return err_set(r->e, ERR_INPUT, "%s: %s must be a whole number from %d to %d", r->where,
                       key, lo, hi);
    }
    *out = (int)i;
    return 0;
}

int config_reader_number(const struct config_reader *r, const json_t *object, const char *key,
                         double lo, double hi, const double *def, double *out)
{
    const json_t *v = config_reader_get(object, key);
    if (!v && def) {
        *out = *def;
        return 0;
    }
    if (!v) {
        return missing(r, key);
    }
    double d = json_number_value(v);
    if (!json_is_number(v) || !(d > lo) || !(d <= hi)) {
        return err_set(r->e, ERR_INPUT, "%s: %s must be a number above %g and up to %g", r->where,
                       key, lo, hi);
    }
    *out = d;
    return 0;
}

int config_reader_bool(const struct config_reader *r, const json_t *object, const char *key,
                       bool def, bool *out)
{
    const json_t *v = config_reader_get(object, key);
    if (v && !json_is_boolean(v)) {
        return err_set(r->e, ERR_INPUT, "%s: %s must be true or false", r->where, key);
    }
    *out = v ? json_is_true(v) : def;
    return 0;
}

int config_reader_only_text(const struct config_reader *r, const json_t *object, const char *key,
                            const char *only)
{
    const json_t *v = config_reader_get(object, key);
    if (v && (!json_is_string(v) || strcmp(json_string_value(v), only) != 0)) {
        return err_set(r->e, ERR_INPUT, "%s: %s must be \"%s\"", r->where, key, only);
    }
    return 0;
}

int config_reader_only_number(const struct config_reader *r, const json_t *object, const char *key,
                              double only)
{
    const json_t *v = config_reader_get(object, key);
    if (v && (!json_is_number(v) || fabs(json_number_value(v) - only) > 0)) {
        return err_set(r->e, ERR_INPUT, "%s: %s must be %g", r->where, key, only);
    }
    return 0;
}

int config_reader_only_bool(const struct config_reader *r, const json_t *object, const char *key,
                            bool only)
{
    bool is = only;
    if (config_reader_bool(r, object, key, only, &is)) {
        return -1;
    }
    if (is != only) {
        return err_set(r->e, ERR_INPUT, "%s: %s %s is not supported", r->where, key,
                       is ? "true" : "false");
    }
    return 0;
}
