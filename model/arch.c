#include "model/arch.h"

#include "core/mem.h"
#include "core/str.h"

#include <jansson.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PRESET_PREFIX    "preset:"
#define MAX_CONFIG_BYTES ((size_t)16 << 20)
#define KNOWN_FAMILIES   "llama"

/* --- presets ---------------------------------------------------------------------------------- */

static const struct preset {
    const char *name;
    struct arch arch;
} presets[] = {
    {"tiny",
     {.family = "llama",
      .n_layers = 4,
      .hidden = 128,
      .intermediate = 352,
      .n_heads = 4,
      .n_kv_heads = 2,
      .head_dim = 32,
      .vocab = 1024,
      .max_context = 2048,
      .rms_eps = 1e-5f,
      .rope = ARCH_ROPE_DEFAULT,
      .rope_theta = 10000,
      .dtype = ARCH_F32,
      .bos_id = 1,
      .eos_ids = {2},
      .n_eos = 1}},
    {"tiny-16k", // for traces with long prompts on small machines
     {.family = "llama",
      .n_layers = 4,
      .hidden = 128,
      .intermediate = 352,
      .n_heads = 4,
      .n_kv_heads = 2,
      .head_dim = 32,
      .vocab = 1024,
      .max_context = 16384,
      .rms_eps = 1e-5f,
      .rope = ARCH_ROPE_DEFAULT,
      .rope_theta = 10000,
      .dtype = ARCH_F32,
      .bos_id = 1,
      .eos_ids = {2},
      .n_eos = 1}},
    {"small",
     {.family = "llama",
      .n_layers = 8,
      .hidden = 512,
      .intermediate = 1408,
      .n_heads = 8,
      .n_kv_heads = 4,
      .head_dim = 64,
      .vocab = 8192,
      .max_context = 16384,
      .rms_eps = 1e-5f,
      .rope = ARCH_ROPE_DEFAULT,
      .rope_theta = 500000,
      .dtype = ARCH_BF16,
      .bos_id = 1,
      .eos_ids = {2},
      .n_eos = 1}},
};

/* What a plain decoder of the Llama kind leaves unsaid. */
static void resolve(struct arch *a)
{
    a->v_dim = a->v_dim ? a->v_dim : a->head_dim;
    a->rope_dim = a->rope_dim ? a->rope_dim : a->head_dim;
    a->embed_scale = a->embed_scale != 0 ? a->embed_scale : 1;
    a->attn_scale = a->attn_scale != 0 ? a->attn_scale : (float)(1 / sqrt(a->head_dim));
    a->linear_dtype = a->linear_dtype != ARCH_F32 ? a->linear_dtype : a->dtype;
    a->expert_dtype = a->expert_dtype != ARCH_F32 ? a->expert_dtype : a->linear_dtype;
}

bool arch_is_preset(const char *model)
{
    return strncmp(model, PRESET_PREFIX, strlen(PRESET_PREFIX)) == 0;
}

static int open_preset(const char *name, struct arch *a, struct err *e)
{
    char known[128] = "";
    for (size_t i = 0; i < sizeof presets / sizeof *presets; i++) {
        if (strcmp(name, presets[i].name) == 0) {
            *a = presets[i].arch;
            resolve(a);
            return 0;
        }
        size_t n = strlen(known);
        snprintf(known + n, sizeof known - n, "%s%s", i ? ", " : "", presets[i].name);
    }
    return err_set(e, ERR_INPUT, "model preset:%s: no such preset; there are %s", name, known);
}

/* --- config.json ------------------------------------------------------------------------------ */

struct reader {
    const json_t *root;
    const char *where;
    struct err *e;
};

/* A key that is absent or null counts as not given. */
static const json_t *get(const json_t *object, const char *key)
{
    const json_t *v = json_object_get(object, key);
    return json_is_null(v) ? NULL : v;
}

static int read_int(const struct reader *r, const json_t *object, const char *key, int lo, int hi,
                    const int *def, int *out)
{
    const json_t *v = get(object, key);
    if (!v && def) {
        *out = *def;
        return 0;
    }
    if (!v) {
        return err_set(r->e, ERR_INPUT, "%s: %s is missing", r->where, key);
    }
    json_int_t i = json_integer_value(v);
    if (!json_is_integer(v) || i < lo || i > hi) {
        return err_set(r->e, ERR_INPUT, "%s: %s must be a whole number from %d to %d", r->where,
                       key, lo, hi);
    }
    *out = (int)i;
    return 0;
}

