#include "core/json_scan.h"

#include <stdlib.h>
#include <string.h>

/* What each byte is inside a string: 0 plain, 1 the end, 2 a backslash, 3 not allowed. */
static const uint8_t in_string[256] = {
    [0x00 ... 0x1f] = 3,
    ['"'] = 1,
    ['\\'] = 2,
};

void json_scan_init(struct json_scan *s, const char *text, size_t len)
{
    *s = (struct json_scan){.at = text, .end = text + len};
}

static void fail(struct json_scan *s)
{
    if (!s->bad) {
        s->bad = s->at;
    }
}

static bool is_space(char c)
{
    return c == ' ' || c == '\n' || c == '\t' || c == '\r';
}

/* The next character that is no space, or 0: there is none, or an error was found. */
static char peek(struct json_scan *s)
{
    while (s->at < s->end && is_space(*s->at)) {
        s->at++;
    }
    return s->bad || s->at == s->end ? '\0' : *s->at;
}

static bool take(struct json_scan *s, char c)
{
    if (peek(s) != c) {
        return false;
    }
    s->at++;
    return true;
}

static void want(struct json_scan *s, char c)
{
    if (!take(s, c)) {
        fail(s);
    }
}

enum json_type json_scan_type(struct json_scan *s)
{
    char c = peek(s);
    switch (c) {
    case '{':
        return JSON_SCAN_OBJECT;
    case '[':
        return JSON_SCAN_LIST;
    case '"':
        return JSON_SCAN_STRING;
    case 't':
    case 'f':
    case 'n':
        return JSON_SCAN_WORD;
    default:
        return c == '-' || (c >= '0' && c <= '9') ? JSON_SCAN_NUMBER : JSON_SCAN_NONE;
    }
}

/* --- strings ---------------------------------------------------------------------------------- */

static bool is_hex(char c)
{
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
}

/* What stands behind a backslash. */
static void take_escape(struct json_scan *s)
{
    if (s->at == s->end || *s->at == '\0' || !strchr("\"\\/bfnrtu", *s->at)) {
        fail(s);
        return;
    }
    if (*s->at++ == 'u') {
        for (int i = 0; i < 4; i++, s->at++) {
            if (s->at == s->end || !is_hex(*s->at)) {
                fail(s);
                return;
            }
        }
    }
}

void json_scan_string(struct json_scan *s, struct json_text *out)
{
    *out = (struct json_text){"", 0};
    want(s, '"');
    const char *begin = s->at;
    while (!s->bad) {
        while (s->at < s->end && in_string[(uint8_t)*s->at] == 0) {
            s->at++;
        }
        if (s->at == s->end || in_string[(uint8_t)*s->at] == 3) {
            fail(s);
        } else if (*s->at++ == '"') {
            *out = (struct json_text){begin, (size_t)(s->at - 1 - begin)};
            return;
        } else {
            take_escape(s);
        }
    }
}

/* --- numbers and words -------------------------------------------------------------------------- */

static size_t take_digits(struct json_scan *s)
{
    const char *begin = s->at;
    while (s->at < s->end && *s->at >= '0' && *s->at <= '9') {
        s->at++;
    }
    return (size_t)(s->at - begin);
}

static bool take_next(struct json_scan *s, char a, char b)
{
    if (s->at < s->end && (*s->at == a || *s->at == b)) {
        s->at++;
        return true;
    }
    return false;
}

/* The whole part, with its sign; a zero may not lead. */
static void take_integer(struct json_scan *s)
{
    (void)peek(s);
    take_next(s, '-', '-');
    if (!take_next(s, '0', '0') && take_digits(s) == 0) {
        fail(s);
    }
}

static void take_number(struct json_scan *s)
{
    take_integer(s);
    if (!s->bad && take_next(s, '.', '.') && take_digits(s) == 0) {
        fail(s);
    }
    if (!s->bad && take_next(s, 'e', 'E')) {
        take_next(s, '+', '-');
        if (take_digits(s) == 0) {
            fail(s);
        }
    }
}

