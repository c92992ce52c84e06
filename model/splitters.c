#include "model/splitters.h"

#include "model/unicode.h"
#include "model/utf8.h"

#include <stdint.h>
#include <string.h>

#define ALWAYS_INLINE inline __attribute__((always_inline))

/* Shorthand of this file, after the notation of regular expressions. */
#define L  UNICODE_LETTER
#define N  UNICODE_NUMBER
#define M  UNICODE_MARK
#define PS (UNICODE_PUNCTUATION | UNICODE_SYMBOL)
#define WS UNICODE_SPACE

/* What may begin a capitalised word of o200k, and what may end one. */
#define HEAD (UNICODE_UPPER | UNICODE_OTHER_LETTER | UNICODE_MARK)
#define TAIL (UNICODE_LOWER | UNICODE_OTHER_LETTER | UNICODE_MARK)

/* --- runs of characters ----------------------------------------------------------------------- */

/* The class of the character at s < end; *next: behind it. */
static ALWAYS_INLINE unsigned class_at(const char *s, const char *end, const char **next)
{
    uint8_t byte = (uint8_t)*s;
    if (byte < 0x80) {
        *next = s + 1;
        return unicode_flags[byte];
    }
    uint32_t code;
    *next = s + utf8_next(s, (size_t)(end - s), &code);
    return unicode_of(code);
}

/* Behind the characters at s that are of one of these classes. */
static ALWAYS_INLINE const char *skip(const char *s, const char *end, unsigned classes)
{
    const char *next;
    while (s < end && (class_at(s, end, &next) & classes) != 0) {
        s = next;
    }
    return s;
}

/* Behind those that are of none. */
static ALWAYS_INLINE const char *skip_other(const char *s, const char *end, unsigned classes)
{
    const char *next;
    while (s < end && (class_at(s, end, &next) & classes) == 0) {
        s = next;
    }
    return s;
}

static ALWAYS_INLINE const char *skip_at_most(const char *s, const char *end, unsigned classes,
                                              unsigned n)
{
    const char *next;
    while (n-- > 0 && s < end && (class_at(s, end, &next) & classes) != 0) {
        s = next;
    }
    return s;
}

static ALWAYS_INLINE bool is_newline(char c)
{
    return c == '\r' || c == '\n';
}

static ALWAYS_INLINE const char *skip_newlines(const char *s, const char *end)
{
    while (s < end && is_newline(*s)) {
        s++;
    }
    return s;
}

/* --- parts that several expressions share ----------------------------------------------------- */

/* (?i:'s|'t|'re|'ve|'m|'ll|'d): behind it, s where there is none. U+017F is an s to (?i). */
static const char *contraction(const char *s, const char *end)
{
    size_t n = (size_t)(end - s);
    if (n < 2 || s[0] != '\'') {
        return s;
    }
    char a = (char)(s[1] | 0x20), b = n > 2 ? (char)(s[2] | 0x20) : '\0';
    if (a == 's' || a == 't' || a == 'm' || a == 'd') {
        return s + 2;
    }
    if (((a == 'r' || a == 'v') && b == 'e') || (a == 'l' && b == 'l')) {
        return s + 3;
    }
    return n > 2 && memcmp(s + 1, "\xC5\xBF", 2) == 0 ? s + 3 : s;
}

/* The same without (?i). */
static const char *lower_contraction(const char *s, const char *end)
{
    const char *behind = contraction(s, end);
    for (const char *c = s + 1; c < behind; c++) {
        if (*c < 'a' || *c > 'z') {
            return s;
        }
    }
    return behind;
}

/* \s+(?!\S)|\s+ at a space: all white space, but for the last before something else. */
static const char *spaces(const char *s, const char *end)
{
    const char *at = s, *last = s, *next;
    while (at < end && (class_at(at, end, &next) & WS) != 0) {
        last = at;
        at = next;
    }
    return at < end && last > s ? last : at;
}

/* \s*[\r\n]+|\s+(?!\S)|\s+ at a space: up to the last line end in it, if there is one. */
static const char *spaces_by_line(const char *s, const char *end)
{
    const char *at = s, *behind_line = s, *next;
    while (at < end && (class_at(at, end, &next) & WS) != 0) {
        behind_line = is_newline(*at) ? next : behind_line;
        at = next;
    }
    return behind_line > s ? behind_line : spaces(s, end);
}

/* --- GPT-2 ------------------------------------------------------------------------------------ */

