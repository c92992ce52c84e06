#include "model/tokenizer.h"

#include "core/mem.h"
#include "model/arch.h"
#include "model/gguf_tokenizer.h"
#include "model/tokenizer_parts.h"
#include "model/unicode.h"
#include "model/word_cache.h"

#include <jansson.h>

#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#define MAX_FILE_BYTES ((size_t)256 << 20)

/* --- from JSON -------------------------------------------------------------------------------- */

/* Truncation and padding are left aside: nothing here cuts or fills a prompt. */
static int parse_parts(struct tokenizer *t, const json_t *root, struct err *e)
{
    if (!json_is_object(root)) {
        return err_set(e, ERR_INPUT, "not an object (the tokenizer.json of a model is)");
    }
    unicode_init();
    if (normalizer_parse(&t->normalizer, json_object_get(root, "normalizer"), e) != 0 ||
        pretokenizer_parse(&t->pretokenizer, json_object_get(root, "pre_tokenizer"), e) != 0 ||
        bpe_parse(&t->bpe, json_object_get(root, "model"), t->pretokenizer.is_byte_level, &t->vocab,
                  e) != 0 ||
        added_parse(&t->added, json_object_get(root, "added_tokens"), t->normalizer, &t->vocab,
                    e) != 0 ||
        postprocessor_parse(&t->postprocessor, json_object_get(root, "post_processor"),
                            t->vocab.cap, e) != 0) {
        return -1;
    }
    return detok_parse(&t->detok, json_object_get(root, "decoder"), &t->vocab, e);
}

