#include "model/utf8.h"

#include <string.h>

#define HIGH_BITS 0x8080808080808080ULL // of eight bytes that are ASCII, none is set

/* Bytes that a lead byte announces, 0 when it cannot lead. */
static size_t announced(uint8_t lead)
{
    if (lead < 0x80) {
        return 1;
    }
    if (lead >= 0xC2 && lead <= 0xDF) {
        return 2;
    }
    if (lead >= 0xE0 && lead <= 0xEF) {
        return 3;
    }
    return lead >= 0xF0 && lead <= 0xF4 ? 4 : 0;
}

/* Whether the byte may follow the lead: overlong forms, surrogates and what is too high may not. */
static bool may_be_second(uint8_t lead, uint8_t byte)
{
    uint8_t low = lead == 0xE0 ? 0xA0 : (lead == 0xF0 ? 0x90 : 0x80);
    uint8_t high = lead == 0xED ? 0x9F : (lead == 0xF4 ? 0x8F : 0xBF);
    return byte >= low && byte <= high;
}

static bool continues(uint8_t byte)
{
    return (byte & 0xC0) == 0x80;
}

size_t utf8_next(const char *s, size_t len, uint32_t *code)
{
    const uint8_t *b = (const uint8_t *)s;
    size_t n = announced(b[0]);
    *code = UTF8_INVALID;
    if (n == 1) {
        *code = b[0];
    } else if (n == 0 || n > len || !may_be_second(b[0], b[1])) {
        return 1;
    } else if (n == 2) {
        *code = (b[0] & 0x1Fu) << 6 | (b[1] & 0x3Fu);
    } else if (!continues(b[2])) {
        return 1;
    } else if (n == 3) {
        *code = (b[0] & 0x0Fu) << 12 | (b[1] & 0x3Fu) << 6 | (b[2] & 0x3Fu);
    } else if (!continues(b[3])) {
        return 1;
    } else {
        *code = (b[0] & 0x07u) << 18 | (b[1] & 0x3Fu) << 12 | (b[2] & 0x3Fu) << 6 | (b[3] & 0x3Fu);
    }
    return n;
}

size_t utf8_valid_span(const char *s, size_t len)
{
    size_t at = 0;
    while (at < len) {
        uint32_t code;
        uint64_t word = HIGH_BITS;
        if (len - at >= sizeof word) {
            memcpy(&word, s + at, sizeof word);
        }
        if ((word & HIGH_BITS) == 0) { // eight of ASCII, as most of most texts
            at += sizeof word;
            continue;
        }
        size_t n = utf8_next(s + at, len - at, &code);
        if (code == UTF8_INVALID) {
            break;
        }
        at += n;
    }
    return at;
}

bool utf8_valid(const char *s, size_t len)
{
    return utf8_valid_span(s, len) == len;
}

size_t utf8_part(const char *s, size_t len)
{
    const uint8_t *b = (const uint8_t *)s;
    size_t n = announced(b[0]), at = 1;
    while (at < n && at < len && (at == 1 ? may_be_second(b[0], b[1]) : (b[at] & 0xC0) == 0x80)) {
        at++;
    }
    return at;
}

bool utf8_is_open(const char *s, size_t part)
{
    return part < announced((uint8_t)s[0]);
}

bool utf8_is_space(uint32_t code)
{
    return (code >= 0x09 && code <= 0x0D) || code == 0x20 || code == 0x85 || code == 0xA0 ||
           code == 0x1680 || (code >= 0x2000 && code <= 0x200A) || code == 0x2028 ||
           code == 0x2029 || code == 0x202F || code == 0x205F || code == 0x3000;
}

size_t utf8_spaces_after(const char *text, size_t len, size_t at)
{
    while (at < len) {
        uint32_t code;
        size_t n = utf8_next(text + at, len - at, &code);
        if (!utf8_is_space(code)) {
            break;
        }
        at += n;
    }
    return at;
}

size_t utf8_before(const char *text, size_t at, size_t floor, uint32_t *code)
{
    size_t start = at - 1;
    while (start > floor && at - start < 4 && ((uint8_t)text[start] & 0xC0) == 0x80) {
        start--;
    }
    if (utf8_next(text + start, at - start, code) != at - start) {
        *code = UTF8_INVALID;
        return at - 1;
    }
    return start;
}

size_t utf8_spaces_before(const char *text, size_t at, size_t floor)
{
    while (at > floor) {
        uint32_t code;
        size_t start = utf8_before(text, at, floor, &code);
        if (!utf8_is_space(code)) {
            break;
        }
        at = start;
    }
    return at;
}