/* Bounds are exclusive of lo, inclusive of hi. */
static int read_number(const struct reader *r, const json_t *object, const char *key, double lo,
                       double hi, const double *def, double *out)
{
    const json_t *v = get(object, key);
    if (!v && def) {
        *out = *def;
        return 0;
    }
    if (!v) {
        return err_set(r->e, ERR_INPUT, "%s: %s is missing", r->where, key);
    }
    double d = json_number_value(v);
    if (!json_is_number(v) || !(d > lo) || !(d <= hi)) {
        return err_set(r->e, ERR_INPUT, "%s: %s must be a number above %g and up to %g", r->where,
                       key, lo, hi);
    }
    *out = d;
    return 0;
}

static int read_bool(const struct reader *r, const char *key, bool def, bool *out)
{
    const json_t *v = get(r->root, key);
    if (v && !json_is_boolean(v)) {
        return err_set(r->e, ERR_INPUT, "%s: %s must be true or false", r->where, key);
    }
    *out = v ? json_is_true(v) : def;
    return 0;
}

/* What a Llama config may say that this engine would silently get wrong. */
static int refuse_unsupported(const struct reader *r)
{
    static const char *const off[] = {"attention_bias", "mlp_bias"};
    for (size_t i = 0; i < sizeof off / sizeof *off; i++) {
        bool on;
        if (read_bool(r, off[i], false, &on)) {
            return -1;
        }
        if (on) {
            return err_set(r->e, ERR_INPUT, "%s: %s true is not supported", r->where, off[i]);
        }
    }
    if (get(r->root, "quantization_config")) {
        return err_set(r->e, ERR_INPUT,
                       "%s: quantization_config: quantised weights are not supported; float32 and "
                       "bfloat16 are",
                       r->where);
    }
    const json_t *act = get(r->root, "hidden_act");
    if (act && (!json_is_string(act) || strcmp(json_string_value(act), "silu") != 0)) {
        return err_set(r->e, ERR_INPUT, "%s: hidden_act must be \"silu\"", r->where);
    }
    return 0;
}

static int read_family(const struct reader *r, struct arch *a)
{
    const json_t *type = get(r->root, "model_type");
    if (!json_is_string(type)) {
        return err_set(r->e, ERR_INPUT, "%s: model_type is missing", r->where);
    }
    if (strcmp(json_string_value(type), "llama") != 0) {
        return err_set(r->e, ERR_INPUT, "%s: unknown model_type \"%.64s\"; known: %s", r->where,
                       json_string_value(type), KNOWN_FAMILIES);
    }
    snprintf(a->family, sizeof a->family, "%s", json_string_value(type));
    return 0;
}

static int read_sizes(const struct reader *r, struct arch *a)
{
    const json_t *o = r->root;
    if (read_int(r, o, "num_hidden_layers", 1, 1024, NULL, &a->n_layers) ||
        read_int(r, o, "hidden_size", 1, 1 << 17, NULL, &a->hidden) ||
        read_int(r, o, "intermediate_size", 1, 1 << 20, NULL, &a->intermediate) ||
        read_int(r, o, "num_attention_heads", 1, 1024, NULL, &a->n_heads) ||
        read_int(r, o, "num_key_value_heads", 1, 1024, &a->n_heads, &a->n_kv_heads) ||
        read_int(r, o, "vocab_size", 1, 1 << 24, NULL, &a->vocab) ||
        read_int(r, o, "max_position_embeddings", 1, 1 << 24, NULL, &a->max_context)) {
        return -1;
    }
    int from_hidden = a->hidden / a->n_heads;
    bool divides = a->hidden % a->n_heads == 0;
    if (read_int(r, o, "head_dim", 2, 1024, divides ? &from_hidden : NULL, &a->head_dim)) {
        return -1;
    }
    if (a->head_dim < 2 || a->head_dim > 1024 || a->head_dim % 2 != 0) {
        return err_set(r->e, ERR_INPUT, "%s: head_dim %d must be even and from 2 to 1024", r->where,
                       a->head_dim);
    }
    if (a->n_heads % a->n_kv_heads != 0) {
        return err_set(r->e, ERR_INPUT,
                       "%s: num_attention_heads %d is not a multiple of num_key_value_heads %d",
                       r->where, a->n_heads, a->n_kv_heads);
    }
    return 0;
}

static int read_llama3(const struct reader *r, const json_t *o, struct arch *a)
{
    double original;
    double context = a->max_context;
    if (read_number(r, o, "factor", 0, 1e6, NULL, &a->rope_llama3.factor) ||
        read_number(r, o, "low_freq_factor", 0, 1e6, NULL, &a->rope_llama3.low) ||
        read_number(r, o, "high_freq_factor", 0, 1e6, NULL, &a->rope_llama3.high) ||
        read_number(r, o, "original_max_position_embeddings", 0, 1 << 24, &context, &original)) {
        return -1;
    }
    if (a->rope_llama3.high <= a->rope_llama3.low) {
        return err_set(r->e, ERR_INPUT, "%s: high_freq_factor must be above low_freq_factor",
                       r->where);
    }
    a->rope = ARCH_ROPE_LLAMA3;
    a->rope_llama3.original_context = (int)original;
    return 0;
}

