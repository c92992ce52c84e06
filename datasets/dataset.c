#include "datasets/dataset.h"

#include "core/mem.h"
#include "core/rng.h"
#include "datasets/drawn.h"
#include "datasets/front.h"
#include "datasets/source.h"

#include <jansson.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define N_STATS_DRAWS 100000 // of a sampled length, for its statistics
#define N_TYPICAL     10000  // events of a sampler
#define MAX_SOURCES   256
#define SOURCE_SHIFT  48 // of a prompt's entry: which source

struct dataset {
    struct dataset_config cfg; // only what is not a source's: no pointers
    struct drawn drawn;
    struct front front;
    struct source *sources; // (n_sources)
    int n_sources;
    double *cumulative; // (n_sources) share of events of sources 0..s
    struct dataset_stats in_stats, out_stats;
};

/* --- which event is what ------------------------------------------------------------------------ */

/* The earlier event whose prompt this one repeats; itself where it repeats none. */
static uint64_t root_of(const struct dataset *d, uint64_t seed, uint64_t i)
{
    while (i > 0 && d->cfg.repeat_share > 0.0 &&
           rng_uniform(seed, RNG_REPEAT, i, 0) < d->cfg.repeat_share) {
        i = rng_below(i, seed, RNG_REPEAT, i, 1);
    }
    return i;
}

/* The source of an event that repeats none. */
static int source_of(const struct dataset *d, uint64_t seed, uint64_t i)
{
    if (d->n_sources == 1) {
        return 0;
    }
    double u = rng_uniform(seed, RNG_MIX, i, 0);
    int s = 0;
    while (s + 1 < d->n_sources && u >= d->cumulative[s]) {
        s++;
    }
    return s;
}

static int64_t think_ns(const struct dataset *d, uint64_t seed, uint64_t i, uint32_t turn)
{
    struct dist think = {.kind = d->cfg.think.kind,
                         .mean = (double)d->cfg.think.mean_ns,
                         .sd = (double)d->cfg.think.sd_ns};
    if (d->cfg.think.mean_ns == 0) {
        return 0;
    }
    return (int64_t)dist_at(&think, rng_uniform(seed, RNG_THINK, i, turn));
}

/* Event i as if none repeated another. */
static void get_own(const struct dataset *d, uint64_t seed, uint64_t i, uint32_t turn,
                    struct prompt *p)
{
    int s = source_of(d, seed, i);
    const struct source *source = &d->sources[s];
    source->kind->get(source, seed, i, turn, p);
    p->n_in += front_tokens(&d->front, seed, i);
    p->entry |= (uint64_t)s << SOURCE_SHIFT;
}

void dataset_get(const struct dataset *d, uint64_t seed, uint64_t i, uint32_t turn,
                 struct prompt *p)
{
    get_own(d, seed, root_of(d, seed, i), turn, p);
    p->conversation = p->conversation != 0 ? i + 1 : 0;
    p->think_ns = think_ns(d, seed, i, turn);
}

/* --- ids and text ------------------------------------------------------------------------------- */

/* [special][front][the rest], where the source's own are [special][the rest]. */
static const int32_t *put_front(const struct dataset *d, const struct source *source, uint64_t seed,
                                uint64_t root, const struct prompt *p, uint32_t n_front,
                                int32_t *scratch)
{
    uint32_t n_own = p->n_in - n_front;
    const int32_t *own = source->kind->ids(source, seed, root, p->turn, n_own, scratch + n_front);
    uint32_t n_special = source->n_special < n_own ? source->n_special : n_own;
    memmove(scratch, own, n_special * sizeof *own);
    memmove(scratch + n_special + n_front, own + n_special, (n_own - n_special) * sizeof *own);
    front_ids(&d->front, seed, root, scratch + n_special);
    return scratch;
}

const int32_t *dataset_ids(const struct dataset *d, uint64_t seed, uint64_t i,
                           const struct prompt *p, int32_t *scratch)
{
    uint64_t root = root_of(d, seed, i);
    const struct source *source = &d->sources[source_of(d, seed, root)];
    uint32_t n_front = front_tokens(&d->front, seed, root);
    CHECK(p->n_in >= n_front);
    if (n_front > 0) {
        return put_front(d, source, seed, root, p, n_front, scratch);
    }
    return source->kind->ids(source, seed, root, p->turn, p->n_in, scratch);
}

