#include "model/gguf_tokenizer.h"

#include "core/mem.h"
#include "model/tokenizer.h"
#include "model/tokenizer_parts.h"
#include "model/unicode.h"
#include "model/utf8.h"

#include <jansson.h>

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PREFIX         "tokenizer.ggml."
#define MAX_TEXT_BYTES ((size_t)256 << 20) // of all tokens
#define MAX_PIECE      1024                // bytes of a token that is made by joining others
#define SPACE          "\xE2\x96\x81"      // U+2581

enum type { // of a token, as the file numbers them
    NORMAL = 1,
    UNKNOWN,
    CONTROL,
    USER_DEFINED,
    UNUSED,
    BYTE,
};

/* How text is cut, by tokenizer.ggml.pre, and what the models that say so have in common. */
static const struct cutting {
    const char *names[5];
    splitters_fn *stages[3];
    bool ignore_merges, adds_bos, composes; // composes: to NFC, before
} cuttings[] = {
    {.names = {"gpt-2"}, .stages = {splitters_gpt2}},
    {.names = {"llama-bpe", "llama3", "llama-v3", "falcon3"},
     .stages = {splitters_llama3},
     .ignore_merges = true,
     .adds_bos = true},
    {.names = {"smaug-bpe"}, .stages = {splitters_llama3}},
    {.names = {"qwen2", "deepseek-r1-qwen"}, .stages = {splitters_qwen2}, .composes = true},
    {.names = {"qwen35"}, .stages = {splitters_qwen3_5}, .composes = true},
    {.names = {"gpt-4o", "llama4"}, .stages = {splitters_o200k}},
    {.names = {"tekken"}, .stages = {splitters_tekken}, .ignore_merges = true, .adds_bos = true},
    {.names = {"deepseek-v3"}, .stages = {splitters_digits3, splitters_cjk, splitters_deepseek}},
    {.names = {"smollm"}, .stages = {splitters_digit, splitters_gpt2}},
};

#define CUTTINGS                                                                                   \
    "gpt-2, llama-bpe, smaug-bpe, qwen2, deepseek-r1-qwen, qwen35, gpt-4o, llama4, tekken, "       \
    "deepseek-v3 and smollm"

struct reader {
    const struct gguf *g;
    struct tokenizer *t;
    bool is_spelt;                 // kind "llama"
    const struct cutting *cutting; // kind "gpt2"
    uint8_t *types;                // (n) enum type
    int32_t n;                     // tokens in the file
    bool has_prefix, has_bytes;
    struct err *e;
};

/* --- values ----------------------------------------------------------------------------------- */

static int missing(const struct reader *r, const char *key, const char *wanted)
{
    return err_set(r->e, ERR_INPUT, "metadata %s: %s wanted", key, wanted);
}

/* true or false, `standard` where the file does not say. */
static int read_flag(const struct reader *r, const char *key, bool standard, bool *out)
{
    *out = standard;
    return gguf_has(r->g, key) && !gguf_bool(r->g, key, out) ? missing(r, key, "true or false") : 0;
}

/* The id of a special token, `standard` where the file does not say. */
static int read_id(const struct reader *r, const char *key, int32_t standard, int32_t *out)
{
    int64_t id = standard;
    if (gguf_has(r->g, key) && !gguf_int(r->g, key, &id)) {
        return missing(r, key, "a token id");
    }
    if (id < -1 || id >= r->n) {
        return err_set(r->e, ERR_INPUT, "metadata %s is %" PRId64 "; the file has tokens 0..%d",
                       key, id, r->n - 1);
    }
    *out = (int32_t)id;
    return 0;
}

/* An array with one element for each token. */
static int find_array(const struct reader *r, const char *key, struct gguf_array *out)
{
    if (!gguf_array(r->g, key, out) || out->is_text) {
        return missing(r, key, "a list of numbers");
    }
    if (out->n != (uint64_t)r->n) {
        return err_set(r->e, ERR_INPUT, "metadata %s has %" PRIu64 " values for %d tokens", key,
                       out->n, r->n);
    }
    return 0;
}

/* --- tokens ----------------------------------------------------------------------------------- */

static int read_types(struct reader *r)
{
    const char *key = PREFIX "token_type";
    struct gguf_array types;
    if (find_array(r, key, &types)) {
        return -1;
    }
    for (int32_t i = 0; i < r->n; i++) {
        int64_t type = 0;
        if (!gguf_array_int(&types, (uint64_t)i, &type) || type < NORMAL || type > BYTE) {
            return err_set(r->e, ERR_INPUT, "metadata %s[%d] is not a type of token (1 to 6)", key,
                           i);
        }
        r->types[i] = (uint8_t)type;
        r->has_bytes |= type == BYTE;
    }
    return 0;
}

