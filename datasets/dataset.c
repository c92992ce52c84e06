#include "datasets/dataset.h"

#include "core/mem.h"
#include "core/rng.h"
#include "datasets/entries.h"
#include "datasets/quantile.h"
#include "datasets/sharegpt.h"
#include "datasets/trace.h"
#include "datasets/words.h"

#include <jansson.h>

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <xxhash.h>

#define MAX_FILE_BYTES ((size_t)8 << 30)
#define MAX_TOKENS     1e9
#define N_STATS_DRAWS  100000 // of a sampled length, for its statistics
#define MAX_REDRAWS    4096   // at the smallest share that is accepted, one in 10^17 gets there
#define MIN_FIT        0.01   // share of draws that must fit the context
#define N_FIT_GRID     200

struct kind;

struct dataset {
    const struct kind *kind;
    struct dataset_config cfg;   // source owned
    const struct tokenizer *tok; // may be NULL
    struct words words;
    uint32_t context;
    uint64_t hash;          // of the file, 0 for a sampler
    struct entries entries; // empty for a sampler
    struct quantile_sampler in, out;
    int32_t *ordinary; // (n_ordinary) ids to draw from; NULL: 0..n_ordinary-1
    uint64_t n_ordinary;
    struct dataset_stats in_stats, out_stats;
};

/* A kind of source. */
struct kind {
    const char *name;
    const char *suffix; // of its files; NULL: no file
    int (*parse)(struct dataset *d, const struct tokenizer *tok, const struct str *text,
                 struct err *e);
    void (*get)(const struct dataset *d, uint64_t seed, uint64_t i, struct prompt *p);
    const char *(*note)(const struct dataset *d);
};

/* --- options ---------------------------------------------------------------------------------- */

#define ROW(key_, type_, def_, lo_, hi_, help_, field_)                                            \
    .key = (key_), .type = (type_), .def = (def_), .lo = (lo_), .hi = (hi_), .help = (help_),      \
    .offset = offsetof(struct dataset_config, field_)

#define FILTERS "vllm|inference-benchmark|first-turn"

static const struct opt rows[] = {
    {ROW("load.dataset.source", OPT_STRING, "sharegpt", 0, 0,
         "sharegpt (the published length table), conversations (.json) or an Azure trace (.csv)",
         source),
     .short_key = "load.dataset"},
    {ROW("load.dataset.filter", OPT_CHOICE, "vllm", 0, 0,
         "which conversations are kept, and whether their second turn sets the output length",
         filter),
     .choices = FILTERS},
    {ROW("load.dataset.time_scale", OPT_NUMBER, "1", 1e-6, 1e6,
         "trace: its times are multiplied by this; 0.5 is twice as fast", time_scale)},
    {ROW("load.dataset.window", OPT_WINDOW, NULL, 0, 0,
         "trace: the part of it to use, since its first request and before scaling", window)},
    {ROW("load.input_tokens", OPT_INT, "0", 0, MAX_TOKENS,
         "tokens of every prompt, drawn or cut or repeated; 0: as the dataset says", input_tokens)},
    {ROW("load.output_tokens", OPT_INT, "0", 0, MAX_TOKENS,
         "tokens of every output; 0: as the dataset says", output_tokens)},
};

const struct opt_table dataset_options = {rows, sizeof rows / sizeof rows[0]};

/* --- drawn lengths ---------------------------------------------------------------------------- */

static uint32_t draw_input(const struct dataset *d, uint64_t seed, uint64_t i, uint64_t attempt)
{
    if (d->cfg.input_tokens > 0) {
        return (uint32_t)d->cfg.input_tokens;
    }
    return (uint32_t)quantile_at(&d->in, rng_uniform(seed, RNG_INPUT_LENGTH, i, attempt));
}

static uint32_t draw_output(const struct dataset *d, uint64_t seed, uint64_t i, uint64_t attempt)
{
    if (d->cfg.output_tokens > 0) {
        return (uint32_t)d->cfg.output_tokens;
    }
    return (uint32_t)quantile_at(&d->out, rng_uniform(seed, RNG_OUTPUT_LENGTH, i, attempt));
}

