#include "analysis/engine.h"

#include "analysis/value.h"

#include <jansson.h>

#include <math.h>
#include <string.h>

#define KV_BLOCK_TOKENS 16

/* --- of all together ------------------------------------------------------------------------------ */

static bool is_among(const struct str *list, const char *word, size_t n)
{
    for (const char *at = list->data; at != NULL && *at != '\0';) {
        size_t len = strcspn(at, "+");
        if (len == n && memcmp(at, word, n) == 0) {
            return true;
        }
        at += len + (at[len] == '+');
    }
    return false;
}

/* The words of TEXT, which a '+' parts, that the list does not have yet. */
static void add_words(struct str *list, const char *text)
{
    for (const char *at = text; *at != '\0';) {
        size_t n = strcspn(at, "+");
        if (n > 0 && !is_among(list, at, n)) {
            str_printf(list, "%s%.*s", list->len > 0 ? "+" : "", (int)n, at);
        }
        at += n + (at[n] == '+');
    }
}

/* Lists of formats of all rows, as one. */
static json_t *formats(const struct store_meta *m, size_t offset)
{
    struct str list = {0};
    for (size_t i = 0; i < m->n_engines; i++) {
        add_words(&list, (const char *)&m->engines[i] + offset);
    }
    json_t *text = list.len > 0 ? json_string(list.data) : NULL;
    str_free(&list);
    return text ? text : json_null();
}

/* Texts of all rows, whatever is in them, each once. */
static json_t *distinct(const struct store_meta *m, size_t offset)
{
    struct str list = {0};
    for (size_t i = 0; i < m->n_engines; i++) {
        const char *text = (const char *)&m->engines[i] + offset;
        bool seen = text[0] == '\0';
        for (size_t k = 0; k < i; k++) {
            seen |= strcmp((const char *)&m->engines[k] + offset, text) == 0;
        }
        if (!seen) {
            str_printf(&list, "%s%s", list.len > 0 ? ", " : "", text);
        }
    }
    json_t *text = list.len > 0 ? json_string(list.data) : NULL;
    str_free(&list);
    return text ? text : json_null();
}

static const struct store_rank *rank_of(const struct store_meta *m, int rank)
{
    for (size_t i = 0; i < m->n_ranks; i++) {
        if (m->ranks[i].rank == rank) {
            return &m->ranks[i];
        }
    }
    return NULL;
}

/* Sums over a replica: all have the same shape. */
static void set_sums(json_t *o, const struct store_meta *m)
{
    double bytes = 0, weights = 0, kv = 0, room = (double)INFINITY, least = (double)INFINITY;
    double most = 0, zipf = STATS_NONE;
    for (size_t i = 0; i < m->n_engines; i++) {
        const struct engine *x = &m->engines[i];
        const struct store_rank *r = rank_of(m, x->rank);
        const bool first = r == NULL || r->replica == 0;
        bytes += first ? (double)x->weight_bytes : 0;
        weights += first ? (double)x->n_weights : 0;
        kv += first ? x->kv_bytes_per_token : 0;
        room = fmin(room, (double)x->kv_blocks * KV_BLOCK_TOKENS);
        least = fmin(least, x->n_threads);
        most = fmax(most, x->n_threads);
        zipf = isnan(x->moe_zipf) ? zipf : x->moe_zipf;
    }
    value_set(o, "threads", least == most ? most : STATS_NONE);
    value_set(o, "weight_bytes", bytes);
    value_set(o, "n_weights", weights);
    value_set(o, "bytes_per_weight", weights > 0 ? bytes / weights : STATS_NONE);
    value_set(o, "kv_bytes_per_token", kv);
    value_set(o, "kv_tokens", room);
    value_set(o, "moe_zipf", zipf);
}

/* --- of each ------------------------------------------------------------------------------------ */

static json_t *row_json(const struct store_meta *m, const struct engine *x)
{
    const struct store_rank *r = rank_of(m, x->rank);
    json_t *o =
        json_pack("{s:i, s:i, s:i, s:i, s:i, s:i, s:i}", "rank", x->rank, "replica",
                  r ? r->replica : -1, "stage", r ? r->stage : -1, "tensor", r ? r->tensor : -1,
                  "first_layer", x->first_layer, "n_layers", x->n_layers, "threads", x->n_threads);
    json_object_set_new(o, "host", r && r->host[0] != '\0' ? json_string(r->host) : json_null());
    json_object_set_new(o, "numa", x->numa >= 0 ? json_integer(x->numa) : json_null());
    json_object_set_new(o, "pci", x->pci[0] != '\0' ? json_string(x->pci) : json_null());
    json_object_set_new(o, "cores", x->cores[0] != '\0' ? json_string(x->cores) : json_null());
    json_object_set_new(o, "kernels", json_string(x->kernels));
    json_object_set_new(o, "weights", json_string(x->weights));
    value_set(o, "weight_bytes", (double)x->weight_bytes);
    value_set(o, "bytes_per_weight", x->bytes_per_weight);
    value_set(o, "kv_bytes_per_token", x->kv_bytes_per_token);
    return o;
}

/* --- edges --------------------------------------------------------------------------------------- */

/* Hops of a replica, by its first tensor rank's edges. */
static int count_hops(const struct store_meta *m, int replica, bool between_hosts)
{
    int n = 0;
    for (size_t i = 0; i < m->n_edges; i++) {
        const struct edge *x = &m->edges[i];
        const struct store_rank *r = rank_of(m, x->from_rank);
        n += x->kind == EDGE_HIDDEN && r && r->replica == replica && r->tensor == 0 &&
             !(between_hosts && x->same_host);
    }
    return n;
}

