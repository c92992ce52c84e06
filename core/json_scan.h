/*
 * Reading JSON in one pass without a tree: the caller walks down to what it wants and skips the rest.
 * Nothing is allocated, and values point into the text. Strict (RFC 8259): what is walked over or
 * skipped is checked, except that strings may hold bytes that are not UTF-8. Nesting is limited.
 *
 *     json_scan_init(&s, text, len);
 *     json_scan_object(&s);
 *     for (struct json_text key; json_scan_key(&s, &key);) {
 *         if (json_text_is(key, "id")) { json_scan_string(&s, &id); } else { json_scan_skip(&s); }
 *     }
 *     if (!json_scan_end(&s)) { ... not JSON, or not of that shape ... }
 *
 * Each function does nothing once an error has been found, so one look at the end is enough; keys and
 * items end then, too.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/json_text.h"

#define JSON_SCAN_DEPTH      64
#define JSON_SCAN_NUMBER_MAX 64

struct json_scan {
    const char *at, *end;
    const char *bad; // where the text stopped being what it should be; NULL: nowhere yet
    int depth;
    bool is_first; // no key or item of the innermost object or list has been taken yet
};

void json_scan_init(struct json_scan *s, const char *text, size_t len);

enum json_type { // of the next value, by its first character
    JSON_SCAN_OBJECT,
    JSON_SCAN_LIST,
    JSON_SCAN_STRING,
    JSON_SCAN_NUMBER,
    JSON_SCAN_WORD, // true, false, null
    JSON_SCAN_NONE, // not a value
};
enum json_type json_scan_type(struct json_scan *s);

/* Go into an object or a list: then every key's value, or every item, is taken in turn. */
void json_scan_object(struct json_scan *s);
void json_scan_list(struct json_scan *s);
/* The next key of the object, or the next item of the list, is to be taken. False: it has ended. */
bool json_scan_key(struct json_scan *s, struct json_text *key);
bool json_scan_item(struct json_scan *s);

void json_scan_skip(struct json_scan *s);
void json_scan_string(struct json_scan *s, struct json_text *out);
/* A number that is whole and fits; anything else is an error. */
void json_scan_whole(struct json_scan *s, int64_t *out);
/* Any number of fewer than JSON_SCAN_NUMBER_MAX bytes; infinite beyond a double's range. */
void json_scan_number(struct json_scan *s, double *out);

/* Whether all went well and nothing but space is left. */
bool json_scan_end(struct json_scan *s);
