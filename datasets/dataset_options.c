#include "datasets/dataset_options.h"

#include "core/mem.h"
#include "core/opt_value.h"

#include <jansson.h>

#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#define MAX_TOKENS 1e9
#define MAX_GROUPS 1e6

#define ROW(key_, type_, def_, lo_, hi_, help_, field_)                                            \
    .key = (key_), .type = (type_), .def = (def_), .lo = (lo_), .hi = (hi_), .help = (help_),      \
    .offset = offsetof(struct dataset_config, field_)

/* The rows of a distribution of token counts. */
#define LENGTH_ROWS(key_, of_, field_)                                                             \
    {ROW(key_ ".mean", OPT_NUMBER, "0", 0, MAX_TOKENS,                                             \
         "tokens of " of_ ": a number for all, or the mean; 0: as the dataset says", field_.mean), \
     .short_key = (key_)},                                                                         \
        {ROW(key_ ".kind", OPT_CHOICE, "constant", 0, 0, "how they are spread", field_.kind),      \
         .choices = DIST_CHOICES},                                                                 \
        {ROW(key_ ".sd", OPT_NUMBER, "0", 0, MAX_TOKENS, "normal, lognormal: standard deviation",  \
             field_.sd)},                                                                          \
        {ROW(key_ ".min", OPT_NUMBER, "1", 1, MAX_TOKENS, "what is drawn below counts as this",    \
             field_.min)},                                                                         \
    {                                                                                              \
        ROW(key_ ".max", OPT_NUMBER, "0", 0, MAX_TOKENS,                                           \
            "what is drawn above counts as this; 0: no limit", field_.max)                         \
    }

enum {
    N_SOURCE_ROWS = 6 // the first ones, which each source of a mix has for itself
};

static const struct opt rows[] = {
    {ROW("load.dataset.source", OPT_STRING, "sharegpt", 0, 0,
         "sharegpt (the published length table), conversations (JSON) or a trace (Azure, BurstGPT, "
         "Mooncake)",
         source),
     .short_key = "load.dataset"},
    {ROW("load.dataset.filter", OPT_CHOICE, "vllm", 0, 0,
         "which conversations are kept, and whether their second turn sets the output length",
         filter),
     .choices = "vllm|inference-benchmark|first-turn"},
    {ROW("load.dataset.turns", OPT_CHOICE, "first", 0, 0,
         "multi: every answered human turn is a request behind its whole history; no filter",
         turns),
     .choices = "first|multi"},
    {ROW("load.dataset.time_scale", OPT_NUMBER, "1", 1e-6, 1e6,
         "trace: its times are multiplied by this; 0.5 is twice as fast", time_scale)},
    {ROW("load.dataset.window", OPT_WINDOW, NULL, 0, 0,
         "trace: the part of it to use, since its first request and before scaling", window)},
    {ROW("load.dataset.weight", OPT_NUMBER, "1", 1e-9, 1e9,
         "in a list of datasets: the share of events that this one gets", weight)},
    {ROW("load.dataset.mix", OPT_MAPPINGS, NULL, 0, 0,
         "several datasets, each {source: .., weight: .., and the keys above}", mix),
     .short_key = "load.dataset"},
    {ROW("load.dataset.cache", OPT_BOOL, "true", 0, 0,
         "keep the token ids of large files in $TIDEMARK_CACHE or ~/.cache/tidemark", use_cache)},
    LENGTH_ROWS("load.input_tokens", "every prompt, drawn or cut or repeated", input),
    LENGTH_ROWS("load.output_tokens", "every output", output),
    {ROW("load.think.mean", OPT_DURATION, "0s", 0, 86400e9,
         "time between a reply and what the same user sends next", think.mean_ns),
     .short_key = "load.think"},
    {ROW("load.think.kind", OPT_CHOICE, "constant", 0, 0, "how it is spread", think.kind),
     .choices = DIST_CHOICES},
    {ROW("load.think.sd", OPT_DURATION, "0s", 0, 86400e9, "normal, lognormal: standard deviation",
         think.sd_ns)},
    {ROW("load.prefix.groups", OPT_INT, "1", 1, MAX_GROUPS,
         "events of a group begin with the same tokens", prefix.groups)},
    {ROW("load.prefix.tokens", OPT_INT, "0", 0, MAX_TOKENS, "how many tokens those are; 0: none",
         prefix.tokens)},
    {ROW("load.prefix.share", OPT_SHARE, "1", 0, 0, "of events: those that are in a group",
         prefix.share)},
    {ROW("load.prefix.zipf", OPT_NUMBER, "0", 0, 10,
         "group g gets a share in proportion to 1/g^zipf; 0: all the same", prefix.zipf)},
    {ROW("load.preamble.text", OPT_STRING, NULL, 0, 0, "what stands in front of every prompt",
         preamble.text),
     .short_key = "load.preamble"},
    {ROW("load.preamble.mutate", OPT_CHOICE, "none", 0, 0,
         "where in it a mark stands that no other event has, so that caches hit all, nothing, half",
         preamble.mutate),
     .choices = "none|head|middle|tail"},
    {ROW("load.repeat_share", OPT_SHARE, "0", 0, 0,
         "of events: those that repeat the whole prompt of an earlier one", repeat_share)},
};