/* The shortest that can be drawn: what is left when every draw was too long. */
static uint32_t shortest(int64_t forced, const struct quantile_sampler *q)
{
    return forced > 0 ? (uint32_t)forced : (uint32_t)q->table.min;
}

static void get_drawn(const struct dataset *d, uint64_t seed, uint64_t i, struct prompt *p)
{
    *p = (struct prompt){.entry = i, .n_turns = 1};
    for (; p->redrawn < MAX_REDRAWS; p->redrawn++) {
        p->n_in = draw_input(d, seed, i, p->redrawn);
        p->n_out = draw_output(d, seed, i, p->redrawn);
        if ((uint64_t)p->n_in + p->n_out <= d->context) {
            return;
        }
    }
    p->n_in = shortest(d->cfg.input_tokens, &d->in);
    p->n_out = shortest(d->cfg.output_tokens, &d->out);
}

/* An output length for a prompt that is given. */
static void draw_completion(const struct dataset *d, uint64_t seed, uint64_t i, struct prompt *p)
{
    for (; p->redrawn < MAX_REDRAWS; p->redrawn++) {
        p->n_out = draw_output(d, seed, i, p->redrawn);
        if ((uint64_t)p->n_in + p->n_out <= d->context) {
            return;
        }
    }
    p->n_out = shortest(d->cfg.output_tokens, &d->out);
}

static double draw_at(int64_t forced, const struct quantile_sampler *q, int step)
{
    return forced > 0 ? (double)forced : quantile_at(q, (step + 0.5) / N_FIT_GRID);
}

/* How much of the two distributions fits the context together, on a grid of both. */
static int check_fit(const struct dataset *d, struct err *e)
{
    int n_fit = 0;
    for (int i = 0; i < N_FIT_GRID; i++) {
        for (int k = 0; k < N_FIT_GRID; k++) {
            double sum =
                draw_at(d->cfg.input_tokens, &d->in, i) + draw_at(d->cfg.output_tokens, &d->out, k);
            n_fit += sum <= d->context;
        }
    }
    if (n_fit < MIN_FIT * N_FIT_GRID * N_FIT_GRID) {
        return err_set(
            e, ERR_INPUT,
            "load.dataset: less than %g %% of %s's requests fit the context of %u tokens",
            MIN_FIT * 100, d->cfg.source, d->context);
    }
    return 0;
}

static int parse_sampler(struct dataset *d, const struct tokenizer *tok, const struct str *text,
                         struct err *e)
{
    (void)tok;
    (void)text;
    return check_fit(d, e);
}

static const char *note_sampler(const struct dataset *d)
{
    (void)d;
    return "input and output lengths are drawn independently (the published table gives no joint "
           "distribution), token ids too; pairs over the context are drawn again and counted";
}

/* --- conversations ---------------------------------------------------------------------------- */

static int parse_conversations(struct dataset *d, const struct tokenizer *tok,
                               const struct str *text, struct err *e)
{
    if (tok == NULL) {
        return err_set(e, ERR_INPUT,
                       "load.dataset: %s has text, which needs a model folder with tokenizer.json",
                       d->cfg.source);
    }
    return sharegpt_parse(&d->entries, &d->cfg, tok, d->context, text->data, text->len,
                          d->cfg.source, e);
}

/* Epoch by epoch through all entries, each time in another order. */
static const struct entry *shuffled_entry(const struct dataset *d, uint64_t seed, uint64_t i)
{
    uint64_t n = d->entries.n;
    return &d->entries.v[rng_permute(i % n, n, seed, RNG_ENTRY, i / n)];
}

static void get_shuffled(const struct dataset *d, uint64_t seed, uint64_t i, struct prompt *p)
{
    const struct entry *entry = shuffled_entry(d, seed, i);
    *p = (struct prompt){
        .n_in = entry->n_in,
        .n_out = entry->n_out,
        .entry = entry->index,
        .n_turns = 1,
    };
    if (p->n_out == 0) {
        draw_completion(d, seed, i, p);
    }
}

static const char *note_conversations(const struct dataset *d)
{
    if (d->cfg.filter == DATASET_FILTER_FIRST_TURN && d->cfg.output_tokens == 0) {
        return "output lengths are drawn from the published ShareGPT table, independently of the "
               "prompt; those over the context are drawn again and counted";
    }
    return "prompt and output length of a request come from one conversation";
}

