/*
 * tidemark serve: an OpenAI-compatible endpoint, of this job's own stages, or of the null target, whose
 * times are known beforehand: for measuring tidemark and other clients.
 */
#include <jansson.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/command.h"
#include "cli/launch.h"
#include "cli/world.h"
#include "core/config.h"
#include "core/httpd.h"
#include "core/log.h"
#include "workers/null_server.h"
#include "workers/serve_config.h"
#include "workers/stages_server.h"
#include "version.h"

static volatile sig_atomic_t stop;

/* A launcher passes the first one on as SIGUSR1. */
static void on_signal(int sig)
{
    (void)sig;
    stop = stop < 2 ? stop + 1 : 2;
}

/* Blocked but while the server waits, so that none comes between a look at `stop` and the wait. */
static void catch_signals(void)
{
    struct sigaction sa = {.sa_handler = on_signal};
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    sigaction(SIGTERM, &sa, NULL);
    sigaction(SIGINT, &sa, NULL);
    sigaction(SIGUSR1, &sa, NULL);
}

/* CONFIG, if there is one, is the argument without '='. */
static int load_tree(const struct command_args *args, json_t **root, struct err *e)
{
    const char *path = NULL;
    for (int i = 0; i < args->n; i++) {
        if (strchr(args->positional[i], '=')) {
            continue;
        }
        if (path) {
            return err_set(e, ERR_INPUT,
                           "%s: one config file only; settings have the form key=value",
                           args->positional[i]);
        }
        path = args->positional[i];
    }
    return path ? config_load(path, root, e) : config_parse("{}", 2, "defaults", root, e);
}

static bool is_stages(const json_t *root)
{
    const json_t *kind = json_object_get(json_object_get(root, "target"), "kind"); // null is YAML's
    return !kind || (json_is_string(kind) && strcmp(json_string_value(kind), "stages") == 0);
}

/* The null target has no settings but its kind; stages have those of a run. */
static int apply(json_t *root, struct serve_config *c, struct run_config *target, struct err *e)
{
    if (config_check_sections(root, "target|serve|deadline", e)) {
        return -1;
    }
    if (!is_stages(root)) {
        return opt_apply(serve_config_options, c, root, e);
    }
    json_t *own = json_pack("{s:O*}", "serve", json_object_get(root, "serve"));
    json_t *rest = json_pack("{s:O*, s:O*}", "target", json_object_get(root, "target"), "deadline",
                             json_object_get(root, "deadline"));
    int rc = opt_apply(serve_config_options, c, own, e);
    rc = rc ? rc : run_config_from_json(target, rest, e);
    json_decref(own);
    json_decref(rest);
    return rc;
}

static int make_config(const struct command_args *args, struct serve_config *c,
                       struct run_config *target, struct err *e)
{
    json_t *root = NULL;
    opt_defaults(serve_config_options, c);
    if (load_tree(args, &root, e)) {
        return -1;
    }
    int rc = 0;
    for (int i = 0; i < args->n && rc == 0; i++) {
        if (strchr(args->positional[i], '=')) {
            rc = config_override(root, args->positional[i], e);
        }
    }
    rc = rc ? rc : apply(root, c, target, e);
    json_decref(root);
    return rc ? rc : serve_config_check(c, e);
}

/* Whoever spins for exact times wants no other thread on its core while it has something to do. */
static void ask_realtime(const struct serve_config *c)
{
    const struct sched_param lowest = {.sched_priority = sched_get_priority_min(SCHED_FIFO)};
    if (c->spin_ns > 0 && sched_setscheduler(0, SCHED_FIFO, &lowest)) {
        log_warn("serve", "SCHED_FIFO is not permitted: packets may leave late on a shared core");
    }
}

static void say_where(const struct serve_config *c, int port)
{
    bool v6 = strchr(c->host, ':') != NULL;
    printf("listening on http://%s%s%s:%d/v1\n", v6 ? "[" : "", c->host, v6 ? "]" : "", port);
    fflush(stdout);
}

static int serve_null(const struct serve_config *c, struct err *e)
{
    const struct httpd_config how = serve_config_httpd(c);
    struct null_server *s = NULL;
    struct httpd *h = NULL;
    if (null_server_open(&s, c, TIDEMARK_VERSION, e)) {
        return -1;
    }
    const struct httpd_app app = null_server_app(s);
    int rc = httpd_open(&h, &how, &app, e);
    if (rc == 0) {
        null_server_started(s, h);
        say_where(c, httpd_port(h));
        ask_realtime(c);
        rc = httpd_run(h, &stop, e);
        null_server_report(s);
        httpd_close(h);
    }
    struct err ignored;
    int written = null_server_close(s, rc ? &ignored : e);
    return rc ? rc : written;
}

