#include "datasets/front.h"

#include "core/json_text.h"
#include "core/mem.h"
#include "model/utf8.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define MARK_WORDS      8 // of at least 200: as good as 61 random bits
#define BYTES_PER_TOKEN 4 // where there is no tokenizer
#define GROUPS_SEED     0 // of their tokens
#define WORD            "of"

/* --- the preamble ------------------------------------------------------------------------------- */

/* Ids of a text behind a word: without what a tokenizer puts in front of the first one. */
static void encode_behind_word(const struct tokenizer *tok, const char *text, size_t len,
                               struct token_ids *ids)
{
    struct token_ids word = {0};
    struct str both = {0};
    size_t n = 0;
    str_puts(&both, WORD);
    tokenizer_encode(tok, both.data, both.len, false, &word);
    str_append(&both, text, len);
    tokenizer_encode(tok, both.data, both.len, false, ids);
    while (n < word.n && n < ids->n && ids->v[n] == word.v[n]) {
        n++;
    }
    ids->n -= n;
    memmove(ids->v, ids->v + n, ids->n * sizeof *ids->v);
    str_free(&both);
    token_ids_free(&word);
}

static void open_piece(struct front_piece *p, const char *text, size_t len, bool is_first,
                       const struct tokenizer *tok)
{
    if (len == 0) {
        return;
    }
    json_text_escape(&p->json, text, len);
    p->n_tokens = (uint32_t)((len + BYTES_PER_TOKEN - 1) / BYTES_PER_TOKEN);
    if (tok != NULL) {
        if (is_first) {
            tokenizer_encode(tok, text, len, false, &p->ids);
        } else {
            encode_behind_word(tok, text, len, &p->ids);
        }
        p->n_tokens = (uint32_t)p->ids.n;
    }
}

/* What stands behind a mark stands behind a space, too. */
static void open_tail(struct front_piece *p, const char *text, size_t len,
                      const struct tokenizer *tok)
{
    struct str tail = {0};
    str_puts(&tail, len > 0 && text[0] != ' ' ? " " : "");
    str_append(&tail, text, len);
    open_piece(p, tail.data, tail.len, false, tok);
    str_free(&tail);
}

/* Where to cut for a mark in the middle: at the space nearest to it, so that no word is cut. */
static size_t middle_of(const char *text, size_t len)
{
    for (size_t off = 0; off <= len / 2; off++) {
        if (text[len / 2 - off] == ' ') {
            return len / 2 - off;
        }
        if (len / 2 + off < len && text[len / 2 + off] == ' ') {
            return len / 2 + off;
        }
    }
    return len;
}

static int open_preamble(struct front *f, const struct dataset_config *cfg,
                         const struct tokenizer *tok, struct err *e)
{
    const char *text = cfg->preamble.text != NULL ? cfg->preamble.text : "";
    size_t len = strlen(text), cut = len;
    if (!utf8_valid(text, len)) {
        return err_set(e, ERR_INPUT, "load.preamble.text: not UTF-8");
    }
    if (cfg->preamble.mutate == DATASET_MUTATE_HEAD) {
        cut = 0;
    } else if (cfg->preamble.mutate == DATASET_MUTATE_MIDDLE) {
        cut = middle_of(text, len);
    }
    f->n_mark = cfg->preamble.mutate != DATASET_MUTATE_NONE ? MARK_WORDS : 0;
    open_piece(&f->head, text, cut, true, tok);
    open_tail(&f->tail, text + cut, len - cut, tok);
    return 0;
}

/* --- groups ------------------------------------------------------------------------------------- */

/* Zipf: group g (from 1) in proportion to 1/g^s. */
static void open_groups(struct front *f, const struct dataset_config *cfg)
{
    f->n_group_tokens = (uint32_t)cfg->prefix.tokens;
    f->n_groups = (uint64_t)cfg->prefix.groups;
    f->share = cfg->prefix.share;
    if (f->n_group_tokens == 0 || cfg->prefix.zipf <= 0.0) {
        return;
    }
    double sum = 0.0;
    f->cumulative = xmalloc(f->n_groups * sizeof *f->cumulative);
    for (uint64_t g = 0; g < f->n_groups; g++) {
        sum += pow((double)(g + 1), -cfg->prefix.zipf);
        f->cumulative[g] = sum;
    }
    for (uint64_t g = 0; g < f->n_groups; g++) {
        f->cumulative[g] /= sum;
    }
}

