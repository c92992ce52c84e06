#include "workers/sim/costs.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/str.h"
#include "model/sizes.h"

#define SCHEMA         "tidemark.costs/1"
#define MAX_FILE_BYTES ((size_t)1 << 20)
#define ALLREDUCE_NS   10000.0 // start of one within a host
#define HOP_NS         10000.0 // start of a message to the next stage
#define MAX_COST_NS    1e15
#define MAX_TOKENS     1e9
#define MAX_TENSOR     64
#define MAX_THREADS    4096
#define VALUE_BYTES    2.0 // of activations and cache on an accelerator: bf16

enum costs_kind costs_kind_of(const struct arch *a, int layer)
{
    return (arch_is_moe(a, layer) ? COSTS_MOE : COSTS_DENSE) + (arch_window(a, layer) > 0 ? 1 : 0);
}

/* --- loads --------------------------------------------------------------------------------------- */

double costs_pairs(double pos, double n, double window)
{
    double all = n * pos + n * (n + 1) / 2;
    if (window <= 0 || pos + n <= window) {
        return all;
    }
    double growing = window > pos ? window - pos : 0; // tokens that still see all
    return growing * pos + growing * (growing + 1) / 2 + (n - growing) * window;
}

static void add_row(struct costs_load *l, double pos, double n, double window)
{
    l->n_tokens += n;
    l->n_cached[0] += pos + n;
    l->n_cached[1] += window > 0 && pos + n > window + n ? window + n : pos + n;
    l->n_seen[0] += costs_pairs(pos, n, 0);
    l->n_seen[1] += costs_pairs(pos, n, window);
}

struct costs_load costs_load_batch(const struct arch *a, const struct batch *b)
{
    struct costs_load l = {0};
    for (uint32_t i = 0; i < b->n_rows; i++) {
        add_row(&l, b->rows[i].pos, b->rows[i].n_tokens, a->window);
        l.n_samples += (b->rows[i].flags & BATCH_SAMPLE) != 0;
    }
    return l;
}

struct costs_load costs_load_decode(const struct arch *a, double n_rows, double context)
{
    struct costs_load l = {0};
    add_row(&l, context, 1, a->window);
    l.n_tokens = l.n_samples = n_rows;
    for (int i = 0; i < 2; i++) {
        l.n_cached[i] *= n_rows;
        l.n_seen[i] *= n_rows;
    }
    return l;
}

struct costs_load costs_load_prompt(const struct arch *a, double n_tokens)
{
    struct costs_load l = {.n_samples = 1};
    add_row(&l, 0, n_tokens, a->window);
    return l;
}

/* --- times --------------------------------------------------------------------------------------- */

double costs_at_points(const struct costs_part *p, double n_tokens)
{
    const struct costs_point *at = p->points;
    int i = 1;
    if (p->n_points < 2 || n_tokens <= at[0].n_tokens) {
        return at[0].ns;
    }
    while (i < p->n_points - 1 && n_tokens > at[i].n_tokens) {
        i++;
    }
    const double slope = (at[i].ns - at[i - 1].ns) / (at[i].n_tokens - at[i - 1].n_tokens);
    return fmax(at[i].ns + slope * (n_tokens - at[i].n_tokens), 0);
}

static double part_ns(const struct costs_part *p, double n_tokens, double n_experts,
                      double n_cached, double n_seen)
{
    if (p->n_points > 0) {
        return p->fixed_ns + p->move_ns * n_tokens + costs_at_points(p, n_tokens) +
               p->kv_ns * n_cached + p->pair_ns * n_seen;
    }
    double bytes = p->read_ns + p->expert_ns * n_experts + p->kv_ns * n_cached;
    double arithmetic = p->token_ns * n_tokens + p->pair_ns * n_seen;
    return p->fixed_ns + p->move_ns * n_tokens + fmax(bytes, arithmetic);
}

double costs_layer_ns(const struct costs *c, const struct arch *a, int layer,
                      const struct costs_load *l)
{
    enum costs_kind kind = costs_kind_of(a, layer);
    int slides = kind == COSTS_DENSE_SLIDING || kind == COSTS_MOE_SLIDING;
    double n_experts = arch_is_moe(a, layer) ? sizes_distinct_experts(a, l->n_tokens) : 0;
    return part_ns(&c->kinds[kind], l->n_tokens, n_experts, l->n_cached[slides], l->n_seen[slides]);
}

double costs_embed_ns(const struct costs *c, const struct costs_load *l)
{
    return part_ns(&c->embed, l->n_tokens, 0, 0, 0);
}

