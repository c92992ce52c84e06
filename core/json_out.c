#include "core/json_out.h"

#include "core/json_text.h"

#include <jansson.h>

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static void put_string(FILE *f, const char *text)
{
    struct str escaped = {0};
    json_text_escape(&escaped, text, strlen(text));
    fprintf(f, "\"%s\"", escaped.len > 0 ? escaped.data : "");
    str_free(&escaped);
}

/* What stands before a value. */
static void begin_value(struct json_out *o, const char *key)
{
    if (o->follows) {
        fputs(", ", o->f);
    }
    o->follows = true;
    if (key) {
        put_string(o->f, key);
        fputs(": ", o->f);
    }
}

void json_out_open(struct json_out *o, const char *key, char bracket)
{
    begin_value(o, key);
    fputc(bracket, o->f);
    o->follows = false;
}

void json_out_close(struct json_out *o, char bracket)
{
    fputc(bracket, o->f);
    o->follows = true;
}

void json_out_number(struct json_out *o, const char *key, double x)
{
    char text[32];
    if (!isfinite(x)) {
        json_out_null(o, key);
        return;
    }
    snprintf(text, sizeof text, "%.15g", x);
    if (strtod(text, NULL) < x || strtod(text, NULL) > x) {
        snprintf(text, sizeof text, "%.17g", x);
    }
    begin_value(o, key);
    fputs(text, o->f);
}

void json_out_whole(struct json_out *o, const char *key, uint64_t n)
{
    begin_value(o, key);
    fprintf(o->f, "%" PRIu64, n);
}

void json_out_text(struct json_out *o, const char *key, const char *text)
{
    if (!text) {
        json_out_null(o, key);
        return;
    }
    begin_value(o, key);
    put_string(o->f, text);
}

void json_out_bool(struct json_out *o, const char *key, bool x)
{
    begin_value(o, key);
    fputs(x ? "true" : "false", o->f);
}

void json_out_null(struct json_out *o, const char *key)
{
    begin_value(o, key);
    fputs("null", o->f);
}

void json_out_tree(struct json_out *o, const char *key, const struct json_t *tree)
{
    if (!tree) {
        json_out_null(o, key);
        return;
    }
    begin_value(o, key);
    json_dumpf(tree, o->f, JSON_ENCODE_ANY | JSON_REAL_PRECISION(17));
}
