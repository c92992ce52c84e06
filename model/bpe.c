#include "model/bpe.h"

#include "core/mem.h"
#include "model/token_ids.h"
#include "model/utf8.h"

#include <jansson.h>

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define N_PAGES     (0x110000 / 256) // of the character table
#define NO_RANK     UINT32_MAX
#define NO_SYMBOL   UINT32_MAX
#define SCAN_MAX    32         // symbols of a segment that is merged by scanning
#define SEGMENT_MAX (1u << 30) // symbols; positions are 32-bit

/* Open addressing over pairs of symbols. */
struct pair {
    uint64_t key; // left << 32 | right
    uint32_t rank;
    int32_t merged; // -1: free slot
};
struct pairs {
    struct pair *slots; // (mask + 1)
    size_t mask, n;
};

/*
 * A set of symbols that may hold more than was put in: ids that differ by a multiple of 256 share a
 * bit.
 */
struct joint_mask {
    uint64_t bits[4];
};

struct bpe {
    const struct vocab *vocab;
    struct pairs merges;
    struct joint_mask *joints; // (vocab->n_ids) by left symbol: right ones that may join it
    bool never_split;          // merges touch byte or unknown symbols: joints would be incomplete
    bool fuse_unk, ignore_merges;
    int32_t unk;             // -1: characters that nothing stands for vanish
    int32_t bytes[256];      // byte_fallback: id of <0xNN>, or -1
    int32_t *chars[N_PAGES]; // (256) each: id by character, -1 none; NULL: page without any
};

/* One possible merge at a position of a long segment. */
struct bpe_candidate {
    uint64_t order; // rank << 32 | position: lowest rank first, then leftmost
    int32_t merged;
};

/* --- pairs ------------------------------------------------------------------------------------ */

static uint64_t pair_key(int32_t left, int32_t right)
{
    return (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
}

static size_t pair_hash(uint64_t key)
{
    uint64_t h = key * 0x9E3779B97F4A7C15ULL;
    return (size_t)(h ^ h >> 32);
}

static void pairs_init(struct pairs *p, size_t n_max)
{
    size_t n_slots = 16;
    while (n_slots < 2 * n_max) {
        n_slots *= 2;
    }
    *p = (struct pairs){.slots = xmalloc(n_slots * sizeof *p->slots), .mask = n_slots - 1};
    for (size_t i = 0; i < n_slots; i++) {
        p->slots[i] = (struct pair){.merged = -1, .rank = NO_RANK};
    }
}

/* The pair's slot, or the free slot where it would go. */
static struct pair *pairs_at(const struct pairs *p, int32_t left, int32_t right)
{
    uint64_t key = pair_key(left, right);
    size_t i = pair_hash(key) & p->mask;
    while (p->slots[i].merged >= 0 && p->slots[i].key != key) {
        i = (i + 1) & p->mask;
    }
    return &p->slots[i];
}

static void pairs_set(struct pairs *p, int32_t left, int32_t right, uint32_t rank, int32_t merged)
{
    struct pair *at = pairs_at(p, left, right);
    p->n += at->merged < 0;
    CHECK(2 * p->n <= p->mask + 1);
    *at = (struct pair){.key = pair_key(left, right), .rank = rank, .merged = merged};
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

static void map_bytes(struct bpe *b, bool has_fallback)
{
    for (unsigned i = 0; i < 256; i++) {
        char text[8];
        int n = snprintf(text, sizeof text, "<0x%02X>", i);
        b->bytes[i] = has_fallback ? vocab_find(b->vocab, text, (size_t)n) : -1;
    }
}

static int find_unknown(struct bpe *b, const json_t *unk, struct err *e)
{
    b->unk = -1;
    if (unk == NULL || json_is_null(unk)) {
        return 0;
    }
    if (json_is_string(unk)) {
        b->unk = vocab_find(b->vocab, json_string_value(unk), json_string_length(unk));
    }
    if (b->unk < 0) {
        return err_set(e, ERR_INPUT, "model.unk_token: not a token of the vocabulary");
    }
    return 0;
}

struct text {
    const char *s;
    size_t len;
};

/* The two parts of one merge: "a b" or ["a", "b"]. */
static bool split_merge(const json_t *merge, struct text part[2])
{
    if (json_is_string(merge)) {
        const char *s = json_string_value(merge);
        const char *space = strchr(s, ' ');
        if (space == NULL || strchr(space + 1, ' ') != NULL) {
            return false;
        }
        part[0] = (struct text){s, (size_t)(space - s)};
        part[1] = (struct text){space + 1, strlen(space + 1)};
        return true;
    }
    if (json_array_size(merge) != 2) {
        return false;
    }
    for (size_t i = 0; i < 2; i++) {
        const json_t *p = json_array_get(merge, i);
        if (!json_is_string(p)) {
            return false;
        }
        part[i] = (struct text){json_string_value(p), json_string_length(p)};
    }
    return true;
}

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
    return is_byte || id == b->unk;
}

/*
 * Where text may be cut without changing the result: between two symbols that no merge can ever
 * join, because none has a left part that ends in the one and a right part that begins with the
 * other. So words become segments of their own, and long texts stay linear.
 */
static void note_joint(struct bpe *b, int32_t left, int32_t right)
{
    if (is_stand_in(b, left) || is_stand_in(b, right)) {
        b->never_split = true;
    }
    int32_t last = edge_symbol(b, &b->vocab->tokens[left], true);
    int32_t first = edge_symbol(b, &b->vocab->tokens[right], false);
    if (last >= 0 && first >= 0) {
        b->joints[last].bits[first / 64 % 4] |= 1ULL << (first % 64);
    }
}

static int add_merge(struct bpe *b, const json_t *merge, uint32_t rank, struct err *e)
{
    struct text part[2];
    if (!split_merge(merge, part)) {
        return err_set(e, ERR_INPUT, "model.merges[%u]: neither \"a b\" nor [\"a\", \"b\"]", rank);
    }
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
        return err_set(e, ERR_INPUT, "model.merges[%u]: %s is not in the vocabulary", rank,
                       left < 0 ? "its left part" : (right < 0 ? "its right part" : "its result"));
    }
    pairs_set(&b->merges, left, right, rank, merged);
    note_joint(b, left, right);
    return 0;
}

