#include "workers/weights/weights.h"

#include "core/mem.h"
#include "core/str.h"
#include "workers/weights/bf16.h"
#include "workers/weights/fill.h"
#include "workers/weights/safetensors.h"

#include <jansson.h>
#include <xxhash.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MAX_INDEX_BYTES ((size_t)64 << 20)

struct shard {
    char *name; // in the model's folder
    struct safetensors *file;
};

struct weights {
    struct arch arch;
    char *model;
    bool generated;
    size_t n_shards;
    struct shard *shards; // (n_shards)
    json_t *map;          // tensor -> shard name; NULL where one file holds all
};

/* --- names and shapes ------------------------------------------------------------------------- */

enum size { // which dimension of struct arch
    NONE,
    HIDDEN,
    Q_ROWS,
    KV_ROWS,
    INTERMEDIATE,
    VOCAB,
};

static const struct spec {
    const char *name;     // of huggingface/transformers; {} stands for the layer
    enum size rows, cols; // rows NONE: a vector
} specs[WEIGHTS_N] = {
    [WEIGHTS_EMBED] = {"model.embed_tokens.weight", VOCAB, HIDDEN},
    [WEIGHTS_NORM] = {"model.norm.weight", NONE, HIDDEN},
    [WEIGHTS_HEAD] = {"lm_head.weight", VOCAB, HIDDEN},
    [WEIGHTS_ATTN_NORM] = {"model.layers.{}.input_layernorm.weight", NONE, HIDDEN},
    [WEIGHTS_Q] = {"model.layers.{}.self_attn.q_proj.weight", Q_ROWS, HIDDEN},
    [WEIGHTS_K] = {"model.layers.{}.self_attn.k_proj.weight", KV_ROWS, HIDDEN},
    [WEIGHTS_V] = {"model.layers.{}.self_attn.v_proj.weight", KV_ROWS, HIDDEN},
    [WEIGHTS_O] = {"model.layers.{}.self_attn.o_proj.weight", HIDDEN, Q_ROWS},
    [WEIGHTS_MLP_NORM] = {"model.layers.{}.post_attention_layernorm.weight", NONE, HIDDEN},
    [WEIGHTS_GATE] = {"model.layers.{}.mlp.gate_proj.weight", INTERMEDIATE, HIDDEN},
    [WEIGHTS_UP] = {"model.layers.{}.mlp.up_proj.weight", INTERMEDIATE, HIDDEN},
    [WEIGHTS_DOWN] = {"model.layers.{}.mlp.down_proj.weight", HIDDEN, INTERMEDIATE},
};

static int64_t size_of(const struct arch *a, enum size s)
{
    switch (s) {
    case NONE:
        break;
    case HIDDEN:
        return a->hidden;
    case Q_ROWS:
        return (int64_t)a->n_heads * a->head_dim;
    case KV_ROWS:
        return (int64_t)a->n_kv_heads * a->head_dim;
    case INTERMEDIATE:
        return a->intermediate;
    case VOCAB:
        return a->vocab;
    }
    return 1;
}

static void put_name(const char *pattern, int layer, char *out, size_t out_bytes)
{
    const char *hole = strstr(pattern, "{}");
    if (hole) {
        snprintf(out, out_bytes, "%.*s%d%s", (int)(hole - pattern), pattern, layer, hole + 2);
    } else {
        snprintf(out, out_bytes, "%s", pattern);
    }
}

/* --- opening ---------------------------------------------------------------------------------- */

static struct shard *find_shard(const struct weights *w, const char *name)
{
    for (size_t i = 0; i < w->n_shards; i++) {
        if (strcmp(w->shards[i].name, name) == 0) {
            return &w->shards[i];
        }
    }
    return NULL;
}

static int open_shard(struct weights *w, const char *name, struct err *e)
{
    char *path = xasprintf("%s/%s", w->model, name);
    struct safetensors *file;
    int rc = safetensors_open(&file, path, e);
    free(path);
    if (rc) {
        return -1;
    }
    w->shards = xrealloc(w->shards, (w->n_shards + 1) * sizeof *w->shards);
    w->shards[w->n_shards++] = (struct shard){.name = xstrdup(name), .file = file};
    return 0;
}

