#include "workers/edges_file.h"

#include <math.h>

static void put_sizes(struct json_out *o, const char *key, const size_t *sizes, int n)
{
    json_out_open(o, key, '[');
    for (int i = 0; i < n; i++) {
        json_out_whole(o, NULL, sizes[i]);
    }
    json_out_close(o, ']');
}

static void put_copies(struct json_out *o, const char *key, const double *ns, int n)
{
    json_out_open(o, key, '[');
    for (int i = 0; i < n; i++) {
        json_out_number(o, NULL, ns[i] > 0 ? ns[i] : (double)NAN);
    }
    json_out_close(o, ']');
}

static void put_rank(struct json_out *o, const struct edges *e, int rank)
{
    const struct edges_rank *r = &e->ranks[rank];
    json_out_open(o, NULL, '{');
    json_out_whole(o, "rank", (uint64_t)rank);
    json_out_text(o, "host", r->host);
    json_out_whole(o, "cpus", (uint64_t)r->n_cpus);
    json_out_text(o, "waits", r->spins ? "spinning" : "sleeping 50 us");
    json_out_number(o, "look_ns", r->look_ns);
    put_copies(o, "copy_ns", r->copy_ns, e->n_sizes);
    if (r->gpu[0]) {
        json_out_text(o, "gpu", r->gpu);
        put_copies(o, "gpu_copy_ns", r->gpu_copy_ns, e->n_sizes);
    }
    json_out_close(o, '}');
}

static void put_times(struct json_out *o, const char *key, const struct edges_transport *t,
                      const struct edges_link *l, double (*of)(const struct edges_times *))
{
    json_out_open(o, key, '[');
    for (int i = 0; i < t->n_sizes; i++) {
        json_out_number(o, NULL, l->times[i].n > 0 ? of(&l->times[i]) : (double)NAN);
    }
    json_out_close(o, ']');
}

static double count_of(const struct edges_times *t)
{
    return (double)t->n;
}

static double min_of(const struct edges_times *t)
{
    return t->min_ns;
}

static double median_of(const struct edges_times *t)
{
    return t->median_ns;
}

static double p99_of(const struct edges_times *t)
{
    return t->p99_ns;
}

static void put_link(struct json_out *o, const struct edges *e, const struct edges_transport *t,
                     int from, int to)
{
    const struct edges_link *l = edges_link(t, e->n_ranks, from, to);
    json_out_open(o, NULL, '{');
    json_out_whole(o, "from", (uint64_t)from);
    json_out_whole(o, "to", (uint64_t)to);
    json_out_text(o, "kind", edges_same_host(e, from, to) ? "same host" : "between hosts");
    json_out_number(o, "latency_ns", l->fit.latency_ns);
    json_out_number(o, "byte_ns", l->fit.byte_ns);
    json_out_number(o, "fit_error", l->fit.error);
    json_out_number(o, "bandwidth_bytes_per_s", l->bytes_per_s);
    json_out_whole(o, "bandwidth_at_bytes", t->sizes[l->best]);
    json_out_number(o, "copy_share", l->copy_share);
    json_out_number(o, "slow_by", l->slow_by > 0 ? l->slow_by : (double)NAN);
    json_out_number(o, "thin_by", l->thin_by > 0 ? l->thin_by : (double)NAN);
    put_times(o, "n", t, l, count_of);
    put_times(o, "min_ns", t, l, min_of);
    put_times(o, "median_ns", t, l, median_of);
    put_times(o, "p99_ns", t, l, p99_of);
    json_out_close(o, '}');
}

static void put_transport(struct json_out *o, const struct edges *e,
                          const struct edges_transport *t)
{
    json_out_open(o, NULL, '{');
    json_out_text(o, "name", t->name);
    json_out_bool(o, "carries_hidden", t->carries_hidden);
    json_out_bool(o, "on_device", t->on_device);
    json_out_whole(o, "left_out", (uint64_t)t->n_left_out);
    put_sizes(o, "bytes", t->sizes, t->n_sizes);
    json_out_open(o, "links", '[');
    for (int from = 0; from < e->n_ranks; from++) {
        for (int to = 0; to < e->n_ranks; to++) {
            if (edges_link(t, e->n_ranks, from, to)->best >= 0) {
                put_link(o, e, t, from, to);
            }
        }
    }
    json_out_close(o, ']');
    json_out_close(o, '}');
}

void edges_file_put(struct json_out *o, const struct edges *e)
{
    json_out_text(o, "schema", EDGES_FILE_WIRE);
    json_out_number(o, "budget_s", e->budget_s);
    json_out_number(o, "took_s", e->took_s);
    json_out_whole(o, "rounds", (uint64_t)edges_plan_rounds(e->n_ranks));
    json_out_whole(o, "pairs_beside", (uint64_t)edges_beside(e));
    put_sizes(o, "copy_bytes", e->sizes, e->n_sizes);
    json_out_open(o, "ranks", '[');
    for (int r = 0; r < e->n_ranks; r++) {
        put_rank(o, e, r);
    }
    json_out_close(o, ']');
    json_out_open(o, "transports", '[');
    for (int k = 0; k < e->n_transports; k++) {
        put_transport(o, e, &e->transports[k]);
    }
    json_out_close(o, ']');
}
