/*
 * The null server with faults, for tests of clients: a request that names a fault, in the header
 * X-Fault or as the model "fault:NAME", gets that; every other one is answered as `tidemark serve`
 * would. "NAME/20" is for every 20th request that says so. One server serves a whole test.
 *
 * usage: fault_server [key=value ...]     keys of `tidemark serve`; serve.port is 0 by default
 *        fault_server --list              "NAME<tab>what it does", one line each
 */
#include <jansson.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/clock.h"
#include "core/config.h"
#include "core/mem.h"
#include "tests/support/faults.h"
#include "workers/null_server.h"
#include "workers/openai_request.h"
#include "workers/serve_config.h"

#define MODEL_PREFIX "fault:"

/* A reply under way; few at a time, so that a list will do. */
struct session {
    struct httpd_conn *conn;
    struct faults_script script;
    bool ended;
    struct session *next;
};

struct fault_server {
    struct httpd_app null;
    struct session *sessions;
    long n_named; // requests so far that named a fault
};

static volatile sig_atomic_t stop;

static void on_signal(int sig)
{
    (void)sig;
    stop = 2;
}

static struct session **session_of(struct fault_server *s, const struct httpd_conn *c)
{
    struct session **at = &s->sessions;
    while (*at && (*at)->conn != c) {
        at = &(*at)->next;
    }
    return at;
}

static void session_end(struct session **at)
{
    struct session *x = *at;
    *at = x->next;
    str_free(&x->script.bytes);
    free(x);
}

/* The fault that the request names into buf. False: none. */
static bool fault_name(const struct http_request_parts *q, const struct openai_request *body,
                       char *buf, size_t cap)
{
    struct http_request_text given = http_request_header(q, "X-Fault");
    size_t n = strlen(MODEL_PREFIX);
    if (given.s) {
        snprintf(buf, cap, "%.*s", (int)given.n, given.s);
    } else if (body->model && strncmp(body->model, MODEL_PREFIX, n) == 0) {
        snprintf(buf, cap, "%s", body->model + n);
    }
    return given.s || (body->model && strncmp(body->model, MODEL_PREFIX, n) == 0);
}

/* Whether it is this request's turn; the share is cut from the name. */
static bool is_turn(struct fault_server *s, char *name)
{
    char *share = strchr(name, '/');
    if (!share) {
        return true;
    }
    *share = '\0';
    long every = strtol(share + 1, NULL, 10);
    return every > 0 && ++s->n_named % every == 0;
}

static bool begin_fault(struct fault_server *s, struct httpd_conn *c,
                        const struct http_request_parts *q)
{
    char buf[128];
    struct err e;
    struct openai_request body = {0};
    bool chat = http_request_is(q->path, "/v1/chat/completions");
    if (openai_request_parse(&body, chat, q->body.s, q->body.n, &e)) {
        body = (struct openai_request){0};
    }
    const struct faults_request r = {
        .chat = chat,
        .n_tokens = body.max_tokens ? body.max_tokens : 4,
        .prompt_tokens = body.prompt_tokens,
        .model = body.model ? body.model : "fault",
    };
    bool is_named = fault_name(q, &body, buf, sizeof buf) && is_turn(s, buf);
    struct session *x = is_named ? xcalloc(1, sizeof *x) : NULL;
    bool known = x && faults_write(&x->script, buf, &r);
    if (known) {
        x->conn = c;
        x->next = s->sessions;
        s->sessions = x;
        httpd_wake(c, httpd_read_ns(c) + x->script.cuts[0].wait_ns);
    } else {
        free(x);
    }
    openai_request_free(&body);
    return known;
}

static void on_request(void *arg, struct httpd_conn *c, const struct http_request_parts *q)
{
    struct fault_server *s = arg;
    if (!begin_fault(s, c, q)) {
        s->null.request(s->null.arg, c, q);
    }
}

static void on_due(void *arg, struct httpd_conn *c, struct httpd_piece *p)
{
    struct fault_server *s = arg;
    struct session *x = *session_of(s, c);
    if (!x) {
        s->null.due(s->null.arg, c, p);
        return;
    }
    struct faults_script *f = &x->script;
    const struct faults_cut *cut = &f->cuts[f->next++];
    str_append(p->out, f->bytes.data + f->sent, cut->end - f->sent);
    f->sent = cut->end;
    if (f->next < f->n_cuts) {
        p->next_ns = clock_local_ns() + cut[1].wait_ns;
    } else {
        p->then = f->then;
        p->idle_ns = f->idle_ns;
        x->ended = f->then != HTTPD_MORE;
    }
}

static void on_sent(void *arg, struct httpd_conn *c, int64_t before_ns, int64_t after_ns)
{
    struct fault_server *s = arg;
    struct session **x = session_of(s, c);
    if (!*x) {
        s->null.sent(s->null.arg, c, before_ns, after_ns);
    } else if ((*x)->ended) {
        session_end(x);
    }
}

static void on_closed(void *arg, struct httpd_conn *c)
{
    struct fault_server *s = arg;
    struct session **x = session_of(s, c);
    if (*x) {
        session_end(x);
    } else {
        s->null.closed(s->null.arg, c);
    }
}

static int configure(struct serve_config *c, int argc, char **argv, struct err *e)
{
    json_t *root = NULL;
    static const char text[] = "{target: {kind: \"null\"}, serve: {port: 0}}";
    int rc = config_parse(text, sizeof text - 1, "defaults", &root, e);
    for (int i = 1; i < argc && rc == 0; i++) {
        rc = config_override(root, argv[i], e);
    }
    opt_defaults(serve_config_options, c);
    rc = rc ? rc : opt_apply(serve_config_options, c, root, e);
    json_decref(root);
    return rc ? rc : serve_config_check(c, e);
}

static int serve(const struct serve_config *c, struct err *e)
{
    struct fault_server s = {0};
    struct null_server *null = NULL;
    struct httpd *h = NULL;
    const struct httpd_config how = serve_config_httpd(c);
    const struct httpd_app app = {
        .arg = &s, .request = on_request, .due = on_due, .sent = on_sent, .closed = on_closed};
    if (null_server_open(&null, c, "fault", e)) {
        return -1;
    }
    s.null = null_server_app(null);
    int rc = httpd_open(&h, &how, &app, e);
    if (rc == 0) {
        null_server_started(null, h);
        printf("listening on http://%s:%d/v1\n", c->host, httpd_port(h));
        fflush(stdout);
        rc = httpd_run(h, &stop, e);
        httpd_close(h);
    }
    return null_server_close(null, e) || rc ? -1 : 0;
}

int main(int argc, char **argv)
{
    struct serve_config c = {0};
    struct err e = {0};
    struct sigaction sa = {.sa_handler = on_signal};
    if (argc == 2 && strcmp(argv[1], "--list") == 0) {
        for (int i = 0; faults_name(i); i++) {
            printf("%s\t%s\n", faults_name(i), faults_help(i));
        }
        return 0;
    }
    sigaction(SIGTERM, &sa, NULL);
    sigaction(SIGINT, &sa, NULL);
    int rc = configure(&c, argc, argv, &e);
    rc = rc ? rc : serve(&c, &e);
    if (rc) {
        fprintf(stderr, "fault_server: %s\n", e.msg);
    }
    opt_free(serve_config_options, &c);
    return rc ? (int)e.code : 0;
}
