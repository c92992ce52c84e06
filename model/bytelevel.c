#include "model/bytelevel.h"

#include "model/utf8.h"

#define FIRST_MOVED 0x100u

static bool is_itself(unsigned byte)
{
    return (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
}

/* Moved bytes lie in three gaps: 0..0x20, 0x7F..0xA0 and 0xAD. */
static uint32_t char_of(uint8_t byte)
{
    if (is_itself(byte)) {
        return byte;
    }
    if (byte <= 0x20) {
        return FIRST_MOVED + byte;
    }
    return byte == 0xAD ? FIRST_MOVED + 0x21 + 0x22 : FIRST_MOVED + 0x21 + (byte - 0x7Fu);
}

static int byte_of(uint32_t code)
{
    if (code < FIRST_MOVED) {
        return is_itself(code) ? (int)code : -1;
    }
    uint32_t moved = code - FIRST_MOVED;
    if (moved < 0x21) {
        return (int)moved;
    }
    if (moved < 0x21 + 0x22) {
        return (int)(0x7F + moved - 0x21);
    }
    return moved == 0x21 + 0x22 ? 0xAD : -1;
}

size_t bytelevel_put(uint8_t byte, char out[BYTELEVEL_MAX])
{
    uint32_t code = char_of(byte);
    if (code < 0x80) {
        out[0] = (char)code;
        return 1;
    }
    out[0] = (char)(0xC0 | code >> 6);
    out[1] = (char)(0x80 | (code & 0x3F));
    return 2;
}

bool bytelevel_bytes(const char *text, size_t len, char *out, size_t *n)
{
    *n = 0;
    for (size_t i = 0; i < len;) {
        uint32_t code;
        i += utf8_next(text + i, len - i, &code);
        int byte = code != UTF8_INVALID ? byte_of(code) : -1;
        if (byte < 0) {
            return false;
        }
        out[(*n)++] = (char)byte;
    }
    return true;
}
