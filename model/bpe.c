#include "model/bpe.h"

#include "core/mem.h"
#include "model/bytelevel.h"
#include "model/token_ids.h"
#include "model/utf8.h"

#include <jansson.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define N_PAGES (0x110000 / 256) // of the character table

/*
 * A set of symbols that may hold more than was put in: ids that differ by a multiple of 256 share a
 * bit.
 */
struct joint_mask {
    uint64_t bits[4];
};

struct bpe {
    const struct vocab *vocab;
    struct merges merges;
    struct joint_mask *joints; // (vocab->n_ids) by left symbol: right ones that may join it
    struct bpe_features f;
    bool may_cut;            // joints tell where
    bool has_all_bytes;      // byte_fallback has a stand-in for every byte
    int32_t raw[256];        // byte-level: symbol by byte, or -1
    int32_t bytes[256];      // byte_fallback: id of <0xNN>, or -1
    int32_t *chars[N_PAGES]; // (256) each: id by character, -1 none; NULL: page without any
};

/* --- building --------------------------------------------------------------------------------- */

static void map_chars(struct bpe *b)
{
    for (int32_t id = 0; id < b->vocab->n_ids; id++) {
        const struct vocab_token *t = &b->vocab->tokens[id];
        uint32_t code;
        if (t->text == NULL || t->len == 0 || utf8_next(t->text, t->len, &code) != t->len ||
            code == UTF8_INVALID) {
            continue;
        }
        int32_t **page = &b->chars[code / 256];
        if (*page == NULL) {
            *page = xmalloc(256 * sizeof **page);
            memset(*page, 0xFF, 256 * sizeof **page);
        }
        (*page)[code % 256] = id;
    }
}

static void map_bytes(struct bpe *b)
{
    for (unsigned i = 0; i < 256; i++) {
        char text[8];
        int n = snprintf(text, sizeof text, "<0x%02X>", i);
        b->bytes[i] = b->f.has_byte_fallback ? vocab_find(b->vocab, text, (size_t)n) : -1;
        b->has_all_bytes = (i == 0 || b->has_all_bytes) && b->bytes[i] >= 0;
        n = (int)bytelevel_put((uint8_t)i, text);
        b->raw[i] = vocab_find(b->vocab, text, (size_t)n);
    }
}

struct bpe *bpe_new(const struct vocab *v, const struct bpe_features *f, size_t n_merges)
{
    struct bpe *b = xcalloc(1, sizeof *b);
    b->vocab = v;
    b->f = *f;
    b->may_cut = !f->is_byte_level && !f->ignore_merges;
    map_chars(b);
    map_bytes(b);
    merges_init(&b->merges, n_merges);
    b->joints = xcalloc((size_t)v->n_ids + 1, sizeof *b->joints);
    return b;
}

void bpe_destroy(struct bpe *b)
{
    if (b == NULL) {
        return;
    }
    for (size_t i = 0; i < N_PAGES; i++) {
        free(b->chars[i]);
    }
    merges_free(&b->merges);
    free(b->joints);
    free(b);
}

/* The symbol of a character, -1 when it has none. */
static int32_t char_id(const struct bpe *b, uint32_t code)
{
    const int32_t *page = code != UTF8_INVALID ? b->chars[code / 256] : NULL;
    return page != NULL ? page[code % 256] : -1;
}

/* The symbol of the first (or last) character of a token, -1 if that is none. */
static int32_t edge_symbol(const struct bpe *b, const struct vocab_token *t, bool last)
{
    uint32_t code = UTF8_INVALID;
    for (size_t i = 0; i < t->len;) {
        i += utf8_next(t->text + i, t->len - i, &code);
        if (!last) {
            break;
        }
    }
    return char_id(b, code);
}

/* Symbols that text becomes without being spelt that way. */
static bool is_stand_in(const struct bpe *b, int32_t id)
{
    const struct vocab_token *t = &b->vocab->tokens[id];
    unsigned byte;
    bool is_byte =
        t->len == 6 && sscanf(t->text, "<0x%2X>", &byte) == 1 && byte < 256 && b->bytes[byte] == id;
    return is_byte || id == b->f.unk;
}