/* --- traces ----------------------------------------------------------------------------------- */

static int parse_trace(struct dataset *d, const struct tokenizer *tok, const struct str *text,
                       struct err *e)
{
    (void)tok;
    return trace_parse(&d->entries, &d->cfg, d->context, text->data, text->len, d->cfg.source, e);
}

/* In order of time under every seed: event i is arrival i. */
static void get_in_order(const struct dataset *d, uint64_t seed, uint64_t i, struct prompt *p)
{
    (void)seed;
    const struct entry *entry = &d->entries.v[i % d->entries.n];
    *p = (struct prompt){
        .n_in = entry->n_in, .n_out = entry->n_out, .entry = entry->index, .n_turns = 1};
}

static const char *note_trace(const struct dataset *d)
{
    (void)d;
    return "input and output length of a request are the trace's; token ids are drawn";
}

static const struct kind sampler = {"quantile", NULL, parse_sampler, get_drawn, note_sampler};
static const struct kind conversations = {"sharegpt", ".json", parse_conversations, get_shuffled,
                                          note_conversations};
static const struct kind trace = {"trace", ".csv", parse_trace, get_in_order, note_trace};

/* --- statistics ------------------------------------------------------------------------------- */

static int compare_lengths(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

/* Linear between order statistics, as all quantiles of tidemark. */
static double quantile_of(const uint32_t *sorted, size_t n, double q)
{
    double at = q * (double)(n - 1);
    size_t i = (size_t)at;
    double low = sorted[i], high = sorted[i + 1 < n ? i + 1 : i];
    return low + (high - low) * (at - (double)i);
}

static struct dataset_stats stats_of(uint32_t *lengths, size_t n)
{
    double sum = 0.0;
    for (size_t i = 0; i < n; i++) {
        sum += lengths[i];
    }
    qsort(lengths, n, sizeof *lengths, compare_lengths);
    return (struct dataset_stats){
        .n = n,
        .min = lengths[0],
        .median = quantile_of(lengths, n, 0.5),
        .mean = sum / (double)n,
        .p90 = quantile_of(lengths, n, 0.9),
        .p99 = quantile_of(lengths, n, 0.99),
        .max = lengths[n - 1],
    };
}

/* Whether an output length is known only once it is drawn. */
static bool draws_outputs(const struct dataset *d)
{
    return d->kind == &sampler || (d->entries.n > 0 && d->entries.v[0].n_out == 0);
}

/* Lengths over the kept entries; drawn ones over N_STATS_DRAWS events under a seed of their own. */
static void measure(struct dataset *d)
{
    size_t n_entries = d->entries.n;
    size_t n = n_entries > N_STATS_DRAWS ? n_entries : N_STATS_DRAWS;
    uint32_t *in = xmalloc(n * sizeof *in), *out = xmalloc(n * sizeof *out);
    for (size_t i = 0; i < n_entries; i++) {
        in[i] = d->entries.v[i].n_in;
        out[i] = d->entries.v[i].n_out;
    }
    size_t n_drawn = draws_outputs(d) ? N_STATS_DRAWS : 0;
    for (size_t i = 0; i < n_drawn; i++) {
        struct prompt p;
        dataset_get(d, 0, i, 0, &p);
        out[i] = p.n_out;
        if (n_entries == 0) {
            in[i] = p.n_in;
        }
    }
    d->in_stats = stats_of(in, n_entries > 0 ? n_entries : n_drawn);
    d->out_stats = stats_of(out, n_drawn > 0 ? n_drawn : n_entries);
    free(in);
    free(out);
}

/* --- opening ---------------------------------------------------------------------------------- */

static bool ends_with(const char *s, const char *suffix)
{
    size_t n = strlen(s), n_suffix = strlen(suffix);
    return n > n_suffix && strcasecmp(s + n - n_suffix, suffix) == 0;
}

static const struct kind *find_kind(const char *source, struct err *e)
{
    static const struct kind *const files[] = {&conversations, &trace};
    if (strcmp(source, "sharegpt") == 0 || strcmp(source, "quantile:sharegpt") == 0) {
        return &sampler;
    }
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        if (ends_with(source, files[i]->suffix)) {
            return files[i];
        }
    }
    err_set(e, ERR_INPUT,
            "load.dataset: %s is neither sharegpt nor a .json (conversations) or .csv (trace) file",
            source);
    return NULL;
}