static int open_shards(struct weights *w, const char *index, struct err *e)
{
    const char *tensor;
    json_t *v;
    json_object_foreach(w->map, tensor, v)
    {
        const char *name = json_string_value(v);
        // A plain file name: the index must not reach outside of the model's folder.
        if (!name || name[0] == '\0' || name[0] == '.' || strchr(name, '/')) {
            return err_set(e, ERR_INPUT, "%s: tensor %.100s is mapped to no file of this folder",
                           index, tensor);
        }
        if (!find_shard(w, name) && open_shard(w, name, e)) {
            return -1;
        }
    }
    return 0;
}

static int open_index(struct weights *w, const char *path, struct err *e)
{
    struct str text = {0};
    if (str_read_file(&text, path, MAX_INDEX_BYTES, e)) {
        return -1;
    }
    json_error_t je;
    json_t *root = json_loadb(text.data, text.len, JSON_REJECT_DUPLICATES, &je);
    str_free(&text);
    if (!root) {
        return err_set(e, ERR_INPUT, "%s:%d: not JSON: %s", path, je.line, je.text);
    }
    w->map = json_incref(json_object_get(root, "weight_map"));
    json_decref(root);
    if (!json_is_object(w->map)) {
        return err_set(e, ERR_INPUT, "%s: weight_map is missing", path);
    }
    return open_shards(w, path, e);
}

static int open_folder(struct weights *w, struct err *e)
{
    char *single = xasprintf("%s/model.safetensors", w->model);
    char *index = xasprintf("%s/model.safetensors.index.json", w->model);
    int rc;
    if (access(single, F_OK) == 0) {
        rc = open_shard(w, "model.safetensors", e);
    } else if (access(index, F_OK) == 0) {
        rc = open_index(w, index, e);
    } else {
        rc = err_set(e, ERR_INPUT,
                     "missing model file: %s has neither model.safetensors nor "
                     "model.safetensors.index.json",
                     w->model);
    }
    free(single);
    free(index);
    return rc;
}

int weights_open(struct weights **out, const char *model, const struct arch *a, struct err *e)
{
    struct weights *w = xcalloc(1, sizeof *w);
    w->arch = *a;
    w->model = xstrdup(model);
    w->generated = arch_is_preset(model);
    if (!w->generated && open_folder(w, e)) {
        weights_close(w);
        return -1;
    }
    *out = w;
    return 0;
}

void weights_close(struct weights *w)
{
    if (!w) {
        return;
    }
    for (size_t i = 0; i < w->n_shards; i++) {
        safetensors_close(w->shards[i].file);
        free(w->shards[i].name);
    }
    free(w->shards);
    json_decref(w->map);
    free(w->model);
    free(w);
}

/* --- finding ---------------------------------------------------------------------------------- */

static const struct safetensors_tensor *find_in_files(const struct weights *w, const char *name)
{
    if (!w->map) {
        return safetensors_find(w->shards[0].file, name);
    }
    const char *shard = json_string_value(json_object_get(w->map, name));
    return shard ? safetensors_find(find_shard(w, shard)->file, name) : NULL;
}

static void describe(char *out, size_t out_bytes, const char *dtype, int n_dims,
                     const int64_t *shape)
{
    int n = snprintf(out, out_bytes, "%s (", dtype);
    for (int i = 0; i < n_dims && n > 0 && (size_t)n < out_bytes; i++) {
        n += snprintf(out + n, out_bytes - (size_t)n, "%s%lld", i ? ", " : "", (long long)shape[i]);
    }
    if (n > 0 && (size_t)n < out_bytes) {
        snprintf(out + n, out_bytes - (size_t)n, ")");
    }
}

/* Matrices must be what config.json declares; norms are read as float32 whichever of the two. */
static int check_found(const struct weights *w, struct weights_tensor *t, bool vector,
                       const struct safetensors_tensor *found, struct err *e)
{
    const int64_t want[2] = {vector ? t->n_cols : t->n_rows, t->n_cols};
    int n_dims = vector ? 1 : 2;
    bool f32 = strcmp(found->dtype, "F32") == 0, bf16 = strcmp(found->dtype, "BF16") == 0;
    bool dtype_ok = vector ? f32 || bf16 : t->dtype == ARCH_F32 ? f32 : bf16;
    bool shape_ok = found->n_dims == n_dims && found->shape[0] == want[0] &&
                    (vector || found->shape[1] == want[1]);
    if (!dtype_ok || !shape_ok) {
        char wanted[128], is[256];
        describe(wanted, sizeof wanted, t->dtype == ARCH_F32 ? "F32" : "BF16", n_dims, want);
        describe(is, sizeof is, found->dtype, found->n_dims, found->shape);
        return err_set(e, ERR_INPUT, "%s: wrong %s of tensor %s: found %s, config.json needs %s",
                       w->model, shape_ok ? "dtype" : "shape", t->name, is, wanted);
    }
    t->dtype = f32 ? ARCH_F32 : ARCH_BF16;
    t->data = found->data;
    return 0;
}