/*
 * Where text may be cut without changing the result: between two symbols that no merge can ever
 * join, because none has a left part that ends in the one and a right part that begins with the
 * other. So long texts stay linear.
 */
static void note_joint(struct bpe *b, int32_t left, int32_t right)
{
    if (is_stand_in(b, left) || is_stand_in(b, right)) {
        b->may_cut = false;
    }
    int32_t last = edge_symbol(b, &b->vocab->tokens[left], true);
    int32_t first = edge_symbol(b, &b->vocab->tokens[right], false);
    if (last >= 0 && first >= 0) {
        b->joints[last].bits[first / 64 % 4] |= 1ULL << (first % 64);
    }
}

void bpe_merge(struct bpe *b, int32_t left, int32_t right, uint32_t rank, int32_t merged)
{
    merges_add(&b->merges, left, right, rank, merged);
    note_joint(b, left, right);
}

struct text {
    const char *s;
    size_t len;
};

static int merge_parts(struct bpe *b, const struct text part[2], uint32_t rank, struct err *e)
{
    int32_t left = vocab_find(b->vocab, part[0].s, part[0].len);
    int32_t right = vocab_find(b->vocab, part[1].s, part[1].len);
    size_t len = part[0].len + part[1].len;
    int32_t merged = -1;
    if (left >= 0 && right >= 0 && len <= b->vocab->max_len) {
        char *both = xmalloc(len);
        memcpy(both, part[0].s, part[0].len);
        memcpy(both + part[0].len, part[1].s, part[1].len);
        merged = vocab_find(b->vocab, both, len);
        free(both);
    }
    if (merged < 0) {
        return err_set(e, ERR_INPUT, "%s is not in the vocabulary",
                       left < 0 ? "its left part" : (right < 0 ? "its right part" : "its result"));
    }
    bpe_merge(b, left, right, rank, merged);
    return 0;
}

int bpe_merge_text(struct bpe *b, const char *text, size_t len, uint32_t rank, struct err *e)
{
    const char *space = memchr(text, ' ', len), *end = text + len;
    if (space == NULL || memchr(space + 1, ' ', (size_t)(end - space - 1)) != NULL) {
        return err_set(e, ERR_INPUT, "not of the form \"a b\"");
    }
    const struct text part[2] = {{text, (size_t)(space - text)},
                                 {space + 1, (size_t)(end - space - 1)}};
    return merge_parts(b, part, rank, e);
}

/* --- from JSON -------------------------------------------------------------------------------- */

static int check_features(const json_t *model, struct err *e)
{
    const json_t *type = json_object_get(model, "type");
    if (!json_is_object(model) || (type != NULL && !json_is_string(type))) {
        return err_set(e, ERR_INPUT, "model: not an object with a \"type\" (BPE is supported)");
    }
    if (type != NULL && strcmp(json_string_value(type), "BPE") != 0) {
        return err_set(e, ERR_INPUT, "model.type: %.40s is not supported (BPE is)",
                       json_string_value(type));
    }
    const json_t *dropout = json_object_get(model, "dropout");
    if (dropout != NULL && !json_is_null(dropout) && json_number_value(dropout) != 0.0) {
        return err_set(e, ERR_INPUT, "model.dropout: not supported (null is)");
    }
    static const char *const affixes[] = {"continuing_subword_prefix", "end_of_word_suffix"};
    for (size_t i = 0; i < sizeof affixes / sizeof *affixes; i++) {
        const json_t *v = json_object_get(model, affixes[i]);
        if (v != NULL && !json_is_null(v) && json_string_length(v) != 0) {
            return err_set(e, ERR_INPUT, "model.%s: not supported (null is)", affixes[i]);
        }
    }
    return 0;
}

