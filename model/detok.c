#include "model/detok.h"

#include "core/mem.h"
#include "model/normalizer.h"
#include "model/utf8.h"

#include <jansson.h>

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#define REPLACEMENT "\xEF\xBF\xBD" // U+FFFD

/* What one id contributes. */
struct piece {
    size_t at; // into text
    uint32_t len;
    int16_t byte; // >= 0: one byte of a character
    bool is_shown;
};

struct detok {
    struct piece *pieces; // (n)
    int32_t n;
    struct str text;
    char *strip; // (strip_len) the character to cut from the start, up to n_strip times
    size_t strip_len, n_strip;
    bool spaced; // tokens are joined with spaces
};

/* --- from JSON -------------------------------------------------------------------------------- */

enum step {
    STEP_REPLACE,
    STEP_BYTES,
    STEP_FUSE,
    STEP_STRIP,
};

struct steps {
    const json_t *replaces[16];
    size_t n_replaces;
    bool has_bytes;
    enum step last;
};

static int parse_strip(struct detok *d, const struct steps *s, const json_t *json, struct err *e)
{
    const json_t *content = json_object_get(json, "content");
    json_int_t start = json_integer_value(json_object_get(json, "start"));
    json_int_t stop = json_integer_value(json_object_get(json, "stop"));
    if (s->last != STEP_FUSE || !json_is_string(content) || json_string_length(content) == 0 ||
        start < 0 || stop != 0) {
        return err_set(e, ERR_INPUT,
                       "Strip: only \"content\" cut from the \"start\" after Fuse is supported");
    }
    d->strip = xstrdup(json_string_value(content));
    d->strip_len = json_string_length(content);
    d->n_strip = (size_t)start;
    return 0;
}

static int parse_step(struct detok *d, struct steps *s, const json_t *json, struct err *e)
{
    static const char *const names[] = {"Replace", "ByteFallback", "Fuse", "Strip"};
    const char *type = json_string_value(json_object_get(json, "type"));
    size_t k = 0;
    while (type != NULL && k < 4 && strcmp(type, names[k]) != 0) {
        k++;
    }
    if (type == NULL || k == 4) {
        return err_set(e, ERR_INPUT,
                       "type %.40s is not supported (Replace, ByteFallback, Fuse, Strip are)",
                       type != NULL ? type : "(none)");
    }
    if (k < (size_t)s->last || (k == (size_t)s->last && k != STEP_REPLACE)) {
        return err_set(
            e, ERR_INPUT,
            "%s after %s is not supported (Replace, ByteFallback, Fuse, Strip: in this order)",
            names[k], names[s->last]);
    }
    if (k == STEP_REPLACE) {
        struct normalizer_rule r;
        if (s->n_replaces == sizeof s->replaces / sizeof *s->replaces) {
            return err_set(e, ERR_INPUT, "more than %zu Replace steps", s->n_replaces);
        }
        s->replaces[s->n_replaces++] = json;
        return normalizer_parse_replace(&r, json, e);
    }
    if (k == STEP_STRIP && parse_strip(d, s, json, e) != 0) {
        return -1;
    }
    s->has_bytes |= k == STEP_BYTES;
    s->last = (enum step)k;
    return 0;
}

static int parse_steps(struct detok *d, struct steps *s, const json_t *json, struct err *e)
{
    const char *type = json_string_value(json_object_get(json, "type"));
    if (type == NULL || strcmp(type, "Sequence") != 0) {
        return parse_step(d, s, json, e);
    }
    const json_t *list = json_object_get(json, "decoders");
    if (!json_is_array(list)) {
        return err_set(e, ERR_INPUT, "Sequence: no list of \"decoders\"");
    }
    for (size_t i = 0; i < json_array_size(list); i++) {
        if (parse_step(d, s, json_array_get(list, i), e) != 0) {
            return -1;
        }
    }
    return 0;
}

/* The value of "<0xNN>", or -1. */
static int16_t byte_of(const char *text, size_t len)
{
    if (len != 6 || memcmp(text, "<0x", 3) != 0 || text[5] != '>' ||
        !isxdigit((unsigned char)text[3]) || !isxdigit((unsigned char)text[4])) {
        return -1;
    }
    return (int16_t)strtol(text + 3, NULL, 16);
}