static int add_merges(struct bpe *b, const json_t *list, struct err *e)
{
    if (!json_is_array(list) || json_array_size(list) >= NO_RANK) {
        return err_set(e, ERR_INPUT, "model.merges: not a list");
    }
    size_t n = json_array_size(list);
    pairs_init(&b->merges, n);
    b->joints = xcalloc((size_t)b->vocab->n_ids, sizeof *b->joints);
    for (size_t i = 0; i < n; i++) {
        if (add_merge(b, json_array_get(list, i), (uint32_t)i, e) != 0) {
            return -1;
        }
    }
    return 0;
}

int bpe_parse(struct bpe **out, const struct json_t *model, struct vocab *v, struct err *e)
{
    if (check_features(model, e) != 0 ||
        add_vocabulary(v, json_object_get(model, "vocab"), e) != 0) {
        return -1;
    }
    struct bpe *b = xcalloc(1, sizeof *b);
    b->vocab = v;
    b->fuse_unk = json_is_true(json_object_get(model, "fuse_unk"));
    b->ignore_merges = json_is_true(json_object_get(model, "ignore_merges"));
    map_chars(b);
    map_bytes(b, json_is_true(json_object_get(model, "byte_fallback")));
    if (find_unknown(b, json_object_get(model, "unk_token"), e) != 0 ||
        add_merges(b, json_object_get(model, "merges"), e) != 0) {
        bpe_destroy(b);
        return -1;
    }
    *out = b;
    return 0;
}

void bpe_destroy(struct bpe *b)
{
    if (b == NULL) {
        return;
    }
    for (size_t i = 0; i < N_PAGES; i++) {
        free(b->chars[i]);
    }
    free(b->merges.slots);
    free(b->joints);
    free(b);
}

/* --- merging: short segments ------------------------------------------------------------------ */