/* Newer configs have everything in rope_parameters, older ones rope_theta beside rope_scaling. */
static int read_rope(const struct reader *r, struct arch *a)
{
    const double default_theta = 10000;
    if (read_number(r, r->root, "rope_theta", 0, 1e12, &default_theta, &a->rope_theta)) {
        return -1;
    }
    const json_t *o = get(r->root, "rope_parameters");
    if (!o) {
        o = get(r->root, "rope_scaling");
    }
    if (!o) {
        return 0;
    }
    if (!json_is_object(o)) {
        return err_set(r->e, ERR_INPUT, "%s: rope_scaling must be an object", r->where);
    }
    double outer = a->rope_theta;
    if (read_number(r, o, "rope_theta", 0, 1e12, &outer, &a->rope_theta)) {
        return -1;
    }
    const json_t *type = get(o, "rope_type");
    if (!type) {
        type = get(o, "type");
    }
    const char *name = type ? json_string_value(type) : "default";
    if (name && strcmp(name, "default") == 0) {
        return 0;
    }
    if (name && strcmp(name, "llama3") == 0) {
        return read_llama3(r, o, a);
    }
    return err_set(r->e, ERR_INPUT, "%s: unknown rope_type \"%.64s\"; known: default, llama3",
                   r->where, name ? name : "(not text)");
}

static int read_dtype(const struct reader *r, struct arch *a)
{
    const json_t *v = get(r->root, "torch_dtype");
    if (!v) {
        v = get(r->root, "dtype");
    }
    const char *name = v ? json_string_value(v) : "float32";
    if (name && strcmp(name, "float32") == 0) {
        a->dtype = ARCH_F32;
    } else if (name && strcmp(name, "bfloat16") == 0) {
        a->dtype = ARCH_BF16;
    } else {
        return err_set(r->e, ERR_INPUT, "%s: torch_dtype \"%.32s\": float32 or bfloat16 wanted",
                       r->where, name ? name : "(not text)");
    }
    return 0;
}

static int read_id(const struct reader *r, const char *key, const json_t *v, int vocab, int *id)
{
    // Some published configs name an id of -1 or just past the vocabulary for "none".
    if (!json_is_integer(v)) {
        return err_set(r->e, ERR_INPUT, "%s: %s must be a token id", r->where, key);
    }
    json_int_t i = json_integer_value(v);
    *id = i >= 0 && i < vocab ? (int)i : -1;
    return 0;
}

static int read_ids(const struct reader *r, struct arch *a)
{
    a->bos_id = -1;
    const json_t *bos = get(r->root, "bos_token_id");
    if (bos && read_id(r, "bos_token_id", bos, a->vocab, &a->bos_id)) {
        return -1;
    }
    const json_t *eos = get(r->root, "eos_token_id");
    if (!eos) {
        return 0;
    }
    const size_t max = sizeof a->eos_ids / sizeof *a->eos_ids;
    size_t n = json_is_array(eos) ? json_array_size(eos) : 1;
    if (n > max) {
        return err_set(r->e, ERR_INPUT, "%s: eos_token_id has %zu ids; at most %zu", r->where, n,
                       max);
    }
    for (size_t i = 0; i < n; i++) {
        int id;
        const json_t *v = json_is_array(eos) ? json_array_get(eos, i) : eos;
        if (read_id(r, "eos_token_id", v, a->vocab, &id)) {
            return -1;
        }
        if (id >= 0) {
            a->eos_ids[a->n_eos++] = id;
        }
    }
    return 0;
}

static int read_config(const struct reader *r, struct arch *a)
{
    if (!json_is_object(r->root)) {
        return err_set(r->e, ERR_INPUT, "%s: not a JSON object", r->where);
    }
    const double default_eps = 1e-6;
    double eps;
    if (read_family(r, a) || refuse_unsupported(r) || read_sizes(r, a) || read_rope(r, a) ||
        read_dtype(r, a) || read_ids(r, a) ||
        read_bool(r, "tie_word_embeddings", false, &a->tied_embedding) ||
        read_number(r, r->root, "rms_norm_eps", 0, 1, &default_eps, &eps)) {
        return -1;
    }
    a->rms_eps = (float)eps;
    resolve(a);
    return 0;
}

int arch_parse(const char *json, size_t len, const char *where, struct arch *a, struct err *e)
{
    json_error_t je;
    json_t *root = json_loadb(json, len, JSON_REJECT_DUPLICATES, &je);
    if (!root) {
        return err_set(e, ERR_INPUT, "%s:%d: not JSON: %s", where, je.line, je.text);
    }
    struct arch parsed = {0};
    const struct reader r = {.root = root, .where = where, .e = e};
    int rc = read_config(&r, &parsed);
    if (rc == 0) {
        *a = parsed;
    }
    json_decref(root);
    return rc;
}