static int check_config(const struct dataset_config *c, int context, struct err *e)
{
    const struct opt_window *w = &c->window;
    if (w->to_ns > 0 && w->from_ns >= w->to_ns) {
        return err_set(e, ERR_INPUT, "load.dataset.window: ends before it begins ([from, to])");
    }
    int64_t n_in = c->input_tokens > 0 ? c->input_tokens : 1;
    int64_t n_out = c->output_tokens > 0 ? c->output_tokens : 1;
    if (n_in + n_out > context) {
        return err_set(
            e, ERR_INPUT,
            "load.input_tokens, load.output_tokens: %lld + %lld do not fit the context of "
            "%d tokens",
            (long long)n_in, (long long)n_out, context);
    }
    return 0;
}

static int find_ordinary(struct dataset *d, const struct tokenizer *tok, int vocab, struct err *e)
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

static int load(struct dataset *d, const struct tokenizer *tok, struct err *e)
{
    struct str text = {0};
    int rc = 0;
    if (d->kind->suffix != NULL) {
        rc = str_read_file(&text, d->cfg.source, MAX_FILE_BYTES, e);
        d->hash = rc == 0 ? XXH64(text.data, text.len, 0) : 0;
    }
    if (rc == 0) {
        rc = d->kind->parse(d, tok, &text, e);
    }
    str_free(&text);
    return rc;
}

int dataset_open(struct dataset **out, const struct dataset_config *cfg,
                 const struct dataset_model *model, struct err *e)
{
    const struct tokenizer *tok = model->tok;
    CHECK(model->vocab > 0 && model->context > 0);
    if (cfg->source == NULL) {
        return err_set(e, ERR_INPUT, "load.dataset.source: missing");
    }
    const struct kind *kind = find_kind(cfg->source, e);
    if (kind == NULL || check_config(cfg, model->context, e) != 0) {
        return -1;
    }
    struct dataset *d = xcalloc(1, sizeof *d);
    d->kind = kind;
    d->cfg = *cfg;
    d->cfg.source = xstrdup(cfg->source);
    d->context = (uint32_t)model->context;
    d->tok = tok;
    words_open(&d->words, tok);
    if (quantile_init(&d->in, &quantile_sharegpt_input, e) != 0 ||
        quantile_init(&d->out, &quantile_sharegpt_output, e) != 0 ||
        find_ordinary(d, tok, model->vocab, e) != 0 || load(d, tok, e) != 0) {
        dataset_close(d);
        return -1;
    }
    measure(d);
    *out = d;
    return 0;
}

void dataset_close(struct dataset *d)
{
    if (d != NULL) {
        entries_free(&d->entries);
        words_free(&d->words);
        free(d->ordinary);
        free(d->cfg.source);
        free(d);
    }
}

/* --- events ----------------------------------------------------------------------------------- */

void dataset_get(const struct dataset *d, uint64_t seed, uint64_t i, uint32_t turn,
                 struct prompt *p)
{
    CHECK(turn == 0);
    d->kind->get(d, seed, i, p);
}

/* The id that 32 random bits pick. */
static int32_t draw_id(const struct dataset *d, uint32_t bits)
{
    if (d->words.is_exact) {
        return words_pick(&d->words, bits)->id;
    }
    uint64_t at = bits * d->n_ordinary >> 32;
    return d->ordinary != NULL ? d->ordinary[at] : (int32_t)at;
}

/* Word by word a function of (seed, i): ids and text of an event use the same bits. */
static uint32_t bits_at(struct rng_bits *r, uint64_t seed, uint64_t i, uint32_t k)
{
    if (k % 4 == 0) {
        *r = rng_draw(seed, RNG_TOKENS, i, k / 4);
    }
    return r->v[k % 4];
}

const int32_t *dataset_ids(const struct dataset *d, uint64_t seed, uint64_t i,
                           const struct prompt *p, int32_t *scratch)
{
    if (d->kind == &conversations) {
        return d->entries.ids.v + shuffled_entry(d, seed, i)->ids_at;
    }
    struct rng_bits r = {{0}};
    for (uint32_t k = 0; k < p->n_in; k++) {
        scratch[k] = draw_id(d, bits_at(&r, seed, i, k));
    }
    return scratch;
}