const struct opt_table dataset_options = {rows, sizeof rows / sizeof rows[0]};

static const struct opt_table source_options = {rows, N_SOURCE_ROWS};

static int check_think(const struct dataset_config *c, struct err *e)
{
    struct dist d = {
        .kind = c->think.kind, .mean = (double)c->think.mean_ns, .sd = (double)c->think.sd_ns};
    if (c->think.kind == DIST_UNIFORM) {
        return err_set(e, ERR_INPUT,
                       "load.think.kind: constant, normal, lognormal or exponential, not uniform");
    }
    return c->think.mean_ns > 0 ? dist_check(&d, "load.think", e) : 0;
}

/* A kind other than constant asks for its parameters even where no mean is given. */
static int check_length(const struct dist *d, const char *key, struct err *e)
{
    return dist_is_set(d) || d->kind != DIST_CONSTANT ? dist_check(d, key, e) : 0;
}

/* A mix's elements have these keys for themselves: beside it they would say nothing. */
static int check_mix(const struct dataset_config *c, struct err *e)
{
    struct dataset_config unset = {0};
    int rc = 0;
    opt_defaults(source_options, &unset);
    for (size_t i = 0; i < N_SOURCE_ROWS && rc == 0; i++) {
        json_t *mine = opt_value_dump(&rows[i], c), *def = opt_value_dump(&rows[i], &unset);
        if (!json_equal(mine, def)) {
            rc = err_set(e, ERR_INPUT,
                         "%s: not beside load.dataset.mix, whose elements have keys of their own",
                         rows[i].key);
        }
        json_decref(mine);
        json_decref(def);
    }
    opt_free(source_options, &unset);
    return rc;
}

int dataset_options_check(const struct dataset_config *c, struct err *e)
{
    if (c->mix != NULL && check_mix(c, e) != 0) {
        return -1;
    }
    const struct opt_window *w = &c->window;
    if (w->to_ns > 0 && w->from_ns >= w->to_ns) {
        return err_set(e, ERR_INPUT, "load.dataset.window: ends before it begins ([from, to])");
    }
    if (c->turns == DATASET_TURNS_MULTI && dist_is_set(&c->input)) {
        return err_set(e, ERR_INPUT,
                       "load.input_tokens: the prompts of load.dataset.turns: multi are the whole "
                       "history; their length cannot be forced");
    }
    if (check_length(&c->input, "load.input_tokens", e) != 0 ||
        check_length(&c->output, "load.output_tokens", e) != 0) {
        return -1;
    }
    return check_think(c, e);
}

int dataset_options_n_sources(const struct dataset_config *c)
{
    return c->mix != NULL ? (int)json_array_size(c->mix) : 1;
}

static char *copy(const char *s)
{
    return s != NULL ? xstrdup(s) : NULL;
}

/* What all sources have in common, and the one source that is not in a list. */
static struct dataset_config common_of(const struct dataset_config *c)
{
    struct dataset_config out = *c;
    out.mix = NULL;
    out.source = copy(c->source);
    out.preamble.text = copy(c->preamble.text);
    return out;
}

int dataset_options_source(const struct dataset_config *c, int i, struct dataset_config *out,
                           struct err *e)
{
    struct dataset_config one = common_of(c);
    int rc = 0;
    if (c->mix != NULL) {
        json_t *element = json_array_get(c->mix, (size_t)i);
        json_t *root = json_pack("{s:{s:O}}", "load", "dataset", element);
        opt_defaults(source_options, &one);
        rc = opt_apply(source_options, &one, root, e);
        json_decref(root);
    }
    if (rc == 0) {
        rc = dataset_options_check(&one, e);
    }
    if (rc != 0) {
        dataset_options_free(&one);
        return c->mix != NULL ? err_wrap(e, "load.dataset, source %d of the list", i + 1) : -1;
    }
    *out = one;
    return 0;
}

void dataset_options_free(struct dataset_config *c)
{
    opt_free(dataset_options, c);
}

const char *dataset_options_filter_name(int filter)
{
    static const char *const names[] = {"vllm", "inference-benchmark", "first-turn"};
    return names[filter];
}