static bool is_byte(const char *text, size_t len)
{
    static const char digits[] = "0123456789ABCDEF";
    return len == 6 && memcmp(text, "<0x", 3) == 0 && memchr(digits, text[3], 16) != NULL &&
           memchr(digits, text[4], 16) != NULL && text[5] == '>';
}

static int add_token(const struct reader *r, int32_t id, const char *text, size_t len)
{
    const bool is_normal = r->types[id] == NORMAL;
    if (r->types[id] == UNUSED || len == 0) {
        return 0;
    }
    if (!utf8_valid(text, len)) {
        return err_set(r->e, ERR_INPUT, "it is no UTF-8");
    }
    if (r->is_spelt && is_normal && len > MAX_PIECE) {
        return err_set(r->e, ERR_INPUT, "it has %zu bytes; at most %d are supported", len,
                       MAX_PIECE);
    }
    if (r->types[id] == BYTE && !is_byte(text, len)) {
        return err_set(r->e, ERR_INPUT, "it is a byte, and not <0x00> to <0xFF>");
    }
    if (vocab_add(&r->t->vocab, text, len, id, r->e)) {
        return -1;
    }
    r->t->vocab.tokens[id].special = r->types[id] == CONTROL || r->types[id] == UNKNOWN;
    return 0;
}

static int read_tokens(struct reader *r)
{
    const char *key = PREFIX "tokens", *text;
    struct gguf_array tokens;
    size_t len, n_bytes = 0;
    if (!gguf_array(r->g, key, &tokens) || !tokens.is_text || tokens.n == 0) {
        return missing(r, key, "a list of texts");
    }
    if (tokens.n > (uint64_t)r->t->vocab.cap) {
        return err_set(r->e, ERR_INPUT,
                       "metadata %s has %" PRIu64 " tokens, token_embd.weight %d rows", key,
                       tokens.n, r->t->vocab.cap);
    }
    r->n = (int32_t)tokens.n;
    r->types = xcalloc((size_t)r->n, sizeof *r->types);
    if (read_types(r)) {
        return -1;
    }
    for (int32_t id = 0; gguf_array_text(&tokens, &text, &len); id++) {
        n_bytes += len;
        if (n_bytes > MAX_TEXT_BYTES) {
            return err_set(r->e, ERR_INPUT, "metadata %s has more than %zu MiB", key,
                           MAX_TEXT_BYTES >> 20);
        }
        if (add_token(r, id, text, len)) {
            return err_wrap(r->e, "metadata %s[%d]", key, id);
        }
    }
    return 0;
}

/* What is one token wherever it stands in a text. */
static void read_added(struct reader *r)
{
    const struct vocab *v = &r->t->vocab;
    r->t->added = added_new();
    for (int32_t id = 0; id < v->n_ids; id++) {
        if (v->tokens[id].special || (v->tokens[id].text && r->types[id] == USER_DEFINED)) {
            added_raw(r->t->added, v, id);
        }
    }
}

/* --- SentencePiece ---------------------------------------------------------------------------- */

struct scored {
    double score;
    int32_t id;
};

static int by_score(const void *a, const void *b)
{
    const struct scored *x = a, *y = b;
    return (x->score < y->score) - (x->score > y->score);
}

/* ranks (n): the place of each token's score, the best first; equal scores share one. */
static int rank_scores(const struct reader *r, uint32_t *ranks)
{
    const char *key = PREFIX "scores";
    struct gguf_array scores;
    if (find_array(r, key, &scores)) {
        return -1;
    }
    struct scored *order = xcalloc((size_t)r->n, sizeof *order);
    for (int32_t i = 0; i < r->n; i++) {
        order[i].id = i;
        if (!gguf_array_number(&scores, (uint64_t)i, &order[i].score) ||
            !isfinite(order[i].score)) {
            free(order);
            return err_set(r->e, ERR_INPUT, "metadata %s[%d] is not a finite number", key, i);
        }
    }
    qsort(order, (size_t)r->n, sizeof *order, by_score);
    for (int32_t i = 0, rank = 0; i < r->n; i++) {
        rank += i > 0 && order[i].score < order[i - 1].score;
        ranks[order[i].id] = (uint32_t)rank;
    }
    free(order);
    return 0;
}

/* All ways to join two tokens to one. */
struct joins {
    struct join {
        int32_t left, right, merged;
    } * v; // (n)
    size_t n, cap;
};

static int32_t find_normal(const struct reader *r, const char *text, size_t len)
{
    const int32_t id = vocab_find(&r->t->vocab, text, len);
    return id >= 0 && r->types[id] == NORMAL ? id : -1;
}

