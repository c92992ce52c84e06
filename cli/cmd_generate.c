/*
 * tidemark generate: text from a real model through the same stages, scheduler and messages as a
 * run. The sanity check of a model folder and of the pipeline.
 */
#include <errno.h>
#include <jansson.h>
#include <limits.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/command.h"
#include "cli/launch.h"
#include "cli/world.h"
#include "core/log.h"
#include "core/mem.h"
#include "core/units.h"
#include "model/stops.h"
#include "model/wire.h"

struct generate_args {
    const char *model, *prompt, *max_tokens, *pipeline, *tensor, *format;
    const char *temperature, *top_k, *top_p, *min_p, *seed, *logprobs;
    const char *stop[COMMAND_REPEATS]; // NULL where not given
    bool ignore_eos;
};

/* What is asked for, read from the arguments. */
struct generate_ask {
    uint32_t n_out;
    struct wire_sampling sampling;
    struct stops stops;
};

struct generation {
    struct token_ids prompt, ids;
    struct tokenizer_stream *stream;
    struct stops_stream stops;
    struct str text;           // before a stop text
    struct json_t *logprobs;   // of each id, where asked for
    const char *finish_reason; // "length" or "stop"
    bool is_done;
};

_Static_assert(COMMAND_REPEATS == STOPS_MAX, "--stop may be given once per stop text");

static int parse_args(int argc, char **argv, struct generate_args *a, struct err *e)
{
    struct command_args rest;
    *a = (struct generate_args){0};
    if (command_parse(&cmd_generate, argc, argv, a, &rest, e)) {
        return -1;
    }
    int n_rest = rest.n;
    command_args_free(&rest);
    if (n_rest > 0) {
        return err_set(e, ERR_INPUT, "generate: takes no arguments besides its options");
    }
    if (!a->model || !a->prompt) {
        return err_set(e, ERR_INPUT, "generate: needs --model and --prompt");
    }
    return 0;
}

static int make_config(const struct generate_args *a, struct run_config *c, struct err *e)
{
    char *set[] = {
        run_config_assign("target.model", a->model),
        xasprintf("target.pipeline=%s", a->pipeline),
        xasprintf("target.tensor=%s", a->tensor),
        xstrdup("target.max_running=1"),
    };
    enum {
        N = sizeof set / sizeof set[0]
    };
    int rc = run_config_load(c, NULL, (const char *const *)set, N, e);
    for (int i = 0; i < N; i++) {
        free(set[i]);
    }
    return rc;
}

/* --- numbers ------------------------------------------------------------------------------------- */

static int parse_whole(const char *flag, const char *text, long long lo, long long hi, long long *n,
                       struct err *e)
{
    char *end;
    errno = 0;
    *n = strtoll(text, &end, 10);
    if (errno || end == text || *end || *n < lo || *n > hi) {
        return err_set(e, ERR_INPUT, "%s: '%.80s' is not a whole number from %lld to %lld", flag,
                       text, lo, hi);
    }
    return 0;
}

static int parse_number(const char *flag, const char *text, double lo, double hi, float *x,
                        struct err *e)
{
    double d;
    struct err unused;
    if (units_parse_number(text, &d, &unused) || d < lo || d > hi) {
        return err_set(e, ERR_INPUT, "%s: '%.80s' is not a number from %g to %g", flag, text, lo,
                       hi);
    }
    *x = (float)d;
    return 0;
}

static int parse_stops(const struct generate_args *a, struct stops *s, struct err *e)
{
    for (int i = 0; i < COMMAND_REPEATS && a->stop[i]; i++) {
        size_t n = strlen(a->stop[i]);
        if (n == 0 || n > STOPS_MAX_BYTES) {
            return err_set(e, ERR_INPUT, "--stop: a text of 1 to %d bytes is wanted",
                           STOPS_MAX_BYTES);
        }
        s->texts[s->n++] = a->stop[i];
    }
    return 0;
}