static int add_vocabulary(struct vocab *v, json_t *map, struct err *e)
{
    if (!json_is_object(map) || json_object_size(map) == 0) {
        return err_set(e, ERR_INPUT, "model.vocab: not an object of token ids");
    }
    const char *text;
    json_t *id;
    json_object_foreach(map, text, id)
    {
        if (!json_is_integer(id)) {
            return err_set(e, ERR_INPUT, "model.vocab: an id is not a whole number");
        }
        if (vocab_add(v, text, strlen(text), json_integer_value(id), e) != 0) {
            return err_wrap(e, "model.vocab");
        }
    }
    return 0;
}

static int find_unknown(const struct vocab *v, const json_t *unk, int32_t *id, struct err *e)
{
    *id = -1;
    if (unk == NULL || json_is_null(unk)) {
        return 0;
    }
    if (json_is_string(unk)) {
        *id = vocab_find(v, json_string_value(unk), json_string_length(unk));
    }
    if (*id < 0) {
        return err_set(e, ERR_INPUT, "model.unk_token: not a token of the vocabulary");
    }
    return 0;
}

/* "a b" or ["a", "b"]. */
static int add_merge(struct bpe *b, const json_t *merge, uint32_t rank, struct err *e)
{
    struct text part[2];
    if (json_is_string(merge)) {
        return bpe_merge_text(b, json_string_value(merge), json_string_length(merge), rank, e);
    }
    for (size_t i = 0; i < 2; i++) {
        const json_t *p = json_array_get(merge, i);
        if (json_array_size(merge) != 2 || !json_is_string(p)) {
            return err_set(e, ERR_INPUT, "neither \"a b\" nor [\"a\", \"b\"]");
        }
        part[i] = (struct text){json_string_value(p), json_string_length(p)};
    }
    return merge_parts(b, part, rank, e);
}

static int add_merges(struct bpe *b, const json_t *list, struct err *e)
{
    for (size_t i = 0; i < json_array_size(list); i++) {
        if (add_merge(b, json_array_get(list, i), (uint32_t)i, e) != 0) {
            return err_wrap(e, "model.merges[%zu]", i);
        }
    }
    return 0;
}

int bpe_parse(struct bpe **out, const struct json_t *model, bool is_byte_level, struct vocab *v,
              struct err *e)
{
    const json_t *merges = json_object_get(model, "merges");
    struct bpe_features f = {
        .is_byte_level = is_byte_level,
        .has_byte_fallback = json_is_true(json_object_get(model, "byte_fallback")),
        .fuse_unk = json_is_true(json_object_get(model, "fuse_unk")),
        .ignore_merges = json_is_true(json_object_get(model, "ignore_merges")),
    };
    if (check_features(model, e) != 0 ||
        add_vocabulary(v, json_object_get(model, "vocab"), e) != 0 ||
        find_unknown(v, json_object_get(model, "unk_token"), &f.unk, e) != 0) {
        return -1;
    }
    if (!json_is_array(merges) || json_array_size(merges) >= INT32_MAX) {
        return err_set(e, ERR_INPUT, "model.merges: not a list");
    }
    struct bpe *b = bpe_new(v, &f, json_array_size(merges));
    if (add_merges(b, merges, e) != 0) {
        bpe_destroy(b);
        return -1;
    }
    *out = b;
    return 0;
}

/* --- cutting ---------------------------------------------------------------------------------- */

/*
 * Between characters without a symbol (-1) nothing joins if all of them become bytes; else they
 * may be unknown, and those fuse.
 */
static bool may_join(const struct bpe *b, int32_t left, int32_t right)
{
    if (left < 0 || right < 0) {
        return !b->has_all_bytes;
    }
    return (b->joints[left].bits[right / 64 % 4] >> (right % 64) & 1) != 0;
}