/* Scan for the lowest rank, merge, close the gap: quadratic, and the fastest for words. */
static size_t merge_by_scan(const struct bpe *b, int32_t *symbols, size_t n)
{
    uint32_t rank[SCAN_MAX]; // (n - 1) of the pairs (i, i + 1)
    int32_t merged[SCAN_MAX];
    for (size_t i = 0; i + 1 < n; i++) {
        const struct pair *p = pairs_at(&b->merges, symbols[i], symbols[i + 1]);
        rank[i] = p->rank;
        merged[i] = p->merged;
    }
    for (;;) {
        size_t best = 0;
        uint32_t lowest = NO_RANK;
        for (size_t i = 0; i + 1 < n; i++) {
            if (rank[i] < lowest) {
                lowest = rank[i];
                best = i;
            }
        }
        if (lowest == NO_RANK) {
            return n;
        }
        symbols[best] = merged[best];
        n--;
        for (size_t i = best + 1; i < n; i++) {
            symbols[i] = symbols[i + 1];
            rank[i - 1] = rank[i];
            merged[i - 1] = merged[i];
        }
        for (size_t i = best > 0 ? best - 1 : 0; i <= best && i + 1 < n; i++) {
            const struct pair *p = pairs_at(&b->merges, symbols[i], symbols[i + 1]);
            rank[i] = p->rank;
            merged[i] = p->merged;
        }
    }
}

/* --- merging: long segments ------------------------------------------------------------------- */

static void heap_push(struct bpe_work *w, struct bpe_candidate c)
{
    if (w->n_heap == w->heap_cap) {
        w->heap_cap = w->heap_cap != 0 ? 2 * w->heap_cap : 256;
        w->heap = xrealloc(w->heap, w->heap_cap * sizeof *w->heap);
    }
    size_t i = w->n_heap++;
    while (i > 0 && w->heap[(i - 1) / 2].order > c.order) {
        w->heap[i] = w->heap[(i - 1) / 2];
        i = (i - 1) / 2;
    }
    w->heap[i] = c;
}

static struct bpe_candidate heap_pop(struct bpe_work *w)
{
    struct bpe_candidate top = w->heap[0], last = w->heap[--w->n_heap];
    size_t i = 0;
    for (;;) {
        size_t child = 2 * i + 1;
        if (child >= w->n_heap) {
            break;
        }
        if (child + 1 < w->n_heap && w->heap[child + 1].order < w->heap[child].order) {
            child++;
        }
        if (w->heap[child].order >= last.order) {
            break;
        }
        w->heap[i] = w->heap[child];
        i = child;
    }
    w->heap[i] = last;
    return top;
}

/* Offer the pair that begins at position i, if there is a merge for it. */
static void offer_pair(const struct bpe *b, struct bpe_work *w, uint32_t i)
{
    if (i == NO_SYMBOL || w->next[i] == NO_SYMBOL) {
        return;
    }
    const struct pair *p = pairs_at(&b->merges, w->symbols[i], w->symbols[w->next[i]]);
    if (p->merged >= 0) {
        heap_push(w, (struct bpe_candidate){(uint64_t)p->rank << 32 | i, p->merged});
    }
}

static void link_symbols(struct bpe_work *w)
{
    if (w->n > w->list_cap) {
        w->list_cap = w->cap;
        w->prev = xrealloc(w->prev, w->list_cap * sizeof *w->prev);
        w->next = xrealloc(w->next, w->list_cap * sizeof *w->next);
    }
    for (uint32_t i = 0; i < w->n; i++) {
        w->prev[i] = i > 0 ? i - 1 : NO_SYMBOL;
        w->next[i] = i + 1 < w->n ? i + 1 : NO_SYMBOL;
    }
}

/*
 * A heap of candidates over a linked list of symbols: n log n. A candidate is stale when its symbol
 * is gone or its pair now makes another token; the text of a pair only grows, so the same token
 * means the same pair.
 */
