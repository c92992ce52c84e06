#include "cli/roster.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "cli/wires.h"

int roster_call(struct roster *r, struct world *w, struct err *e)
{
    *r = (struct roster){0};
    if (world_ranks(w, &r->ranks, e) || world_engines(w, &r->engines, &r->n_engines, e)) {
        return -1;
    }
    if (w->rank == 0) {
        r->n_edges = wires_edges(&w->layout, w->comm, r->engines, &r->edges);
    }
    return 0;
}

void roster_free(struct roster *r)
{
    free(r->ranks);
    free(r->engines);
    free(r->edges);
}

/* --- the target, in JSON ------------------------------------------------------------------------- */

static json_t *text_or(const char *configured, const char *found)
{
    const char *text = configured ? configured : found && found[0] ? found : NULL;
    return text ? json_string(text) : json_null();
}

static json_t *describe_endpoint(const struct world *w)
{
    const struct target_config *t = &w->config.target;
    const struct endpoint_config *c = &w->config.endpoint;
    json_t *urls = json_array();
    for (size_t i = 0; i < c->urls.n; i++) {
        json_array_append_new(urls, json_string(c->urls.v[i]));
    }
    return json_pack("{s:s, s:s, s:n, s:I, s:I, s:I, s:o, s:o, s:o, s:o, s:o, s:o, s:s, s:b, s:I}",
                     "kind", "openai", "model", t->model, "backend", "replicas",
                     (json_int_t)t->replicas, "pipeline", (json_int_t)t->pipeline, "tensor",
                     (json_int_t)t->tensor, "server", text_or(c->server, w->identity.server),
                     "server_version", text_or(c->server_version, w->identity.version), "instance",
                     text_or(c->instance, NULL), "accelerator", text_or(c->accelerator, NULL),
                     "accelerators",
                     c->accelerators > 0 ? json_integer((json_int_t)c->accelerators) : json_null(),
                     "urls", urls, "api", c->api == ENDPOINT_CHAT ? "chat" : "completions",
                     "stream", (int)c->stream, "context", (json_int_t)c->context);
}

/* GPUs that workers compute on, each once: several may share one. */
static int64_t count_gpus(const struct world *w, const struct roster *r)
{
    int64_t n = 0;
    for (size_t i = 0; i < r->n_engines; i++) {
        const struct engine *mine = &r->engines[i];
        bool is_new = mine->pci[0] != '\0';
        for (size_t k = 0; k < i && is_new; k++) {
            const struct engine *other = &r->engines[k];
            is_new = strcmp(other->pci, mine->pci) != 0 ||
                     strcmp(comm_host(w->comm, other->rank), comm_host(w->comm, mine->rank)) != 0;
        }
        n += is_new;
    }
    return n;
}

/* Layers of each stage. */
static json_t *describe_split(const struct world *w)
{
    int first[RECORD_MAX_STAGES + 1];
    struct err unread = {0};
    if (target_split(&w->config.target, &w->arch, first, &unread)) {
        return json_null(); // a file of costs that is gone since the workers read it
    }
    json_t *layers = json_array();
    for (int s = 0; s < w->config.target.pipeline; s++) {
        json_array_append_new(layers, json_integer(first[s + 1] - first[s]));
    }
    return layers;
}

static json_t *describe_stages(const struct world *w, const struct roster *r)
{
    const struct target_config *t = &w->config.target;
    bool is_sim = target_backend(t) == TARGET_BACKEND_SIM;
    bool by_costs = is_sim && t->sim.costs && t->sim.costs[0];
    json_t *o =
        json_pack("{s:s, s:s, s:s, s:I, s:I, s:I, s:n, s:n, s:n, s:n, s:o}", "kind", "stages",
                  "model", t->model, "backend", target_backend_name(t), "replicas",
                  (json_int_t)t->replicas, "pipeline", (json_int_t)t->pipeline, "tensor",
                  (json_int_t)(t->tensor * (is_sim ? t->sim.tensor : 1)), "server",
                  "server_version", "instance", "accelerator", "layers", describe_split(w));
    if (is_sim) {
        json_object_set_new(
            o, "accelerator",
            json_sprintf("simulated: %s", by_costs ? t->sim.costs : t->sim.hardware));
    }
    const int64_t n_gpus = count_gpus(w, r);
    if (n_gpus > 0) {
        json_object_set_new(o, "accelerator", json_string(r->engines[0].device));
        json_object_set_new(o, "accelerators", json_integer((json_int_t)n_gpus));
    }
    return o;
}

json_t *roster_target(const struct roster *r, const struct world *w)
{
    const struct target_config *t = &w->config.target;
    if (t->kind == TARGET_OPENAI) {
        return describe_endpoint(w);
    }
    if (t->kind == TARGET_STAGES) {
        return describe_stages(w, r);
    }
    return json_pack("{s:s, s:s, s:n, s:i, s:i, s:i, s:n, s:n, s:n, s:n}", "kind", "null", "model",
                     t->model, "backend", "replicas", 0, "pipeline", 0, "tensor", 0, "server",
                     "server_version", "instance", "accelerator");
}
