/*
 * tidemark generate: text from a real model through the same stages, scheduler and messages as a
 * run. The sanity check of a model folder and of the pipeline.
 */
#include <errno.h>
#include <jansson.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/command.h"
#include "cli/launch.h"
#include "cli/world.h"
#include "core/clock.h"
#include "core/log.h"
#include "core/mem.h"
#include "model/wire.h"

#define GENERATE_STEP_NS (365LL * 86400 * NS_PER_S) // one step that nothing ends early

struct generate_args {
    const char *model, *prompt, *max_tokens, *pipeline, *tensor, *format;
    bool ignore_eos;
};

struct generation {
    struct token_ids prompt, ids;
    const char *finish_reason; // "length" or "stop"
};

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

static int parse_count(const char *text, uint32_t *n, struct err *e)
{
    char *end;
    errno = 0;
    long v = strtol(text, &end, 10);
    if (errno || end == text || *end || v < 1 || v > 1 << 20) {
        return err_set(e, ERR_INPUT, "--max-tokens: '%s' is not a whole number from 1 to %d", text,
                       1 << 20);
    }
    *n = (uint32_t)v;
    return 0;
}

/* --- rank 0 -------------------------------------------------------------------------------------- */

static int send_request(struct world *w, const struct generation *g, uint32_t n_out,
                        bool stop_at_eos, struct err *e)
{
    struct wire_step step = {.kind = STEP_BASE, .users = 1, .t_begin_ns = clock_now_ns()};
    step.t_warm_ns = step.t_begin_ns;
    step.t_end_ns = step.t_drain_ns = step.t_begin_ns + GENERATE_STEP_NS;
    for (int r = 1; r < comm_size(w->comm); r++) {
        if (comm_post(w->comm, r, WIRE_STEP, &step, sizeof step, e)) {
            return -1;
        }
    }
    size_t n_bytes = sizeof(struct wire_request) + g->prompt.n * sizeof(int32_t);
    struct wire_request *req = xcalloc(1, n_bytes);
    req->n_in = (uint32_t)g->prompt.n;
    req->n_out = n_out;
    req->flags = stop_at_eos ? WIRE_STOP_AT_EOS : 0;
    memcpy(req->ids, g->prompt.v, g->prompt.n * sizeof(int32_t));
    int rc = comm_post(w->comm, layout_leader(&w->layout, 0), WIRE_REQUEST, req, n_bytes, e);
    free(req);
    return rc;
}

static int take_tokens(const struct comm_msg *m, struct generation *g, bool *done)
{
    const struct wire_token *t = m->data;
    for (size_t i = 0; i < m->n_bytes / sizeof *t; i++) {
        token_ids_push(&g->ids, t[i].id);
        *done |= (t[i].flags & WIRE_LAST) != 0;
    }
    return 0;
}

static int collect(struct world *w, struct generation *g, struct err *e)
{
    for (bool done = false; !done;) {
        struct comm_msg m;
        if (world_next_message(w, &m, w->config.deadline.start_ns, "token", e) < 0) {
            return -1;
        }
        if (m.tag == WIRE_TOKENS) {
            take_tokens(&m, g, &done);
        } else if (m.tag == WIRE_REJECT) {
            return err_set(e, ERR_ENV, "the leader refused the request");
        }
    }
    return 0;
}