static int parse_ask(const struct generate_args *a, struct generate_ask *ask, struct err *e)
{
    struct wire_sampling *how = &ask->sampling;
    long long n_out, top_k, seed, n_top = -1;
    *ask = (struct generate_ask){0};
    if (parse_whole("--max-tokens", a->max_tokens, 1, 1 << 20, &n_out, e) ||
        parse_number("--temperature", a->temperature, 0, 100, &how->temperature, e) ||
        parse_whole("--top-k", a->top_k, 0, 1 << 24, &top_k, e) ||
        parse_number("--top-p", a->top_p, 1e-6, 1, &how->top_p, e) ||
        parse_number("--min-p", a->min_p, 0, 1, &how->min_p, e) ||
        parse_whole("--seed", a->seed, LLONG_MIN, LLONG_MAX, &seed, e) ||
        (a->logprobs && parse_whole("--logprobs", a->logprobs, 0, WIRE_MAX_TOP, &n_top, e)) ||
        parse_stops(a, &ask->stops, e)) {
        return -1;
    }
    ask->n_out = (uint32_t)n_out;
    how->top_k = (uint32_t)top_k;
    how->seed = (uint64_t)seed;
    how->logprobs = (uint32_t)(n_top + 1);
    return 0;
}

/* --- rank 0 -------------------------------------------------------------------------------------- */

static int send_request(struct world *w, const struct generation *g, const struct generate_ask *ask,
                        bool stop_at_eos, struct err *e)
{
    size_t ids_bytes = g->prompt.n * sizeof(int32_t);
    size_t n_bytes = sizeof(struct wire_request) + ids_bytes + sizeof ask->sampling;
    struct wire_request *req = xcalloc(1, n_bytes);
    req->n_in = (uint32_t)g->prompt.n;
    req->n_out = ask->n_out;
    req->flags = WIRE_SAMPLED | (stop_at_eos ? WIRE_STOP_AT_EOS : 0);
    memcpy(req->ids, g->prompt.v, ids_bytes);
    memcpy(req->ids + g->prompt.n, &ask->sampling, sizeof ask->sampling);
    int rc = comm_post(w->comm, layout_leader(&w->layout, 0), WIRE_REQUEST, req, n_bytes, e);
    free(req);
    return rc;
}

static json_t *logprob_json(const struct world *w, const struct wire_logprob *l)
{
    struct str token = {0};
    tokenizer_piece(w->tokenizer, l->id, &token);
    json_t *text = json_stringn(token.data ? token.data : "", token.len);
    json_t *o = json_pack("{s:i, s:o, s:f}", "id", l->id, "token", text ? text : json_null(),
                          "logprob", (double)l->logprob);
    str_free(&token);
    return o;
}

static void take_logprobs(const struct world *w, const struct comm_msg *m, struct generation *g)
{
    const struct wire_logprobs *l = m->data;
    json_t *o = logprob_json(w, &l->token), *top = json_array();
    for (uint32_t i = 0; i < l->n_top; i++) {
        json_array_append_new(top, logprob_json(w, &l->top[i]));
    }
    json_object_set_new(o, "top", top);
    if (!g->is_done) {
        json_array_append(g->logprobs, o);
    }
    json_decref(o);
}

/* The id's text, as far as it is certain; what follows a stop text is not wanted. */
static void take_token(struct generation *g, const struct generate_ask *ask,
                       const struct wire_token *t)
{
    struct str piece = {0};
    token_ids_push(&g->ids, t->id);
    tokenizer_stream_push(g->stream, &t->id, 1, &piece);
    bool last = (t->flags & WIRE_LAST) != 0;
    if (last) {
        tokenizer_stream_finish(g->stream, &piece);
    }
    bool hit =
        stops_push(&ask->stops, &g->stops, piece.data ? piece.data : "", piece.len, &g->text);
    if (last && !hit) {
        stops_finish(&g->stops, &g->text);
    }
    g->is_done = last || hit;
    g->finish_reason = hit || (t->flags & WIRE_STOPPED) ? "stop" : "length";
    str_free(&piece);
}

static int take_message(struct world *w, const struct comm_msg *m, struct generation *g,
                        const struct generate_ask *ask, struct err *e)
{
    const struct wire_token *t = m->data;
    switch (m->tag) {
    case WIRE_LOGPROBS:
        take_logprobs(w, m, g);
        return 0;
    case WIRE_TOKENS:
        for (size_t i = 0; i < m->n_bytes / sizeof *t && !g->is_done; i++) {
            take_token(g, ask, &t[i]);
        }
        return 0;
    case WIRE_REJECT:
        return err_set(e, ERR_ENV, "the leader refused the request");
    default:
        return 0;
    }
}

static int collect(struct world *w, struct generation *g, const struct generate_ask *ask,
                   struct err *e)
{
    while (!g->is_done) {
        struct comm_msg m;
        if (world_next_message(w, &m, w->config.deadline.start_ns, "token", e) < 0 ||
            take_message(w, &m, g, ask, e)) {
            return -1;
        }
    }
    return 0;
}