double costs_head_ns(const struct costs *c, const struct costs_load *l)
{
    return l->n_samples > 0 ? part_ns(&c->head, l->n_samples, 0, 0, 0) : 0;
}

double costs_stage_ns(const struct costs *c, const struct arch *a, int first_layer, int n_layers,
                      bool has_embed, bool has_head, const struct costs_load *l)
{
    double kinds_ns[COSTS_N_KINDS] = {0}, sum = 0;
    for (int i = first_layer; i < first_layer + n_layers; i++) {
        enum costs_kind k = costs_kind_of(a, i);
        kinds_ns[k] = kinds_ns[k] > 0 ? kinds_ns[k] : costs_layer_ns(c, a, i, l);
        sum += kinds_ns[k];
    }
    return sum + (has_embed ? costs_embed_ns(c, l) : 0) + (has_head ? costs_head_ns(c, l) : 0);
}

double costs_hop_ns(const struct costs *c, double n_bytes)
{
    return c->hop_ns + c->hop_byte_ns * n_bytes;
}

struct split_costs costs_split(const struct costs *c, const struct arch *a,
                               const struct costs_load *l, double *layer)
{
    for (int i = 0; i < a->n_layers; i++) {
        layer[i] = costs_layer_ns(c, a, i, l);
    }
    return (struct split_costs){
        .n_layers = a->n_layers,
        .layer = layer,
        .embed = costs_embed_ns(c, l),
        .head = costs_head_ns(c, l),
    };
}

static void scale_points(struct costs_part *p, double by)
{
    for (int i = 0; i < p->n_points; i++) {
        p->points[i].ns *= by;
    }
}

static void scale_part(struct costs_part *p, double by)
{
    double *v[] = {&p->fixed_ns, &p->read_ns, &p->expert_ns, &p->kv_ns,
                   &p->token_ns, &p->pair_ns, &p->move_ns};
    for (size_t i = 0; i < sizeof v / sizeof *v; i++) {
        *v[i] *= by;
    }
    scale_points(p, by);
}

static bool is_equal_part(const struct costs_part *a, const struct costs_part *b)
{
    bool equal = a->fixed_ns == b->fixed_ns && a->read_ns == b->read_ns &&
                 a->expert_ns == b->expert_ns && a->kv_ns == b->kv_ns &&
                 a->token_ns == b->token_ns && a->pair_ns == b->pair_ns &&
                 a->move_ns == b->move_ns && a->n_points == b->n_points;
    for (int i = 0; equal && i < a->n_points; i++) {
        equal =
            a->points[i].n_tokens == b->points[i].n_tokens && a->points[i].ns == b->points[i].ns;
    }
    return equal;
}

bool costs_equal(const struct costs *a, const struct costs *b)
{
    bool equal = a->tensor == b->tensor && is_equal_part(&a->embed, &b->embed) &&
                 is_equal_part(&a->head, &b->head) && a->hop_ns == b->hop_ns &&
                 a->hop_byte_ns == b->hop_byte_ns;
    for (int k = 0; k < COSTS_N_KINDS; k++) {
        equal = equal && is_equal_part(&a->kinds[k], &b->kinds[k]);
    }
    return equal;
}

void costs_scale(struct costs *c, double by)
{
    for (int k = 0; k < COSTS_N_KINDS; k++) {
        scale_part(&c->kinds[k], by);
    }
    scale_part(&c->embed, by);
    scale_part(&c->head, by);
    c->hop_ns *= by;
    c->hop_byte_ns *= by;
}

/* --- several devices a stage -------------------------------------------------------------------- */

struct costs_sums costs_ring(int tensor, double latency_ns, double byte_ns)
{
    const double steps = 2.0 * (tensor - 1);
    return (struct costs_sums){steps * latency_ns, steps / tensor * byte_ns};
}

static void share_part(struct costs_part *p, int tensor, int kv_parts)
{
    p->read_ns /= tensor;
    p->expert_ns /= tensor;
    p->kv_ns /= kv_parts;
    p->token_ns /= tensor;
    p->pair_ns /= tensor;
    scale_points(p, 1.0 / tensor);
}

int costs_kv_parts(const struct arch *a, int tensor)
{
    const int kv_heads = arch_is_latent(a) || a->n_kv_heads < 1 ? 1 : a->n_kv_heads;
    return tensor < kv_heads ? tensor : kv_heads;
}

