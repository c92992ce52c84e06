#include "datasets/drawn.h"

#include "core/mem.h"

#include <stdlib.h>

static int find_ordinary(struct drawn *d, const struct tokenizer *tok, int vocab, struct err *e)
{
    d->n_ordinary = (uint64_t)vocab;
    if (tok == NULL) {
        return 0;
    }
    d->ordinary = xmalloc((size_t)vocab * sizeof *d->ordinary);
    d->n_ordinary = 0;
    for (int32_t id = 0; id < vocab; id++) {
        if (tokenizer_is_ordinary(tok, id)) {
            d->ordinary[d->n_ordinary++] = id;
        }
    }
    if (d->n_ordinary == 0) {
        return err_set(e, ERR_INPUT, "tokenizer: every token is a special one");
    }
    return 0;
}

int drawn_open(struct drawn *d, const struct tokenizer *tok, int vocab, struct err *e)
{
    *d = (struct drawn){0};
    if (find_ordinary(d, tok, vocab, e) != 0) {
        drawn_close(d);
        return -1;
    }
    words_open(&d->words, tok);
    return 0;
}

void drawn_close(struct drawn *d)
{
    words_free(&d->words);
    free(d->ordinary);
    *d = (struct drawn){0};
}

/* The bits of token k: four tokens share a draw. */
static uint32_t bits_at(struct rng_bits *r, const struct drawn_sequence *s, uint32_t k)
{
    if (k % 4 == 0) {
        *r = rng_draw(s->seed, s->stream, s->a, k / 4);
    }
    return r->v[k % 4];
}

static int32_t pick_id(const struct drawn *d, uint32_t bits)
{
    if (d->words.is_exact) {
        return words_pick(&d->words, bits)->id;
    }
    uint64_t at = bits * d->n_ordinary >> 32;
    return d->ordinary != NULL ? d->ordinary[at] : (int32_t)at;
}

void drawn_ids(const struct drawn *d, struct drawn_sequence s, uint32_t n, int32_t *ids)
{
    struct rng_bits r = {{0}};
    for (uint32_t k = 0; k < n; k++) {
        ids[k] = pick_id(d, bits_at(&r, &s, k));
    }
}

void drawn_text(const struct drawn *d, struct drawn_sequence s, uint32_t n, struct str *text)
{
    struct rng_bits r = {{0}};
    for (uint32_t k = 0; k < n; k++) {
        const struct word *word = words_pick(&d->words, bits_at(&r, &s, k));
        words_put(&d->words, word, text->len == 0, text);
    }
}
