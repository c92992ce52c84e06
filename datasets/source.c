#include "datasets/source.h"

#include "core/rng.h"
#include "datasets/blocks.h"
#include "datasets/conversation.h"
#include "datasets/trace.h"

#include <string.h>

#define MAX_REDRAWS 4096 // at the smallest share that is accepted, one in 10^17 gets there
#define MIN_FIT     0.01 // share of draws that must fit the context
#define N_FIT_GRID  200

/* --- drawn lengths ---------------------------------------------------------------------------- */

/* Draws of one turn of an event are apart from those of the others. */
static uint64_t attempt_of(const struct prompt *p)
{
    return (uint64_t)p->turn << 32 | p->redrawn;
}

void source_draw_lengths(const struct source *s, uint64_t seed, uint64_t i, struct prompt *p)
{
    bool is_in_drawn = p->n_in == 0, is_out_drawn = p->n_out == 0;
    for (; p->redrawn < MAX_REDRAWS; p->redrawn++) {
        if (is_in_drawn) {
            p->n_in = lengths_at(&s->in, rng_uniform(seed, RNG_INPUT_LENGTH, i, attempt_of(p)));
        }
        if (is_out_drawn) {
            p->n_out = lengths_at(&s->out, rng_uniform(seed, RNG_OUTPUT_LENGTH, i, attempt_of(p)));
        }
        if ((uint64_t)p->n_in + p->n_out <= s->context) {
            return;
        }
        if (!is_in_drawn && !is_out_drawn) {
            return;
        }
    }
    p->n_in = is_in_drawn ? lengths_shortest(&s->in) : p->n_in;
    p->n_out = is_out_drawn ? lengths_shortest(&s->out) : p->n_out;
}

/* How much of the two distributions fits the context together, on a grid of both. */
static int check_fit(struct source *s, struct err *e)
{
    int n_fit = 0;
    for (int i = 0; i < N_FIT_GRID; i++) {
        double n_in = lengths_at(&s->in, (i + 0.5) / N_FIT_GRID);
        for (int k = 0; k < N_FIT_GRID; k++) {
            n_fit += n_in + lengths_at(&s->out, (k + 0.5) / N_FIT_GRID) <= s->context;
        }
    }
    if (n_fit < MIN_FIT * N_FIT_GRID * N_FIT_GRID) {
        return err_set(
            e, ERR_INPUT,
            "load.dataset: less than %g %% of %s's requests fit the context of %u tokens",
            MIN_FIT * 100, s->cfg.source, s->context);
    }
    return 0;
}

/* --- ids and text of a source with lengths only ------------------------------------------------- */

static struct drawn_sequence own_tokens(uint64_t seed, uint64_t i)
{
    return (struct drawn_sequence){seed, RNG_TOKENS, i};
}

static const int32_t *ids_drawn(const struct source *s, uint64_t seed, uint64_t i, uint32_t turn,
                                uint32_t n, int32_t *scratch)
{
    (void)turn;
    drawn_ids(s->drawn, own_tokens(seed, i), n, scratch);
    return scratch;
}

static void text_drawn(const struct source *s, uint64_t seed, uint64_t i, uint32_t turn, uint32_t n,
                       struct prompt_text *out)
{
    (void)turn;
    drawn_text(s->drawn, own_tokens(seed, i), n, &out->json);
    prompt_text_end(out, PROMPT_USER);
}

/* --- the published table ------------------------------------------------------------------------ */

static void get_sampled(const struct source *s, uint64_t seed, uint64_t i, uint32_t turn,
                        struct prompt *p)
{
    *p = (struct prompt){.entry = i, .turn = turn, .n_turns = 1};
    source_draw_lengths(s, seed, i, p);
}

static const char *note_sampler(const struct source *s)
{
    (void)s;
    return "input and output lengths are drawn independently (the published table gives no joint "
           "distribution), token ids too; pairs over the context are drawn again and counted";
}

/* --- traces ----------------------------------------------------------------------------------- */

static int load_trace(struct source *s, struct err *e)
{
    struct trace_input in = {.cfg = &s->cfg, .in = &s->in, .out = &s->out, .context = s->context};
    return trace_parse(&s->entries, &in, s->file.data, s->file.len, s->cfg.source, e);
}

const struct entry *source_in_order(const struct source *s, uint64_t i)
{
    return &s->entries.v[i % s->entries.n];
}

const struct entry *source_shuffled(const struct source *s, uint64_t seed, uint64_t i)
{
    uint64_t n = s->entries.n;
    return &s->entries.v[rng_permute(i % n, n, seed, RNG_ENTRY, i / n)];
}

