/*
 * tidemark dataset stats: what a source holds, and what its filter and the model's context leave of it.
 * tidemark dataset show: the first requests that a seed makes of it, as they would be sent.
 */
#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/command.h"
#include "cli/run_config.h"
#include "core/mem.h"
#include "core/str.h"
#include "datasets/reuse.h"
#include "model/tokenizer.h"

struct dataset_args {
    const char *model, *format, *events;
};

static void print_lengths(const char *name, const struct dataset_stats *s)
{
    printf("  %-14s %9llu %7.0f %7.0f %9.1f %7.0f %7.0f %7.0f\n", name, (unsigned long long)s->n,
           s->min, s->median, s->mean, s->p90, s->p99, s->max);
}

static void print_reuse(const struct reuse *r)
{
    printf(
        "  of %llu requests: %.2f %% repeat an earlier prompt; of %llu prompt tokens %.2f %% are a\n"
        "  prefix that an earlier prompt began with (blocks of %d)\n",
        (unsigned long long)r->n_requests, 100 * r->repeat_share, (unsigned long long)r->n_tokens,
        100 * r->prefix_share, REUSE_BLOCK_TOKENS);
}

static void print_text(const struct dataset *d, const json_t *about, const struct reuse *r)
{
    struct dataset_stats in, out;
    const char *key;
    json_t *count;
    dataset_lengths(d, &in, &out);
    printf("%s\n", json_string_value(json_object_get(about, "source")));
    printf("  %-14s %9s %7s %7s %9s %7s %7s %7s\n", "tokens", "n", "min", "median", "mean", "P90",
           "P99", "max");
    print_lengths("input", &in);
    print_lengths("output", &out);
    json_object_foreach(json_object_get(about, "filtered"), key, count)
    {
        printf("  filtered: %-24s %lld\n", key, (long long)json_integer_value(count));
    }
    print_reuse(r);
}

static json_t *describe_reuse(const struct reuse *r)
{
    return json_pack("{s:I, s:I, s:f, s:i, s:f}", "requests", (json_int_t)r->n_requests,
                     "prompt_tokens", (json_int_t)r->n_tokens, "repeat_share", r->repeat_share,
                     "block_tokens", REUSE_BLOCK_TOKENS, "prefix_share", r->prefix_share);
}

static void print_stats(const struct dataset *d, bool json)
{
    json_t *about = dataset_describe(d);
    struct reuse reuse = reuse_measure(d);
    json_object_set_new(about, "reuse", describe_reuse(&reuse));
    if (json) {
        json_dumpf(about, stdout, JSON_INDENT(1) | JSON_REAL_PRECISION(17));
        printf("\n");
    } else {
        print_text(d, about, &reuse);
    }
    json_decref(about);
}

/* --- show --------------------------------------------------------------------------------------- */

struct shown {    // memory of one request after the other
    int32_t *ids; // (context)
    struct prompt_text text;
};

/* One JSON object a line; the text is the inside of a JSON string already. */
static void show_turn(const struct dataset *d, uint64_t seed, uint64_t i, const struct prompt *p,
                      struct shown *s)
{
    static const char *const roles[] = {"system", "user", "assistant"};
    printf("{\"event\": %llu, \"turn\": %u, \"entry\": %llu, \"n_in\": %u, \"n_out\": %u, "
           "\"think_ns\": %lld, \"ids\": [",
           (unsigned long long)i, p->turn, (unsigned long long)p->entry, p->n_in, p->n_out,
           (long long)p->think_ns);
    const int32_t *ids = dataset_ids(d, seed, i, p, s->ids);
    for (uint32_t k = 0; k < p->n_in; k++) {
        printf("%s%d", k > 0 ? ", " : "", ids[k]);
    }
    printf("], \"messages\": [");
    dataset_text(d, seed, i, p, &s->text);
    size_t begin = 0;
    for (size_t k = 0; k < s->text.n; k++) {
        const struct prompt_part *part = &s->text.parts[k];
        printf("%s{\"role\": \"%s\", \"content\": \"%.*s\"}", k > 0 ? ", " : "", roles[part->role],
               (int)(part->end - begin), s->text.json.data + begin);
        begin = part->end;
    }
    printf("]}\n");
}

static void show(const struct dataset *d, uint64_t seed, uint64_t n_events, int context)
{
    struct shown s = {.ids = xcalloc((size_t)context, sizeof *s.ids)};
    for (uint64_t i = 0; i < n_events; i++) {
        struct prompt p = {.n_turns = 1};
        for (uint32_t turn = 0; turn < p.n_turns; turn++) {
            dataset_get(d, seed, i, turn, &p);
            show_turn(d, seed, i, &p, &s);
        }
    }
    prompt_text_free(&s.text);
    free(s.ids);
}

