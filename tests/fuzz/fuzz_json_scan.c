/*
 * Any bytes as JSON, against jansson: the same texts are taken, and a walk over them finds the same
 * keys, strings and numbers. What differs on purpose: the scanner lets pass bytes that are not
 * UTF-8, lone halves of surrogate pairs, a NUL in a key and numbers beyond int64 or double (it never
 * makes values of them), and refuses what is nested deeper than JSON_SCAN_DEPTH.
 */
#include "core/err.h"
#include "core/json_scan.h"
#include "core/str.h"

#include <jansson.h>
#include <stdint.h>
#include <string.h>

#define WHOLE_MAX 999999999999999999LL // json_scan_whole takes 18 digits

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Whether jansson stopped at something that the scanner lets pass. */
static bool is_leniency(const json_error_t *why)
{
    switch (json_error_code(why)) {
    case json_error_invalid_utf8:
    case json_error_null_byte_in_key:
    case json_error_numeric_overflow:
        return true;
    default:
        return strstr(why->text, "invalid Unicode") != NULL; // half a surrogate pair
    }
}

static void check_text(struct json_text t, const char *wanted, size_t len)
{
    struct str said = {0};
    json_text_unescape(t, &said);
    CHECK(said.len == len && (len == 0 || memcmp(said.data, wanted, len) == 0));
    str_free(&said);
}

static void walk(struct json_scan *s, json_t *v);

static void walk_object(struct json_scan *s, json_t *v)
{
    struct json_text key;
    void *at = json_object_iter(v);
    json_scan_object(s);
    for (; json_scan_key(s, &key); at = json_object_iter_next(v, at)) {
        CHECK(at);
        check_text(key, json_object_iter_key(at), strlen(json_object_iter_key(at)));
        walk(s, json_object_iter_value(at));
    }
    CHECK(!at);
}

static void walk_list(struct json_scan *s, json_t *v)
{
    size_t i = 0;
    json_scan_list(s);
    for (; json_scan_item(s); i++) {
        CHECK(i < json_array_size(v));
        walk(s, json_array_get(v, i));
    }
    CHECK(i == json_array_size(v));
}

static void walk_number(struct json_scan *s, json_t *v)
{
    struct json_scan behind = *s;
    int64_t got, wanted = json_integer_value(v);
    double number;
    json_scan_skip(&behind);
    if (json_is_integer(v) && wanted <= WHOLE_MAX && wanted >= -WHOLE_MAX) {
        json_scan_whole(s, &got);
        CHECK(got == wanted);
    } else if (json_is_real(v) && behind.at - s->at < JSON_SCAN_NUMBER_MAX) {
        json_scan_number(s, &number);
        CHECK(number == json_real_value(v));
    } else {
        json_scan_skip(s);
    }
}

static void walk(struct json_scan *s, json_t *v)
{
    struct json_text text;
    switch (json_scan_type(s)) {
    case JSON_SCAN_OBJECT:
        CHECK(json_is_object(v));
        walk_object(s, v);
        return;
    case JSON_SCAN_LIST:
        CHECK(json_is_array(v));
        walk_list(s, v);
        return;
    case JSON_SCAN_STRING:
        CHECK(json_is_string(v));
        json_scan_string(s, &text);
        check_text(text, json_string_value(v), json_string_length(v));
        return;
    case JSON_SCAN_NUMBER:
        CHECK(json_is_number(v));
        walk_number(s, v);
        return;
    case JSON_SCAN_WORD:
        CHECK(json_is_boolean(v) || json_is_null(v));
        json_scan_skip(s);
        return;
    case JSON_SCAN_NONE:
        CHECK(!"a value that jansson found");
    }
}

static int depth_of(json_t *v)
{
    const char *key;
    json_t *child;
    size_t i;
    int deepest = 0;
    json_object_foreach(v, key, child)
    {
        int d = depth_of(child);
        deepest = d > deepest ? d : deepest;
    }
    json_array_foreach(v, i, child)
    {
        int d = depth_of(child);
        deepest = d > deepest ? d : deepest;
    }
    return deepest + (json_is_object(v) || json_is_array(v));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *text = (const char *)data;
    const size_t flags = JSON_DECODE_ANY | JSON_ALLOW_NUL;
    struct json_scan s;
    json_error_t why;
    if (memchr(text, '\0', size)) {
        return 0; // jansson 2.14 passes over one behind a number
    }
    json_t *v = json_loadb(text, size, flags, &why);
    json_scan_init(&s, text, size);
    json_scan_skip(&s);
    bool is_json = json_scan_end(&s);
    if (!v) {
        CHECK(!is_json || is_leniency(&why));
        return 0;
    }
    CHECK(is_json == (depth_of(v) <= JSON_SCAN_DEPTH));
    json_t *unique = json_loadb(text, size, flags | JSON_REJECT_DUPLICATES, &why);
    if (is_json && unique) { // jansson keeps one of several values of a key
        json_scan_init(&s, text, size);
        walk(&s, v);
        CHECK(json_scan_end(&s));
    }
    json_decref(unique);
    json_decref(v);
    return 0;
}
