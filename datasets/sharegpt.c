#include "datasets/sharegpt.h"

#include "datasets/quantile.h"
#include "model/utf8.h"

#include <jansson.h>

#include <stdbool.h>
#include <string.h>

#define NO_LIMIT UINT32_MAX
#define FIT_MIN  0.01 // a prompt is kept when at least this share of output lengths fits behind it

struct limits {
    uint32_t min_in, max_in, min_out, max_out, max_sum; // tokens
};

static const struct limits filter_limits[] = {
    [DATASET_FILTER_VLLM] = {4, 1024, 4, NO_LIMIT, 2048},
    [DATASET_FILTER_INFERENCE_BENCHMARK] = {4, 1024, 4, 1024, NO_LIMIT},
    [DATASET_FILTER_FIRST_TURN] = {1, NO_LIMIT, 1, NO_LIMIT, NO_LIMIT},
};

struct parser {
    const struct dataset_config *cfg;
    const struct tokenizer *tok;
    uint32_t context;
    uint32_t min_drawn; // first-turn: output length that must fit behind a prompt
    const char *text, *where;
    size_t len, pos;
    struct entries entries;
    struct token_ids scratch; // of a completion
};

/* --- where we are ----------------------------------------------------------------------------- */

struct place {
    int line, column; // 1-based
};

static struct place place_of(const struct parser *p, size_t pos)
{
    struct place at = {1, 1};
    for (size_t i = 0; i < pos;) {
        uint32_t code;
        i += utf8_next(p->text + i, p->len - i, &code);
        at.column = code == '\n' ? 1 : at.column + 1;
        at.line += code == '\n';
    }
    return at;
}

static int fail_syntax(const struct parser *p, size_t pos, const char *what, struct err *e)
{
    struct place at = place_of(p, pos);
    return err_set(e, ERR_INPUT, "%s:%d:%d: %s", p->where, at.line, at.column, what);
}

static int fail_entry(const struct parser *p, size_t pos, const char *what, struct err *e)
{
    return err_set(e, ERR_INPUT, "%s:%d: conversation %llu: %s", p->where, place_of(p, pos).line,
                   (unsigned long long)p->entries.n_source + 1, what);
}

static void skip_space(struct parser *p)
{
    while (p->pos < p->len && strchr(" \t\r\n", p->text[p->pos]) != NULL && p->text[p->pos] != 0) {
        p->pos++;
    }
}

static bool take(struct parser *p, char c)
{
    skip_space(p);
    if (p->pos < p->len && p->text[p->pos] == c) {
        p->pos++;
        return true;
    }
    return false;
}

/* --- one conversation ------------------------------------------------------------------------- */

static const json_t *either(const json_t *object, const char *key, const char *other)
{
    const json_t *v = json_object_get(object, key);
    return v != NULL ? v : json_object_get(object, other);
}

static bool is_human(const json_t *turn)
{
    const char *role = json_string_value(either(turn, "from", "role"));
    return role != NULL && (strcmp(role, "human") == 0 || strcmp(role, "user") == 0);
}

/* Append the ids of a turn's text; false when it has none. */
static bool encode_turn(const struct parser *p, const json_t *turn, bool with_special,
                        struct token_ids *ids)
{
    const json_t *value = either(turn, "value", "content");
    if (!json_is_string(value)) {
        return false;
    }
    if (json_string_length(value) > 0) {
        tokenizer_encode(p->tok, json_string_value(value), json_string_length(value), with_special,
                         ids);
    }
    return true;
}

/* Make the prompt that begins at ids_at `want` tokens long: cut, or its text repeated. */
static void force_length(struct token_ids *ids, size_t ids_at, size_t want)
{
    size_t have = ids->n - ids_at;
    size_t head = have > 1 ? 1 : 0; // BOS stands once
    while (ids->n - ids_at < want) {
        size_t k = ids->n - ids_at;
        token_ids_push(ids, ids->v[ids_at + head + (k - head) % (have - head)]);
    }
    ids->n = ids_at + want;
}

/* Why an entry is left out, or ENTRIES_N_REASONS. natural_in: before it was forced. */
static enum entries_reason judge(const struct parser *p, const struct entry *n, size_t natural_in)
{
    const struct limits *l = &filter_limits[p->cfg->filter];
    bool in_is_free = p->cfg->input_tokens == 0, out_is_free = p->cfg->output_tokens == 0;
    bool is_drawn = p->cfg->filter == DATASET_FILTER_FIRST_TURN && out_is_free;
    uint64_t n_out = is_drawn ? p->min_drawn : n->n_out;
    uint64_t sum = n->n_in + n_out;
    if (natural_in < (in_is_free ? l->min_in : 1)) {
        return ENTRIES_PROMPT_TOO_SHORT;
    }
    if (in_is_free && n->n_in > l->max_in) {
        return ENTRIES_PROMPT_TOO_LONG;
    }
    if (out_is_free && n_out < l->min_out) {
        return ENTRIES_COMPLETION_TOO_SHORT;
    }
    if (out_is_free && n_out > l->max_out) {
        return ENTRIES_COMPLETION_TOO_LONG;
    }
    if (sum > l->max_sum) {
        return ENTRIES_SUM_TOO_LONG;
    }
    return sum > p->context ? ENTRIES_CONTEXT : ENTRIES_N_REASONS;
}

