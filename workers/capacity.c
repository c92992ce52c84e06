#include "workers/capacity.h"

#include <math.h>
#include <stdlib.h>

#include "core/mem.h"
#include "model/sizes.h"
#include "model/split.h"
#include "workers/sim/costs.h"

static double *layer_bytes(const struct arch *a)
{
    double *bytes = xcalloc((size_t)a->n_layers, sizeof *bytes);
    for (int i = 0; i < a->n_layers; i++) {
        bytes[i] = sizes_layer(a, i).bytes;
    }
    return bytes;
}

static void measure(struct capacity_split *s, const struct split_costs *c,
                    const struct costs *costs, const struct arch *a, double n_rows)
{
    int equal[RECORD_MAX_STAGES + 1];
    double way_ns = 0;
    const double hop_bytes = n_rows * (double)arch_carried_bytes(a, 1);
    split_equal(a->n_layers, s->pipeline, equal);
    for (int k = 0; k < s->pipeline; k++) {
        s->stage_ns[k] = split_stage_cost(c, s->pipeline, s->first, k);
        s->slowest_ns = fmax(s->slowest_ns, s->stage_ns[k]);
        s->equal_ns = fmax(s->equal_ns, split_stage_cost(c, s->pipeline, equal, k));
        way_ns += s->stage_ns[k] + (s->pipeline > 1 ? costs_hop_ns(costs, hop_bytes) : 0);
    }
    s->imbalance = split_imbalance(c, s->pipeline, s->first);
    s->tpot_ns = fmax(s->pipeline * s->slowest_ns, way_ns);
    s->tokens_per_s = s->pipeline * n_rows / s->tpot_ns * 1e9;
}

void capacity_find(const struct arch *a, const struct costs *costs,
                   const struct capacity_machine *m, int pipeline, int tensor, double n_requests,
                   double context, struct capacity_split *out)
{
    double n_rows = n_requests / pipeline;
    struct costs_load load = costs_load_decode(a, n_rows, context);
    double *ns = xcalloc((size_t)a->n_layers, sizeof *ns), *bytes = layer_bytes(a);
    const struct split_costs c = costs_split(costs, a, &load, ns);
    const struct split_memory memory = {
        .layer = bytes,
        // One stage holds a shared table once.
        .embed = pipeline == 1 && a->tied_embedding ? 0 : sizes_embed_bytes(a),
        .head = sizes_head_bytes(a),
        .limit = m ? m->memory_bytes * m->memory_share * tensor : HUGE_VAL,
    };
    *out = (struct capacity_split){.pipeline = pipeline, .tensor = tensor};
    out->fits = split_layers(&c, &memory, pipeline, out->first);
    if (out->fits) {
        measure(out, &c, costs, a, n_rows);
    }
    free(ns);
    free(bytes);
}

static int64_t fitting(double room_bytes, double request_bytes)
{
    return room_bytes >= request_bytes ? (int64_t)floor(room_bytes / request_bytes) : 0;
}

int64_t capacity_requests(const struct arch *a, const struct capacity_machine *m, double n_devices,
                          double kv_value_bytes, double context)
{
    double room = n_devices * m->memory_bytes * m->memory_share - sizes_bytes(a);
    return fitting(room, sizes_kv_bytes(a, kv_value_bytes) * context);
}

int64_t capacity_requests_on(const struct arch *a, const struct capacity_machine *m,
                             const struct capacity_split *s, double kv_value_bytes, double context)
{
    int64_t least = INT64_MAX;
    for (int k = 0; k < s->pipeline; k++) {
        bool is_first = k == 0, is_last = k == s->pipeline - 1;
        double held = (is_last ? sizes_head_bytes(a) : 0) +
                      (is_first && !(is_last && a->tied_embedding) ? sizes_embed_bytes(a) : 0);
        double kv_bytes = 0;
        for (int i = s->first[k]; i < s->first[k + 1]; i++) {
            struct sizes_layer l = sizes_layer(a, i);
            held += l.bytes;
            kv_bytes += (double)l.kv_values * kv_value_bytes;
        }
        int64_t n = fitting(m->memory_bytes * m->memory_share * s->tensor - held,
                            kv_bytes * context * s->tensor / costs_kv_parts(a, s->tensor));
        least = n < least ? n : least;
    }
    return least;
}
