#include "cli/bench_text.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/mem.h"
#include "core/str.h"
#include "model/tokenizer.h"
#include "model/utf8.h"

#define MAX_FILE_BYTES ((size_t)256 << 20)

static bool ends_with(const char *path, const char *ending)
{
    const size_t n = strlen(path), k = strlen(ending);
    return n >= k && strcmp(path + n - k, ending) == 0;
}

/* A folder may be a tiny model without one. */
static bool has_tokenizer(const char *model)
{
    if (!arch_is_folder(model)) {
        return tokenizer_is_there(model);
    }
    char *path = xasprintf("%s/tokenizer.json", model);
    const bool is_there = access(path, F_OK) == 0;
    free(path);
    return is_there;
}

/* What the tokenizer begins any text with; -1: nothing. */
static int32_t find_bos(const struct tokenizer *tok)
{
    struct token_ids bare = {0}, whole = {0};
    tokenizer_encode(tok, "a", 1, false, &bare);
    tokenizer_encode(tok, "a", 1, true, &whole);
    const bool begins = whole.n > bare.n && (bare.n == 0 || whole.v[0] != bare.v[0]);
    const int32_t bos = begins ? whole.v[0] : -1;
    token_ids_free(&bare);
    token_ids_free(&whole);
    return bos;
}

static int tokenise(struct bench_text *t, const struct str *s, const char *file, const char *model,
                    const struct arch *a, int32_t *bos, struct err *e)
{
    struct tokenizer *tok;
    if (!has_tokenizer(model)) {
        return err_set(e, ERR_INPUT,
                       "--quality: %s has no tokenizer: token ids are wanted, whole numbers with "
                       "white space between, in a file whose name ends in .ids",
                       model);
    }
    const size_t valid = utf8_valid_span(s->len > 0 ? s->data : "", s->len);
    if (valid < s->len) {
        return err_set(e, ERR_INPUT, "%s: not UTF-8 at byte %zu", file, valid);
    }
    if (tokenizer_open(&tok, model, a->vocab, e)) {
        return -1;
    }
    tokenizer_encode(tok, s->len > 0 ? s->data : "", s->len, true, &t->ids);
    *bos = find_bos(tok);
    tokenizer_close(tok);
    return 0;
}

static int read_ids(struct bench_text *t, const char *file, const char *model, const struct arch *a,
                    int32_t *bos, struct err *e)
{
    struct str s = {0};
    if (str_read_file(&s, file, MAX_FILE_BYTES, e)) {
        return -1;
    }
    int rc;
    if (ends_with(file, ".ids")) {
        rc = token_ids_parse(&t->ids, s.len > 0 ? s.data : "", s.len, file, a->vocab, e);
    } else {
        rc = tokenise(t, &s, file, model, a, bos, e);
    }
    str_free(&s);
    return rc;
}

static int cut(struct bench_text *t, const char *file, int32_t bos, uint32_t max_chunks,
               struct err *e)
{
    t->n_tokens = t->ids.n;
    size_t n = t->n_tokens / t->context;
    if (n == 0) {
        return err_set(e, ERR_INPUT, "%s: %zu tokens; one chunk of --context takes %u", file,
                       t->n_tokens, t->context);
    }
    n = max_chunks > 0 && n > max_chunks ? max_chunks : n;
    t->n_chunks = (uint32_t)n;
    t->first = t->context / 2;
    t->has_bos = bos >= 0;
    for (size_t i = 0; bos >= 0 && i < n; i++) {
        t->ids.v[i * t->context] = bos;
    }
    return 0;
}

int bench_text_open(struct bench_text *t, const char *file, const char *model, const struct arch *a,
                    uint32_t context, uint32_t max_chunks, struct err *e)
{
    const uint32_t most = (uint32_t)a->max_context;
    *t = (struct bench_text){.context = context};
    if (context == 0) {
        t->context = most < BENCH_TEXT_CONTEXT ? most : BENCH_TEXT_CONTEXT;
    }
    if (t->context > most || t->context < BENCH_TEXT_MIN_CONTEXT) {
        return err_set(e, ERR_INPUT, "--context: %u tokens; %s takes %u to %u", t->context, model,
                       BENCH_TEXT_MIN_CONTEXT, most);
    }
    int32_t bos = -1;
    if (read_ids(t, file, model, a, &bos, e) || cut(t, file, bos, max_chunks, e)) {
        bench_text_free(t);
        return -1;
    }
    return 0;
}

void bench_text_free(struct bench_text *t)
{
    token_ids_free(&t->ids);
}

uint32_t bench_text_judged(const struct bench_text *t)
{
    return t->context - 1 - t->first;
}

size_t bench_text_all_judged(const struct bench_text *t)
{
    return (size_t)t->n_chunks * bench_text_judged(t);
}
