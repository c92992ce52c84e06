#include "loadgen/identity.h"

#include "core/clock.h"
#include "core/http_get.h"
#include "core/str.h"
#include "loadgen/metrics.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TIMEOUT_NS (15 * NS_PER_S) // or the endpoint's own, where that is less
#define SHOWN      200             // bytes of an answer in a message

static int64_t timeout_ns(const struct endpoint *p)
{
    return p->cfg->total_timeout_ns < TIMEOUT_NS ? p->cfg->total_timeout_ns : TIMEOUT_NS;
}

static int get(const struct endpoint *p, size_t i, const char *path, bool from_root, int *status,
               struct str *body, struct err *e)
{
    char *url = endpoint_sibling(p, i, path, from_root);
    int rc = http_get(&p->http, url, p->headers, timeout_ns(p), status, body, e);
    free(url);
    return rc;
}

/* --- the list of models --------------------------------------------------------------------------- */

static void put_ids(const struct endpoint *p, const json_t *list, struct str *out)
{
    size_t i;
    json_t *model;
    json_array_foreach(list, i, model)
    {
        const char *id = json_string_value(json_object_get(model, "id"));
        if (id) {
            str_puts(out, i > 0 ? ", " : "");
            endpoint_quote(p, id, strlen(id), SHOWN, out);
        }
    }
}

static int64_t context_of(const json_t *model)
{
    const json_t *n = json_object_get(model, "max_model_len");
    if (!json_is_integer(n)) {
        n = json_object_get(json_object_get(model, "meta"), "n_ctx_train");
    }
    json_int_t v = json_integer_value(n);
    return v > 0 && v <= 1 << 24 ? (int64_t)v : 0;
}

static void take_server(struct identity *out, const json_t *model)
{
    static const struct {
        const char *owner, *server;
    } known[] = {{"vllm", "vllm"}, {"sglang", "sglang"}, {"llamacpp", "llama.cpp"}};
    const char *owner = json_string_value(json_object_get(model, "owned_by"));
    for (size_t i = 0; owner && i < sizeof known / sizeof *known; i++) {
        if (strcmp(owner, known[i].owner) == 0) {
            snprintf(out->server, sizeof out->server, "%s", known[i].server);
        }
    }
}

static int take_models(const struct endpoint *p, size_t url, const char *name,
                       const struct str *body, struct identity *out, struct err *e)
{
    size_t i;
    json_t *model;
    json_t *root = json_loadb(body->data ? body->data : "", body->len, 0, NULL);
    const json_t *list = json_object_get(root, "data");
    int rc = -1;
    if (!json_is_array(list)) {
        err_set(e, ERR_ENV, "%s/models: not a list of models in JSON", p->cfg->urls.v[url]);
        goto done;
    }
    json_array_foreach(list, i, model)
    {
        const char *id = json_string_value(json_object_get(model, "id"));
        if (id && strcmp(id, name) == 0) {
            int64_t context = context_of(model);
            bool is_less = out->context == 0 || (context > 0 && context < out->context);
            out->context = is_less ? context : out->context;
            take_server(out, model);
            rc = 0;
            goto done;
        }
    }
    struct str ids = {0};
    put_ids(p, list, &ids);
    err_set(e, ERR_INPUT, "target.model: %s is not served at %s (%.300s)", name,
            p->cfg->urls.v[url], ids.len > 0 ? ids.data : "no model is");
    str_free(&ids);
done:
    json_decref(root);
    return rc;
}

static int refuse(const struct endpoint *p, size_t url, int status, const struct str *body,
                  struct err *e)
{
    struct str said = {0};
    bool is_key = status == 401 || status == 403;
    endpoint_quote(p, body->data ? body->data : "", body->len, SHOWN, &said);
    err_set(e, is_key ? ERR_INPUT : ERR_ENV, "%s/models: status %d%s%s%s", p->cfg->urls.v[url],
            status, is_key ? " (see target.api_key_env, target.api_key_file)" : "",
            said.len > 0 ? ": " : "", said.len > 0 ? said.data : "");
    str_free(&said);
    return -1;
}

static int ask_models(const struct endpoint *p, size_t url, const char *name, struct identity *out,
                      struct err *e)
{
    struct str body = {0};
    int status;
    int rc = get(p, url, "/models", false, &status, &body, e);
    if (rc == 0 && status == 200) {
        rc = take_models(p, url, name, &body, out, e);
    } else if (rc == 0 && status != 404 && status != 405) {
        rc = refuse(p, url, status, &body, e);
    }
    str_free(&body);
    return rc;
}

/* --- version and metrics ---------------------------------------------------------------------------- */

static void ask_version(const struct endpoint *p, struct identity *out)
{
    struct str body = {0};
    struct err ignored;
    int status;
    if (get(p, 0, "/version", true, &status, &body, &ignored) == 0 && status == 200) {
        json_t *root = json_loadb(body.data ? body.data : "", body.len, 0, NULL);
        const char *version = json_string_value(json_object_get(root, "version"));
        struct str said = {0};
        endpoint_quote(p, version ? version : "", version ? strlen(version) : 0, 60, &said);
        snprintf(out->version, sizeof out->version, "%s", said.len > 0 ? said.data : "");
        str_free(&said);
        json_decref(root);
    }
    str_free(&body);
}

static void ask_metrics(const struct endpoint *p, struct identity *out)
{
    struct str body = {0};
    struct err ignored;
    int status;
    bool is_auto = strcmp(p->cfg->metrics, "auto") == 0;
    char *url = is_auto ? endpoint_sibling(p, 0, "/metrics", true) : strdup(p->cfg->metrics);
    if (url && strcmp(url, "none") != 0 &&
        http_get(&p->http, url, p->headers, timeout_ns(p), &status, &body, &ignored) == 0 &&
        status == 200 && body.len > 0) {
        struct metrics m;
        metrics_parse(body.data, body.len, &m);
        if (m.server) {
            snprintf(out->server, sizeof out->server, "%s", m.server);
        }
    }
    free(url);
    str_free(&body);
}

int identity_ask(const struct endpoint *p, const char *model, struct identity *out, struct err *e)
{
    *out = (struct identity){0};
    for (size_t i = 0; i < p->cfg->urls.n; i++) {
        if (ask_models(p, i, model, out, e) != 0) {
            return -1;
        }
    }
    ask_version(p, out);
    ask_metrics(p, out);
    return 0;
}
