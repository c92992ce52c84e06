/*
 * How long a part of a model takes on a batch. One form holds measured costs and rooflines alike:
 *
 *   t = fixed + move * tokens + max(read + expert * experts + kv * cached, token * tokens + pair * seen)
 *
 * the bytes side against the arithmetic side of one roofline: read is the time to read the part's
 * weights, experts counts the distinct ones that the batch takes, cached the positions that its rows
 * have in the cache, seen the pairs of a token and a position that it sees (in sliding layers those
 * in the window). move is communication between devices that share a layer. In the head, tokens are
 * the rows that are sampled. All coefficients are ns and at least 0.
 *
 * What was measured at some numbers of tokens is kept as points, and a line leads from each to the next, since
 * products of few rows are neither bound by reading nor as fast as those of many. Then attention comes on top:
 *
 *   t = fixed + move * tokens + points(tokens) + kv * cached + pair * seen
 *
 * and read, expert and token are 0.
 *
 * A file of costs is JSON, a part's keys are those coefficients and may be left out when 0:
 *
 *   {"schema": "tidemark.costs/1", "source": "words", "hidden": 3584, "vocab": 256000,
 *    "layers": {"dense": {"fixed_ns": 5000, "read_ns": 148000, "kv_ns": 1.5, "token_ns": 700,
 *               "pair_ns": 0.03}, "dense_sliding": {"points": [[1, 151000], [8, 160000]], ..},
 *               "moe": {..}, "moe_sliding": {..}},
 *    "embed": {..}, "head": {..}, "hop_ns": 10000, "hop_byte_ns": 0.02}
 *
 * Costs measured of T ranks that share the layers, with their sums, have "tensor": T beside; those of cores have "threads",
 * of each rank.
 * Layers of one kind cost alike, so that costs measured on a model cut to a few layers serve the
 * whole; hidden and vocab must be the model's. Transparent, pure but for costs_read and costs_write.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "core/err.h"
#include "model/arch.h"
#include "model/split.h"
#include "workers/batch.h"
#include "workers/sim/hardware.h"

enum costs_kind {
    COSTS_DENSE,
    COSTS_DENSE_SLIDING,
    COSTS_MOE,
    COSTS_MOE_SLIDING,
    COSTS_N_KINDS,
};

enum {
    COSTS_MAX_POINTS = 16
};

struct costs_part {
    double fixed_ns, read_ns, expert_ns, kv_ns, token_ns, pair_ns, move_ns;
    int n_points; // 0: read, expert and token say it
    struct costs_point {
        double n_tokens, ns; // n_tokens grows from point to point
    } points[COSTS_MAX_POINTS];
};

struct costs {
    char source[96];
    int tensor; // devices that share a stage, whose costs these are with their sums; 1: it has all to itself
    int n_threads; // of each device, where it was cores; 0: not said
    struct costs_part kinds[COSTS_N_KINDS];
    struct costs_part embed, head;
    double hop_ns, hop_byte_ns; // from a stage to the next: t = hop + hop_byte * bytes
};

/* What of a batch decides its time. Index 1: in sliding layers. */
struct costs_load {
    double n_tokens, n_samples;
    double n_cached[2], n_seen[2];
};

/* Shares of a device's peaks that are reached, and what each layer costs beside. */
struct costs_shares {
    double read, compute; // in (0, 1]
    double layer_ns;
};

/* A roofline; `tensor` devices share each layer: two all-reduces a layer over their links. */
void costs_of_hardware(const struct hardware *h, const struct costs_shares *shares, int tensor,
                       const struct arch *a, struct costs *out);

/*
 * Devices that share each layer put its results together twice a layer, and once behind the head: a sum of a
 * tensor of n bytes over them takes sum + sum_byte * n. Of a ring, each of whose 2 (T - 1) steps moves 1/T
 * of the tensor over an edge that takes latency + byte * n: costs_ring.
 */
struct costs_sums {
    double sum_ns, sum_byte_ns;
};
struct costs_sums costs_ring(int tensor, double latency_ns, double byte_ns);

/* Into how many parts `tensor` devices cut a layer's cache: heads are not cut, nor is a latent. */
int costs_kv_parts(const struct arch *a, int tensor);

/* n tokens from position pos on: what they see of the positions before and among them. window: 0 for all. */
double costs_pairs(double pos, double n, double window);

/*
 * The costs of one device become those of `tensor` that share its work: each reads and computes its part, and all sum
 * values of value_bytes. Costs of so many stay as they are.
 */
void costs_share(struct costs *c, const struct arch *a, int tensor, double value_bytes,
                 const struct costs_sums *sums);

/* ERR_INPUT unless the costs are of one device that has a stage to itself. */
int costs_check_whole(const struct costs *c, struct err *e) ERR_CHECKED;

bool costs_equal(const struct costs *a, const struct costs *b);

int costs_parse(const char *json, size_t len, const char *where, const struct arch *a,
                struct costs *out, struct err *e) ERR_CHECKED;
int costs_read(const char *path, const struct arch *a, struct costs *out,
               struct err *e) ERR_CHECKED;
/* As costs_read reads it. New reference. */
struct json_t *costs_json(const struct costs *c, const struct arch *a);

void costs_scale(struct costs *c, double by);

enum costs_kind costs_kind_of(const struct arch *a, int layer);

/* Of a batch, of n_rows that each decode behind `context` tokens, of one prompt of n_tokens. */
struct costs_load costs_load_batch(const struct arch *a, const struct batch *b);
struct costs_load costs_load_decode(const struct arch *a, double n_rows, double context);
struct costs_load costs_load_prompt(const struct arch *a, double n_tokens);

/* Between points along a line, before the first as there, behind the last one along the last line; >= 0. */
double costs_at_points(const struct costs_part *p, double n_tokens);

double costs_layer_ns(const struct costs *c, const struct arch *a, int layer,
                      const struct costs_load *l);
double costs_embed_ns(const struct costs *c, const struct costs_load *l);
double costs_head_ns(const struct costs *c, const struct costs_load *l);
double costs_stage_ns(const struct costs *c, const struct arch *a, int first_layer, int n_layers,
                      bool has_embed, bool has_head, const struct costs_load *l);
double costs_hop_ns(const struct costs *c, double n_bytes);

/* Each layer's cost into layer (n_layers), which the result borrows. */
struct split_costs costs_split(const struct costs *c, const struct arch *a,
                               const struct costs_load *l, double *layer);
