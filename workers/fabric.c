#include "workers/fabric.h"

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "core/json_scan.h"
#include "core/mem.h"
#include "core/str.h"
#include "workers/edges_file.h"

#define MAX_LATENCY_NS 1e12
#define MAX_BYTE_NS    1e9
#define MAX_LOOK_NS    1e9

/* A file on its way in. What is missing is found at the end: keys may come in any order. */
struct reader {
    struct json_scan s;
    const char *where;
    struct fabric *f;
    bool is_schema, on_cpus;
    bool has_rank[FABRIC_MAX_RANKS];
    struct json_text hosts[FABRIC_MAX_RANKS];
    bool has_edge[FABRIC_MAX_RANKS][FABRIC_MAX_RANKS];
    struct transport {
        bool carries_hidden, on_device;
        bool has[FABRIC_MAX_RANKS][FABRIC_MAX_RANKS];
        struct fabric_edge edges[FABRIC_MAX_RANKS][FABRIC_MAX_RANKS];
    } now; // the one being read
};

static bool is_rank(int64_t x)
{
    return x >= 0 && x < FABRIC_MAX_RANKS;
}

/* --- ranks ------------------------------------------------------------------------------------ */

static int read_rank(struct reader *r, struct err *e)
{
    struct json_text key, host = {0};
    int64_t rank = -1;
    double look_ns = 0;
    json_scan_object(&r->s);
    while (json_scan_key(&r->s, &key)) {
        if (json_text_is(key, "rank")) {
            json_scan_whole(&r->s, &rank);
        } else if (json_text_is(key, "host")) {
            json_scan_string(&r->s, &host);
        } else if (json_text_is(key, "look_ns")) {
            json_scan_number(&r->s, &look_ns);
        } else {
            json_scan_skip(&r->s);
        }
    }
    if (r->s.bad) {
        return 0; // said at the end
    }
    if (!is_rank(rank) || r->has_rank[rank] || !host.data) {
        return err_set(e, ERR_INPUT,
                       "%s: ranks: each must have a `rank` of its own from 0 to %d, and a `host`",
                       r->where, FABRIC_MAX_RANKS - 1);
    }
    if (!(look_ns >= 0 && look_ns <= MAX_LOOK_NS)) {
        return err_set(e, ERR_INPUT, "%s: rank %d: look_ns must be from 0 to %g", r->where,
                       (int)rank, MAX_LOOK_NS);
    }
    r->has_rank[rank] = true;
    r->f->look_ns[rank] = look_ns;
    r->hosts[rank] = host;
    r->f->n_ranks++;
    return 0;
}

static int read_list(struct reader *r, int (*read)(struct reader *, struct err *), struct err *e)
{
    json_scan_list(&r->s);
    while (json_scan_item(&r->s)) {
        if (read(r, e)) {
            return -1;
        }
    }
    return 0;
}

/* --- transports ------------------------------------------------------------------------------- */

static int keep_link(struct reader *r, int64_t from, int64_t to, struct fabric_edge edge,
                     struct err *e)
{
    if (!is_rank(from) || !is_rank(to) || from == to || r->now.has[from][to]) {
        return err_set(e, ERR_INPUT, "%s: links: each must join two ranks that no other one joins",
                       r->where);
    }
    if (!(edge.latency_ns >= 0 && edge.latency_ns <= MAX_LATENCY_NS) ||
        !(edge.byte_ns >= 0 && edge.byte_ns <= MAX_BYTE_NS)) {
        return err_set(e, ERR_INPUT,
                       "%s: link from %d to %d: latency_ns must be from 0 to %g, byte_ns from 0 to "
                       "%g",
                       r->where, (int)from, (int)to, MAX_LATENCY_NS, MAX_BYTE_NS);
    }
    r->now.has[from][to] = true;
    r->now.edges[from][to] = edge;
    return 0;
}

static int read_link(struct reader *r, struct err *e)
{
    struct json_text key;
    int64_t from = -1, to = -1;
    struct fabric_edge edge = {-1, -1};
    json_scan_object(&r->s);
    while (json_scan_key(&r->s, &key)) {
        if (json_text_is(key, "from")) {
            json_scan_whole(&r->s, &from);
        } else if (json_text_is(key, "to")) {
            json_scan_whole(&r->s, &to);
        } else if (json_text_is(key, "latency_ns")) {
            json_scan_number(&r->s, &edge.latency_ns);
        } else if (json_text_is(key, "byte_ns")) {
            json_scan_number(&r->s, &edge.byte_ns);
        } else {
            json_scan_skip(&r->s);
        }
    }
    return r->s.bad ? 0 : keep_link(r, from, to, edge, e);
}

static void read_flag(struct json_scan *s, bool *out)
{
    if (json_scan_type(s) == JSON_SCAN_WORD) {
        *out = *s->at == 't';
    }
    json_scan_skip(s);
}

/* A transport stands behind those that a run prefers. */
static void keep_new(struct reader *r)
{
    const bool is_of_use = r->now.carries_hidden && !(r->now.on_device && r->on_cpus);
    for (int a = 0; is_of_use && a < FABRIC_MAX_RANKS; a++) {
        for (int b = 0; b < FABRIC_MAX_RANKS; b++) {
            if (r->now.has[a][b] && !r->has_edge[a][b]) {
                r->has_edge[a][b] = true;
                r->f->edges[a][b] = r->now.edges[a][b];
            }
        }
    }
}

