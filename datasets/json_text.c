#include "datasets/json_text.h"

#include "model/utf8.h"

#include <stdint.h>
#include <string.h>

#define HIGH_BITS 0x8080808080808080ULL

/* Like utf8_valid, eight bytes at a time where they are ASCII: most of most files. */
static bool is_utf8(const char *s, size_t len)
{
    for (size_t i = 0; i < len;) {
        uint64_t word = HIGH_BITS;
        if (len - i >= sizeof word) {
            memcpy(&word, s + i, sizeof word);
        }
        if ((word & HIGH_BITS) == 0) {
            i += sizeof word;
            continue;
        }
        uint32_t code;
        i += utf8_next(s + i, len - i, &code);
        if (code == UTF8_INVALID) {
            return false;
        }
    }
    return true;
}

static uint32_t hex_4(const char *s)
{
    uint32_t x = 0;
    for (int i = 0; i < 4; i++) {
        char c = s[i];
        x = x << 4 | (uint32_t)(c <= '9' ? c - '0' : (c | 0x20) - 'a' + 10);
    }
    return x;
}

/* The code of \uXXXX, and of \uXXXX\uXXXX that are a pair; 0 bytes taken: half a pair. */
static size_t take_unicode(const char *s, size_t len, uint32_t *code)
{
    uint32_t high = hex_4(s + 2);
    *code = high;
    if (high < 0xD800 || high > 0xDFFF) {
        return 6;
    }
    if (high > 0xDBFF || len < 12 || s[6] != '\\' || s[7] != 'u') {
        return 0;
    }
    uint32_t low = hex_4(s + 8);
    *code = 0x10000 + ((high - 0xD800) << 10) + (low - 0xDC00);
    return low >= 0xDC00 && low <= 0xDFFF ? 12 : 0;
}

static void put_utf8(uint32_t code, struct str *out)
{
    char b[4];
    size_t n = code < 0x80 ? 1 : code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
    for (size_t i = n; i-- > 1; code >>= 6) {
        b[i] = (char)(0x80 | (code & 0x3F));
    }
    static const uint8_t lead[] = {0, 0, 0xC0, 0xE0, 0xF0};
    b[0] = (char)(lead[n] | code);
    str_append(out, b, n);
}

/* Append what an escape stands for; how many bytes it takes, 0: half a surrogate pair. */
static size_t put_escape(const char *s, size_t len, struct str *out)
{
    static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
    if (s[1] == 'u') {
        uint32_t code;
        size_t n = take_unicode(s, len, &code);
        if (n > 0) {
            put_utf8(code, out);
        }
        return n;
    }
    str_append(out, &to[strchr(from, s[1]) - from], 1);
    return 2;
}

bool json_text_plain(struct json_text t, struct str *plain, struct json_text *out)
{
    if (!is_utf8(t.data, t.len)) {
        return false;
    }
    const char *at = t.data, *end = t.data + t.len;
    const char *escape = memchr(at, '\\', t.len);
    if (escape == NULL) {
        *out = t;
        return true;
    }
    for (str_clear(plain); escape != NULL; escape = memchr(at, '\\', (size_t)(end - at))) {
        str_append(plain, at, (size_t)(escape - at));
        size_t n = put_escape(escape, (size_t)(end - escape), plain);
        if (n == 0) {
            return false;
        }
        at = escape + n;
    }
    str_append(plain, at, (size_t)(end - at));
    *out = (struct json_text){plain->data, plain->len};
    return true;
}

/* Bytes of the escape, pair of escapes or character at s. */
static size_t unit_len(const char *s, size_t len)
{
    uint32_t code;
    if (*s != '\\') {
        return utf8_next(s, len, &code);
    }
    return s[1] == 'u' ? take_unicode(s, len, &code) : 2;
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
