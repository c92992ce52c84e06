#include "model/tokenizer.h"

#include "core/mem.h"
#include "model/added.h"
#include "model/bpe.h"
#include "model/detok.h"
#include "model/normalizer.h"
#include "model/vocab.h"

#include <jansson.h>

#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#define MAX_FILE_BYTES ((size_t)256 << 20)
#define MAX_TEMPLATE   16 // special tokens before or after a text
#define MAX_VOCAB      (1 << 24)

struct template_ids {
    int32_t v[MAX_TEMPLATE]; // (n)
    size_t n;
};

struct tokenizer {
    struct vocab vocab;
    struct normalizer *normalizer;
    struct added *added;
    struct bpe *bpe;
    struct detok *detok;
    struct template_ids before, after; // the text
    uint64_t hash;
};

/* --- from JSON -------------------------------------------------------------------------------- */

/* Add the ids of one special token of the template, as its table "special_tokens" gives them. */
static int add_template_ids(struct template_ids *t, const json_t *table, const char *name,
                            const struct vocab *v, struct err *e)
{
    const json_t *ids = json_object_get(json_object_get(table, name), "ids");
    if (json_array_size(ids) == 0) {
        return err_set(e, ERR_INPUT, "special_tokens has no ids for %.40s", name);
    }
    for (size_t i = 0; i < json_array_size(ids); i++) {
        const json_t *id = json_array_get(ids, i);
        json_int_t value = json_integer_value(id);
        if (!json_is_integer(id) || value < 0 || value >= v->cap) {
            return err_set(
                e, ERR_INPUT,
                "an id of %.40s does not match the vocabulary of config.json (ids 0..%d)", name,
                v->cap - 1);
        }
        if (t->n == MAX_TEMPLATE) {
            return err_set(e, ERR_INPUT, "more than %d special tokens on one side", MAX_TEMPLATE);
        }
        t->v[t->n++] = (int32_t)value;
    }
    return 0;
}

static int parse_template(struct tokenizer *t, const json_t *json, struct err *e)
{
    const json_t *table = json_object_get(json, "special_tokens");
    const json_t *single = json_object_get(json, "single");
    bool after = false;
    for (size_t i = 0; i < json_array_size(single); i++) {
        const json_t *item = json_array_get(single, i);
        const char *name =
            json_string_value(json_object_get(json_object_get(item, "SpecialToken"), "id"));
        if (name == NULL) {
            if (json_object_get(item, "Sequence") == NULL || after) {
                return err_set(e, ERR_INPUT,
                               "TemplateProcessing: \"single\" is not one Sequence "
                               "among SpecialTokens");
            }
            after = true;
        } else if (add_template_ids(after ? &t->after : &t->before, table, name, &t->vocab, e) !=
                   0) {
            return err_wrap(e, "TemplateProcessing");
        }
    }
    if (!after) {
        return err_set(e, ERR_INPUT, "TemplateProcessing: \"single\" has no Sequence");
    }
    return 0;
}

static bool is_absent(const json_t *v)
{
    return v == NULL || json_is_null(v);
}

static const char *type_of(const json_t *v)
{
    const char *type = json_string_value(json_object_get(v, "type"));
    return type != NULL ? type : "(none)";
}

static int parse_post_processor(struct tokenizer *t, const json_t *json, struct err *e)
{
    if (is_absent(json)) {
        return 0;
    }
    if (strcmp(type_of(json), "TemplateProcessing") != 0) {
        return err_set(
            e, ERR_INPUT,
            "post_processor: type %.40s is not supported (TemplateProcessing and null are)",
            type_of(json));
    }
    return parse_template(t, json, e) == 0 ? 0 : err_wrap(e, "post_processor");
}

/* Truncation and padding are left aside: nothing here cuts or fills a prompt. */
static int parse_parts(struct tokenizer *t, const json_t *root, struct err *e)
{
    if (!json_is_object(root)) {
        return err_set(e, ERR_INPUT, "not an object (the tokenizer.json of a model is)");
    }
    const json_t *pre = json_object_get(root, "pre_tokenizer");
    if (!is_absent(pre)) {
        return err_set(e, ERR_INPUT, "pre_tokenizer: type %.40s is not supported (null is)",
                       type_of(pre));
    }
    if (normalizer_parse(&t->normalizer, json_object_get(root, "normalizer"), e) != 0 ||
        bpe_parse(&t->bpe, json_object_get(root, "model"), &t->vocab, e) != 0 ||
        added_parse(&t->added, json_object_get(root, "added_tokens"), t->normalizer, &t->vocab,
                    e) != 0 ||
        parse_post_processor(t, json_object_get(root, "post_processor"), e) != 0) {
        return -1;
    }
    return detok_parse(&t->detok, json_object_get(root, "decoder"), &t->vocab, e);
}

