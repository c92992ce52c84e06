#include "core/json_text.h"

#include <stdint.h>

#define REPLACEMENT 0xfffdU // stands for half a surrogate pair

static bool is_plain(char c)
{
    return (unsigned char)c >= 0x20 && c != '"' && c != '\\';
}

void json_text_escape(struct str *out, const char *utf8, size_t len)
{
    for (size_t i = 0; i < len;) {
        size_t from = i;
        while (i < len && is_plain(utf8[i])) {
            i++;
        }
        str_append(out, utf8 + from, i - from);
        if (i < len) {
            char c = utf8[i++];
            if (c == '"' || c == '\\') {
                str_append(out, (char[]){'\\', c}, 2);
            } else {
                str_printf(out, "\\u%04x", (unsigned)c);
            }
        }
    }
}

/* --- what escapes say ------------------------------------------------------------------------------- */

static uint32_t hex_4(const char *s)
{
    uint32_t x = 0;
    for (int i = 0; i < 4; i++) {
        char c = s[i];
        x = x << 4 | (uint32_t)(c <= '9' ? c - '0' : (c | 0x20) - 'a' + 10);
    }
    return x;
}

static bool is_between(uint32_t code, uint32_t lo, uint32_t hi)
{
    return code >= lo && code <= hi;
}

/* The code of \uXXXX at s, or of the pair that begins there; REPLACEMENT for half a pair. Its bytes. */
static size_t take_unicode(const char *s, size_t len, uint32_t *code)
{
    uint32_t high = hex_4(s + 2);
    bool may_be_pair = is_between(high, 0xd800, 0xdbff) && len >= 12 && s[6] == '\\' && s[7] == 'u';
    uint32_t low = may_be_pair ? hex_4(s + 8) : 0;
    if (is_between(low, 0xdc00, 0xdfff)) {
        *code = 0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00);
        return 12;
    }
    *code = is_between(high, 0xd800, 0xdfff) ? REPLACEMENT : high;
    return 6;
}

static void put_utf8(uint32_t code, struct str *out)
{
    static const uint8_t lead[] = {0, 0, 0xc0, 0xe0, 0xf0};
    char b[4];
    size_t n = code < 0x80 ? 1 : code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
    for (size_t i = n; i-- > 1; code >>= 6) {
        b[i] = (char)(0x80 | (code & 0x3f));
    }
    b[0] = (char)(lead[n] | code);
    str_append(out, b, n);
}

/* Append what the escape at s stands for. Its bytes; *whole is cleared for half a pair. */
static size_t put_escape(const char *s, size_t len, struct str *out, bool *whole)
{
    static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
    if (s[1] != 'u') {
        str_append(out, &to[strchr(from, s[1]) - from], 1);
        return 2;
    }
    uint32_t code;
    size_t n = take_unicode(s, len, &code);
    *whole = *whole && (code != REPLACEMENT || hex_4(s + 2) == REPLACEMENT);
    put_utf8(code, out);
    return n;
}

bool json_text_unescape(struct json_text t, struct str *out)
{
    bool whole = true;
    for (size_t at = 0; at < t.len;) {
        const char *escape = memchr(t.data + at, '\\', t.len - at);
        size_t stop = escape ? (size_t)(escape - t.data) : t.len;
        str_append(out, t.data + at, stop - at);
        at = escape ? stop + put_escape(escape, t.len - stop, out, &whole) : stop;
    }
    return whole;
}

/* --- cutting ---------------------------------------------------------------------------------------- */

/* Bytes of the escape, pair of escapes or character at s. */
static size_t unit_len(const char *s, size_t len)
{
    uint32_t unused;
    if (*s == '\\') {
        return s[1] == 'u' ? take_unicode(s, len, &unused) : 2;
    }
    size_t n = 1;
    while (n < len && ((unsigned char)s[n] & 0xc0) == 0x80) {
        n++;
    }
    return n;
}

size_t json_text_cut(const char *text, size_t len, size_t max)
{
    size_t done = 0;
    while (done < len) {
        size_t n = unit_len(text + done, len - done);
        if (done + n > max) {
            break;
        }
        done += n;
    }
    return done;
}
