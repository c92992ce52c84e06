/*
 * Two passes. The first walks over the list and notes where each conversation begins and ends,
 * looking only at quotes and brackets. In the second, threads take batches of conversations, read
 * them strictly and tokenise them; the batches are joined in order.
 */
#include "datasets/sharegpt.h"

#include "core/json_scan.h"
#include "core/json_text.h"
#include "core/mem.h"
#include "core/pool.h"
#include "datasets/prompt_text.h"
#include "datasets/text_file.h"
#include "model/utf8.h"

#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define NO_LIMIT    UINT32_MAX
#define FIT_MIN     0.01 // a prompt is kept when at least this share of output lengths fits behind it
#define BATCH_BYTES ((size_t)1 << 20)
#define MAX_THREADS 16
#define POLL_US     200

struct limits {
    uint32_t min_in, max_in, min_out, max_out, max_sum; // tokens
};

static const struct limits filter_limits[] = {
    [DATASET_FILTER_VLLM] = {4, 1024, 4, NO_LIMIT, 2048},
    [DATASET_FILTER_INFERENCE_BENCHMARK] = {4, 1024, 4, 1024, NO_LIMIT},
    [DATASET_FILTER_FIRST_TURN] = {1, NO_LIMIT, 1, NO_LIMIT, NO_LIMIT},
};

struct slice { // of the text
    size_t begin, end;
};

struct parser { // what all threads share
    const struct sharegpt_input *in;
    const char *text, *where;
    size_t len;
    struct token_ids special; // in front of a prompt
    struct slice *elements;   // (n_elements)
    size_t n_elements, elements_cap;
    struct batch *batches; // (n_batches)
    size_t n_batches;
    atomic_size_t next;
};

struct batch {
    size_t first, n; // elements
    struct entries entries;
    int rc;
    struct err e;
};

struct raw_turn {
    enum prompt_role role;
    bool has_text;
    struct json_text text;
};

struct reader { // of one thread
    const struct parser *p;
    struct entries *out;
    size_t index;           // of the conversation in the file
    size_t pos;             // where it begins
    struct raw_turn *turns; // (n_turns)
    size_t n_turns, turns_cap;
    struct tokenizer_encoder *encoder; // NULL without a tokenizer
    struct str plain;
    struct token_ids scratch; // of a completion
    struct err *e;
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
    return err_set(e, ERR_INPUT, "%s:%d:%d: not JSON: %s", p->where, at.line, at.column, what);
}

static int fail_entry(const struct reader *r, const char *what)
{
    return err_set(r->e, ERR_INPUT, "%s:%d: conversation %zu: %s", r->p->where,
                   place_of(r->p, r->pos).line, r->index + 1, what);
}

/* --- tokens ----------------------------------------------------------------------------------- */

uint32_t sharegpt_n_special(const struct tokenizer *tok)
{
    struct token_ids with = {0}, without = {0};
    size_t n = 0;
    if (tok != NULL) {
        tokenizer_encode(tok, "a", 1, true, &with);
        tokenizer_encode(tok, "a", 1, false, &without);
        while (n + without.n < with.n &&
               memcmp(with.v + n, without.v, without.n * sizeof *without.v) != 0) {
            n++;
        }
    }
    token_ids_free(&with);
    token_ids_free(&without);
    return (uint32_t)n;
}

/* The text without escapes: `t` itself where it has none, else put into *plain. False: it is not UTF-8, or
 * has half a surrogate pair. */
static bool plain_of(struct json_text t, struct str *plain, struct json_text *out)
{
    *out = t;
    if (!utf8_valid(t.data, t.len)) {
        return false;
    }
    if (memchr(t.data, '\\', t.len) == NULL) {
        return true;
    }
    str_clear(plain);
    bool is_whole = json_text_unescape(t, plain);
    *out = (struct json_text){plain->data, plain->len};
    return is_whole;
}

/*
 * Append the ids of a message, after the special ones if it is a prompt's first; *n is how many
 * tokens. A text that is empty has none at all.
 */
static int encode(struct reader *r, const struct raw_turn *t, bool is_first, struct token_ids *ids,
                  size_t *n)
{
    struct json_text plain;
    *n = 0;
    if (!t->has_text) {
        return fail_entry(r, "a turn has no \"value\" text");
    }
    if (!plain_of(t->text, &r->plain, &plain)) {
        return fail_syntax(r->p, (size_t)(t->text.data - r->p->text),
                           "a text is not UTF-8, or half a surrogate pair", r->e);
    }
    if (plain.len == 0) {
        return 0;
    }
    if (r->p->in->tok == NULL) {
        *n = (plain.len + SHAREGPT_BYTES_PER_TOKEN - 1) / SHAREGPT_BYTES_PER_TOKEN;
        return 0;
    }
    size_t before = ids->n;
    for (size_t i = 0; is_first && i < r->p->special.n; i++) {
        token_ids_push(ids, r->p->special.v[i]);
    }
    tokenizer_encoder_add(r->encoder, plain.data, plain.len, false, ids);
    *n = ids->n - before;
    return 0;
}

