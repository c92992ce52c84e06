#include "model/detok.h"

#include "core/mem.h"
#include "model/bytelevel.h"
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
    bool is_byte; // of a character: byte-fallback
    bool is_shown;
};

struct detok {
    struct piece *pieces; // (n)
    int32_t n;
    struct str text;
    char *strip; // (strip_len) the character to cut from the start, up to n_strip times
    size_t strip_len, n_strip;
    bool spaced;        // tokens are joined with spaces
    bool is_byte_level; // tokens are bytes, which may cut characters anywhere
    char *metaspace;    // what stands for a space; NULL
    bool drops_first;   // Metaspace: the first token's leading ones vanish
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

/* Append the bytes that the token stands for; text outside of the alphabet stands for itself. */
static void append_bytes(struct detok *d, const struct vocab_token *t)
{
    size_t n;
    str_reserve(&d->text, t->shown_len);
    if (bytelevel_bytes(t->shown, t->shown_len, d->text.data + d->text.len, &n)) {
        d->text.len += n;
    } else {
        str_append(&d->text, t->shown, t->shown_len);
    }
}

static void make_pieces(struct detok *d, const struct steps *s, const struct vocab *v)
{
    d->n = v->n_ids;
    d->pieces = xcalloc((size_t)d->n, sizeof *d->pieces);
    for (int32_t id = 0; id < d->n; id++) {
        const struct vocab_token *t = &v->tokens[id];
        struct piece *p = &d->pieces[id];
        *p = (struct piece){.at = d->text.len};
        if (t->text == NULL || t->special) {
            continue;
        }
        p->is_shown = true;
        if (d->is_byte_level) {
            append_bytes(d, t);
        } else {
            append_replaced(d, s, t);
        }
        int byte = s->has_bytes ? byte_of(d->text.data + p->at, d->text.len - p->at) : -1;
        if (byte >= 0) {
            d->text.len = p->at;
            d->text.data[d->text.len++] = (char)byte;
            p->is_byte = true;
        }
        p->len = (uint32_t)(d->text.len - p->at);
    }
}

static int parse_metaspace(struct detok *d, const json_t *json, struct err *e)
{
    const json_t *space = json_object_get(json, "replacement");
    const char *scheme = json_string_value(json_object_get(json, "prepend_scheme"));
    const json_t *prefix = json_object_get(json, "add_prefix_space"); // as older files said it
    if (!json_is_string(space) || json_string_length(space) == 0) {
        return err_set(e, ERR_INPUT, "Metaspace: no \"replacement\"");
    }
    d->metaspace = xstrdup(json_string_value(space));
    d->drops_first = scheme != NULL ? strcmp(scheme, "never") != 0 : !json_is_false(prefix);
    return 0;
}

/* ByteLevel and Metaspace are decoders by themselves. */
static int parse_decoder(struct detok *d, struct steps *s, const json_t *json, struct err *e)
{
    const char *type = json_string_value(json_object_get(json, "type"));
    const json_t *list = json_object_get(json, "decoders");
    if (type != NULL && strcmp(type, "Sequence") == 0 && json_array_size(list) == 1) {
        return parse_decoder(d, s, json_array_get(list, 0), e);
    }
    if (type != NULL && strcmp(type, "ByteLevel") == 0) {
        d->is_byte_level = true;
        return 0;
    }
    if (type != NULL && strcmp(type, "Metaspace") == 0) {
        return parse_metaspace(d, json, e);
    }
    return parse_steps(d, s, json, e);
}

int detok_parse(struct detok **out, const struct json_t *decoder, const struct vocab *v,
                struct err *e)
{
    struct detok *d = xcalloc(1, sizeof *d);
    struct steps s = {.last = STEP_REPLACE};
    d->spaced = decoder == NULL || json_is_null(decoder);
    if (!d->spaced && parse_decoder(d, &s, decoder, e) != 0) {
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
        free(d->metaspace);
        str_free(&d->text);
        free(d);
    }
}

/* --- decoding --------------------------------------------------------------------------------- */

/*
 * Append bytes as UTF-8: what forms no character becomes U+FFFD, one per maximal part of one
 * (Unicode 16, section 3.9.6). Returns how many bytes are left: the beginning of a character, when
 * more may come.
 */
static size_t append_lossy(struct str *text, const char *s, size_t len, bool more)
{
    size_t at = 0;
    while (at < len) {
        size_t from = at;
        at += utf8_valid_span(s + at, len - at);
        str_append(text, s + from, at - from);
        if (at == len) {
            break;
        }
        size_t part = utf8_part(s + at, len - at);
        if (more && part == len - at && utf8_is_open(s + at, part)) {
            return part;
        }
        str_puts(text, REPLACEMENT);
        at += part;
    }
    return 0;
}

/* Byte-fallback tokens in a row: all valid together, or none. */
static void append_row(struct str *text, const struct str *row)
{
    if (utf8_valid(row->data, row->len)) {
        str_append(text, row->data, row->len);
        return;
    }
    for (size_t i = 0; i < row->len; i++) {
        str_puts(text, REPLACEMENT);
    }
}

static void release(const struct detok *d, struct detok_stream *s, bool more, struct str *text)
{
    size_t left = 0;
    if (s->held.len == 0) {
        return;
    }
    if (d->is_byte_level) {
        left = append_lossy(text, s->held.data, s->held.len, more);
        memmove(s->held.data, s->held.data + s->held.len - left, left);
    } else {
        append_row(text, &s->held);
    }
    s->held.len = left;
}

/* Cut the leading characters of what was appended behind `from`. */
static void strip_start(const struct detok *d, struct detok_stream *s, struct str *text,
                        size_t from)
{
    size_t cut = from;
    while (!s->is_stripped && cut < text->len) {
        s->is_stripped = s->n_strips == d->n_strip || text->len - cut < d->strip_len ||
                         memcmp(text->data + cut, d->strip, d->strip_len) != 0;
        if (!s->is_stripped) {
            s->n_strips++;
            cut += d->strip_len;
        }
    }
    if (cut > from) {
        memmove(text->data + from, text->data + cut, text->len - cut + 1);
        text->len -= cut - from;
    }
}

/* A token under Metaspace: spaces where its character stands, none for the leading ones. */
static void append_metaspaced(const struct detok *d, const char *piece, size_t len, bool is_first,
                              struct str *text)
{
    size_t n = strlen(d->metaspace);
    for (size_t i = 0; i < len;) {
        if (len - i < n || memcmp(piece + i, d->metaspace, n) != 0) {
            str_append(text, piece + i++, 1);
            continue;
        }
        str_puts(text, is_first && d->drops_first ? "" : " ");
        i += n;
    }
}

static void push_one(const struct detok *d, struct detok_stream *s, const struct piece *p,
                     struct str *text)
{
    const char *bytes = d->text.data + p->at;
    bool is_first = !s->is_begun;
    s->is_begun = true;
    if (d->spaced && !is_first) {
        str_puts(text, " ");
    }
    if (p->is_byte || d->is_byte_level) {
        str_append(&s->held, bytes, p->len);
        return;
    }
    release(d, s, true, text);
    if (d->metaspace != NULL) {
        append_metaspaced(d, bytes, p->len, is_first, text);
    } else {
        str_append(text, bytes, p->len);
    }
}

void detok_push(const struct detok *d, struct detok_stream *s, const int32_t *ids, size_t n,
                struct str *text)
{
    str_reserve(text, 0);
    size_t from = text->len;
    for (size_t i = 0; i < n; i++) {
        if (ids[i] >= 0 && ids[i] < d->n && d->pieces[ids[i]].is_shown) {
            push_one(d, s, &d->pieces[ids[i]], text);
        }
    }
    if (d->is_byte_level) {
        release(d, s, true, text);
    }
    strip_start(d, s, text, from);
}

void detok_settle(const struct detok *d, struct detok_stream *s, struct str *text)
{
    str_reserve(text, 0);
    size_t from = text->len;
    if (s->held.len > 0 && utf8_valid(s->held.data, s->held.len)) {
        release(d, s, true, text);
        strip_start(d, s, text, from);
    }
}

void detok_finish(const struct detok *d, struct detok_stream *s, struct str *text)
{
    str_reserve(text, 0);
    size_t from = text->len;
    release(d, s, false, text);
    strip_start(d, s, text, from);
    detok_stream_free(s);
}

void detok_stream_free(struct detok_stream *s)
{
    str_free(&s->held);
    *s = (struct detok_stream){0};
}