void dataset_text(const struct dataset *d, uint64_t seed, uint64_t i, const struct prompt *p,
                  struct prompt_text *out)
{
    prompt_text_clear(out);
    if (d->kind == &conversations) {
        struct str text = {0};
        const int32_t *ids = d->entries.ids.v + shuffled_entry(d, seed, i)->ids_at;
        tokenizer_decode(d->tok, ids, p->n_in, false, &text);
        prompt_text_escape(out, text.data, text.len);
        str_free(&text);
    } else {
        struct rng_bits r = {{0}};
        for (uint32_t k = 0; k < p->n_in; k++) {
            const struct word *word = words_pick(&d->words, bits_at(&r, seed, i, k));
            words_put(&d->words, word, k == 0, &out->json);
        }
    }
    prompt_text_end(out, PROMPT_USER);
}

uint64_t dataset_n_arrivals(const struct dataset *d)
{
    return d->kind == &trace ? d->entries.n : 0;
}

int64_t dataset_arrival_ns(const struct dataset *d, uint64_t i)
{
    CHECK(i < dataset_n_arrivals(d));
    return d->entries.v[i].t_ns;
}

/* --- describing ------------------------------------------------------------------------------- */

void dataset_lengths(const struct dataset *d, struct dataset_stats *in, struct dataset_stats *out)
{
    *in = d->in_stats;
    *out = d->out_stats;
}

static json_t *describe_stats(const struct dataset_stats *s)
{
    return json_pack("{s:f, s:f, s:f, s:f, s:f, s:f}", "min", s->min, "median", s->median, "mean",
                     s->mean, "p90", s->p90, "p99", s->p99, "max", s->max);
}

static json_t *describe_filtered(const struct dataset *d)
{
    json_t *counts = json_object();
    for (int r = 0; r < ENTRIES_N_REASONS; r++) {
        if (d->entries.filtered[r] > 0) {
            json_object_set_new(counts, entries_reason_name((enum entries_reason)r),
                                json_integer((json_int_t)d->entries.filtered[r]));
        }
    }
    return counts;
}

/* The name of a filter in the list of choices. */
static json_t *describe_filter(int filter)
{
    const char *name = FILTERS;
    for (int i = 0; i < filter; i++) {
        name += strcspn(name, "|") + 1;
    }
    return json_stringn(name, strcspn(name, "|"));
}

static json_t *describe_note(const struct dataset *d)
{
    struct str s = {0};
    str_puts(&s, d->kind->note(d));
    if (d->cfg.input_tokens > 0) {
        str_printf(&s, "; every prompt is made %lld tokens long (load.input_tokens)",
                   (long long)d->cfg.input_tokens);
    }
    if (d->cfg.output_tokens > 0) {
        str_printf(&s, "; every output is %lld tokens long (load.output_tokens)",
                   (long long)d->cfg.output_tokens);
    }
    json_t *note = json_stringn(s.data, s.len);
    str_free(&s);
    return note;
}

struct json_t *dataset_describe(const struct dataset *d)
{
    bool is_file = d->kind->suffix != NULL;
    char hash[32];
    snprintf(hash, sizeof hash, "xxh64:%016llx", (unsigned long long)d->hash);
    json_t *about = json_object();
    json_object_set_new(about, "source", json_string(d->cfg.source));
    json_object_set_new(about, "kind", json_string(d->kind->name));
    json_object_set_new(about, "filter",
                        d->kind == &conversations ? describe_filter(d->cfg.filter) : json_null());
    json_object_set_new(about, "hash", is_file ? json_string(hash) : json_null());
    json_object_set_new(about, "entries",
                        is_file ? json_integer((json_int_t)d->entries.n) : json_null());
    json_object_set_new(about, "filtered", describe_filtered(d));
    json_object_set_new(about, "input_tokens", describe_stats(&d->in_stats));
    json_object_set_new(about, "output_tokens", describe_stats(&d->out_stats));
    json_object_set_new(about, "note", describe_note(d));
    return about;
}