void costs_share(struct costs *c, const struct arch *a, int tensor, double value_bytes,
                 const struct costs_sums *sums)
{
    bool done[COSTS_N_KINDS] = {false};
    if (c->tensor == tensor || tensor == 1) {
        return;
    }
    CHECK(c->tensor <= 1);
    for (int i = 0; i < a->n_layers; i++) {
        const enum costs_kind k = costs_kind_of(a, i);
        struct costs_part *p = &c->kinds[k];
        if (!done[k]) {
            share_part(p, tensor, costs_kv_parts(a, tensor));
            p->fixed_ns += 2 * sums->sum_ns;
            p->move_ns += 2 * sums->sum_byte_ns * a->hidden * value_bytes;
            done[k] = true;
        }
    }
    share_part(&c->embed, tensor, tensor);
    share_part(&c->head, tensor, tensor);
    c->head.fixed_ns += sums->sum_ns / 2; // who has the largest logit: one way round
    c->tensor = tensor;
}

int costs_check_whole(const struct costs *c, struct err *e)
{
    return c->tensor <= 1 ? 0
                          : err_set(e, ERR_INPUT,
                                    "costs of %d ranks that share a stage; those of one with a "
                                    "stage to itself are wanted",
                                    c->tensor);
}

/* --- rooflines ----------------------------------------------------------------------------------- */

static void put_name(const struct hardware *h, int tensor, struct costs *out)
{
    snprintf(out->source, sizeof out->source, "%s%s", h->name, tensor > 1 ? " x" : "");
    if (tensor > 1) {
        size_t n = strlen(out->source);
        snprintf(out->source + n, sizeof out->source - n, "%d", tensor);
    }
}

void costs_of_hardware(const struct hardware *h, const struct costs_shares *shares, int tensor,
                       const struct arch *a, struct costs *out)
{
    const double byte_ns = 1e9 / (h->read_bytes_per_s * shares->read);
    const double flop_ns = 1e9 / (h->bf16_flops * shares->compute);
    const double link_ns = 1e9 / h->link_bytes_per_s;
    const struct costs_sums sums = {ALLREDUCE_NS, costs_ring(tensor, 0, link_ns).sum_byte_ns};
    *out = (struct costs){.tensor = 1, .hop_ns = HOP_NS, .hop_byte_ns = link_ns};
    put_name(h, tensor, out);
    for (int i = 0; i < a->n_layers; i++) {
        struct sizes_layer l = sizes_layer(a, i);
        out->kinds[costs_kind_of(a, i)] = (struct costs_part){
            .fixed_ns = shares->layer_ns,
            .read_ns = l.common_bytes * byte_ns,
            .expert_ns = l.expert_bytes * byte_ns,
            .kv_ns = (double)l.kv_values * VALUE_BYTES * byte_ns,
            .token_ns = 2.0 * (double)l.active_params * flop_ns,
            .pair_ns = l.pair_flops * flop_ns,
        };
    }
    out->embed = (struct costs_part){
        .fixed_ns = shares->layer_ns,
        .token_ns = a->hidden * sizes_value_bytes(a->dtype) * byte_ns,
    };
    out->head = (struct costs_part){
        .fixed_ns = shares->layer_ns,
        .read_ns = sizes_head_bytes(a) * byte_ns,
        .token_ns = 2.0 * (double)sizes_head_params(a) * flop_ns,
    };
    costs_share(out, a, tensor, VALUE_BYTES, &sums);
}

/* --- files --------------------------------------------------------------------------------------- */

static const char *const kind_names[COSTS_N_KINDS] = {
    [COSTS_DENSE] = "dense",
    [COSTS_DENSE_SLIDING] = "dense_sliding",
    [COSTS_MOE] = "moe",
    [COSTS_MOE_SLIDING] = "moe_sliding",
};

static const struct {
    const char *key;
    size_t offset; // in struct costs_part
} part_keys[] = {
    {"fixed_ns", offsetof(struct costs_part, fixed_ns)},
    {"read_ns", offsetof(struct costs_part, read_ns)},
    {"expert_ns", offsetof(struct costs_part, expert_ns)},
    {"kv_ns", offsetof(struct costs_part, kv_ns)},
    {"token_ns", offsetof(struct costs_part, token_ns)},
    {"pair_ns", offsetof(struct costs_part, pair_ns)},
    {"move_ns", offsetof(struct costs_part, move_ns)},
};
enum {
    N_PART_KEYS = sizeof part_keys / sizeof part_keys[0]
};

static double *part_value(struct costs_part *p, int i)
{
    return (double *)(void *)((char *)p + part_keys[i].offset);
}