static int check_length(const struct world *w, const struct generation *g, uint32_t n_out,
                        struct err *e)
{
    uint32_t context = (uint32_t)w->arch.max_context;
    if (g->prompt.n + n_out > context) {
        return err_set(
            e, ERR_INPUT,
            "--prompt: %zu tokens and --max-tokens %u do not fit the context of %s: at most "
            "%u in all",
            g->prompt.n, n_out, w->config.target.model, context);
    }
    return 0;
}

static json_t *ids_json(const struct token_ids *ids)
{
    json_t *a = json_array();
    for (size_t i = 0; i < ids->n; i++) {
        json_array_append_new(a, json_integer(ids->v[i]));
    }
    return a;
}

/* -0.1054 " there" | -0.1054 " there", -3.2189 " was" */
static void print_logprobs(const struct json_t *logprobs)
{
    size_t i, k;
    json_t *o, *alternative;
    json_array_foreach(logprobs, i, o)
    {
        json_t *token = json_object_get(o, "token");
        char *text = json_dumps(token, JSON_ENCODE_ANY);
        printf("%10.4f %s", json_real_value(json_object_get(o, "logprob")), text);
        free(text);
        json_array_foreach(json_object_get(o, "top"), k, alternative)
        {
            text = json_dumps(json_object_get(alternative, "token"), JSON_ENCODE_ANY);
            printf("%s %.4f %s", k ? "," : " |",
                   json_real_value(json_object_get(alternative, "logprob")), text);
            free(text);
        }
        printf("\n");
    }
}

static void print_generation(const struct generation *g, bool json, const char *prompt)
{
    if (!json) {
        printf("%s%s\n", prompt, g->text.data ? g->text.data : "");
        print_logprobs(g->logprobs);
        return;
    }
    json_t *valid = json_stringn(g->text.data ? g->text.data : "", g->text.len);
    json_t *o = json_pack("{s:o, s:o, s:o, s:s}", "prompt_ids", ids_json(&g->prompt), "ids",
                          ids_json(&g->ids), "text", valid ? valid : json_null(), "finish_reason",
                          g->finish_reason);
    if (json_array_size(g->logprobs) > 0) {
        json_object_set(o, "logprobs", g->logprobs);
    }
    json_dumpf(o, stdout, JSON_INDENT(1));
    printf("\n");
    json_decref(o);
}

/* What only rank 0 can check, before the request goes out; all ranks agree on the outcome. */
static int prepare(struct world *w, const struct generate_args *a, uint32_t n_out,
                   struct generation *g, struct err *e)
{
    if (w->rank == 0) {
        if (!w->tokenizer) {
            err_set(
                e, ERR_INPUT,
                "--model: %s has no tokenizer; generate needs a model folder or a .gguf file with one",
                a->model);
        } else {
            tokenizer_encode(w->tokenizer, a->prompt, strlen(a->prompt), true, &g->prompt);
            if (check_length(w, g, n_out, e)) {
                CHECK(e->code == ERR_INPUT);
            }
        }
    }
    return world_agree(w, e);
}

static int serve_or_ask(struct world *w, const struct generate_args *a,
                        const struct generate_ask *ask, struct generation *g, struct err *e)
{
    if (prepare(w, a, ask->n_out, g, e)) {
        return -1;
    }
    if (!w->is_load) {
        return worker_serve(w->worker, w->comm, e);
    }
    g->stream = tokenizer_stream_new(w->tokenizer, true);
    g->logprobs = json_array();
    // Whatever is still computed after a stop text is dropped before the workers go.
    return world_begin_service(w, e) || send_request(w, g, ask, !a->ignore_eos, e) ||
                   collect(w, g, ask, e) || world_end_service(w, e)
               ? -1
               : 0;
}

static void free_generation(struct generation *g)
{
    token_ids_free(&g->prompt);
    token_ids_free(&g->ids);
    tokenizer_stream_free(g->stream);
    stops_stream_free(&g->stops);
    str_free(&g->text);
    json_decref(g->logprobs);
}

static int generate_in_world(struct run_config *config, int rc, const struct generate_args *a,
                             const struct generate_ask *ask, struct err *e)
{
    struct world w;
    struct generation g = {0};
    int failed = world_open(&w, config, rc, e) || world_load(&w, false, e) ||
                 serve_or_ask(&w, a, ask, &g, e);
    if (!failed && w.rank == 0) {
        print_generation(&g, strcmp(a->format, "json") == 0, a->prompt);
    }
    free_generation(&g);
    if (failed) {
        return world_fail(&w, e);
    }
    world_close(&w);
    return 0;
}