static void find_joins(const struct reader *r, int32_t merged, struct joins *j)
{
    const struct vocab_token *t = &r->t->vocab.tokens[merged];
    uint32_t code;
    if (!t->text || r->types[merged] != NORMAL) {
        return;
    }
    for (size_t i = utf8_next(t->text, t->len, &code); i < t->len;
         i += utf8_next(t->text + i, t->len - i, &code)) {
        const int32_t left = find_normal(r, t->text, i);
        const int32_t right = left >= 0 ? find_normal(r, t->text + i, t->len - i) : -1;
        if (right < 0) {
            continue;
        }
        if (j->n == j->cap) {
            j->cap = j->cap ? 2 * j->cap : 1024;
            j->v = xrealloc(j->v, j->cap * sizeof *j->v);
        }
        j->v[j->n++] = (struct join){left, right, merged};
    }
}

static int read_spelt(struct reader *r)
{
    struct bpe_features f = {.has_byte_fallback = r->has_bytes, .fuse_unk = true};
    uint32_t *ranks = xcalloc((size_t)r->n, sizeof *ranks);
    struct joins j = {0};
    int rc = read_id(r, PREFIX "unknown_token_id", -1, &f.unk) || rank_scores(r, ranks) ? -1 : 0;
    for (int32_t id = 0; rc == 0 && f.unk < 0 && id < r->n; id++) {
        f.unk = r->types[id] == UNKNOWN ? id : -1;
    }
    for (int32_t id = 0; rc == 0 && id < r->t->vocab.n_ids; id++) {
        find_joins(r, id, &j);
    }
    if (rc == 0) {
        r->t->bpe = bpe_new(&r->t->vocab, &f, j.n);
    }
    for (size_t i = 0; i < j.n; i++) {
        bpe_merge(r->t->bpe, j.v[i].left, j.v[i].right, ranks[j.v[i].merged], j.v[i].merged);
    }
    free(j.v);
    free(ranks);
    return rc;
}

/* --- byte-level ------------------------------------------------------------------------------- */

static int find_cutting(struct reader *r)
{
    const char *key = PREFIX "pre";
    char name[64];
    if (!gguf_text(r->g, key, name, sizeof name)) {
        return missing(r, key, "one of " CUTTINGS);
    }
    for (size_t i = 0; i < sizeof cuttings / sizeof *cuttings; i++) {
        for (size_t k = 0; cuttings[i].names[k]; k++) {
            if (strcmp(cuttings[i].names[k], name) == 0) {
                r->cutting = &cuttings[i];
                return 0;
            }
        }
    }
    return err_set(r->e, ERR_INPUT, "metadata %s is %s; " CUTTINGS " are supported", key, name);
}

static int read_byte_level(struct reader *r)
{
    const char *key = PREFIX "merges", *text;
    struct pretokenizer *p = &r->t->pretokenizer;
    struct gguf_array merges;
    size_t len;
    if (!gguf_array(r->g, key, &merges) || !merges.is_text) {
        return missing(r, key, "a list of texts");
    }
    if (merges.n >= INT32_MAX) {
        return err_set(r->e, ERR_INPUT, "metadata %s has %" PRIu64 " merges", key, merges.n);
    }
    p->is_byte_level = true;
    for (size_t i = 0; i < 3 && r->cutting->stages[i]; i++) {
        p->stages[p->n_stages++].split = r->cutting->stages[i];
    }
    const struct bpe_features f = {
        .is_byte_level = true, .ignore_merges = r->cutting->ignore_merges, .unk = -1};
    r->t->bpe = bpe_new(&r->t->vocab, &f, (size_t)merges.n);
    for (uint32_t i = 0; gguf_array_text(&merges, &text, &len); i++) {
        if (bpe_merge_text(r->t->bpe, text, len, i, r->e)) {
            return err_wrap(r->e, "metadata %s[%u]", key, i);
        }
    }
    return 0;
}

/* --- what is done before and after ------------------------------------------------------------ */

#define REPLACE(from, to)                                                                          \
    "{\"type\": \"Replace\", \"pattern\": {\"String\": \"" from "\"}, \"content\": \"" to "\"}"
#define PREPEND "{\"type\": \"Prepend\", \"prepend\": \"" SPACE "\"}"
#define STRIP   "{\"type\": \"Strip\", \"content\": \" \", \"start\": 1, \"stop\": 0}"
#define UNSPELL REPLACE(SPACE, " ") ", {\"type\": \"ByteFallback\"}, {\"type\": \"Fuse\"}"

static const char *normalizer_of(const struct reader *r)
{
    if (r->is_spelt) {
        return r->has_prefix ? "{\"type\": \"Sequence\", \"normalizers\": [" PREPEND
                               ", " REPLACE(" ", SPACE) "]}"
                             : REPLACE(" ", SPACE);
    }
    return r->cutting->composes ? "{\"type\": \"NFC\"}" : "null";
}

static const char *decoder_of(const struct reader *r)
{
    if (!r->is_spelt) {
        return "{\"type\": \"ByteLevel\"}";
    }
    return r->has_prefix ? "{\"type\": \"Sequence\", \"decoders\": [" UNSPELL ", " STRIP "]}"
                         : "{\"type\": \"Sequence\", \"decoders\": [" UNSPELL "]}";
}