/* The first group whose cumulative share is above u. */
static uint64_t find_group(const struct front *f, double u)
{
    uint64_t low = 0, high = f->n_groups - 1;
    while (low < high) {
        uint64_t at = (low + high) / 2;
        if (f->cumulative[at] > u) {
            high = at;
        } else {
            low = at + 1;
        }
    }
    return low;
}

/* Which group event i is of; false: none. */
static bool group_of(const struct front *f, uint64_t seed, uint64_t i, uint64_t *group)
{
    if (f->n_group_tokens == 0 || rng_uniform(seed, RNG_PREFIX, i, UINT64_MAX) >= f->share) {
        return false;
    }
    double u = rng_uniform(seed, RNG_PREFIX, i, UINT64_MAX - 1);
    *group = f->cumulative != NULL ? find_group(f, u) : (uint64_t)(u * (double)f->n_groups);
    return true;
}

/* --- in front of an event ----------------------------------------------------------------------- */

int front_open(struct front *f, const struct dataset_config *cfg, const struct drawn *drawn,
               const struct tokenizer *tok, struct err *e)
{
    *f = (struct front){.drawn = drawn};
    if (open_preamble(f, cfg, tok, e) != 0) {
        return -1;
    }
    open_groups(f, cfg);
    return 0;
}

static void close_piece(struct front_piece *p)
{
    token_ids_free(&p->ids);
    str_free(&p->json);
}

void front_close(struct front *f)
{
    close_piece(&f->head);
    close_piece(&f->tail);
    free(f->cumulative);
    *f = (struct front){0};
}

static uint32_t preamble_tokens(const struct front *f)
{
    return f->head.n_tokens + f->n_mark + f->tail.n_tokens;
}

uint32_t front_tokens(const struct front *f, uint64_t seed, uint64_t i)
{
    uint64_t group;
    return preamble_tokens(f) + (group_of(f, seed, i, &group) ? f->n_group_tokens : 0);
}

uint32_t front_max_tokens(const struct front *f)
{
    return preamble_tokens(f) + f->n_group_tokens;
}

static struct drawn_sequence mark_of(uint64_t seed, uint64_t i)
{
    return (struct drawn_sequence){seed, RNG_MARK, i};
}

static struct drawn_sequence tokens_of(uint64_t group)
{
    return (struct drawn_sequence){GROUPS_SEED, RNG_PREFIX, group};
}

/* A piece of text that has no ids (no tokenizer) takes its place with zeros: nobody sends them. */
static int32_t *put_piece(const struct front_piece *p, int32_t *ids)
{
    if (p->ids.n > 0) {
        memcpy(ids, p->ids.v, p->ids.n * sizeof *ids);
    } else if (p->n_tokens > 0) {
        memset(ids, 0, p->n_tokens * sizeof *ids);
    }
    return ids + p->n_tokens;
}

void front_ids(const struct front *f, uint64_t seed, uint64_t i, int32_t *ids)
{
    uint64_t group;
    ids = put_piece(&f->head, ids);
    drawn_ids(f->drawn, mark_of(seed, i), f->n_mark, ids);
    ids = put_piece(&f->tail, ids + f->n_mark);
    if (group_of(f, seed, i, &group)) {
        drawn_ids(f->drawn, tokens_of(group), f->n_group_tokens, ids);
    }
}

void front_text(const struct front *f, uint64_t seed, uint64_t i, struct prompt_text *out)
{
    uint64_t group;
    size_t begin = out->json.len;
    str_append(&out->json, f->head.json.data, f->head.json.len);
    drawn_text(f->drawn, mark_of(seed, i), f->n_mark, &out->json);
    str_append(&out->json, f->tail.json.data, f->tail.json.len);
    if (group_of(f, seed, i, &group)) {
        drawn_text(f->drawn, tokens_of(group), f->n_group_tokens, &out->json);
    }
    if (out->json.len > begin) {
        prompt_text_end(out, PROMPT_SYSTEM);
    }
}