static const char *describe(void *arg, int rank, char *buf, size_t cap)
{
    return world_describe_rank(arg, rank, buf, cap);
}

static int run(int argc, char **argv, struct err *e)
{
    struct generate_args a;
    struct run_config config = {0};
    struct generate_ask ask = {0};
    int rc = parse_args(argc, argv, &a, e);
    if (rc == 0) {
        rc = parse_ask(&a, &ask, e) || make_config(&a, &config, e) ? -1 : 0;
    }
    if (comm_launched()) {
        return generate_in_world(&config, rc, &a, &ask, e);
    }
    if (rc) {
        return e->code;
    }
    struct arch arch;
    if (arch_open(config.target.model, &arch, e) || target_check(&config.target, &arch, e)) {
        run_config_free(&config);
        return e->code;
    }
    struct layout layout = run_config_layout(&config);
    run_config_free(&config);
    const struct launch l = {.n_ranks = layout_size(&layout),
                             .argv = argv,
                             .quiet = true,
                             .describe_rank = describe,
                             .arg = &layout};
    int code = launch_world(&l, e);
    return code < 0 ? (int)e->code : code;
}

static const struct command_flag flags[] = {
    {"--model", "-m", "M", NULL,
     "a folder in Hugging Face layout with its tokenizer.json, or a .gguf file",
     offsetof(struct generate_args, model)},
    {"--prompt", "-p", "TEXT", NULL, "the tokenizer adds what the model expects before it",
     offsetof(struct generate_args, prompt)},
    {"--max-tokens", "-n", "N", "64", "output tokens at most, 1 to 1048576",
     offsetof(struct generate_args, max_tokens)},
    {"--pipeline", NULL, "P", "1", "stages the layers are split over, 1 to 64",
     offsetof(struct generate_args, pipeline)},
    {"--tensor", NULL, "T", "1", "ranks each stage is split over, 1 to 64",
     offsetof(struct generate_args, tensor)},
    {"--temperature", NULL, "T", "0", "0 to 100; 0: the likeliest token each time",
     offsetof(struct generate_args, temperature)},
    {"--top-k", NULL, "K", "0", "only the K likeliest tokens; 0: all",
     offsetof(struct generate_args, top_k)},
    {"--top-p", NULL, "P", "1", "only the likeliest tokens that make up this share, up to 1",
     offsetof(struct generate_args, top_p)},
    {"--min-p", NULL, "P", "0", "only tokens this likely beside the likeliest, 0 to 1",
     offsetof(struct generate_args, min_p)},
    {"--seed", NULL, "N", "0", "of the draws: the same seed, the same text",
     offsetof(struct generate_args, seed)},
    {"--stop", NULL, "TEXT...", NULL, "end before this text; up to 4 times",
     offsetof(struct generate_args, stop)},
    {"--logprobs", NULL, "N", NULL, "show each token's log-probability and N alternatives, 0 to 20",
     offsetof(struct generate_args, logprobs)},
    {"--ignore-eos", NULL, NULL, NULL, "go on after the end-of-sequence token",
     offsetof(struct generate_args, ignore_eos)},
    {"--format", "-f", "text|json", "text",
     "JSON: prompt_ids, ids, text, finish_reason and logprobs",
     offsetof(struct generate_args, format)},
};

const struct command cmd_generate = {
    .name = "generate",
    .summary = "text from a real model: the sanity check of a model folder and a pipeline",
    .usage =
        "generate --model DIR --prompt TEXT [--max-tokens N] [--pipeline P] [--tensor T]\n"
        "    [--temperature T] [--top-k K] [--top-p P] [--min-p P] [--seed N] [--stop TEXT]...\n"
        "    [--logprobs N] [--ignore-eos] [--format text|json]",
    .details =
        "Starts one load rank and P x T workers through mpirun, sends one request and prints\n"
        "the continuation: greedy, or drawn where --temperature is above 0.\n",
    .flags = flags,
    .n_flags = sizeof flags / sizeof flags[0],
    .example = "generate --model DIR --prompt \"Once upon a time\" --max-tokens 64 --pipeline 2",
    .joins_world = true,
    .run = run,
};