static void set_edges(json_t *o, const struct store_meta *m)
{
    json_t *edges = json_array();
    int between = 0;
    bool untold = false; // a file before schema 1.5
    for (size_t i = 0; i < m->n_ranks; i++) {
        int n = count_hops(m, m->ranks[i].replica, true);
        between = n > between ? n : between;
        untold |= m->n_edges == 0 && m->ranks[i].stage > 0;
    }
    for (size_t i = 0; i < m->n_edges; i++) {
        const struct edge *x = &m->edges[i];
        json_array_append_new(edges,
                              json_pack("{s:i, s:i, s:s, s:s, s:b}", "from", x->from_rank, "to",
                                        x->to_rank, "kind", record_edge_kind_names[x->kind],
                                        "transport", x->transport, "same_host", (int)x->same_host));
    }
    value_set(o, "hops", untold ? STATS_NONE : count_hops(m, 0, false));
    value_set(o, "hops_between_hosts", untold ? STATS_NONE : between);
    json_object_set_new(o, "edges", edges);
}

json_t *engine_json(const struct store_meta *m)
{
    if (m->n_engines == 0) {
        return json_null();
    }
    json_t *o = json_object(), *ranks = json_array();
    json_object_set_new(o, "backend", distinct(m, offsetof(struct engine, backend)));
    json_object_set_new(o, "device", distinct(m, offsetof(struct engine, device)));
    json_object_set_new(o, "kernels", distinct(m, offsetof(struct engine, kernels)));
    json_object_set_new(o, "weights", formats(m, offsetof(struct engine, weights)));
    json_object_set_new(o, "weights_stored", formats(m, offsetof(struct engine, weights_stored)));
    json_object_set_new(o, "kv_cache", distinct(m, offsetof(struct engine, kv_cache)));
    json_object_set_new(o, "moe_routing", distinct(m, offsetof(struct engine, moe_routing)));
    json_object_set_new(o, "placement", distinct(m, offsetof(struct engine, placement)));
    json_object_set_new(o, "transport", distinct(m, offsetof(struct engine, transport)));
    set_sums(o, m);
    for (size_t i = 0; i < m->n_engines; i++) {
        json_array_append_new(ranks, row_json(m, &m->engines[i]));
    }
    json_object_set_new(o, "ranks", ranks);
    set_edges(o, m);
    return o;
}

/* --- as a line ----------------------------------------------------------------------------------- */

static const char *text(const json_t *o, const char *key)
{
    const char *s = json_string_value(json_object_get(o, key));
    return s ? s : "-";
}

/* "1.23 GB" */
static void put_bytes(struct str *out, double n)
{
    static const char *const units[] = {"B", "kB", "MB", "GB", "TB"};
    size_t i = 0;
    while (i + 1 < sizeof units / sizeof *units && n >= 999.5) {
        n /= 1000;
        i++;
    }
    str_printf(out, "%.3g %s", n, units[i]);
}

static void put_computing(struct str *out, const json_t *engine)
{
    str_printf(out, "%s", text(engine, "backend"));
    if (value_get(engine, "threads") > 0) {
        const char *placement = text(engine, "placement");
        str_printf(out, ", kernels %s, %.0f thread(s) a rank, %s%s", text(engine, "kernels"),
                   value_get(engine, "threads"),
                   strcmp(placement, "pinned") == 0 ? "" : "not pinned: ", placement);
    }
    if (json_is_string(json_object_get(engine, "device"))) {
        str_printf(out, " (%s)", text(engine, "device"));
    }
}

/* "; hidden states by mpi, 1 of 3 hops between hosts; sums by mpi" */
static void put_wires(struct str *out, const json_t *engine)
{
    static const char *const kinds[] = {"hidden", "sums"}, *const names[] = {"hidden states",
                                                                             "sums"};
    const json_t *edges = json_object_get(engine, "edges");
    for (int k = 0; k < 2; k++) {
        struct str ways = {0};
        for (size_t i = 0; i < json_array_size(edges); i++) {
            const json_t *x = json_array_get(edges, i);
            if (strcmp(text(x, "kind"), kinds[k]) == 0) {
                add_words(&ways, text(x, "transport"));
            }
        }
        if (ways.len > 0) {
            str_printf(out, "; %s by %s", names[k], ways.data);
        }
        if (ways.len > 0 && k == 0) {
            str_printf(out, ", %.0f of %.0f hop(s) between hosts",
                       value_get(engine, "hops_between_hosts"), value_get(engine, "hops"));
        }
        str_free(&ways);
    }
}

void engine_line(const json_t *engine, struct str *out)
{
    if (!json_is_object(engine)) {
        return;
    }
    const char *kept = text(engine, "weights"), *stored = text(engine, "weights_stored");
    put_computing(out, engine);
    str_printf(out, "; weights %s%s%s%s, %.4g B each, ", kept,
               strcmp(kept, stored) != 0 ? " (stored " : "",
               strcmp(kept, stored) != 0 ? stored : "", strcmp(kept, stored) != 0 ? ")" : "",
               value_get(engine, "bytes_per_weight"));
    put_bytes(out, value_get(engine, "weight_bytes"));
    str_printf(out, "; KV cache %s, ", text(engine, "kv_cache"));
    put_bytes(out, value_get(engine, "kv_bytes_per_token"));
    str_printf(out, " a token, room for %.0f", value_get(engine, "kv_tokens"));
    if (strcmp(text(engine, "moe_routing"), "none") != 0) {
        str_printf(out, "; experts chosen by %s", text(engine, "moe_routing"));
        if (value_get(engine, "moe_zipf") > 0) {
            str_printf(out, " %g", value_get(engine, "moe_zipf"));
        }
    }
    put_wires(out, engine);
}
