#include "model/added.h"

#include "core/mem.h"
#include "model/unicode.h"
#include "model/utf8.h"

#include <jansson.h>

#include <stdlib.h>
#include <string.h>

/* A trie over bytes: nodes of one level are a list of siblings, but for the first byte. */
struct node {
    uint8_t byte;
    bool lstrip, rstrip, single_word;
    int32_t id;              // of the token that ends here, or -1
    uint32_t child, sibling; // indices of nodes, 0: none
};

struct trie {
    struct node *nodes; // (n); nodes[0] is unused
    size_t n, cap;
    uint32_t first[256];
    unsigned n_first;
    int only_first; // the byte with which all tokens begin, -1 when there are several
};

struct added {
    struct trie tries[2]; // by enum added_stage
};

/* --- building --------------------------------------------------------------------------------- */

static uint32_t add_node(struct trie *t, uint8_t byte)
{
    if (t->n == t->cap) {
        t->cap = t->cap != 0 ? 2 * t->cap : 64;
        t->nodes = xrealloc(t->nodes, t->cap * sizeof *t->nodes);
    }
    if (t->n == 0) {
        t->nodes[t->n++] = (struct node){.id = -1};
    }
    t->nodes[t->n] = (struct node){.byte = byte, .id = -1};
    return (uint32_t)t->n++;
}

static uint32_t find_child(const struct trie *t, uint32_t parent, uint8_t byte)
{
    if (parent == 0) {
        return t->first[byte];
    }
    uint32_t at = t->nodes[parent].child;
    while (at != 0 && t->nodes[at].byte != byte) {
        at = t->nodes[at].sibling;
    }
    return at;
}

static uint32_t make_child(struct trie *t, uint32_t parent, uint8_t byte)
{
    uint32_t at = find_child(t, parent, byte);
    if (at != 0) {
        return at;
    }
    at = add_node(t, byte);
    if (parent == 0) {
        t->first[byte] = at;
        t->only_first = ++t->n_first == 1 ? byte : -1;
    } else {
        t->nodes[at].sibling = t->nodes[parent].child;
        t->nodes[parent].child = at;
    }
    return at;
}

static void trie_add(struct trie *t, const char *text, size_t len, struct node flags)
{
    uint32_t at = 0;
    for (size_t i = 0; i < len; i++) {
        at = make_child(t, at, (uint8_t)text[i]);
    }
    if (at != 0 && t->nodes[at].id < 0) {
        t->nodes[at].id = flags.id;
        t->nodes[at].lstrip = flags.lstrip;
        t->nodes[at].rstrip = flags.rstrip;
        t->nodes[at].single_word = flags.single_word;
    }
}

struct added *added_new(void)
{
    return xcalloc(1, sizeof(struct added));
}

void added_raw(struct added *a, const struct vocab *v, int32_t id)
{
    trie_add(&a->tries[ADDED_RAW], v->tokens[id].text, v->tokens[id].len, (struct node){.id = id});
}

static bool flag(const json_t *token, const char *key)
{
    return json_is_true(json_object_get(token, key));
}

static int add_token(struct added *a, const json_t *token, const struct normalizer *n,
                     struct normalizer_work *w, struct vocab *v, struct err *e)
{
    const json_t *content = json_object_get(token, "content");
    const json_t *id = json_object_get(token, "id");
    if (!json_is_string(content) || json_string_length(content) == 0 || !json_is_integer(id)) {
        return err_set(e, ERR_INPUT, "an \"id\" and a \"content\" are needed");
    }
    const char *text = json_string_value(content);
    size_t len = json_string_length(content);
    if (vocab_add(v, text, len, json_integer_value(id), e) != 0) {
        return -1;
    }
    struct node flags = {
        .id = (int32_t)json_integer_value(id),
        .lstrip = flag(token, "lstrip"),
        .rstrip = flag(token, "rstrip"),
        .single_word = flag(token, "single_word"),
    };
    v->tokens[flags.id].special |= flag(token, "special");
    bool normalized = flag(token, "normalized");
    if (normalized) {
        len = normalizer_apply(n, w, text, len, &text);
        if (vocab_show_as(v, flags.id, text, len, e) != 0) {
            return -1;
        }
    }
    trie_add(&a->tries[normalized ? ADDED_NORMALIZED : ADDED_RAW], text, len, flags);
    return 0;
}