int arch_open(const char *model, struct arch *a, struct err *e)
{
    if (arch_is_preset(model)) {
        return open_preset(model + strlen(PRESET_PREFIX), a, e);
    }
    char *path = xasprintf("%s/config.json", model);
    struct str text = {0};
    int rc = str_read_file(&text, path, MAX_CONFIG_BYTES, e);
    if (rc) {
        err_wrap(e, "model %s", model);
    } else {
        rc = arch_parse(text.data ? text.data : "", text.len, path, a, e);
    }
    str_free(&text);
    free(path);
    return rc;
}

/* --- sizes ------------------------------------------------------------------------------------ */

int64_t arch_layer_params(const struct arch *a)
{
    int64_t h = a->hidden;
    int64_t q = (int64_t)a->n_heads * a->head_dim;
    int64_t kv = (int64_t)a->n_kv_heads * a->head_dim;
    return 2 * h                      // norms
           + h * (q + 2 * kv)         // q, k, v
           + q * h                    // o
           + 3 * h * a->intermediate; // gate, up, down
}

int64_t arch_head_params(const struct arch *a)
{
    return (int64_t)a->vocab * a->hidden;
}

int64_t arch_params(const struct arch *a)
{
    int64_t tables = a->tied_embedding ? 1 : 2;
    return a->n_layers * arch_layer_params(a) + tables * arch_head_params(a) + a->hidden;
}

int64_t arch_kv_values_per_token(const struct arch *a)
{
    return (int64_t)2 * a->n_layers * a->n_kv_heads * a->head_dim;
}

struct arch_costs arch_costs(const struct arch *a)
{
    double value_bytes = a->dtype == ARCH_BF16 ? 2 : 4;
    return (struct arch_costs){
        .layer = value_bytes * (double)arch_layer_params(a),
        .embed = value_bytes * a->hidden,
        .head = value_bytes * (double)(arch_head_params(a) + a->hidden),
    };
}

/* --- splitting layers over stages ------------------------------------------------------------- */

struct split {
    struct arch_costs costs;
    int n_layers, n_stages;
    double limit; // of a stage's cost
    double *best; // (n_stages + 1, n_layers + 1) for the first s stages holding l layers
    int *taken;   // same shape: layers of stage s - 1 in that best
};

static double stage_cost(const struct split *p, int stage, int n_layers)
{
    return n_layers * p->costs.layer + (stage == 0 ? p->costs.embed : 0) +
           (stage == p->n_stages - 1 ? p->costs.head : 0);
}

static double larger(double so_far, double cost)
{
    return cost > so_far ? cost : so_far;
}

static double add_square(double so_far, double cost)
{
    return so_far + cost * cost;
}

/* Dynamic programming over stages: the smallest fold of stage costs, none above p->limit. */
static double best_split(struct split *p, double (*fold)(double, double))
{
    size_t width = (size_t)p->n_layers + 1;
    for (size_t i = 0; i < width * ((size_t)p->n_stages + 1); i++) {
        p->best[i] = HUGE_VAL;
    }
    p->best[0] = 0;
    for (int s = 1; s <= p->n_stages; s++) {
        const double *from = p->best + (size_t)(s - 1) * width;
        double *to = p->best + (size_t)s * width;
        int *taken = p->taken + (size_t)s * width;
        for (int l = s; l <= p->n_layers - (p->n_stages - s); l++) {
            for (int n = 1; n <= l - (s - 1); n++) {
                double cost = stage_cost(p, s - 1, n);
                double total = cost <= p->limit ? fold(from[l - n], cost) : HUGE_VAL;
                if (total < to[l]) {
                    to[l] = total;
                    taken[l] = n;
                }
            }
        }
    }
    return p->best[(size_t)p->n_stages * width + (size_t)p->n_layers];
}

void arch_split(const struct arch *a, int n_stages, int *first)
{
    CHECK(n_stages >= 1 && n_stages <= a->n_layers);
    size_t cells = ((size_t)n_stages + 1) * ((size_t)a->n_layers + 1);
    struct split p = {
        .costs = arch_costs(a),
        .n_layers = a->n_layers,
        .n_stages = n_stages,
        .limit = HUGE_VAL,
        .best = xcalloc(cells, sizeof *p.best),
        .taken = xcalloc(cells, sizeof *p.taken),
    };
    p.limit = best_split(&p, larger);
    best_split(&p, add_square);
    first[n_stages] = a->n_layers;
    for (int s = n_stages; s > 0; s--) {
        size_t at = (size_t)s * ((size_t)a->n_layers + 1) + (size_t)first[s];
        first[s - 1] = first[s] - p.taken[at];
    }
    free(p.best);
    free(p.taken);
}