/* --- both --------------------------------------------------------------------------------------- */

struct request {
    bool shows, json;
    uint64_t n_events;
};

static int open_and_print(const struct run_config *c, const struct request *r, struct err *e)
{
    struct arch arch;
    struct tokenizer *tok = NULL;
    struct dataset *d = NULL;
    int rc = -1;
    if (arch_open(c->target.model, &arch, e)) {
        return -1;
    }
    if (tokenizer_is_there(c->target.model) &&
        tokenizer_open(&tok, c->target.model, arch.vocab, e)) {
        return -1;
    }
    struct dataset_model model = {.tok = tok, .vocab = arch.vocab, .context = arch.max_context};
    if (dataset_open(&d, &c->dataset, &model, e)) {
        goto close_tokenizer;
    }
    if (r->shows) {
        show(d, load_step_seed(&c->load, 0), r->n_events, arch.max_context);
    } else {
        print_stats(d, r->json);
    }
    dataset_close(d);
    rc = 0;
close_tokenizer:
    tokenizer_close(tok);
    return rc;
}

static int parse_request(const struct command_args *args, const struct dataset_args *a,
                         struct request *r, struct err *e)
{
    int what = args->n >= 2 ? str_choice("stats|show", args->positional[0]) : -1;
    char *end;
    long n = strtol(a->events, &end, 10);
    if (what < 0) {
        return err_set(e, ERR_INPUT,
                       "dataset: the form is `dataset stats SOURCE` or `dataset show SOURCE`");
    }
    if (*end != '\0' || n < 1) {
        return err_set(e, ERR_INPUT, "--events: '%.40s' is not a whole number above 0", a->events);
    }
    *r = (struct request){what == 1, strcmp(a->format, "json") == 0, (uint64_t)n};
    return 0;
}

/* "stats SOURCE [key=value ...]": SOURCE and --model become assignments. */
static int make_config(struct run_config *c, const struct command_args *args, const char *model,
                       struct err *e)
{
    const char **set = xcalloc((size_t)args->n + 1, sizeof *set);
    char *source = run_config_assign("load.dataset.source", args->positional[1]);
    char *target = model ? run_config_assign("target.model", model) : xstrdup("target.kind=null");
    int n = 0;
    set[n++] = source;
    set[n++] = target;
    for (int i = 2; i < args->n; i++) {
        set[n++] = args->positional[i];
    }
    int rc = run_config_load(c, NULL, set, n, e);
    free(source);
    free(target);
    free(set);
    return rc;
}

static int run(int argc, char **argv, struct err *e)
{
    struct command_args args;
    struct run_config c = {0};
    struct dataset_args a = {0};
    if (command_parse(&cmd_dataset, argc, argv, &a, &args, e)) {
        return e->code;
    }
    struct request request = {0};
    int rc = parse_request(&args, &a, &request, e);
    if (rc == 0) {
        rc = make_config(&c, &args, a.model, e);
    }
    if (rc == 0) {
        rc = open_and_print(&c, &request, e);
        run_config_free(&c);
    }
    command_args_free(&args);
    return rc ? (int)e->code : 0;
}

static const struct command_flag flags[] = {
    {"--model", "-m", "DIR", NULL,
     "the model's tokenizer counts the tokens, its context limits them (none: as preset:tiny)",
     offsetof(struct dataset_args, model)},
    {"--format", "-f", "text|json", "text", "JSON: all that a result file would hold of it",
     offsetof(struct dataset_args, format)},
    {"--events", "-n", "N", "1", "show: how many events", offsetof(struct dataset_args, events)},
};

const struct command cmd_dataset = {
    .name = "dataset",
    .summary = "what a dataset holds: counts and lengths after its filter and the model's context",
    .usage =
        "dataset stats|show SOURCE [key=value ...] [--model DIR] [--format text|json] [--events N]",
    .details =
        "SOURCE is `sharegpt` (the published length table), a ShareGPT JSON file (needs --model for\n"
        "its tokenizer) or a trace (Azure, BurstGPT, Mooncake). Printed in tokens: n, min, median, mean,\n"
        "P90, P99 and max of inputs and outputs, then what was filtered out, by reason, and what caches\n"
        "could save: exact repeats, and prompt tokens that continue an earlier prompt's prefix.\n"
        "`show` prints the first requests of the first step, one JSON object a line: ids and messages.\n",
    .flags = flags,
    .n_flags = sizeof flags / sizeof flags[0],
    .config_parts = RUN_CONFIG_DATASET,
    .example = "dataset stats sharegpt.json --model DIR load.dataset.filter=first-turn\n"
               "dataset show sharegpt.json --model DIR load.dataset.turns=multi --events 3\n"
               "dataset stats trace.csv load.dataset.window=[0s,300s]",
    .run = run,
};