int added_parse(struct added **out, const struct json_t *list, const struct normalizer *n,
                struct vocab *v, struct err *e)
{
    if (list != NULL && !json_is_null(list) && !json_is_array(list)) {
        return err_set(e, ERR_INPUT, "added_tokens: not a list");
    }
    struct added *a = added_new();
    struct normalizer_work w = {0};
    int rc = 0;
    for (size_t i = 0; i < json_array_size(list) && rc == 0; i++) {
        if (add_token(a, json_array_get(list, i), n, &w, v, e) != 0) {
            rc = err_wrap(e, "added_tokens[%zu]", i);
        }
    }
    normalizer_work_free(&w);
    if (rc != 0) {
        added_destroy(a);
        return -1;
    }
    *out = a;
    return 0;
}

void added_destroy(struct added *a)
{
    if (a != NULL) {
        free(a->tries[ADDED_RAW].nodes);
        free(a->tries[ADDED_NORMALIZED].nodes);
        free(a);
    }
}

/* --- matching --------------------------------------------------------------------------------- */

/* The longest token at text + at: its node, 0 if there is none. */
static uint32_t longest_at(const struct trie *t, const char *text, size_t len, size_t at,
                           size_t *end)
{
    uint32_t best = 0, node = 0;
    for (size_t i = at; i < len; i++) {
        node = find_child(t, node, (uint8_t)text[i]);
        if (node == 0) {
            break;
        }
        if (t->nodes[node].id >= 0) {
            best = node;
            *end = i + 1;
        }
    }
    return best;
}

static bool is_word(uint32_t code)
{
    return (unicode_of(code) & UNICODE_WORD) != 0;
}

/* Whether text[at .. end) has characters of words on neither side. */
static bool stands_alone(const char *text, size_t len, size_t at, size_t end)
{
    uint32_t before = 0, behind = 0;
    if (at > 0) {
        utf8_before(text, at, 0, &before);
    }
    if (end < len) {
        utf8_next(text + end, len - end, &behind);
    }
    return !is_word(before) && !is_word(behind);
}

/* The first byte at or after `at` with which a token begins. */
static size_t find_first(const struct trie *t, const char *text, size_t len, size_t at)
{
    if (t->only_first >= 0) {
        const char *hit = memchr(text + at, t->only_first, len - at);
        return hit != NULL ? (size_t)(hit - text) : len;
    }
    while (at < len && t->first[(uint8_t)text[at]] == 0) {
        at++;
    }
    return at;
}

bool added_next(const struct added *a, enum added_stage stage, const char *text, size_t len,
                size_t from, size_t floor, struct added_match *m)
{
    const struct trie *t = &a->tries[stage];
    if (t->n == 0) {
        return false;
    }
    size_t at = from;
    while ((at = at < len ? find_first(t, text, len, at) : len) < len) {
        size_t end = at;
        uint32_t found = longest_at(t, text, len, at, &end);
        const struct node *node = &t->nodes[found];
        if (found == 0 || (node->single_word && !stands_alone(text, len, at, end))) {
            at = found == 0 ? at + 1 : end;
            continue;
        }
        size_t begin = at > floor ? at : floor;
        m->begin = node->lstrip && at > floor ? utf8_spaces_before(text, at, floor) : begin;
        m->end = node->rstrip ? utf8_spaces_after(text, len, end) : end;
        m->resume = end;
        m->id = node->id;
        return true;
    }
    return false;
}