int tokenizer_parse(struct tokenizer **out, const char *json, size_t len, const char *where,
                    int vocab, struct err *e)
{
    if (vocab < 1 || vocab > MAX_VOCAB) {
        return err_set(e, ERR_INPUT, "%s: vocabulary of %d (1..%d)", where, vocab, MAX_VOCAB);
    }
    json_error_t je;
    json_t *root = json_loadb(json, len, JSON_REJECT_DUPLICATES, &je);
    if (root == NULL) {
        return err_set(e, ERR_INPUT, "%s:%d:%d: not JSON: %s", where, je.line, je.column, je.text);
    }
    struct tokenizer *t = xcalloc(1, sizeof *t);
    t->hash = XXH64(json, len, 0);
    vocab_init(&t->vocab, vocab);
    int rc = parse_parts(t, root, e);
    json_decref(root);
    if (rc != 0) {
        tokenizer_close(t);
        return err_wrap(e, "%s", where);
    }
    *out = t;
    return 0;
}

int tokenizer_open(struct tokenizer **out, const char *dir, int vocab, struct err *e)
{
    struct str text = {0};
    char *path = xasprintf("%s/tokenizer.json", dir);
    int rc = str_read_file(&text, path, MAX_FILE_BYTES, e);
    if (rc == 0) {
        rc = tokenizer_parse(out, text.data, text.len, path, vocab, e);
    }
    str_free(&text);
    free(path);
    return rc;
}

void tokenizer_close(struct tokenizer *t)
{
    if (t == NULL) {
        return;
    }
    detok_destroy(t->detok);
    added_destroy(t->added);
    bpe_destroy(t->bpe);
    normalizer_destroy(t->normalizer);
    vocab_free(&t->vocab);
    free(t);
}

/* --- encoding --------------------------------------------------------------------------------- */

struct work {
    struct normalizer_work normal;
    struct bpe_work bpe;
};

/*
 * Text without raw added tokens: normalise it, take the added tokens out of that, encode the rest.
 */
static void encode_raw(const struct tokenizer *t, struct work *w, const char *raw, size_t raw_len,
                       struct token_ids *ids)
{
    const char *text;
    size_t len = normalizer_apply(t->normalizer, &w->normal, raw, raw_len, &text);
    size_t done = 0;
    struct added_match m = {0};
    while (added_next(t->added, ADDED_NORMALIZED, text, len, m.resume, done, &m)) {
        if (m.begin > done) {
            bpe_encode(t->bpe, &w->bpe, text + done, m.begin - done, ids);
        }
        token_ids_push(ids, m.id);
        done = m.end;
    }
    if (len > done) {
        bpe_encode(t->bpe, &w->bpe, text + done, len - done, ids);
    }
}

static void push_all(struct token_ids *ids, const struct template_ids *t)
{
    for (size_t i = 0; i < t->n; i++) {
        token_ids_push(ids, t->v[i]);
    }
}

void tokenizer_encode(const struct tokenizer *t, const char *text, size_t len, bool with_special,
                      struct token_ids *ids)
{
    struct work w = {0};
    struct added_match m = {0};
    size_t done = 0;
    if (with_special) {
        push_all(ids, &t->before);
    }
    while (added_next(t->added, ADDED_RAW, text, len, m.resume, done, &m)) {
        if (m.begin > done) {
            encode_raw(t, &w, text + done, m.begin - done, ids);
        }
        token_ids_push(ids, m.id);
        done = m.end;
    }
    if (len > done) {
        encode_raw(t, &w, text + done, len - done, ids);
    }
    if (with_special) {
        push_all(ids, &t->after);
    }
    normalizer_work_free(&w.normal);
    bpe_work_free(&w.bpe);
}

void tokenizer_decode(const struct tokenizer *t, const int32_t *ids, size_t n, bool continues,
                      struct str *text)
{
    detok_append(t->detok, ids, n, continues, text);
}

uint64_t tokenizer_hash(const struct tokenizer *t)
{
    return t->hash;
}

int tokenizer_vocab(const struct tokenizer *t)
{
    return t->vocab.n_ids;
}

bool tokenizer_is_ordinary(const struct tokenizer *t, int32_t id)
{
    return id >= 0 && id < t->vocab.n_ids && t->vocab.tokens[id].text != NULL &&
           !t->vocab.tokens[id].special;
}
