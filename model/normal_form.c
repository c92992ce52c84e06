#include "model/normal_form.h"

#include "core/err.h"
#include "core/mem.h"
#include "model/unicode.h"
#include "model/utf8.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#define FEW 128 // characters of a region that need no memory of their own

int normal_form_find(const char *name)
{
    return str_choice("NFC|NFD|NFKC|NFKD", name);
}

/* --- one region through utf8proc --------------------------------------------------------------- */

static utf8proc_option_t options_of(enum normal_form form)
{
    bool is_composed = form == NORMAL_FORM_NFC || form == NORMAL_FORM_NFKC;
    bool is_compatible = form == NORMAL_FORM_NFKC || form == NORMAL_FORM_NFKD;
    return UTF8PROC_STABLE | (is_composed ? UTF8PROC_COMPOSE : UTF8PROC_DECOMPOSE) |
           (is_compatible ? UTF8PROC_COMPAT : 0);
}

/* The text has no stray bytes. */
static void convert(enum normal_form form, const char *text, size_t len, struct str *out)
{
    utf8proc_int32_t few[FEW], *codes = few;
    utf8proc_option_t options = options_of(form);
    const utf8proc_uint8_t *bytes = (const utf8proc_uint8_t *)text;
    utf8proc_ssize_t n = utf8proc_decompose(bytes, (utf8proc_ssize_t)len, few, FEW, options);
    if (n > FEW) {
        codes = xmalloc((size_t)n * sizeof *codes);
        n = utf8proc_decompose(bytes, (utf8proc_ssize_t)len, codes, n, options);
    }
    CHECK(n >= 0);
    n = utf8proc_normalize_utf32(codes, n, options);
    for (utf8proc_ssize_t i = 0; i < n; i++) {
        utf8proc_uint8_t utf8[4];
        str_append(out, utf8, (size_t)utf8proc_encode_char(codes[i], utf8));
    }
    if (codes != few) {
        free(codes);
    }
}

/* --- NFC: only where something may change ------------------------------------------------------ */

/* U+11A7 joins nothing: utf8proc 2.8 takes it for one of the consonants behind it and loses it. */
static bool is_barrier(uint32_t code)
{
    return code == UTF8_INVALID || code == 0x11A7 || (unicode_of(code) & UNICODE_NEW) != 0;
}

/* Nothing before such a character has to do with it or with what follows. */
static bool is_boundary(uint32_t code)
{
    return is_barrier(code) || (unicode_of(code) & (UNICODE_COMPOSES | UNICODE_COMBINES)) == 0;
}

/* The first boundary at or after `at`. */
static size_t next_boundary(const char *text, size_t len, size_t at)
{
    while (at < len) {
        uint32_t code;
        size_t n = utf8_next(text + at, len - at, &code);
        if (is_boundary(code)) {
            break;
        }
        at += n;
    }
    return at;
}

/*
 * The quick check of UAX #15, section 9, from a boundary on: where the first region begins that
 * may not be NFC, and where in it that was seen; len when there is none.
 */
static size_t find_region(const char *text, size_t len, size_t at, size_t *seen)
{
    size_t region = at;
    int last = 0;
    while (at < len) {
        if ((uint8_t)text[at] < 0x80) {
            region = at++;
            last = 0;
            continue;
        }
        uint32_t code;
        size_t n = utf8_next(text + at, len - at, &code);
        if (is_boundary(code)) {
            region = is_barrier(code) ? at + n : at;
            last = 0;
        } else {
            int order = utf8proc_get_property((utf8proc_int32_t)code)->combining_class;
            if ((unicode_of(code) & UNICODE_COMPOSES) != 0 || (order != 0 && order < last)) {
                *seen = at;
                return region;
            }
            last = order;
        }
        at += n;
    }
    *seen = len;
    return len;
}

static void apply_nfc(const char *text, size_t len, struct str *out)
{
    size_t done = 0;
    while (done < len) {
        size_t seen, region = find_region(text, len, done, &seen);
        size_t end = next_boundary(text, len, seen);
        str_append(out, text + done, region - done);
        if (end > region) {
            convert(NORMAL_FORM_NFC, text + region, end - region, out);
        }
        done = end;
    }
}

void normal_form_apply(enum normal_form form, const char *text, size_t len, struct str *out)
{
    if (form == NORMAL_FORM_NFC) {
        apply_nfc(text, len, out);
        return;
    }
    size_t done = 0;
    for (size_t at = 0; at < len;) {
        uint32_t code;
        size_t n = utf8_next(text + at, len - at, &code);
        if (is_barrier(code)) {
            convert(form, text + done, at - done, out);
            str_append(out, text + at, n);
            done = at + n;
        }
        at += n;
    }
    convert(form, text + done, len - done, out);
}