size_t bpe_cut(const struct bpe *b, const char *text, size_t len)
{
    if (!b->may_cut) {
        return len;
    }
    uint32_t code;
    size_t at = utf8_next(text, len, &code);
    int32_t left = char_id(b, code);
    while (at < len) {
        size_t n = 1;
        code = (uint8_t)text[at];
        if (code >= 0x80) {
            n = utf8_next(text + at, len - at, &code);
        }
        int32_t right = char_id(b, code);
        if (!may_join(b, left, right)) {
            break;
        }
        left = right;
        at += n;
    }
    return at;
}

/* --- encoding --------------------------------------------------------------------------------- */

/* The symbols of a word as it is read; room for two per byte. */
struct symbols {
    int32_t *v;
    size_t n;
    bool unknown; // characters before wait to become one unknown token
};

static void close_unknown(const struct bpe *b, struct symbols *s)
{
    if (s->unknown) {
        s->v[s->n++] = b->f.unk;
        s->unknown = false;
    }
}

/*
 * A character that has no symbol: all its bytes by their stand-ins, or the unknown token. Bytes
 * overtake an unknown token that waits, as in `tokenizers`.
 */
static void push_missing(const struct bpe *b, struct symbols *s, const char *text, size_t len)
{
    bool has_bytes = true;
    for (size_t i = 0; i < len; i++) {
        has_bytes = has_bytes && b->bytes[(uint8_t)text[i]] >= 0;
    }
    if (has_bytes) {
        for (size_t i = 0; i < len; i++) {
            s->v[s->n++] = b->bytes[(uint8_t)text[i]];
        }
    } else if (b->f.unk >= 0) {
        if (!b->f.fuse_unk) {
            close_unknown(b, s);
        }
        s->unknown = true;
    }
}

static void push_symbol(const struct bpe *b, struct symbols *s, int32_t symbol)
{
    close_unknown(b, s);
    s->v[s->n++] = symbol;
}

static void push_chars(const struct bpe *b, struct symbols *s, const char *text, size_t len)
{
    for (size_t i = 0; i < len;) {
        uint32_t code;
        size_t n = utf8_next(text + i, len - i, &code);
        int32_t id = char_id(b, code);
        if (id >= 0) {
            push_symbol(b, s, id);
        } else {
            push_missing(b, s, text + i, n);
        }
        i += n;
    }
}

static void push_raw(const struct bpe *b, struct symbols *s, const char *text, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        uint8_t byte = (uint8_t)text[i];
        if (b->raw[byte] >= 0) {
            push_symbol(b, s, b->raw[byte]);
        } else {
            char as_char[BYTELEVEL_MAX];
            push_missing(b, s, as_char, bytelevel_put(byte, as_char));
        }
    }
}

/* The token that is the word as a whole, or -1. */
static int32_t find_whole(const struct bpe *b, const char *text, size_t len)
{
    if (!b->f.is_byte_level) {
        return vocab_find(b->vocab, text, len);
    }
    char small[256] = "", *spelt = small;
    if (len > b->vocab->max_len) {
        return -1;
    }
    if (len > sizeof small / BYTELEVEL_MAX) {
        spelt = xmalloc(len * BYTELEVEL_MAX);
    }
    size_t n = 0;
    for (size_t i = 0; i < len; i++) {
        n += bytelevel_put((uint8_t)text[i], spelt + n);
    }
    int32_t id = vocab_find(b->vocab, spelt, n);
    if (spelt != small) {
        free(spelt);
    }
    return id;
}

void bpe_encode(const struct bpe *b, struct merges_work *w, const char *text, size_t len,
                struct token_ids *ids)
{
    int32_t whole = b->f.ignore_merges ? find_whole(b, text, len) : -1;
    if (whole >= 0) {
        token_ids_push(ids, whole);
        return;
    }
    CHECK(len <= BPE_MAX_BYTES);
    token_ids_reserve(ids, 2 * len + 1);
    struct symbols s = {.v = ids->v + ids->n};
    if (b->f.is_byte_level) {
        push_raw(b, &s, text, len);
    } else {
        push_chars(b, &s, text, len);
    }
    close_unknown(b, &s);
    ids->n += merges_apply(&b->merges, w, s.v, s.n);
}