/* Append the token's text with all Replace steps done. */
static void append_replaced(struct detok *d, const struct steps *s, const struct vocab_token *t)
{
    struct str work[2] = {{0}, {0}};
    const char *text = t->shown;
    size_t len = t->shown_len;
    for (size_t i = 0; i < s->n_replaces; i++) {
        struct normalizer_rule r;
        struct err ignored;
        CHECK(normalizer_parse_replace(&r, s->replaces[i], &ignored) == 0);
        str_clear(&work[i % 2]);
        normalizer_replace(&r, text, len, &work[i % 2]);
        text = work[i % 2].data;
        len = work[i % 2].len;
    }
    str_append(&d->text, text, len);
    str_free(&work[0]);
    str_free(&work[1]);
}

static void make_pieces(struct detok *d, const struct steps *s, const struct vocab *v)
{
    d->n = v->n_ids;
    d->pieces = xcalloc((size_t)d->n, sizeof *d->pieces);
    for (int32_t id = 0; id < d->n; id++) {
        const struct vocab_token *t = &v->tokens[id];
        struct piece *p = &d->pieces[id];
        *p = (struct piece){.at = d->text.len, .byte = -1};
        if (t->text == NULL || t->special) {
            continue;
        }
        p->is_shown = true;
        append_replaced(d, s, t);
        p->len = (uint32_t)(d->text.len - p->at);
        p->byte = s->has_bytes ? byte_of(d->text.data + p->at, p->len) : -1;
    }
}

int detok_parse(struct detok **out, const struct json_t *decoder, const struct vocab *v,
                struct err *e)
{
    struct detok *d = xcalloc(1, sizeof *d);
    struct steps s = {.last = STEP_REPLACE};
    d->spaced = decoder == NULL || json_is_null(decoder);
    if (!d->spaced && parse_steps(d, &s, decoder, e) != 0) {
        detok_destroy(d);
        return err_wrap(e, "decoder");
    }
    make_pieces(d, &s, v);
    *out = d;
    return 0;
}

void detok_destroy(struct detok *d)
{
    if (d != NULL) {
        free(d->pieces);
        free(d->strip);
        str_free(&d->text);
        free(d);
    }
}

/* --- decoding --------------------------------------------------------------------------------- */

/* The bytes from `from` to the end came from byte tokens: all valid together, or none. */
static void close_bytes(struct str *text, size_t from)
{
    size_t n = text->len - from;
    if (n == 0 || utf8_valid(text->data + from, n)) {
        return;
    }
    text->len = from;
    for (size_t i = 0; i < n; i++) {
        str_puts(text, REPLACEMENT);
    }
}

static void strip_start(const struct detok *d, struct str *text, size_t from)
{
    size_t cut = 0;
    for (size_t i = 0; i < d->n_strip; i++) {
        if (text->len - from - cut < d->strip_len ||
            memcmp(text->data + from + cut, d->strip, d->strip_len) != 0) {
            break;
        }
        cut += d->strip_len;
    }
    if (cut > 0) {
        memmove(text->data + from, text->data + from + cut, text->len - from - cut + 1);
        text->len -= cut;
    }
}

void detok_append(const struct detok *d, const int32_t *ids, size_t n, bool continues,
                  struct str *text)
{
    str_reserve(text, 0);
    size_t start = text->len, bytes_from = text->len;
    bool is_first = !continues;
    for (size_t i = 0; i < n; i++) {
        if (ids[i] < 0 || ids[i] >= d->n || !d->pieces[ids[i]].is_shown) {
            continue;
        }
        const struct piece *p = &d->pieces[ids[i]];
        if (d->spaced && !is_first) {
            str_puts(text, " ");
        }
        is_first = false;
        if (p->byte >= 0) {
            const char byte = (char)p->byte;
            str_append(text, &byte, 1);
            continue;
        }
        close_bytes(text, bytes_from);
        str_append(text, d->text.data + p->at, p->len);
        bytes_from = text->len;
    }
    close_bytes(text, bytes_from);
    if (!continues) {
        strip_start(d, text, start);
    }
}
