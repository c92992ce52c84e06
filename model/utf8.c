#include "model/utf8.h"

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

size_t utf8_next(const char *s, size_t len, uint32_t *code)
{
    static const uint32_t lowest[5] = {0, 0, 0x80, 0x800, 0x10000}; // shorter forms are overlong
    static const uint8_t lead_mask[5] = {0, 0x7F, 0x1F, 0x0F, 0x07};
    const uint8_t *b = (const uint8_t *)s;
    size_t n = announced(b[0]);
    *code = UTF8_INVALID;
    if (n == 0 || n > len) {
        return 1;
    }
    uint32_t c = b[0] & lead_mask[n];
    for (size_t i = 1; i < n; i++) {
        if ((b[i] & 0xC0) != 0x80) {
            return 1;
        }
        c = c << 6 | (b[i] & 0x3F);
    }
    if (c < lowest[n] || c > 0x10FFFF || (c >= 0xD800 && c <= 0xDFFF)) {
        return 1;
    }
    *code = c;
    return n;
}

bool utf8_valid(const char *s, size_t len)
{
    uint32_t code;
    for (size_t i = 0; i < len;) {
        i += utf8_next(s + i, len - i, &code);
        if (code == UTF8_INVALID) {
            return false;
        }
    }
    return true;
}

bool utf8_is_space(uint32_t code)
{
    return (code >= 0x09 && code <= 0x0D) || code == 0x20 || code == 0x85 || code == 0xA0 ||
           code == 0x1680 || (code >= 0x2000 && code <= 0x200A) || code == 0x2028 ||
           code == 0x2029 || code == 0x202F || code == 0x205F || code == 0x3000;
}