const char *splitters_gpt2(const char *s, const char *end)
{
    const char *behind = lower_contraction(s, end);
    if (behind > s) {
        return behind;
    }
    const char *word = *s == ' ' && end - s > 1 ? s + 1 : s, *next;
    unsigned class = class_at(word, end, &next);
    if (class & L) {
        return skip(next, end, L);
    }
    if (class & N) {
        return skip(next, end, N);
    }
    return class & WS ? spaces(s, end) : skip_other(next, end, WS | L | N);
}

/* --- cl100k: Llama 3, Qwen -------------------------------------------------------------------- */

/*
 * (?i:'s|...)|[^\r\n\p{L}\p{N}]?LETTERS+|\p{N}{1,DIGITS}| ?[^\s LETTERS \p{N}]+[\r\n]*|
 * \s*[\r\n]+|\s+(?!\S)|\s+
 */
static ALWAYS_INLINE const char *cl100k(const char *s, const char *end, unsigned letters,
                                        unsigned digits)
{
    const char *next, *behind = contraction(s, end);
    if (behind > s) {
        return behind;
    }
    unsigned class = class_at(s, end, &next);
    if (class & letters) {
        return skip(next, end, letters);
    }
    if (class & N) {
        return skip_at_most(next, end, N, digits - 1);
    }
    if (!is_newline(*s)) {
        behind = skip(next, end, letters);
        if (behind > next) {
            return behind;
        }
    }
    const char *other = skip_other(*s == ' ' ? next : s, end, WS | letters | N);
    if (other > (*s == ' ' ? next : s)) {
        return skip_newlines(other, end);
    }
    return spaces_by_line(s, end);
}

const char *splitters_llama3(const char *s, const char *end)
{
    return cl100k(s, end, L, 3);
}

const char *splitters_qwen2(const char *s, const char *end)
{
    return cl100k(s, end, L, 1);
}

const char *splitters_qwen3_5(const char *s, const char *end)
{
    return cl100k(s, end, L | M, 1);
}

/* --- o200k: GPT-4o, gpt-oss, Llama 4, Mistral ------------------------------------------------- */

/*
 * HEAD*TAIL+|HEAD+TAIL* at s, s where it does not match. Letters without case and marks are in
 * both: HEAD* takes all it can and gives back until TAIL+ has one. With nothing to give back,
 * the second form takes what HEAD+ took.
 */
static ALWAYS_INLINE const char *cased_word(const char *s, const char *end)
{
    const char *at = s, *behind_both = s, *next;
    unsigned class = 0;
    while (at < end && ((class = class_at(at, end, &next)) & HEAD) != 0) {
        behind_both = class & TAIL ? next : behind_both;
        at = next;
    }
    if (at < end && (class & TAIL) != 0) {
        return skip(next, end, TAIL);
    }
    return behind_both > s ? behind_both : at;
}

/*
 * The word at s, with one character before it that is no letter, number or line end; s where there
 * is none. A mark leads a word of the first form only: it is such a word by itself.
 */
static ALWAYS_INLINE const char *led_cased_word(const char *s, const char *end)
{
    const char *next;
    unsigned class = class_at(s, end, &next);
    if ((class & (L | N)) != 0 || is_newline(*s)) {
        return cased_word(s, end);
    }
    const char *behind = cased_word(next, end);
    if ((class & M) == 0) {
        return behind > next ? behind : s;
    }
    return skip_other(next, behind, TAIL) < behind ? behind : next;
}

/*
 * [^\r\n\p{L}\p{N}]?HEAD*TAIL+(?i:'s|...)?|[^\r\n\p{L}\p{N}]?HEAD+TAIL*(?i:'s|...)?|
 * \p{N}{1,DIGITS}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+
 */
static ALWAYS_INLINE const char *cased(const char *s, const char *end, unsigned digits,
                                       bool has_contractions)
{
    const char *word = led_cased_word(s, end), *next;
    if (word > s) {
        return has_contractions ? contraction(word, end) : word;
    }
    unsigned class = class_at(s, end, &next);
    if (class & N) {
        return skip_at_most(next, end, N, digits - 1);
    }
    const char *from = *s == ' ' ? next : s;
    const char *other = skip_other(from, end, WS | L | N);
    if (other == from) {
        return spaces_by_line(s, end);
    }
    while (other < end && (is_newline(*other) || *other == '/')) {
        other++;
    }
    return other;
}

const char *splitters_o200k(const char *s, const char *end)
{
    return cased(s, end, 3, true);
}

const char *splitters_tekken(const char *s, const char *end)
{
    return cased(s, end, 1, false);
}

/* --- DeepSeek: three expressions, one after the other ----------------------------------------- */

/* \p{N}{1,3} */
const char *splitters_digits3(const char *s, const char *end)
{
    const char *behind = skip_at_most(s, end, N, 3);
    return behind > s ? behind : skip_other(s, end, N);
}