void dataset_text(const struct dataset *d, uint64_t seed, uint64_t i, const struct prompt *p,
                  struct prompt_text *out)
{
    uint64_t root = root_of(d, seed, i);
    const struct source *source = &d->sources[source_of(d, seed, root)];
    uint32_t n_own = p->n_in - front_tokens(&d->front, seed, root);
    prompt_text_clear(out);
    front_text(&d->front, seed, root, out);
    source->kind->text(source, seed, root, p->turn, n_own, out);
}

/* --- arrivals ----------------------------------------------------------------------------------- */

uint64_t dataset_n_arrivals(const struct dataset *d)
{
    bool has = d->n_sources == 1 && source_has_arrivals(&d->sources[0]);
    return has ? d->sources[0].entries.n : 0;
}

int64_t dataset_arrival_ns(const struct dataset *d, uint64_t i)
{
    CHECK(i < dataset_n_arrivals(d));
    return d->sources[0].entries.v[i].t_ns;
}

uint64_t dataset_n_typical(const struct dataset *d)
{
    bool is_file = d->n_sources == 1 && d->sources[0].kind->is_file;
    return is_file ? d->sources[0].entries.n : N_TYPICAL;
}

bool dataset_is_estimated(const struct dataset *d)
{
    for (int s = 0; s < d->n_sources; s++) {
        if (source_is_estimated(&d->sources[s])) {
            return true;
        }
    }
    return false;
}

/* --- statistics --------------------------------------------------------------------------------- */

struct samples {
    uint32_t *v; // (n)
    size_t n, cap;
};

static void add_sample(struct samples *s, uint32_t x)
{
    if (s->n == s->cap) {
        s->cap = 2 * s->cap + 1024;
        s->v = xrealloc(s->v, s->cap * sizeof *s->v);
    }
    s->v[s->n++] = x;
}

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

static struct dataset_stats stats_of(struct samples *s)
{
    double sum = 0.0;
    for (size_t i = 0; i < s->n; i++) {
        sum += s->v[i];
    }
    qsort(s->v, s->n, sizeof *s->v, compare_lengths);
    return (struct dataset_stats){
        .n = s->n,
        .min = s->v[0],
        .median = quantile_of(s->v, s->n, 0.5),
        .mean = sum / (double)s->n,
        .p90 = quantile_of(s->v, s->n, 0.9),
        .p99 = quantile_of(s->v, s->n, 0.99),
        .max = s->v[s->n - 1],
    };
}

/* The lengths of events 0..n-1, all turns of each. */
static void sample(const struct dataset *d, uint64_t n, struct samples *in, struct samples *out)
{
    for (uint64_t i = 0; i < n; i++) {
        struct prompt p = {.n_turns = 1};
        for (uint32_t turn = 0; turn < p.n_turns; turn++) {
            get_own(d, 0, i, turn, &p);
            add_sample(in, p.n_in);
            add_sample(out, p.n_out);
        }
    }
}

/*
 * Over every entry of one file, each once; what is drawn over N_STATS_DRAWS events under a seed of
 * their own.
 */
static void measure(struct dataset *d)
{
    struct samples in = {0}, out = {0}, drawn_in = {0}, drawn_out = {0};
    const struct source *one = d->n_sources == 1 && d->sources[0].kind->is_file ? d->sources : NULL;
    bool draws_in = one == NULL || (one->in.is_forced && !lengths_is_constant(&one->in));
    bool draws_out = one == NULL || source_draws_outputs(one);
    sample(d, one != NULL ? one->entries.n : 1, &in, &out);
    if (draws_in || draws_out) {
        sample(d, N_STATS_DRAWS, &drawn_in, &drawn_out);
    }
    d->in_stats = stats_of(draws_in ? &drawn_in : &in);
    d->out_stats = stats_of(draws_out ? &drawn_out : &out);
    free(in.v);
    free(out.v);
    free(drawn_in.v);
    free(drawn_out.v);
}

/* --- opening ------------------------------------------------------------------------------------ */