static int read_cost(const char *where, const char *part, const char *key, const json_t *v,
                     double *out, struct err *e)
{
    double d = json_number_value(v);
    if (!json_is_number(v) || !(d >= 0) || d > MAX_COST_NS) {
        return err_set(e, ERR_INPUT, "%s: %s.%s must be a number from 0 to %g", where, part, key,
                       MAX_COST_NS);
    }
    *out = d;
    return 0;
}

/* [[tokens, ns], ..] */
static int read_points(const char *where, const char *name, const json_t *list,
                       struct costs_part *p, struct err *e)
{
    const size_t n = json_array_size(list);
    double before = 0;
    if (!json_is_array(list) || n < 1 || n > COSTS_MAX_POINTS) {
        return err_set(e, ERR_INPUT, "%s: %s.points must be a list of 1 to %d pairs", where, name,
                       COSTS_MAX_POINTS);
    }
    for (size_t i = 0; i < n; i++) {
        const json_t *pair = json_array_get(list, i), *tokens = json_array_get(pair, 0);
        const double n_tokens = json_number_value(tokens);
        if (json_array_size(pair) != 2 || !(n_tokens > before) || n_tokens > MAX_TOKENS) {
            return err_set(e, ERR_INPUT,
                           "%s: %s.points[%zu] must be [tokens, ns], with tokens above those of "
                           "the point before and at most %g",
                           where, name, i, MAX_TOKENS);
        }
        if (read_cost(where, name, "points", json_array_get(pair, 1), &p->points[i].ns, e)) {
            return -1;
        }
        before = p->points[i].n_tokens = n_tokens;
    }
    p->n_points = (int)n;
    return 0;
}

static int part_key(const char *key)
{
    for (int i = 0; i < N_PART_KEYS; i++) {
        if (strcmp(key, part_keys[i].key) == 0) {
            return i;
        }
    }
    return -1;
}

static int read_part(const char *where, const char *name, json_t *object, struct costs_part *p,
                     struct err *e)
{
    const char *key;
    json_t *v;
    if (!json_is_object(object)) {
        return err_set(e, ERR_INPUT, "%s: %s is missing: an object of costs is wanted", where,
                       name);
    }
    json_object_foreach(object, key, v)
    {
        int i = part_key(key);
        if (strcmp(key, "points") == 0) {
            if (read_points(where, name, v, p, e)) {
                return -1;
            }
            continue;
        }
        if (i < 0) {
            return err_set(e, ERR_INPUT,
                           "%s: %s has no cost '%.40s'; there are fixed_ns, read_ns, expert_ns, "
                           "kv_ns, token_ns, pair_ns, move_ns, points",
                           where, name, key);
        }
        if (read_cost(where, name, key, v, part_value(p, i), e)) {
            return -1;
        }
    }
    if (p->n_points > 0 && (p->read_ns > 0 || p->expert_ns > 0 || p->token_ns > 0)) {
        return err_set(e, ERR_INPUT,
                       "%s: %s has points, which take the place of read_ns, expert_ns and token_ns",
                       where, name);
    }
    return 0;
}

static int check_size(const char *where, const json_t *root, const char *key, int want,
                      struct err *e)
{
    const json_t *v = json_object_get(root, key);
    return json_is_integer(v) && json_integer_value(v) == want
               ? 0
               : err_set(e, ERR_INPUT, "%s: costs of another model: %s is not %d", where, key,
                         want);
}

/* What is missing stays. */
static int read_count(const char *where, const json_t *root, const char *key, int max, int *out,
                      struct err *e)
{
    const json_t *v = json_object_get(root, key);
    if (v && (!json_is_integer(v) || json_integer_value(v) < 1 || json_integer_value(v) > max)) {
        return err_set(e, ERR_INPUT, "%s: %s must be a whole number from 1 to %d", where, key, max);
    }
    *out = v ? (int)json_integer_value(v) : *out;
    return 0;
}

static int read_layers(const char *where, const json_t *root, const struct arch *a, struct costs *c,
                       struct err *e)
{
    json_t *layers = json_object_get(root, "layers");
    bool seen[COSTS_N_KINDS] = {false};
    for (int i = 0; i < a->n_layers; i++) {
        enum costs_kind k = costs_kind_of(a, i);
        if (!seen[k] && read_part(where, kind_names[k], json_object_get(layers, kind_names[k]),
                                  &c->kinds[k], e)) {
            return -1;
        }
        seen[k] = true;
    }
    return 0;
}