static uint32_t clamp_length(size_t n)
{
    return n < UINT32_MAX / 2 ? (uint32_t)n : UINT32_MAX / 2;
}

/* --- keeping ---------------------------------------------------------------------------------- */

/* The output length that must fit behind a prompt. */
static uint32_t needed_out(const struct sharegpt_input *in, uint32_t natural)
{
    if (in->out->is_forced) {
        return lengths_shortest(in->out);
    }
    bool is_drawn =
        in->cfg->turns == DATASET_TURNS_FIRST && in->cfg->filter == DATASET_FILTER_FIRST_TURN;
    return is_drawn ? lengths_at(in->out, FIT_MIN) : natural;
}

/* Why a conversation with these lengths is left out, or ENTRIES_N_REASONS. */
static enum entries_reason judge(const struct sharegpt_input *in, uint32_t natural_in,
                                 uint32_t natural_out)
{
    const struct limits *l = &filter_limits[in->cfg->filter];
    uint32_t n_in = in->in->is_forced ? lengths_shortest(in->in) : natural_in;
    uint32_t n_out = needed_out(in, natural_out);
    uint64_t sum = (uint64_t)n_in + n_out;
    if (natural_in < (in->in->is_forced ? 1 : l->min_in)) {
        return ENTRIES_PROMPT_TOO_SHORT;
    }
    if (!in->in->is_forced && n_in > l->max_in) {
        return ENTRIES_PROMPT_TOO_LONG;
    }
    if (!in->out->is_forced && n_out < l->min_out) {
        return ENTRIES_COMPLETION_TOO_SHORT;
    }
    if (!in->out->is_forced && n_out > l->max_out) {
        return ENTRIES_COMPLETION_TOO_LONG;
    }
    if (sum > l->max_sum) {
        return ENTRIES_SUM_TOO_LONG;
    }
    return sum > in->context ? ENTRIES_CONTEXT : ENTRIES_N_REASONS;
}

static int add_message(struct reader *r, const struct raw_turn *t)
{
    struct message m = {
        .at = (uint64_t)(t->text.data - r->p->text),
        .len = clamp_length(t->text.len),
        .role = (uint32_t)t->role,
    };
    return entries_add_message(r->out, &m, r->e);
}

/*
 * completion is NULL where the output length is drawn. Else it is counted with the special tokens of a text
 * of its own, as both filters' tools do (tokenizer(completion).input_ids).
 */
static int add_request(struct reader *r, const struct raw_turn *prompt,
                       const struct raw_turn *completion)
{
    struct entries *s = r->out;
    struct raw_turn asked = *prompt;
    size_t n_in, n_out = 0, ids_at = s->ids.n;
    asked.role = PROMPT_USER;
    r->scratch.n = 0;
    if (encode(r, &asked, true, &s->ids, &n_in) != 0 ||
        (completion != NULL && encode(r, completion, true, &r->scratch, &n_out) != 0)) {
        return -1;
    }
    enum entries_reason reason = judge(r->p->in, clamp_length(n_in), clamp_length(n_out));
    if (reason != ENTRIES_N_REASONS) {
        s->filtered[reason]++;
        s->ids.n = ids_at;
        return 0;
    }
    struct entry entry = {
        .index = r->index,
        .data_at = ids_at,
        .turn_at = s->n_turns,
        .message_at = s->n_messages,
        .n_data = (uint32_t)(s->ids.n - ids_at),
        .n_turns = 1,
    };
    struct turn turn = {.n_in = clamp_length(n_in), .n_messages = 1};
    turn.n_out = r->p->in->out->is_forced ? 0 : clamp_length(n_out);
    if (add_message(r, &asked) != 0 || entries_add_turn(s, &turn, r->e) != 0) {
        return -1;
    }
    return entries_add(s, &entry, r->e);
}