/* --- stages ---------------------------------------------------------------------------------------- */

static int serve_http(struct world *w, const struct serve_config *c, struct err *e)
{
    const struct httpd_config how = serve_config_httpd(c);
    const struct stages_server_config config = {
        .serve = c,
        .model_name = w->config.target.model,
        .version = TIDEMARK_VERSION,
        .comm = w->comm,
        .layout = w->layout,
        .routing = (enum routing_kind)w->config.target.routing,
        .arch = &w->arch,
        .tokenizer = w->tokenizer,
    };
    struct stages_server *s;
    struct httpd *h = NULL;
    stages_server_open(&s, &config);
    const struct httpd_app app = stages_server_app(s);
    int rc = httpd_open(&h, &how, &app, e);
    if (rc == 0) {
        stages_server_started(s, h);
        say_where(c, httpd_port(h));
        rc = httpd_run(h, &stop, e);
        stages_server_report(s);
        httpd_close(h);
    }
    stages_server_close(s);
    return rc;
}

static int serve_stages(struct world *w, const struct serve_config *c, struct err *e)
{
    if (!w->is_load) {
        return worker_serve(w->worker, w->comm, e);
    }
    if (w->auto_why[0] != '\0') {
        log_info("serve", "target.backend: auto takes the CPU (%s)", w->auto_why);
    }
    catch_signals(); // the world's own are for runs
    return world_begin_service(w, e) || serve_http(w, c, e) || world_end_service(w, e) ? -1 : 0;
}

/* `rc` and `e`: what became of the configuration. The exit code. */
static int serve_in_world(const struct serve_config *c, struct run_config *target, int rc,
                          struct err *e)
{
    struct world w;
    if (world_open(&w, target, rc, e) || world_load(&w, false, e) || serve_stages(&w, c, e)) {
        return world_fail(&w, e);
    }
    world_close(&w);
    return 0;
}

static const char *describe(void *arg, int rank, char *buf, size_t cap)
{
    return world_describe_rank(arg, rank, buf, cap);
}

static int launch_stages(struct run_config *target, char **argv, struct err *e)
{
    struct arch arch;
    int rc = arch_open(target->target.model, &arch, e);
    rc = rc ? rc : target_check(&target->target, &arch, e);
    struct layout layout = run_config_layout(target);
    run_config_free(target);
    const struct launch l = {.n_ranks = layout_size(&layout),
                             .argv = argv,
                             .quiet = true,
                             .describe_rank = describe,
                             .arg = &layout};
    rc = rc ? rc : launch_world(&l, e);
    return rc < 0 ? (int)e->code : rc;
}

static int run(int argc, char **argv, struct err *e)
{
    struct command_args args;
    struct serve_config c = {0};
    struct run_config target = {0};
    if (command_parse(&cmd_serve, argc, argv, NULL, &args, e)) {
        return e->code;
    }
    int rc = make_config(&args, &c, &target, e), code;
    const bool is_alone = rc == 0 && c.target != SERVE_STAGES; // also where a launcher started it
    if (comm_launched() && !is_alone) {
        code = serve_in_world(&c, &target, rc, e);
    } else if (rc == 0 && c.target == SERVE_STAGES) {
        code = launch_stages(&target, argv, e);
    } else {
        catch_signals();
        rc = rc ? rc : serve_null(&c, e);
        code = rc ? (int)e->code : 0;
    }
    opt_free(serve_config_options, &c);
    command_args_free(&args);
    return code;
}

const struct command cmd_serve = {
    .name = "serve",
    .summary = "an OpenAI-compatible endpoint over a model's stages, or one of known timing",
    .usage = "serve [CONFIG] target.model=M [key=value ...]\n"
             "serve [CONFIG] target.kind=null [key=value ...]",
    .details =
        "Answers /v1/completions and /v1/chat/completions (streamed or not), /v1/models, /version,\n"
        "/metrics and /health. docs/serving.md lists what a request may ask. Stages are started through\n"
        "mpirun with the target.* keys of a run. The null target computes nothing: it says words at the\n"
        "times that serve.ttft and serve.itl give. stdout gets one line, `listening on URL`.\n\n"
        "SIGTERM or Ctrl-C: replies under way end, then the server does; the second one ends it at\n"
        "once. How late packets of the null target left is said at the end.\n",
    .config_parts = RUN_CONFIG_TARGET,
    .config = &serve_config_options,
    .example = "serve target.model=DIR target.pipeline=2 serve.port=8000\n"
               "serve target.kind=null serve.ttft=80ms serve.itl=8ms\n"
               "serve target.kind=null serve.port=0 serve.log=sent.csv serve.spin=100us",
    .joins_world = true,
    .run = run,
};