void json_scan_whole(struct json_scan *s, int64_t *out)
{
    *out = 0;
    if (json_scan_type(s) != JSON_SCAN_NUMBER) {
        fail(s);
        return;
    }
    bool is_negative = *s->at == '-';
    const char *digits = s->at + is_negative;
    take_integer(s);
    if (!s->bad && s->at - digits <= 18 && (s->at == s->end || !strchr(".eE", *s->at))) {
        for (; digits < s->at; digits++) {
            *out = *out * 10 + (*digits - '0');
        }
        *out = is_negative ? -*out : *out;
    } else {
        fail(s);
    }
}

void json_scan_number(struct json_scan *s, double *out)
{
    char text[JSON_SCAN_NUMBER_MAX];
    *out = 0.0;
    (void)peek(s);
    const char *begin = s->at;
    take_number(s);
    size_t len = (size_t)(s->at - begin);
    if (len >= sizeof text) {
        fail(s);
    }
    if (!s->bad) {
        memcpy(text, begin, len);
        text[len] = '\0';
        *out = strtod(text, NULL);
    }
}

static void take_word(struct json_scan *s)
{
    static const char *const words[] = {"true", "false", "null"};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
        size_t len = strlen(words[i]);
        if ((size_t)(s->end - s->at) >= len && memcmp(s->at, words[i], len) == 0) {
            s->at += len;
            return;
        }
    }
    fail(s);
}

/* --- objects and lists ---------------------------------------------------------------------------- */

static void enter(struct json_scan *s, char open)
{
    want(s, open);
    if (s->depth++ == JSON_SCAN_DEPTH) {
        fail(s);
    }
    s->is_first = true;
}

void json_scan_object(struct json_scan *s)
{
    enter(s, '{');
}

void json_scan_list(struct json_scan *s)
{
    enter(s, '[');
}

/* Another one follows: past the comma, if one is due. */
static bool more(struct json_scan *s, char close)
{
    bool is_first = s->is_first;
    s->is_first = false;
    if (take(s, close)) {
        s->depth--;
        return false;
    }
    if (!is_first) {
        want(s, ',');
    }
    return !s->bad;
}

bool json_scan_item(struct json_scan *s)
{
    return more(s, ']');
}

bool json_scan_key(struct json_scan *s, struct json_text *key)
{
    if (!more(s, '}')) {
        return false;
    }
    json_scan_string(s, key);
    want(s, ':');
    return !s->bad;
}

/* Everything inside of what was just entered; `kind` has a bit per level: 1 an object, 0 a list. */
static void skip_rest(struct json_scan *s, int depth, uint64_t kind)
{
    while (s->depth > depth && !s->bad) {
        struct json_text unused;
        bool is_object = kind & 1;
        if (!(is_object ? json_scan_key(s, &unused) : json_scan_item(s))) {
            kind >>= 1; // the level has ended (or all has)
            continue;
        }
        switch (json_scan_type(s)) {
        case JSON_SCAN_OBJECT:
        case JSON_SCAN_LIST:
            kind = kind << 1 | (*s->at == '{');
            enter(s, *s->at);
            break;
        default:
            json_scan_skip(s);
        }
    }
}

void json_scan_skip(struct json_scan *s)
{
    struct json_text unused;
    int depth = s->depth;
    switch (json_scan_type(s)) {
    case JSON_SCAN_OBJECT:
        json_scan_object(s);
        skip_rest(s, depth, 1);
        break;
    case JSON_SCAN_LIST:
        json_scan_list(s);
        skip_rest(s, depth, 0);
        break;
    case JSON_SCAN_STRING:
        json_scan_string(s, &unused);
        break;
    case JSON_SCAN_NUMBER:
        take_number(s);
        break;
    case JSON_SCAN_WORD:
        take_word(s);
        break;
    case JSON_SCAN_NONE:
        fail(s);
    }
}

bool json_scan_end(struct json_scan *s)
{
    return peek(s) == '\0' && s->at == s->end && !s->bad && s->depth == 0;
}