static int filter_conversation(struct reader *r)
{
    if (r->p->in->cfg->filter != DATASET_FILTER_FIRST_TURN) {
        if (r->n_turns < 2) {
            r->out->filtered[ENTRIES_TOO_FEW_TURNS]++;
            return 0;
        }
        return add_request(r, &r->turns[0], &r->turns[1]);
    }
    for (size_t i = 0; i < r->n_turns; i++) {
        if (r->turns[i].role == PROMPT_USER) {
            return add_request(r, &r->turns[i], NULL);
        }
    }
    r->out->filtered[ENTRIES_NO_HUMAN_TURN]++;
    return 0;
}

/* --- turn by turn ----------------------------------------------------------------------------- */

struct history { // of a conversation while it is read
    struct entry entry;
    size_t n_tokens, n_asked;
    uint32_t n_messages;
    bool is_open; // a human turn waits for its answer
    bool is_over; // a turn did not fit
};

/* An answer ends a turn, if what was asked and what is needed for the answer fit. */
static int end_turn(struct reader *r, struct history *h, size_t n_answer)
{
    const struct sharegpt_input *in = r->p->in;
    uint32_t n_out = clamp_length(n_answer);
    if (!h->is_open || (n_answer == 0 && !in->out->is_forced)) {
        return 0;
    }
    h->is_open = false;
    if (h->is_over || h->n_tokens + needed_out(in, n_out) > in->context) {
        r->out->n_turns_cut++;
        h->is_over = true;
        return 0;
    }
    struct turn turn = {
        .n_in = clamp_length(h->n_tokens),
        .n_out = in->out->is_forced ? 0 : n_out,
        .n_messages = h->n_messages,
    };
    h->entry.n_turns++;
    return entries_add_turn(r->out, &turn, r->e);
}

/* What comes after the end is only counted. */
static int pass_over(struct reader *r, struct history *h, const struct raw_turn *t)
{
    h->is_open = h->is_open || (t->role == PROMPT_USER && t->text.len > 0);
    return t->role == PROMPT_ASSISTANT ? end_turn(r, h, t->text.len) : 0;
}

static int add_to_history(struct reader *r, struct history *h, const struct raw_turn *t)
{
    struct entries *s = r->out;
    size_t n, ids_before = s->ids.n;
    if (h->is_over) {
        return pass_over(r, h, t);
    }
    if (encode(r, t, h->n_tokens == 0, &s->ids, &n) != 0) {
        return -1;
    }
    size_t n_special = h->n_tokens == 0 && n > 0 ? r->p->special.n : 0;
    if (t->role == PROMPT_ASSISTANT && end_turn(r, h, n - n_special) != 0) {
        return -1;
    }
    if (n == 0 || h->is_over) {
        s->ids.n = ids_before;
    } else {
        h->n_tokens += n;
        h->n_messages++;
        if (add_message(r, t) != 0) {
            return -1;
        }
    }
    if (t->role == PROMPT_USER && n > 0) {
        h->is_open = true;
        h->n_asked++;
    }
    return 0;
}

/* Why a conversation without a turn has none. */
static enum entries_reason why_no_turn(const struct history *h)
{
    if (h->is_over) {
        return ENTRIES_CONTEXT;
    }
    return h->n_asked > 0 ? ENTRIES_TOO_FEW_TURNS : ENTRIES_NO_HUMAN_TURN;
}

static int keep_turns(struct reader *r)
{
    struct entries *s = r->out;
    uint64_t n_cut_before = s->n_turns_cut;
    struct history h = {.entry = {.index = r->index,
                                  .data_at = s->ids.n,
                                  .turn_at = s->n_turns,
                                  .message_at = s->n_messages}};
    for (size_t i = 0; i < r->n_turns; i++) {
        if (add_to_history(r, &h, &r->turns[i]) != 0) {
            return -1;
        }
    }
    if (h.entry.n_turns == 0) {
        s->filtered[why_no_turn(&h)]++;
        s->n_turns_cut = n_cut_before;
        s->ids.n = h.entry.data_at;
        s->n_messages = h.entry.message_at;
        return 0;
    }
    const struct turn *last = &s->turns[s->n_turns - 1]; // what follows its prompt is never sent
    s->n_messages = h.entry.message_at + last->n_messages;
    if (r->p->in->tok != NULL) {
        s->ids.n = h.entry.data_at + last->n_in;
        h.entry.n_data = last->n_in;
    }
    return entries_add(s, &h.entry, r->e);
}

/* --- one conversation ------------------------------------------------------------------------- */

static enum prompt_role role_of(struct json_text t)
{
    if (json_text_is(t, "human") || json_text_is(t, "user")) {
        return PROMPT_USER;
    }
    return json_text_is(t, "system") ? PROMPT_SYSTEM : PROMPT_ASSISTANT;
}