static int check_fits(const struct dataset *d, const struct dataset_config *c, int context,
                      struct err *e)
{
    bool in = dist_is_set(&c->input), out = dist_is_set(&c->output);
    uint64_t front = front_max_tokens(&d->front);
    struct lengths length = {.is_forced = true, .forced = c->input};
    uint64_t n_in = in ? lengths_shortest(&length) : 1;
    length.forced = c->output;
    uint64_t n_out = out ? lengths_shortest(&length) : 1;
    if (front + n_in + n_out > (uint64_t)context) {
        return err_set(e, ERR_INPUT,
                       "load.input_tokens, load.output_tokens: %llu + %llu%s do not fit the "
                       "context of %d tokens",
                       (unsigned long long)(front + n_in), (unsigned long long)n_out,
                       front > 0 ? " (preamble and prefix included)" : "", context);
    }
    return 0;
}

static int open_sources(struct dataset *d, const struct dataset_config *cfg,
                        const struct dataset_model *model, struct err *e)
{
    int n = dataset_options_n_sources(cfg);
    uint32_t context = (uint32_t)model->context - front_max_tokens(&d->front);
    double sum = 0.0;
    if (n > MAX_SOURCES) {
        return err_set(e, ERR_INPUT, "load.dataset: %d sources, %d at most", n, MAX_SOURCES);
    }
    d->sources = xcalloc((size_t)n, sizeof *d->sources);
    d->cumulative = xcalloc((size_t)n, sizeof *d->cumulative);
    for (; d->n_sources < n; d->n_sources++) {
        struct dataset_config one;
        if (dataset_options_source(cfg, d->n_sources, &one, e) != 0 ||
            source_open(&d->sources[d->n_sources], &one, model, &d->drawn, context, e) != 0) {
            return -1;
        }
        sum += d->sources[d->n_sources].cfg.weight;
        d->cumulative[d->n_sources] = sum;
    }
    for (int s = 0; s < n; s++) {
        d->cumulative[s] /= sum;
    }
    return 0;
}

static int open_all(struct dataset *d, const struct dataset_config *cfg,
                    const struct dataset_model *model, struct err *e)
{
    if (drawn_open(&d->drawn, model->tok, model->vocab, e) != 0 ||
        front_open(&d->front, cfg, &d->drawn, model->tok, e) != 0 ||
        check_fits(d, cfg, model->context, e) != 0) {
        return -1;
    }
    return open_sources(d, cfg, model, e);
}

int dataset_open(struct dataset **out, const struct dataset_config *cfg,
                 const struct dataset_model *model, struct err *e)
{
    CHECK(model->vocab > 0 && model->context > 0);
    if (dataset_options_check(cfg, e) != 0) {
        return -1;
    }
    struct dataset *d = xcalloc(1, sizeof *d);
    d->cfg.think = cfg->think;
    d->cfg.repeat_share = cfg->repeat_share;
    if (open_all(d, cfg, model, e) != 0) {
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
        for (int s = 0; s < d->n_sources; s++) {
            source_close(&d->sources[s]);
        }
        free(d->sources);
        free(d->cumulative);
        front_close(&d->front);
        drawn_close(&d->drawn);
        free(d);
    }
}

/* --- describing --------------------------------------------------------------------------------- */

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

static void add_count(json_t *counts, const char *name, uint64_t n)
{
    if (n > 0) {
        json_int_t before = json_integer_value(json_object_get(counts, name));
        json_object_set_new(counts, name, json_integer(before + (json_int_t)n));
    }
}

static void add_filtered(json_t *counts, const struct source *s)
{
    for (int r = 0; r < ENTRIES_N_REASONS; r++) {
        add_count(counts, entries_reason_name((enum entries_reason)r), s->entries.filtered[r]);
    }
    add_count(counts, "turns_over_context", s->entries.n_turns_cut);
}