static uint32_t clamp_length(size_t n)
{
    return n < UINT32_MAX ? (uint32_t)n : UINT32_MAX;
}

/* Tokenise, force, judge, keep. completion is NULL where the output length is drawn. */
static int add_entry(struct parser *p, const json_t *prompt, const json_t *completion, size_t pos,
                     struct err *e)
{
    struct entries *s = &p->entries;
    struct entry entry = {.index = s->n_source, .ids_at = s->ids.n};
    p->scratch.n = 0;
    if (!encode_turn(p, prompt, true, &s->ids) ||
        (completion != NULL && !encode_turn(p, completion, false, &p->scratch))) {
        return fail_entry(p, pos, "a turn has no \"value\" text", e);
    }
    size_t natural_in = s->ids.n - entry.ids_at;
    if (p->cfg->input_tokens > 0 && natural_in > 0) {
        force_length(&s->ids, entry.ids_at, (size_t)p->cfg->input_tokens);
    }
    entry.n_in = clamp_length(s->ids.n - entry.ids_at);
    entry.n_out = clamp_length(p->scratch.n);
    if (p->cfg->output_tokens > 0) {
        entry.n_out = clamp_length((size_t)p->cfg->output_tokens);
    }
    enum entries_reason reason = judge(p, &entry, natural_in);
    if (reason == ENTRIES_N_REASONS) {
        return entries_add(s, &entry, e);
    }
    s->filtered[reason]++;
    s->ids.n = entry.ids_at;
    return 0;
}

static int add_conversation(struct parser *p, const json_t *c, size_t pos, struct err *e)
{
    const json_t *turns = either(c, "conversations", "conversation");
    if (!json_is_array(turns)) {
        return fail_entry(p, pos, "no list of \"conversations\"", e);
    }
    if (p->cfg->filter != DATASET_FILTER_FIRST_TURN) {
        if (json_array_size(turns) < 2) {
            p->entries.filtered[ENTRIES_TOO_FEW_TURNS]++;
            return 0;
        }
        return add_entry(p, json_array_get(turns, 0), json_array_get(turns, 1), pos, e);
    }
    for (size_t i = 0; i < json_array_size(turns); i++) {
        if (is_human(json_array_get(turns, i))) {
            return add_entry(p, json_array_get(turns, i), NULL, pos, e);
        }
    }
    p->entries.filtered[ENTRIES_NO_HUMAN_TURN]++;
    return 0;
}

/* --- the list --------------------------------------------------------------------------------- */

static int parse_element(struct parser *p, struct err *e)
{
    json_error_t je;
    skip_space(p);
    size_t pos = p->pos;
    json_t *c = json_loadb(p->text + pos, p->len - pos,
                           JSON_DISABLE_EOF_CHECK | JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &je);
    if (c == NULL) { // its place counts from where the element begins
        struct place at = place_of(p, pos);
        int column = je.line == 1 ? at.column + je.column - 1 : je.column;
        return err_set(e, ERR_INPUT, "%s:%d:%d: not JSON: %s", p->where, at.line + je.line - 1,
                       column, je.text);
    }
    int rc = add_conversation(p, c, pos, e);
    json_decref(c);
    p->pos = pos + (size_t)je.position;
    p->entries.n_source++;
    return rc;
}

static int parse_list(struct parser *p, struct err *e)
{
    if (!take(p, '[')) {
        return fail_syntax(p, p->pos, "not JSON: a list of conversations begins with '['", e);
    }
    bool is_first = true;
    while (!take(p, ']')) {
        if (!is_first && !take(p, ',')) {
            return fail_syntax(p, p->pos, "not JSON: ',' or ']' expected", e);
        }
        if (parse_element(p, e) != 0) {
            return -1;
        }
        is_first = false;
    }
    skip_space(p);
    return p->pos == p->len ? 0 : fail_syntax(p, p->pos, "not JSON: text after the list", e);
}

static int find_min_drawn(struct parser *p, struct err *e)
{
    struct quantile_sampler q;
    if (quantile_init(&q, &quantile_sharegpt_output, e) != 0) {
        return -1;
    }
    p->min_drawn = (uint32_t)quantile_at(&q, FIT_MIN);
    return 0;
}

int sharegpt_parse(struct entries *out, const struct dataset_config *cfg,
                   const struct tokenizer *tok, uint32_t context, const char *text, size_t len,
                   const char *where, struct err *e)
{
    struct parser p = {
        .cfg = cfg, .tok = tok, .context = context, .text = text, .where = where, .len = len};
    int rc = find_min_drawn(&p, e);
    if (rc == 0) {
        rc = parse_list(&p, e);
    }
    if (rc == 0) {
        rc = entries_check(&p.entries, where, "conversation", e);
    }
    token_ids_free(&p.scratch);
    if (rc != 0) {
        entries_free(&p.entries);
        return -1;
    }
    *out = p.entries;
    return 0;
}