/* These two are said as a tokenizer.json says them. */
static int read_ends(struct reader *r)
{
    json_t *normalizer = json_loads(normalizer_of(r), JSON_DECODE_ANY, NULL);
    json_t *decoder = json_loads(decoder_of(r), JSON_DECODE_ANY, NULL);
    CHECK(normalizer && decoder);
    int rc = normalizer_parse(&r->t->normalizer, normalizer, r->e) ||
                     detok_parse(&r->t->detok, decoder, &r->t->vocab, r->e)
                 ? -1
                 : 0;
    json_decref(normalizer);
    json_decref(decoder);
    return rc;
}

static int read_end(const struct reader *r, const char *name, bool standard, int32_t standard_id,
                    struct postprocessor_ids *ids)
{
    char flag[64], key[64];
    bool is_added;
    int32_t id;
    snprintf(flag, sizeof flag, PREFIX "add_%s_token", name);
    snprintf(key, sizeof key, PREFIX "%s_token_id", name);
    if (read_flag(r, flag, standard, &is_added) ||
        read_id(r, key, standard_id < r->n ? standard_id : -1, &id)) {
        return -1;
    }
    if (is_added && id < 0) {
        return err_set(r->e, ERR_INPUT, "metadata %s is missing, which texts begin or end with",
                       key);
    }
    ids->n = is_added;
    ids->v[0] = id;
    return 0;
}

static int read_postprocessor(const struct reader *r)
{
    struct postprocessor *p = &r->t->postprocessor;
    const bool adds_bos = r->is_spelt || r->cutting->adds_bos;
    return read_end(r, "bos", adds_bos, r->is_spelt ? 1 : -1, &p->before) ||
                   read_end(r, "eos", false, r->is_spelt ? 2 : -1, &p->after)
               ? -1
               : 0;
}

/* --- all of it -------------------------------------------------------------------------------- */

static int find_kind(struct reader *r)
{
    const char *key = PREFIX "model";
    char kind[64];
    if (!gguf_text(r->g, key, kind, sizeof kind)) {
        return missing(r, key, "llama (SentencePiece BPE) or gpt2 (byte-level BPE)");
    }
    r->is_spelt = strcmp(kind, "llama") == 0;
    if (!r->is_spelt && strcmp(kind, "gpt2") != 0) {
        return err_set(r->e, ERR_INPUT,
                       "metadata %s is %s; llama (SentencePiece BPE) and gpt2 (byte-level BPE) are "
                       "supported",
                       key, kind);
    }
    return r->is_spelt ? 0 : find_cutting(r);
}

/* SentencePiece can do more to a text; the models of kind llama leave it as it is. */
static int check_features(struct reader *r)
{
    bool squeezes;
    if (read_flag(r, PREFIX "remove_extra_whitespaces", false, &squeezes) ||
        read_flag(r, PREFIX "add_space_prefix", r->is_spelt, &r->has_prefix)) {
        return -1;
    }
    const char *unsupported = squeezes ? "remove_extra_whitespaces"
                              : gguf_has(r->g, PREFIX "precompiled_charsmap")
                                  ? "precompiled_charsmap"
                              : r->has_prefix && !r->is_spelt ? "add_space_prefix (gpt2)"
                                                              : NULL;
    return unsupported
               ? err_set(r->e, ERR_INPUT, "metadata " PREFIX "%s is not supported", unsupported)
               : 0;
}

static int read_all(struct reader *r)
{
    unicode_init();
    if (find_kind(r) || check_features(r) || read_tokens(r) ||
        (r->is_spelt ? read_spelt(r) : read_byte_level(r))) {
        return -1;
    }
    read_added(r);
    return read_ends(r) || read_postprocessor(r) ? -1 : 0;
}

bool gguf_tokenizer_is_there(const struct gguf *g)
{
    return gguf_has(g, PREFIX "model");
}

int gguf_tokenizer_read(struct tokenizer **out, const struct gguf *g, int vocab, struct err *e)
{
    if (vocab < 1 || vocab > TOKENIZER_MAX_VOCAB) {
        return err_set(e, ERR_INPUT, "%s: vocabulary of %d (1..%d)", gguf_where(g), vocab,
                       TOKENIZER_MAX_VOCAB);
    }
    struct reader r = {.g = g, .t = xcalloc(1, sizeof *r.t), .e = e};
    r.t->hash = gguf_hash(g);
    vocab_init(&r.t->vocab, vocab);
    int rc = read_all(&r);
    free(r.types);
    if (rc) {
        tokenizer_close(r.t);
        return err_wrap(e, "%s", gguf_where(g));
    }
    *out = r.t;
    return 0;
}