static size_t merge_by_heap(const struct bpe *b, struct bpe_work *w)
{
    link_symbols(w);
    w->n_heap = 0;
    for (uint32_t i = 0; i < w->n; i++) {
        offer_pair(b, w, i);
    }
    while (w->n_heap > 0) {
        struct bpe_candidate c = heap_pop(w);
        uint32_t i = (uint32_t)c.order, right = w->next[i];
        if (w->symbols[i] < 0 || right == NO_SYMBOL ||
            pairs_at(&b->merges, w->symbols[i], w->symbols[right])->merged != c.merged) {
            continue;
        }
        w->symbols[i] = c.merged;
        w->symbols[right] = -1;
        w->next[i] = w->next[right];
        if (w->next[i] != NO_SYMBOL) {
            w->prev[w->next[i]] = i;
        }
        offer_pair(b, w, w->prev[i]);
        offer_pair(b, w, i);
    }
    size_t n = 0;
    for (uint32_t i = 0; i != NO_SYMBOL; i = w->next[i]) {
        w->symbols[n++] = w->symbols[i];
    }
    return n;
}

/* --- text to symbols -------------------------------------------------------------------------- */

static void flush_segment(const struct bpe *b, struct bpe_work *w, struct token_ids *ids)
{
    size_t n = w->n;
    if (n > SCAN_MAX) {
        n = merge_by_heap(b, w);
    } else if (n > 1) {
        n = merge_by_scan(b, w->symbols, n);
    }
    for (size_t i = 0; i < n; i++) {
        token_ids_push(ids, w->symbols[i]);
    }
    w->n = 0;
}

static bool may_join(const struct bpe *b, int32_t left, int32_t right)
{
    return b->never_split || (b->joints[left].bits[right / 64 % 4] >> (right % 64) & 1) != 0;
}

static void push_symbol(const struct bpe *b, struct bpe_work *w, int32_t symbol,
                        struct token_ids *ids)
{
    if (w->n == SEGMENT_MAX || (w->n > 0 && !may_join(b, w->symbols[w->n - 1], symbol))) {
        flush_segment(b, w, ids);
    }
    if (w->n == w->cap) {
        w->cap = w->cap != 0 ? 2 * w->cap : 256;
        w->symbols = xrealloc(w->symbols, w->cap * sizeof *w->symbols);
    }
    w->symbols[w->n++] = symbol;
}

/* All bytes of a character by their stand-ins, or none. */
static bool push_bytes(const struct bpe *b, struct bpe_work *w, const char *s, size_t len,
                       struct token_ids *ids)
{
    for (size_t i = 0; i < len; i++) {
        if (b->bytes[(uint8_t)s[i]] < 0) {
            return false;
        }
    }
    for (size_t i = 0; i < len; i++) {
        push_symbol(b, w, b->bytes[(uint8_t)s[i]], ids);
    }
    return true;
}

void bpe_encode(const struct bpe *b, struct bpe_work *w, const char *text, size_t len,
                struct token_ids *ids)
{
    int32_t whole = b->ignore_merges ? vocab_find(b->vocab, text, len) : -1;
    if (whole >= 0) {
        token_ids_push(ids, whole);
        return;
    }
    bool unknown = false; // characters before this one wait to become one unknown token
    for (size_t i = 0; i < len;) {
        uint32_t code;
        size_t n = utf8_next(text + i, len - i, &code);
        int32_t id = char_id(b, code);
        if (id < 0 && !push_bytes(b, w, text + i, n, ids) && b->unk >= 0) {
            if (unknown && !b->fuse_unk) {
                push_symbol(b, w, b->unk, ids);
            }
            unknown = true;
        } else if (id >= 0) {
            if (unknown) {
                push_symbol(b, w, b->unk, ids);
                unknown = false;
            }
            push_symbol(b, w, id, ids);
        }
        i += n;
    }
    if (unknown) {
        push_symbol(b, w, b->unk, ids);
    }
    flush_segment(b, w, ids);
}

void bpe_work_free(struct bpe_work *w)
{
    free(w->symbols);
    free(w->prev);
    free(w->next);
    free(w->heap);
    *w = (struct bpe_work){0};
}