static int read_transport(struct reader *r, struct err *e)
{
    struct json_text key;
    memset(&r->now, 0, sizeof r->now);
    json_scan_object(&r->s);
    while (json_scan_key(&r->s, &key)) {
        if (json_text_is(key, "carries_hidden")) {
            read_flag(&r->s, &r->now.carries_hidden);
        } else if (json_text_is(key, "on_device")) {
            read_flag(&r->s, &r->now.on_device);
        } else if (json_text_is(key, "links")) {
            if (read_list(r, read_link, e)) {
                return -1;
            }
        } else {
            json_scan_skip(&r->s);
        }
    }
    keep_new(r);
    return 0;
}

/* --- the whole ---------------------------------------------------------------------------------- */

static int read_root(struct reader *r, struct err *e)
{
    struct json_text key, schema;
    json_scan_object(&r->s);
    while (json_scan_key(&r->s, &key)) {
        int rc = 0;
        if (json_text_is(key, "schema")) {
            json_scan_string(&r->s, &schema);
            r->is_schema = !r->s.bad && json_text_is(schema, EDGES_FILE_WIRE);
        } else if (json_text_is(key, "ranks")) {
            rc = read_list(r, read_rank, e);
        } else if (json_text_is(key, "transports")) {
            rc = read_list(r, read_transport, e);
        } else {
            json_scan_skip(&r->s);
        }
        if (rc) {
            return -1;
        }
    }
    return 0;
}

static int number_hosts(struct reader *r, struct err *e)
{
    struct fabric *f = r->f;
    if (f->n_ranks < EDGES_PLAN_MIN_RANKS) {
        return err_set(e, ERR_INPUT, "%s: edges of %d ranks: at least %d are wanted", r->where,
                       f->n_ranks, EDGES_PLAN_MIN_RANKS);
    }
    for (int a = 0; a < f->n_ranks; a++) {
        const struct json_text h = r->hosts[a];
        if (!r->has_rank[a]) {
            return err_set(e, ERR_INPUT, "%s: ranks: %d of them, but none is rank %d", r->where,
                           f->n_ranks, a);
        }
        f->host[a] = f->n_hosts;
        for (int b = 0; b < a && f->host[a] == f->n_hosts; b++) {
            const bool same = r->hosts[b].len == h.len && !memcmp(r->hosts[b].data, h.data, h.len);
            f->host[a] = same ? f->host[b] : f->host[a];
        }
        f->n_hosts += f->host[a] == f->n_hosts;
    }
    return 0;
}

static int check_edges(const struct reader *r, struct err *e)
{
    for (int a = 0; a < r->f->n_ranks; a++) {
        for (int b = 0; b < r->f->n_ranks; b++) {
            if (a != b && !r->has_edge[a][b]) {
                return err_set(e, ERR_INPUT,
                               "%s: no link from rank %d to rank %d in a transport that carries "
                               "hidden states",
                               r->where, a, b);
            }
        }
    }
    return 0;
}

static int read_all(struct reader *r, const char *json, size_t len, struct err *e)
{
    json_scan_init(&r->s, json, len);
    if (read_root(r, e)) {
        return -1;
    }
    if (!json_scan_end(&r->s)) {
        const char *at = r->s.bad ? r->s.bad : r->s.at;
        return err_set(e, ERR_INPUT, "%s: not such JSON as " EDGES_FILE_WIRE " is, at byte %zu",
                       r->where, (size_t)(at - json));
    }
    if (!r->is_schema) {
        return err_set(e, ERR_INPUT,
                       "%s: schema is not \"" EDGES_FILE_WIRE
                       "\": `tidemark bench --edges --output FILE` writes such files",
                       r->where);
    }
    return number_hosts(r, e) || check_edges(r, e) ? -1 : 0;
}

int fabric_parse(struct fabric *f, bool on_cpus, const char *json, size_t len, const char *where,
                 struct err *e)
{
    struct reader *r = xcalloc(1, sizeof *r);
    memset(f, 0, sizeof *f);
    r->where = where;
    r->on_cpus = on_cpus;
    r->f = f;
    const int rc = read_all(r, json, len, e);
    free(r);
    return rc;
}

int fabric_read(struct fabric *f, bool on_cpus, const char *path, struct err *e)
{
    struct str text = {0};
    int rc = str_read_file(&text, path, FABRIC_MAX_BYTES, e);
    if (rc == 0) {
        rc = fabric_parse(f, on_cpus, text.data ? text.data : "", text.len, path, e);
    }
    str_free(&text);
    return rc;
}

double fabric_ns(const struct fabric_edge *edge, double n_bytes)
{
    return edge->latency_ns + edge->byte_ns * n_bytes;
}

struct fabric_edge fabric_slowest(const struct fabric *f, const int *ranks, int n)
{
    struct fabric_edge worst = {0};
    for (int i = 0; i < n; i++) {
        for (int k = 0; k < n; k++) {
            if (i != k) {
                const struct fabric_edge *edge = &f->edges[ranks[i]][ranks[k]];
                worst.latency_ns = fmax(worst.latency_ns, edge->latency_ns);
                worst.byte_ns = fmax(worst.byte_ns, edge->byte_ns);
            }
        }
    }
    return worst;
}
