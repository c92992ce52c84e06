#include "datasets/words.h"

#include "core/mem.h"

#include <stdlib.h>
#include <string.h>

#define MIN_EXACT 16   // fewer in a vocabulary: the common words serve
#define MAX_EXACT 4096 // the first of a vocabulary are its most frequent
#define MIN_LEN   3    // with the space
#define ANCHOR    "of" // what a word stands behind when it is tried

static const char common[] =
    " the of and to in is it you that he was for on are as with his they at be this have from or "
    "one had by word but not what all were we when your can said there use an each which she do "
    "how their if will up other about out many then them these so some her would make like him "
    "into time has look two more write go see number no way could people my than first water been "
    "call who oil its now find long down day did get come made may part over new sound take only "
    "little work know place year live me back give most very after thing our just name good "
    "sentence man think say great where help through much before line right too mean old any same "
    "tell boy follow came want show also around form three small set put end does another well "
    "large must big even such because turn here why ask went men read need land different home us "
    "move try kind hand picture again change off play spell air away animal house point page "
    "letter mother answer found study still learn should world high every near add food between "
    "own below country plant last school father keep tree never start city earth eye light";

/* --- words of a vocabulary ---------------------------------------------------------------------- */

static void add(struct words *w, const char *text, size_t len, int32_t id)
{
    struct word *word = &w->v[w->n++];
    *word = (struct word){.len = (uint8_t)len, .id = id};
    memcpy(word->text, text, len);
}

static bool is_word(const struct str *s)
{
    if (s->len < MIN_LEN || s->len >= sizeof((struct word *)0)->text || s->data[0] != ' ') {
        return false;
    }
    for (size_t i = 1; i < s->len; i++) {
        if (s->data[i] < 'a' || s->data[i] > 'z') {
            return false;
        }
    }
    return true;
}

struct trial {
    const struct tokenizer *tok;
    struct token_ids ids, anchor;
    struct str text;
};

static void encode(struct trial *t)
{
    t->ids.n = 0;
    tokenizer_encode(t->tok, t->text.data, t->text.len, false, &t->ids);
}

/* Whether this word behind another one comes out as this token alone. */
static bool is_one_token(struct trial *t, const struct str *word, int32_t id)
{
    str_clear(&t->text);
    str_puts(&t->text, ANCHOR);
    str_append(&t->text, word->data, word->len);
    encode(t);
    size_t n = t->anchor.n;
    return t->ids.n == n + 1 && t->ids.v[n] == id &&
           memcmp(t->ids.v, t->anchor.v, n * sizeof *t->ids.v) == 0;
}

/* Whether a text that begins with a word needs no space in front for that word to be one token. */
static bool begins_bare(struct trial *t, const struct words *w)
{
    str_clear(&t->text);
    str_puts(&t->text, w->v[0].text + 1);
    encode(t);
    return t->ids.n == 1 && t->ids.v[0] == w->v[0].id;
}

static void collect(struct words *w, const struct tokenizer *tok)
{
    struct trial t = {.tok = tok};
    struct str shown = {0};
    int n_ids = tokenizer_vocab(tok);
    tokenizer_encode(tok, ANCHOR, strlen(ANCHOR), false, &t.anchor);
    for (int32_t id = 0; id < n_ids && w->n < MAX_EXACT; id++) {
        if (!tokenizer_is_ordinary(tok, id)) {
            continue;
        }
        str_clear(&shown);
        tokenizer_decode(tok, &id, 1, true, &shown);
        if (is_word(&shown) && is_one_token(&t, &shown, id)) {
            add(w, shown.data, shown.len, id);
        }
    }
    w->is_exact = w->n >= MIN_EXACT;
    w->begins_bare = w->is_exact && begins_bare(&t, w);
    str_free(&shown);
    str_free(&t.text);
    token_ids_free(&t.ids);
    token_ids_free(&t.anchor);
}

/* --- common words ------------------------------------------------------------------------------- */

static void add_common(struct words *w)
{
    w->n = 0;
    for (const char *at = common; *at != '\0';) {
        size_t len = 1 + strcspn(at + 1, " ");
        add(w, at, len, -1);
        at += len;
    }
}

void words_open(struct words *w, const struct tokenizer *tok)
{
    *w = (struct words){.v = xcalloc(MAX_EXACT, sizeof *w->v)};
    if (tok != NULL) {
        collect(w, tok);
    }
    if (!w->is_exact) {
        add_common(w);
        w->begins_bare = true;
    }
    w->v = xrealloc(w->v, w->n * sizeof *w->v);
}

void words_free(struct words *w)
{
    free(w->v);
    *w = (struct words){0};
}

void words_put(const struct words *w, const struct word *word, bool is_first, struct str *text)
{
    int skip = is_first && w->begins_bare;
    str_append(text, word->text + skip, (size_t)word->len - (size_t)skip);
}