static bool is_cjk(uint32_t c)
{
    return (c >= 0x4E00 && c <= 0x9FA5) || (c >= 0x3040 && c <= 0x30FF);
}

/* [\u4E00-\u9FA5\u3040-\u309F\u30A0-\u30FF]+ */
const char *splitters_cjk(const char *s, const char *end)
{
    uint32_t code;
    const char *at = s + utf8_next(s, (size_t)(end - s), &code);
    bool first = is_cjk(code);
    while (at < end) {
        size_t n = 1;
        code = (uint8_t)*at;
        if (code >= 0x80) {
            n = utf8_next(at, (size_t)(end - at), &code);
        }
        if (is_cjk(code) != first) {
            break;
        }
        at += n;
    }
    return at;
}

static bool is_ascii_letter(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

/*
 * [ASCII punctuation][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|
 * \s*[\r\n]+|\s+(?!\S)|\s+ at s, s where it does not match: numbers and controls.
 */
static ALWAYS_INLINE const char *deepseek_match(const char *s, const char *end)
{
    const char *next;
    unsigned class = class_at(s, end, &next);
    if (class & (L | M)) {
        return skip(next, end, L | M);
    }
    if ((class & PS) != 0 && (uint8_t)*s < 0x80 && next < end && is_ascii_letter(*next)) {
        while (next < end && is_ascii_letter(*next)) {
            next++;
        }
        return next;
    }
    if ((class & PS) == 0 && !is_newline(*s)) {
        const char *behind = skip(next, end, L | M);
        if (behind > next) {
            return behind;
        }
    }
    const char *from = *s == ' ' ? next : s, *other = skip(from, end, PS);
    if (other > from) {
        return skip_newlines(other, end);
    }
    return class & WS ? spaces_by_line(s, end) : s;
}

const char *splitters_deepseek(const char *s, const char *end)
{
    const char *behind = deepseek_match(s, end);
    if (behind > s) {
        return behind;
    }
    do {
        class_at(s, end, &s);
    } while (s < end && deepseek_match(s, end) == s);
    return s;
}

/* --- Digits ----------------------------------------------------------------------------------- */

const char *splitters_digit(const char *s, const char *end)
{
    const char *behind = skip_at_most(s, end, N, 1);
    return behind > s ? behind : skip_other(s, end, N);
}

const char *splitters_digits(const char *s, const char *end)
{
    const char *behind = skip(s, end, N);
    return behind > s ? behind : skip_other(s, end, N);
}

/* --- by text ---------------------------------------------------------------------------------- */

#define CONTRACTIONS "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
#define LEAD         "[^\\r\\n\\p{L}\\p{N}]?"
#define HEAD_SET     "[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]"
#define TAIL_SET     "[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]"
#define SPACES       "\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"

static const struct splitters_rule rules[] = {
    {"'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+",
     splitters_gpt2, true},
    {CONTRACTIONS "|" LEAD "\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|" SPACES,
     splitters_llama3, true},
    {CONTRACTIONS "|" LEAD "\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|" SPACES, splitters_qwen2,
     true},
    {CONTRACTIONS "|" LEAD "[\\p{L}\\p{M}]+|\\p{N}| ?[^\\s\\p{L}\\p{M}\\p{N}]+[\\r\\n]*|" SPACES,
     splitters_qwen3_5, true},
    {LEAD HEAD_SET "*" TAIL_SET "+" CONTRACTIONS "?|" LEAD HEAD_SET "+" TAIL_SET "*" CONTRACTIONS
                   "?|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|" SPACES,
     splitters_o200k, true},
    {LEAD HEAD_SET "*" TAIL_SET "+|" LEAD HEAD_SET "+" TAIL_SET
                   "*|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|" SPACES,
     splitters_tekken, true},
    {"\\p{N}{1,3}", splitters_digits3, false},
    {"[\xE4\xB8\x80-\xE9\xBE\xA5\xE3\x81\x80-\xE3\x82\x9F\xE3\x82\xA0-\xE3\x83\xBF]+",
     splitters_cjk, false},
    {"[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\r\n\\p{L}\\p{P}\\p{S}]?"
     "[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+[\r\n]*|\\s*[\r\n]+|\\s+(?!\\S)|\\s+",
     splitters_deepseek, false},
};

const struct splitters_rule *splitters_find(const char *regex)
{
    for (size_t i = 0; i < sizeof rules / sizeof *rules; i++) {
        if (strcmp(rules[i].regex, regex) == 0) {
            return &rules[i];
        }
    }
    return NULL;
}