/* The keys of ShareGPT win over their other names. */
static void scan_turn(struct json_scan *s, struct raw_turn *turn)
{
    struct json_text key, role = {"", 0};
    bool has_value = false;
    *turn = (struct raw_turn){0};
    for (json_scan_object(s); json_scan_key(s, &key);) {
        bool is_text = json_scan_type(s) == JSON_SCAN_STRING;
        if (is_text && (json_text_is(key, "from") || json_text_is(key, "role"))) {
            json_scan_string(s, &role);
        } else if (is_text && json_text_is(key, "value")) {
            json_scan_string(s, &turn->text);
            has_value = turn->has_text = true;
        } else if (is_text && !has_value && json_text_is(key, "content")) {
            json_scan_string(s, &turn->text);
            turn->has_text = true;
        } else {
            json_scan_skip(s);
        }
    }
    turn->role = role_of(role);
}

static void scan_turns(struct reader *r, struct json_scan *s)
{
    r->n_turns = 0;
    for (json_scan_list(s); json_scan_item(s);) {
        if (r->n_turns == r->turns_cap) {
            r->turns_cap = 2 * r->turns_cap + 16;
            r->turns = xrealloc(r->turns, r->turns_cap * sizeof *r->turns);
        }
        struct raw_turn *turn = &r->turns[r->n_turns++];
        if (json_scan_type(s) == JSON_SCAN_OBJECT) {
            scan_turn(s, turn);
        } else {
            *turn = (struct raw_turn){0};
            json_scan_skip(s);
        }
    }
}

/* The turns of the conversation at r->pos; *has_list: it has a list of them. */
static bool scan_conversation(struct reader *r, struct json_scan *s)
{
    struct json_text key;
    bool has_list = false;
    if (json_scan_type(s) != JSON_SCAN_OBJECT) {
        json_scan_skip(s);
        return false;
    }
    for (json_scan_object(s); json_scan_key(s, &key);) {
        bool is_list = json_text_is(key, "conversations") || json_text_is(key, "conversation");
        if (is_list && json_scan_type(s) == JSON_SCAN_LIST) {
            scan_turns(r, s);
            has_list = true;
        } else {
            json_scan_skip(s);
        }
    }
    return has_list;
}

static int read_conversation(struct reader *r, struct slice at)
{
    struct json_scan s;
    r->pos = at.begin;
    json_scan_init(&s, r->p->text + at.begin, at.end - at.begin);
    bool has_list = scan_conversation(r, &s);
    if (!json_scan_end(&s)) {
        const char *bad = s.bad != NULL ? s.bad : s.at;
        return fail_syntax(r->p, (size_t)(bad - r->p->text), "in a conversation", r->e);
    }
    if (!has_list) {
        return fail_entry(r, "no list of \"conversations\"");
    }
    r->out->n_source++;
    return r->p->in->cfg->turns == DATASET_TURNS_MULTI ? keep_turns(r) : filter_conversation(r);
}

/* --- batches ---------------------------------------------------------------------------------- */

static void read_batch(struct reader *r, struct batch *b)
{
    r->out = &b->entries;
    r->e = &b->e;
    for (size_t i = 0; i < b->n && b->rc == 0; i++) {
        r->index = b->first + i;
        b->rc = read_conversation(r, r->p->elements[r->index]);
    }
    if (r->p->in->is_mapped) {
        size_t begin = r->p->elements[b->first].begin;
        text_file_release(r->p->text + begin, r->p->elements[b->first + b->n - 1].end - begin);
    }
}

static void read_batches(void *arg, int member, int n_members)
{
    struct parser *p = arg;
    struct reader r = {.p = p};
    r.encoder = p->in->tok != NULL ? tokenizer_encoder_new(p->in->tok) : NULL;
    (void)member;
    (void)n_members;
    for (size_t i; (i = atomic_fetch_add(&p->next, 1)) < p->n_batches;) {
        read_batch(&r, &p->batches[i]);
    }
    tokenizer_encoder_free(r.encoder);
    free(r.turns);
    str_free(&r.plain);
    token_ids_free(&r.scratch);
}

static int threads_of(const struct parser *p)
{
    cpu_set_t set;
    int n = p->in->n_threads;
    if (n == 0) {
        n = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
    }
    n = n < MAX_THREADS ? n : MAX_THREADS;
    return (size_t)n < p->n_batches ? n : (int)p->n_batches;
}