static int read_hop(const char *where, const json_t *root, struct costs *c, struct err *e)
{
    const json_t *fixed = json_object_get(root, "hop_ns");
    const json_t *byte = json_object_get(root, "hop_byte_ns");
    return (fixed && read_cost(where, "costs", "hop_ns", fixed, &c->hop_ns, e)) ||
                   (byte && read_cost(where, "costs", "hop_byte_ns", byte, &c->hop_byte_ns, e))
               ? -1
               : 0;
}

/* As much as there is room for, whole characters. */
static void keep_source(struct costs *c, const char *source)
{
    size_t n = strnlen(source, sizeof c->source - 1);
    while (n > 0 && ((unsigned char)source[n] & 0xC0) == 0x80) {
        n--;
    }
    memcpy(c->source, source, n);
    c->source[n] = '\0';
}

static int read_root(const char *where, const json_t *root, const struct arch *a, struct costs *c,
                     struct err *e)
{
    const char *schema = json_string_value(json_object_get(root, "schema"));
    if (!schema || strcmp(schema, SCHEMA) != 0) {
        return err_set(e, ERR_INPUT, "%s: schema is not \"" SCHEMA "\"", where);
    }
    const char *source = json_string_value(json_object_get(root, "source"));
    keep_source(c, source ? source : "a file");
    c->tensor = 1;
    return read_count(where, root, "tensor", MAX_TENSOR, &c->tensor, e) ||
                   read_count(where, root, "threads", MAX_THREADS, &c->n_threads, e) ||
                   check_size(where, root, "hidden", a->hidden, e) ||
                   check_size(where, root, "vocab", a->vocab, e) ||
                   read_layers(where, root, a, c, e) ||
                   read_part(where, "embed", json_object_get(root, "embed"), &c->embed, e) ||
                   read_part(where, "head", json_object_get(root, "head"), &c->head, e) ||
                   read_hop(where, root, c, e)
               ? -1
               : 0;
}

int costs_parse(const char *json, size_t len, const char *where, const struct arch *a,
                struct costs *out, struct err *e)
{
    json_error_t je;
    json_t *root = json_loadb(json, len, JSON_REJECT_DUPLICATES, &je);
    if (!root) {
        return err_set(e, ERR_INPUT, "%s:%d: not JSON: %s", where, je.line, je.text);
    }
    struct costs c = {.hop_ns = 0};
    int rc = read_root(where, root, a, &c, e);
    if (rc == 0) {
        *out = c;
    }
    json_decref(root);
    return rc;
}

int costs_read(const char *path, const struct arch *a, struct costs *out, struct err *e)
{
    struct str text = {0};
    int rc = str_read_file(&text, path, MAX_FILE_BYTES, e);
    if (rc == 0) {
        rc = costs_parse(text.data ? text.data : "", text.len, path, a, out, e);
    }
    str_free(&text);
    return rc;
}

static json_t *part_json(const struct costs_part *p)
{
    json_t *o = json_object();
    struct costs_part copy = *p;
    for (int i = 0; i < N_PART_KEYS; i++) {
        double v = *part_value(&copy, i);
        if (v > 0) {
            json_object_set_new(o, part_keys[i].key, json_real(v));
        }
    }
    if (p->n_points > 0) {
        json_t *points = json_array();
        for (int i = 0; i < p->n_points; i++) {
            json_array_append_new(points,
                                  json_pack("[f, f]", p->points[i].n_tokens, p->points[i].ns));
        }
        json_object_set_new(o, "points", points);
    }
    return o;
}

struct json_t *costs_json(const struct costs *c, const struct arch *a)
{
    json_t *layers = json_object();
    for (int i = 0; i < a->n_layers; i++) {
        enum costs_kind k = costs_kind_of(a, i);
        if (!json_object_get(layers, kind_names[k])) {
            json_object_set_new(layers, kind_names[k], part_json(&c->kinds[k]));
        }
    }
    json_t *o =
        json_pack("{s:s, s:s, s:i, s:i, s:i, s:o, s:o, s:o, s:f, s:f}", "schema", SCHEMA, "source",
                  c->source, "tensor", c->tensor > 1 ? c->tensor : 1, "hidden", a->hidden, "vocab",
                  a->vocab, "layers", layers, "embed", part_json(&c->embed), "head",
                  part_json(&c->head), "hop_ns", c->hop_ns, "hop_byte_ns", c->hop_byte_ns);
    if (c->n_threads > 0) {
        json_object_set_new(o, "threads", json_integer(c->n_threads));
    }
    return o;
}