/* In order of time under every seed: event i is arrival i. */
static void get_arrival(const struct source *s, uint64_t seed, uint64_t i, uint32_t turn,
                        struct prompt *p)
{
    const struct entry *entry = source_in_order(s, i);
    const struct turn *only = &s->entries.turns[entry->turn_at];
    *p = (struct prompt){.entry = entry->index, .turn = turn, .n_turns = 1};
    p->n_in = s->in.is_forced ? 0 : only->n_in;
    p->n_out = s->out.is_forced ? 0 : only->n_out;
    source_draw_lengths(s, seed, i, p);
}

static const char *note_trace(const struct source *s)
{
    (void)s;
    return "input and output length of a request are the trace's; token ids are drawn";
}

static const char *note_blocks(const struct source *s)
{
    (void)s;
    return "lengths and prefix blocks of a request are the trace's: each block of 512 tokens is "
           "drawn once for its hash_id, so requests share tokens exactly where the trace says so";
}

static const struct source_kind sampler = {
    .name = "quantile",
    .load = check_fit,
    .get = get_sampled,
    .ids = ids_drawn,
    .text = text_drawn,
    .note = note_sampler,
};
static const struct source_kind conversations = {
    .name = "sharegpt",
    .is_file = true,
    .is_text = true,
    .load = conversation_load,
    .get = conversation_get,
    .ids = conversation_ids,
    .text = conversation_text,
    .note = conversation_note,
};
static const struct source_kind trace = {
    .name = "trace",
    .is_file = true,
    .load = load_trace,
    .get = get_arrival,
    .ids = ids_drawn,
    .text = text_drawn,
    .note = note_trace,
};
static const struct source_kind trace_with_blocks = {
    .name = "trace with prefix blocks",
    .is_file = true,
    .load = load_trace,
    .get = get_arrival,
    .ids = blocks_ids,
    .text = blocks_text,
    .note = note_blocks,
};

/* --- opening ---------------------------------------------------------------------------------- */

/* By what the file begins with: a list, an object in the first line, or a header. */
static const struct source_kind *kind_of_file(const struct text_file *f)
{
    size_t at = 0;
    while (at < f->len && strchr(" \t\r\n", f->data[at]) != NULL && f->data[at] != '\0') {
        at++;
    }
    if (at < f->len && f->data[at] == '[') {
        return &conversations;
    }
    return trace_has_blocks(f->data, f->len) ? &trace_with_blocks : &trace;
}

static int find_kind(struct source *s, struct err *e)
{
    const char *name = s->cfg.source;
    if (name == NULL) {
        return err_set(e, ERR_INPUT, "load.dataset.source: missing");
    }
    if (strcmp(name, "sharegpt") == 0 || strcmp(name, "quantile:sharegpt") == 0) {
        s->kind = &sampler;
        return 0;
    }
    if (text_file_open(&s->file, name, e) != 0) {
        struct err why = *e;
        return err_set(e, why.code,
                       "load.dataset: %s (sharegpt, or the path of conversations or of a trace)",
                       why.msg);
    }
    s->kind = kind_of_file(&s->file);
    return 0;
}

static int open_parts(struct source *s, struct err *e)
{
    if (find_kind(s, e) != 0 ||
        lengths_init(&s->in, &s->cfg.input, &quantile_sharegpt_input, e) != 0 ||
        lengths_init(&s->out, &s->cfg.output, &quantile_sharegpt_output, e) != 0) {
        return -1;
    }
    return s->kind->load(s, e);
}

int source_open(struct source *s, struct dataset_config *cfg, const struct dataset_model *model,
                const struct drawn *drawn, uint32_t context, struct err *e)
{
    *s = (struct source){
        .cfg = *cfg,
        .tok = model->tok,
        .may_estimate = model->may_estimate,
        .drawn = drawn,
        .context = context,
    };
    if (open_parts(s, e) != 0) {
        source_close(s);
        return -1;
    }
    return 0;
}

void source_close(struct source *s)
{
    entries_free(&s->entries);
    text_file_close(&s->file);
    dataset_options_free(&s->cfg);
    *s = (struct source){0};
}

bool source_has_arrivals(const struct source *s)
{
    return s->kind == &trace || s->kind == &trace_with_blocks;
}

bool source_is_multi(const struct source *s)
{
    return s->kind == &conversations && s->cfg.turns == DATASET_TURNS_MULTI;
}

bool source_is_estimated(const struct source *s)
{
    return s->kind == &conversations && s->tok == NULL;
}

bool source_draws_outputs(const struct source *s)
{
    return !s->kind->is_file || s->entries.turns[0].n_out == 0;
}