static int shut_down(struct world *w, struct err *e)
{
    for (int r = 1; r < comm_size(w->comm); r++) {
        if (comm_post(w->comm, r, WIRE_SHUTDOWN, NULL, 0, e)) {
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

static const char *finish_reason(const struct world *w, const struct generation *g)
{
    for (int i = 0; i < w->arch.n_eos; i++) {
        if (g->ids.n && g->ids.v[g->ids.n - 1] == w->arch.eos_ids[i]) {
            return "stop";
        }
    }
    return "length";
}

static json_t *ids_json(const struct token_ids *ids)
{
    json_t *a = json_array();
    for (size_t i = 0; i < ids->n; i++) {
        json_array_append_new(a, json_integer(ids->v[i]));
    }
    return a;
}

static void print_generation(const struct world *w, const struct generation *g, bool json,
                             const char *prompt)
{
    struct str text = {0};
    tokenizer_decode(w->tokenizer, g->ids.v, g->ids.n, true, &text);
    if (json) {
        json_t *valid = json_stringn(text.data ? text.data : "", text.len);
        json_t *o = json_pack("{s:o, s:o, s:o, s:s}", "prompt_ids", ids_json(&g->prompt), "ids",
                              ids_json(&g->ids), "text", valid ? valid : json_null(),
                              "finish_reason", g->finish_reason);
        json_dumpf(o, stdout, JSON_INDENT(1));
        printf("\n");
        json_decref(o);
    } else {
        printf("%s%s\n", prompt, text.data ? text.data : "");
    }
    str_free(&text);
}

/* What only rank 0 can check, before the request goes out; all ranks agree on the outcome. */
static int prepare(struct world *w, const struct generate_args *a, uint32_t n_out,
                   struct generation *g, struct err *e)
{
    if (w->rank == 0) {
        if (!w->tokenizer) {
            err_set(e, ERR_INPUT, "--model: %s has no tokenizer; generate needs a model folder",
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

static int serve_or_ask(struct world *w, const struct generate_args *a, uint32_t n_out,
                        struct generation *g, struct err *e)
{
    if (prepare(w, a, n_out, g, e)) {
        return -1;
    }
    if (!w->is_load) {
        return worker_serve(w->worker, w->comm, e);
    }
    if (send_request(w, g, n_out, !a->ignore_eos, e) || collect(w, g, e) || shut_down(w, e)) {
        return -1;
    }
    g->finish_reason = a->ignore_eos ? "length" : finish_reason(w, g);
    return 0;
}

static int generate_in_world(struct run_config *config, int rc, const struct generate_args *a,
                             uint32_t n_out, struct err *e)
{
    struct world w;
    struct generation g = {0};
    int failed = world_open(&w, config, rc, e) || world_load(&w, false, e) ||
                 serve_or_ask(&w, a, n_out, &g, e);
    if (!failed && w.rank == 0) {
        print_generation(&w, &g, strcmp(a->format, "json") == 0, a->prompt);
    }
    token_ids_free(&g.prompt);
    token_ids_free(&g.ids);
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
    uint32_t n_out = 0;
    int rc = parse_args(argc, argv, &a, e);
    if (rc == 0) {
        rc = parse_count(a.max_tokens, &n_out, e) || make_config(&a, &config, e) ? -1 : 0;
    }
    if (comm_launched()) {
        return generate_in_world(&config, rc, &a, n_out, e);
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
    {"--model", "-m", "DIR", NULL, "a model in Hugging Face layout, with its tokenizer.json",
     offsetof(struct generate_args, model)},
    {"--prompt", "-p", "TEXT", NULL, "the tokenizer adds what the model expects before it",
     offsetof(struct generate_args, prompt)},
    {"--max-tokens", "-n", "N", "64", "output tokens at most, 1 to 1048576",
     offsetof(struct generate_args, max_tokens)},
    {"--pipeline", NULL, "P", "1", "stages the layers are split over, 1 to 64",
     offsetof(struct generate_args, pipeline)},
    {"--tensor", NULL, "T", "1", "ranks each stage is split over, 1 to 64",
     offsetof(struct generate_args, tensor)},
    {"--ignore-eos", NULL, NULL, NULL, "go on after the end-of-sequence token",
     offsetof(struct generate_args, ignore_eos)},
    {"--format", "-f", "text|json", "text", "JSON: prompt_ids, ids, text and finish_reason",
     offsetof(struct generate_args, format)},
};

const struct command cmd_generate = {
    .name = "generate",
    .summary = "text from a real model: the sanity check of a model folder and a pipeline",
    .usage = "generate --model DIR --prompt TEXT [--max-tokens N] [--pipeline P] [--tensor T]\n"
             "    [--ignore-eos] [--format text|json]",
    .details =
        "Starts one load rank and P x T workers through mpirun, sends one request and prints\n"
        "the greedy continuation.\n",
    .flags = flags,
    .n_flags = sizeof flags / sizeof flags[0],
    .example = "generate --model DIR --prompt \"Once upon a time\" --max-tokens 64 --pipeline 2",
    .joins_world = true,
    .run = run,
};