/* What the source alone says. */
static json_t *describe_source(const struct source *s)
{
    char hash[32];
    bool is_file = s->kind->is_file;
    bool is_filtered = s->kind->is_text && s->cfg.turns == DATASET_TURNS_FIRST;
    snprintf(hash, sizeof hash, "xxh64:%016llx", (unsigned long long)s->file.hash);
    json_t *about = json_object();
    json_t *counts = json_object();
    add_filtered(counts, s);
    json_object_set_new(about, "source", json_string(s->cfg.source));
    json_object_set_new(about, "kind", json_string(s->kind->name));
    json_object_set_new(about, "filter",
                        is_filtered ? json_string(dataset_options_filter_name(s->cfg.filter))
                                    : json_null());
    json_object_set_new(about, "turns", json_string(source_is_multi(s) ? "multi" : "first"));
    json_object_set_new(about, "hash", is_file ? json_string(hash) : json_null());
    json_object_set_new(about, "entries",
                        is_file ? json_integer((json_int_t)s->entries.n) : json_null());
    json_object_set_new(about, "filtered", counts);
    json_object_set_new(about, "estimated", json_boolean(source_is_estimated(s)));
    return about;
}

static void note_length(struct str *note, const char *what, const char *is, const char *key,
                        const struct dist *d)
{
    if (dist_is_set(d) && d->kind == DIST_CONSTANT) {
        str_printf(note, "; every %s %s %.0f tokens long (%s)", what, is, d->mean, key);
    } else if (dist_is_set(d)) {
        str_printf(note, "; the length of every %s is drawn (%s)", what, key);
    }
}

static void note_front(struct str *note, const struct dataset *d)
{
    const struct front *f = &d->front;
    uint32_t n_preamble = front_max_tokens(f) - f->n_group_tokens;
    if (n_preamble > 0) {
        str_printf(note, "; a preamble of %u tokens stands in front%s", n_preamble,
                   f->n_mark > 0 ? ", with a mark that no other event has" : "");
    }
    if (f->n_group_tokens > 0) {
        str_printf(note, "; %g %% of events begin with the %u tokens of one of %llu groups",
                   f->share * 100, f->n_group_tokens, (unsigned long long)f->n_groups);
    }
    if (d->cfg.repeat_share > 0.0) {
        str_printf(note, "; %g %% of events repeat an earlier one's prompt",
                   d->cfg.repeat_share * 100);
    }
}

static json_t *describe_note(const struct dataset *d)
{
    struct str s = {0};
    const struct source *first = &d->sources[0];
    str_puts(&s, d->n_sources == 1 ? first->kind->note(first)
                                   : "each event is of one of several sources, by weight");
    if (dataset_is_estimated(d)) {
        str_puts(&s, "; there is no tokenizer: a token is taken to be 4 bytes of text");
    }
    note_length(&s, "prompt", "is made", "load.input_tokens", &first->cfg.input);
    note_length(&s, "output", "is", "load.output_tokens", &first->cfg.output);
    note_front(&s, d);
    json_t *note = json_stringn(s.data, s.len);
    str_free(&s);
    return note;
}

/* A mix in the shape of a source: names and counts of all, and each source by itself. */
static json_t *describe_mix(const struct dataset *d)
{
    struct str names = {0};
    json_t *counts = json_object(), *list = json_array();
    for (int s = 0; s < d->n_sources; s++) {
        const struct source *source = &d->sources[s];
        json_t *one = describe_source(source);
        json_object_set_new(one, "weight", json_real(source->cfg.weight));
        json_array_append_new(list, one);
        add_filtered(counts, source);
        str_printf(&names, "%s%s (%g)", s > 0 ? " + " : "", source->cfg.source, source->cfg.weight);
    }
    json_t *about = json_pack("{s:s, s:s, s:n, s:n, s:n, s:n, s:o, s:b, s:o}", "source", names.data,
                              "kind", "mix", "filter", "turns", "hash", "entries", "filtered",
                              counts, "estimated", dataset_is_estimated(d), "sources", list);
    str_free(&names);
    return about;
}

struct json_t *dataset_describe(const struct dataset *d)
{
    json_t *about = d->n_sources == 1 ? describe_source(&d->sources[0]) : describe_mix(d);
    json_object_set_new(about, "input_tokens", describe_stats(&d->in_stats));
    json_object_set_new(about, "output_tokens", describe_stats(&d->out_stats));
    json_object_set_new(about, "note", describe_note(d));
    return about;
}
