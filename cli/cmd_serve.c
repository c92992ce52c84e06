/*
 * tidemark serve: an OpenAI-compatible endpoint. In v1 it serves the null target, whose times are
 * known beforehand: for measuring tidemark and other clients.
 */
#include <jansson.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/command.h"
#include "core/config.h"
#include "core/httpd.h"
#include "core/log.h"
#include "workers/null_server.h"
#include "workers/serve_config.h"
#include "version.h"

static volatile sig_atomic_t stop;

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

static int make_config(const struct command_args *args, struct serve_config *c, struct err *e)
{
    json_t *root = NULL;
    if (load_tree(args, &root, e)) {
        return -1;
    }
    int rc = 0;
    for (int i = 0; i < args->n && rc == 0; i++) {
        if (strchr(args->positional[i], '=')) {
            rc = config_override(root, args->positional[i], e);
        }
    }
    opt_defaults(serve_config_options, c);
    if (rc == 0) {
        rc = config_check_sections(root, "target|serve", e);
    }
    if (rc == 0) {
        rc = opt_apply(serve_config_options, c, root, e);
    }
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

static int serve(const struct serve_config *c, struct err *e)
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

static int run(int argc, char **argv, struct err *e)
{
    struct command_args args;
    struct serve_config c = {0};
    if (command_parse(&cmd_serve, argc, argv, NULL, &args, e)) {
        return e->code;
    }
    catch_signals();
    int rc = make_config(&args, &c, e);
    rc = rc ? rc : serve(&c, e);
    opt_free(serve_config_options, &c);
    command_args_free(&args);
    return rc ? (int)e->code : 0;
}

const struct command cmd_serve = {
    .name = "serve",
    .summary = "an OpenAI-compatible endpoint of known timing, to measure clients with",
    .usage = "serve [CONFIG] target.kind=null [key=value ...]",
    .details =
        "Answers /v1/completions and /v1/chat/completions (streamed or not), /v1/models, /version,\n"
        "/metrics and /health. The null target computes nothing: it says words at the times that\n"
        "serve.ttft and serve.itl give. stdout gets one line, `listening on URL`.\n\n"
        "SIGTERM or Ctrl-C: replies under way end, then the server does; the second one ends it at\n"
        "once. How late packets left is said at the end.\n",
    .config = &serve_config_options,
    .example = "serve target.kind=null serve.ttft=80ms serve.itl=8ms\n"
               "serve target.kind=null serve.port=0 serve.log=sent.csv serve.spin=100us",
    .run = run,
};