int tokenizer_parse(struct tokenizer **out, const char *json, size_t len, const char *where,
                    int vocab, struct err *e)
{
    if (vocab < 1 || vocab > TOKENIZER_MAX_VOCAB) {
        return err_set(e, ERR_INPUT, "%s: vocabulary of %d (1..%d)", where, vocab,
                       TOKENIZER_MAX_VOCAB);
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

/* A file that cannot be read is for tokenizer_open to say. */
bool tokenizer_is_there(const char *model)
{
    struct gguf *g;
    struct err ignored;
    if (!arch_is_gguf(model) || gguf_open(&g, model, &ignored)) {
        return !arch_is_preset(model);
    }
    bool is_there = gguf_tokenizer_is_there(g);
    gguf_close(g);
    return is_there;
}

static int open_gguf(struct tokenizer **out, const char *path, int vocab, struct err *e)
{
    struct gguf *g;
    if (gguf_open(&g, path, e)) {
        return -1;
    }
    int rc = gguf_tokenizer_read(out, g, vocab, e);
    gguf_close(g);
    return rc;
}

int tokenizer_open(struct tokenizer **out, const char *model, int vocab, struct err *e)
{
    if (arch_is_gguf(model)) {
        return open_gguf(out, model, vocab, e);
    }
    struct str text = {0};
    char *path = xasprintf("%s/tokenizer.json", model);
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
    pretokenizer_free(&t->pretokenizer);
    normalizer_destroy(t->normalizer);
    vocab_free(&t->vocab);
    free(t);
}

/* --- encoding --------------------------------------------------------------------------------- */

struct tokenizer_encoder {
    const struct tokenizer *t;
    struct normalizer_work normal;
    struct str prepared;
    struct merges_work merges;
    struct word_cache cache; // without slots: nothing is remembered
};

/* `end`: how far the memory behind the word may be read. */
static void encode_piece(struct tokenizer_encoder *e, const char *word, size_t len, const char *end,
                         struct token_ids *ids)
{
    const struct bpe *bpe = e->t->bpe;
    if (len > WORD_CACHE_TEXT_MAX || e->cache.slots == NULL) {
        bpe_encode(bpe, &e->merges, word, len, ids);
        return;
    }
    bool found;
    struct word_cache_entry *known = word_cache_at(&e->cache, word, len, end, &found);
    if (found) {
        token_ids_reserve(ids, WORD_CACHE_IDS_MAX);
        memcpy(ids->v + ids->n, known->ids, sizeof known->ids);
        ids->n += known->n_ids;
        return;
    }
    size_t from = ids->n;
    bpe_encode(bpe, &e->merges, word, len, ids);
    size_t n = ids->n - from;
    known->n_ids = n <= WORD_CACHE_IDS_MAX ? (uint32_t)n : 0;
    memcpy(known->ids, ids->v + from, known->n_ids * sizeof *ids->v);
}

/* Text without any added token: word by word, and those by what may be encoded apart. */
static void encode_words(struct tokenizer_encoder *e, const char *text, size_t len, bool is_first,
                         struct token_ids *ids)
{
    const struct tokenizer *t = e->t;
    struct pretokenizer_words words;
    size_t word_len;
    len = pretokenizer_prepare(&t->pretokenizer, &e->prepared, text, len, is_first, &text);
    pretokenizer_begin(&words, &t->pretokenizer, text, len);
    for (const char *word; (word = pretokenizer_next(&words, &word_len)) != NULL;) {
        for (size_t done = 0, n; done < word_len; done += n) {
            size_t most = word_len - done < BPE_MAX_BYTES ? word_len - done : BPE_MAX_BYTES;
            n = bpe_cut(t->bpe, word + done, most);
            encode_piece(e, word + done, n, text + len, ids);
        }
    }
}

/*
 * Text without raw added tokens: normalise it, take the added tokens out of that, encode the rest.
 */
static void encode_raw(struct tokenizer_encoder *e, const char *raw, size_t raw_len, bool is_first,
                       struct token_ids *ids)
{
    const struct tokenizer *t = e->t;
    const char *text;
    size_t len = normalizer_apply(t->normalizer, &e->normal, raw, raw_len, &text);
    size_t done = 0;
    struct added_match m = {0};
    while (added_next(t->added, ADDED_NORMALIZED, text, len, m.resume, done, &m)) {
        if (m.begin > done) {
            encode_words(e, text + done, m.begin - done, is_first && done == 0, ids);
        }
        token_ids_push(ids, m.id);
        done = m.end;
    }
    if (len > done) {
        encode_words(e, text + done, len - done, is_first && done == 0, ids);
    }
}

void tokenizer_encoder_add(struct tokenizer_encoder *e, const char *text, size_t len,
                           bool with_special, struct token_ids *ids)
{
    const struct postprocessor *post = &e->t->postprocessor;
    struct added_match m = {0};
    size_t done = 0;
    if (with_special) {
        token_ids_append(ids, post->before.v, post->before.n);
    }
    while (added_next(e->t->added, ADDED_RAW, text, len, m.resume, done, &m)) {
        if (m.begin > done) {
            encode_raw(e, text + done, m.begin - done, done == 0, ids);
        }
        token_ids_push(ids, m.id);
        done = m.end;
    }
    if (len > done) {
        encode_raw(e, text + done, len - done, done == 0, ids);
    }
    if (with_special) {
        token_ids_append(ids, post->after.v, post->after.n);
    }
}

static void free_scratch(struct tokenizer_encoder *e)
{
    normalizer_work_free(&e->normal);
    str_free(&e->prepared);
    merges_work_free(&e->merges);
    word_cache_free(&e->cache);
}

struct tokenizer_encoder *tokenizer_encoder_new(const struct tokenizer *t)
{
    struct tokenizer_encoder *e = xcalloc(1, sizeof *e);
    e->t = t;
    word_cache_init(&e->cache);
    return e;
}

void tokenizer_encoder_free(struct tokenizer_encoder *e)
{
    if (e != NULL) {
        free_scratch(e);
        free(e);
    }
}

void tokenizer_encode(const struct tokenizer *t, const char *text, size_t len, bool with_special,
                      struct token_ids *ids)
{
    struct tokenizer_encoder e = {.t = t};
    tokenizer_encoder_add(&e, text, len, with_special, ids);
    free_scratch(&e);
}

/* --- decoding --------------------------------------------------------------------------------- */

struct tokenizer_stream {
    const struct detok *detok;
    struct detok_stream state;
};

struct tokenizer_stream *tokenizer_stream_new(const struct tokenizer *t, bool continues)
{
    struct tokenizer_stream *s = xcalloc(1, sizeof *s);
    s->detok = t->detok;
    s->state = (struct detok_stream){.is_begun = continues, .is_stripped = continues};
    return s;
}

void tokenizer_stream_free(struct tokenizer_stream *s)
{
    if (s != NULL) {
        detok_stream_free(&s->state);
        free(s);
    }
}

void tokenizer_stream_push(struct tokenizer_stream *s, const int32_t *ids, size_t n,
                           struct str *text)
{
    detok_push(s->detok, &s->state, ids, n, text);
    detok_settle(s->detok, &s->state, text);
}

void tokenizer_stream_finish(struct tokenizer_stream *s, struct str *text)
{
    detok_finish(s->detok, &s->state, text);
}

void tokenizer_decode(const struct tokenizer *t, const int32_t *ids, size_t n, bool continues,
                      struct str *text)
{
    struct detok_stream s = {.is_begun = continues, .is_stripped = continues};
    detok_push(t->detok, &s, ids, n, text);
    detok_finish(t->detok, &s, text);
}

void tokenizer_piece(const struct tokenizer *t, int32_t id, struct str *text)
{
    if (id < 0 || id >= t->vocab.n_ids || t->vocab.tokens[id].text == NULL) {
        return;
    }
    if (t->vocab.tokens[id].special) {
        str_append(text, t->vocab.tokens[id].text, t->vocab.tokens[id].len);
    } else {
        tokenizer_decode(t, &id, 1, true, text);
    }
}

int32_t tokenizer_find(const struct tokenizer *t, const char *token)
{
    return vocab_find(&t->vocab, token, strlen(token));
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