int weights_find(const struct weights *w, enum weights_id id, int layer, struct weights_tensor *t,
                 struct err *e)
{
    if (id == WEIGHTS_HEAD && w->arch.tied_embedding) {
        id = WEIGHTS_EMBED;
    }
    const struct spec *spec = &specs[id];
    struct weights_tensor r = {
        .n_rows = size_of(&w->arch, spec->rows),
        .n_cols = size_of(&w->arch, spec->cols),
        .dtype = w->arch.dtype,
    };
    put_name(spec->name, layer, r.name, sizeof r.name);
    if (w->generated) {
        r.key = fill_key(r.name);
    } else {
        const struct safetensors_tensor *found = find_in_files(w, r.name);
        if (!found) {
            return err_set(e, ERR_INPUT, "%s: tensor %s is missing", w->model, r.name);
        }
        if (check_found(w, &r, spec->rows == NONE, found, e)) {
            return -1;
        }
    }
    *t = r;
    return 0;
}

int weights_check(const char *model, const struct arch *a, struct err *e)
{
    struct weights *w;
    if (weights_open(&w, model, a, e)) {
        return -1;
    }
    int rc = 0;
    struct weights_tensor t;
    for (int id = 0; id < WEIGHTS_N && rc == 0; id++) {
        if (!specs[id].name) {
            continue;
        }
        int n = id < WEIGHTS_ATTN_NORM ? 1 : a->n_layers;
        for (int layer = 0; layer < n && rc == 0; layer++) {
            rc = weights_find(w, (enum weights_id)id, layer, &t, e);
        }
    }
    weights_close(w);
    return rc;
}

static int shard_by_name(const void *a, const void *b)
{
    const struct shard *x = a, *y = b;
    return strcmp(x->name, y->name);
}

int weights_hash(const char *model, const struct arch *a, uint64_t *hash, struct err *e)
{
    struct weights *w;
    if (weights_open(&w, model, a, e)) {
        return -1;
    }
    struct str text = {0};
    if (w->n_shards > 0) {
        qsort(w->shards, w->n_shards, sizeof *w->shards, shard_by_name);
    }
    for (size_t i = 0; i < w->n_shards; i++) {
        str_printf(&text, "%s %016llx\n", w->shards[i].name,
                   (unsigned long long)safetensors_hash(w->shards[i].file));
    }
    *hash = XXH64(text.data, text.len, 0);
    str_free(&text);
    weights_close(w);
    return 0;
}

/* --- reading ---------------------------------------------------------------------------------- */

static void generate(const struct weights_tensor *t, uint64_t first, size_t n, void *out)
{
    if (t->dtype == ARCH_F32) {
        fill_f32(t->key, first, n, out);
    } else {
        fill_bf16(t->key, first, n, out);
    }
}

const void *weights_rows(const struct weights_tensor *t, int64_t first, int64_t n, void *scratch)
{
    CHECK(first >= 0 && n >= 0 && first + n <= t->n_rows);
    size_t value_bytes = (size_t)weights_value_bytes(t->dtype);
    size_t n_values = (size_t)(n * t->n_cols);
    if (!t->data) {
        generate(t, (uint64_t)(first * t->n_cols), n_values, scratch);
        return scratch;
    }
    const char *at = (const char *)t->data + (size_t)(first * t->n_cols) * value_bytes;
    if ((uintptr_t)at % value_bytes == 0) {
        return at;
    }
    return memcpy(scratch, at, n_values * value_bytes); // the format does not promise alignment
}

void weights_vector(const struct weights_tensor *t, float *out)
{
    for (size_t i = 0; i < (size_t)t->n_cols; i++) {
        if (!t->data) {
            out[i] = 1; // vectors are norms
        } else if (t->dtype == ARCH_F32) {
            memcpy(&out[i], (const char *)t->data + i * sizeof *out, sizeof *out);
        } else {
            uint16_t b;
            memcpy(&b, (const char *)t->data + i * sizeof b, sizeof b);
            out[i] = bf16_to_f32(b);
        }
    }
}