static void read_all(struct parser *p)
{
    int n_threads = threads_of(p);
    if (n_threads <= 1) {
        read_batches(p, 0, 1);
        return;
    }
    struct pool *pool = pool_create(n_threads, NULL, false);
    pool_submit(pool, read_batches, p);
    while (!pool_poll(pool)) {
        usleep(POLL_US);
    }
    pool_destroy(pool);
}

/* The first error in the file's order; else all entries. */
static int join(struct parser *p, struct entries *out, struct err *e)
{
    for (size_t i = 0; i < p->n_batches; i++) {
        if (p->batches[i].rc != 0) {
            *e = p->batches[i].e;
            return -1;
        }
        if (entries_append(out, &p->batches[i].entries, e) != 0) {
            return -1;
        }
    }
    return 0;
}

static void make_batches(struct parser *p)
{
    p->batches = xcalloc(p->n_elements + 1, sizeof *p->batches);
    for (size_t i = 0; i < p->n_elements; i++) {
        struct batch *b = p->n_batches > 0 ? &p->batches[p->n_batches - 1] : NULL;
        if (b == NULL || p->elements[i].end - p->elements[b->first].begin > BATCH_BYTES) {
            b = &p->batches[p->n_batches++];
            b->first = i;
        }
        b->n++;
    }
}

/* --- where conversations are ------------------------------------------------------------------ */

static size_t skip_space(const struct parser *p, size_t at)
{
    while (at < p->len && p->text[at] != '\0' && strchr(" \t\r\n", p->text[at]) != NULL) {
        at++;
    }
    return at;
}

/* Behind the quote that ends the string whose first quote is at `at`. */
static size_t skip_string(const struct parser *p, size_t at)
{
    for (at++; at < p->len && p->text[at] != '"'; at++) {
        at += p->text[at] == '\\';
    }
    return at + 1;
}

/* Behind the value at `at`: where its brackets are closed, or the list it is in goes on. */
static size_t skip_value(const struct parser *p, size_t at)
{
    size_t depth = 0;
    while (at < p->len) {
        char c = p->text[at];
        if (c == '"') {
            at = skip_string(p, at);
            continue;
        }
        if (depth == 0 && (c == ',' || c == ']' || c == '}')) {
            break;
        }
        depth += c == '{' || c == '[';
        depth -= c == '}' || c == ']';
        at++;
        if (depth == 0 && (c == '}' || c == ']')) {
            break;
        }
    }
    return at < p->len ? at : p->len;
}

static void add_element(struct parser *p, size_t begin, size_t end)
{
    if (p->n_elements == p->elements_cap) {
        p->elements_cap = 2 * p->elements_cap + 1024;
        p->elements = xrealloc(p->elements, p->elements_cap * sizeof *p->elements);
    }
    p->elements[p->n_elements++] = (struct slice){begin, end};
}

static char char_at(const struct parser *p, size_t at)
{
    return at < p->len ? p->text[at] : '\0';
}

static int find_elements(struct parser *p, struct err *e)
{
    size_t at = skip_space(p, 0);
    if (char_at(p, at) != '[') {
        return fail_syntax(p, at, "a list of conversations begins with '['", e);
    }
    at = skip_space(p, at + 1);
    bool is_over = char_at(p, at) == ']';
    while (!is_over) {
        size_t begin = skip_space(p, at);
        at = skip_value(p, begin);
        add_element(p, begin, at);
        at = skip_space(p, at);
        is_over = char_at(p, at) == ']';
        if (!is_over && char_at(p, at) != ',') {
            return fail_syntax(p, at, "',' or ']' expected", e);
        }
        at += !is_over;
    }
    at = skip_space(p, at + 1);
    return at == p->len ? 0 : fail_syntax(p, at, "text after the list", e);
}

int sharegpt_parse(struct entries *out, const struct sharegpt_input *in, const char *text,
                   size_t len, const char *where, struct err *e)
{
    struct parser p = {.in = in, .text = text, .where = where, .len = len};
    struct entries entries = {0};
    if (in->tok != NULL) {
        tokenizer_encode(in->tok, "", 0, true, &p.special);
        p.special.n = sharegpt_n_special(in->tok);
    }
    int rc = find_elements(&p, e);
    if (rc == 0) {
        make_batches(&p);
        read_all(&p);
        rc = join(&p, &entries, e);
    }
    if (rc == 0) {
        rc = entries_check(&entries, where, "conversation", e);
    }
    for (size_t i = 0; i < p.n_batches; i++) {
        entries_free(&p.batches[i].entries);
    }
    free(p.batches);
    free(p.elements);
    token_ids_free(&p.special);
    if (rc != 0) {
        entries_free(&entries);
        return -1;
    }
    *out = entries;
    return 0;
}
