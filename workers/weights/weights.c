#include "workers/weights/weights.h"

#include "core/mem.h"
#include "core/str.h"
#include "model/gguf.h"
#include "workers/weights/bf16.h"
#include "workers/weights/decode.h"
#include "workers/weights/f16.h"
#include "workers/weights/fill.h"
#include "workers/weights/formats.h"
#include "workers/weights/gguf_tensors.h"
#include "workers/weights/safetensors.h"
#include "workers/weights/tensors.h"

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
    struct gguf *gguf;    // instead of shards
};

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
    int rc = w->generated          ? 0
             : arch_is_gguf(model) ? gguf_open(&w->gguf, model, e)
                                   : open_folder(w, e);
    if (rc) {
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
    gguf_close(w->gguf);
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

static const char *const dtype_names[] = {
    [ARCH_F32] = "F32",     [ARCH_BF16] = "BF16", [ARCH_F16] = "F16",
    [ARCH_FP8] = "F8_E4M3", [ARCH_MXFP4] = "U8",
};

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

/* What a tensor of the files must be. */
struct wanted {
    const char *name, *dtype;
    bool any_float; // F32, BF16 or F16 will do
    int n_dims;
    int64_t shape[4];
};

static bool is_float(const char *dtype)
{
    return strcmp(dtype, "F32") == 0 || strcmp(dtype, "BF16") == 0 || strcmp(dtype, "F16") == 0;
}

static const struct safetensors_tensor *find_wanted(const struct weights *w, const struct wanted *x,
                                                    struct err *e)
{
    const struct safetensors_tensor *f = find_in_files(w, x->name);
    if (!f) {
        err_set(e, ERR_INPUT, "%s: tensor %s is missing", w->model, x->name);
        return NULL;
    }
    bool dtype_ok = x->any_float ? is_float(f->dtype) : strcmp(f->dtype, x->dtype) == 0;
    bool shape_ok = f->n_dims == x->n_dims;
    for (int i = 0; shape_ok && i < x->n_dims; i++) {
        shape_ok = f->shape[i] == x->shape[i];
    }
    if (dtype_ok && shape_ok) {
        return f;
    }
    char want[128], is[256];
    describe(want, sizeof want, x->dtype, x->n_dims, x->shape);
    describe(is, sizeof is, f->dtype, f->n_dims, f->shape);
    err_set(e, ERR_INPUT, "%s: wrong %s of tensor %s: found %s, config.json needs %s", w->model,
            shape_ok ? "dtype" : "shape", x->name, is, want);
    return NULL;
}

static enum arch_dtype dtype_of(const char *name)
{
    return strcmp(name, "F32") == 0 ? ARCH_F32 : strcmp(name, "BF16") == 0 ? ARCH_BF16 : ARCH_F16;
}

/* 16 bytes and one exponent for 32 values, as two tensors. */
static int find_mxfp4(const struct weights *w, const struct tensors_place *p,
                      struct weights_tensor *t, struct err *e)
{
    char blocks[TENSORS_NAME_BYTES + 8], scales[TENSORS_NAME_BYTES + 8];
    snprintf(blocks, sizeof blocks, "%s_blocks", p->name);
    snprintf(scales, sizeof scales, "%s_scales", p->name);
    const int64_t groups = p->shape[2] / FORMATS_GROUP;
    const struct wanted b = {blocks, "U8", false, 4, {p->shape[0], p->shape[1], groups, 16}};
    const struct wanted s = {scales, "U8", false, 3, {p->shape[0], p->shape[1], groups}};
    const struct safetensors_tensor *found_b = find_wanted(w, &b, e);
    const struct safetensors_tensor *found_s = found_b ? find_wanted(w, &s, e) : NULL;
    if (!found_s) {
        return -1;
    }
    t->data = found_b->data;
    t->exponents = found_s->data;
    return 0;
}

static int64_t blocks_of(int64_t n)
{
    return (n + FORMATS_FP8_BLOCK - 1) / FORMATS_FP8_BLOCK;
}

static int find_factors(const struct weights *w, struct weights_tensor *t, struct err *e)
{
    char name[TENSORS_NAME_BYTES + 16];
    snprintf(name, sizeof name, "%s_scale_inv", t->name);
    const struct wanted x = {name, "F32", false, 2, {blocks_of(t->n_rows), blocks_of(t->n_cols)}};
    const struct safetensors_tensor *found = find_wanted(w, &x, e);
    t->scales = found ? found->data : NULL;
    return found ? 0 : -1;
}

static int find_stored(const struct weights *w, const struct tensors_shape *s,
                       const struct tensors_place *p, struct weights_tensor *t, struct err *e)
{
    if (t->stored == ARCH_MXFP4) {
        return find_mxfp4(w, p, t, e);
    }
    struct wanted x = {p->name, dtype_names[t->stored], s->exact, p->n_dims, {0}};
    memcpy(x.shape, p->shape, sizeof x.shape);
    const struct safetensors_tensor *found = find_wanted(w, &x, e);
    if (!found) {
        return -1;
    }
    t->stored = s->exact ? dtype_of(found->dtype) : t->stored;
    t->data = found->data;
    return t->stored == ARCH_FP8 ? find_factors(w, t, e) : 0;
}

static enum arch_dtype given_as(enum arch_dtype stored)
{
    return stored == ARCH_FP8 || stored == ARCH_MXFP4 ? ARCH_BF16 : stored;
}

int weights_find(const struct weights *w, enum weights_id id, int layer, int expert,
                 struct weights_tensor *t, struct err *e)
{
    const struct arch *a = &w->arch;
    id = id == WEIGHTS_HEAD && a->tied_embedding ? WEIGHTS_EMBED : id;
    CHECK(tensors_has(a, id, layer) && tensors_is_of_expert(id) == (expert >= 0) &&
          expert < (a->moe.n_experts > 0 ? a->moe.n_experts : 1));
    if (w->gguf) {
        if (gguf_tensors_find(w->gguf, a, id, layer, expert, t, e)) {
            return -1;
        }
        t->dtype = given_as(t->stored);
        return 0;
    }
    const struct tensors_shape s = tensors_shape(a, id);
    const struct tensors_place p = tensors_place(a, id, layer, expert);
    struct weights_tensor r = {
        .n_rows = s.n_rows,
        .n_cols = s.n_cols,
        .stored = s.dtype,
        .first = p.first,
        .row_step = p.row_step,
        .col_step = p.col_step,
        .is_norm = s.is_norm,
    };
    memcpy(r.name, p.name, sizeof r.name);
    if (w->generated) {
        r.key = fill_key(r.name);
        r.add = s.is_norm && a->norm_plus_one ? -1 : 0;
    } else if (find_stored(w, &s, &p, &r, e)) {
        return -1;
    }
    r.dtype = given_as(r.stored);
    *t = r;
    return 0;
}

static int check_tensor(const struct weights *w, enum weights_id id, int layer, struct err *e)
{
    if (!tensors_has(&w->arch, id, layer)) {
        return 0;
    }
    const bool of_expert = tensors_is_of_expert(id);
    struct weights_tensor t;
    for (int x = of_expert ? 0 : -1; x < (of_expert ? w->arch.moe.n_experts : 0); x++) {
        if (weights_find(w, id, layer, x, &t, e)) {
            return -1;
        }
    }
    return 0;
}

int weights_check(const char *model, const struct arch *a, struct err *e)
{
    struct weights *w;
    if (weights_open(&w, model, a, e)) {
        return -1;
    }
    int rc = 0;
    for (int id = 0; id < WEIGHTS_N && rc == 0; id++) {
        int n = tensors_is_of_layer((enum weights_id)id) ? a->n_layers : 1;
        for (int layer = 0; layer < n && rc == 0; layer++) {
            rc = check_tensor(w, (enum weights_id)id, layer, e);
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
    if (w->gguf) {
        str_printf(&text, "%016llx\n", (unsigned long long)gguf_hash(w->gguf));
    }
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

int64_t weights_row_bytes(enum arch_dtype dtype, int64_t n_cols)
{
    switch (dtype) {
    case ARCH_F32:
        return 4 * n_cols;
    case ARCH_BF16:
    case ARCH_F16:
        return 2 * n_cols;
    case ARCH_FP8:
        return n_cols;
    case ARCH_MXFP4:
        return n_cols / FORMATS_GROUP * FORMATS_MXFP4_BYTES;
    case ARCH_INT8:
        return n_cols / FORMATS_GROUP * FORMATS_Q8_0_BYTES;
    case ARCH_INT4:
        return n_cols / FORMATS_GROUP * FORMATS_Q4_0_BYTES;
    }
    return 0;
}

static bool is_grouped(enum arch_dtype dtype)
{
    return dtype == ARCH_INT8 || dtype == ARCH_INT4;
}

/* Rows that need nothing but to be found; copied only where they are apart or not aligned. */
static const void *as_stored(const struct weights_tensor *t, int64_t first, int64_t n,
                             void *scratch)
{
    const int64_t bytes = weights_row_bytes(t->stored, t->n_cols);
    const char *data = (const char *)t->data + weights_row_bytes(t->stored, t->first);
    const uintptr_t alignment = is_grouped(t->stored) ? 1 : t->stored == ARCH_F32 ? 4 : 2;
    const char *at = data + first * bytes;
    if (t->rotary_head == 0 && (uintptr_t)at % alignment == 0) {
        return at;
    }
    for (int64_t i = 0; i < n; i++) {
        memcpy((char *)scratch + i * bytes, data + decode_row(t, first + i) * bytes, (size_t)bytes);
    }
    return scratch;
}

static void put_span(const struct weights_tensor *t, const float *values, size_t n, size_t at,
                     void *out)
{
    if (t->dtype == ARCH_F32) {
        memcpy((float *)out + at, values, n * sizeof *values);
        return;
    }
    uint16_t *to = (uint16_t *)out + at;
    for (size_t i = 0; i < n; i++) {
        to[i] = t->dtype == ARCH_F16 ? f16_from_f32(values[i]) : bf16_from_f32(values[i]);
    }
}

/* Values that are made as they are given, all of them in a row. */
static bool is_made_in_place(const struct weights_tensor *t)
{
    return !t->data && !t->is_norm && t->stored == t->dtype && t->col_step == 1 &&
           t->row_step == t->n_cols && t->rotary_head == 0 && !(t->add != 0) &&
           (t->dtype == ARCH_F32 || t->dtype == ARCH_BF16);
}

static const void *made_rows(const struct weights_tensor *t, int64_t first, int64_t n,
                             void *scratch)
{
    const uint64_t at = (uint64_t)(t->first + first * t->row_step);
    const size_t n_values = (size_t)(n * t->n_cols);
    if (t->dtype == ARCH_F32) {
        fill_f32(t->key, at, n_values, scratch);
    } else {
        fill_bf16(t->key, at, n_values, scratch);
    }
    return scratch;
}

const void *weights_rows(const struct weights_tensor *t, int64_t first, int64_t n, void *scratch)
{
    CHECK(first >= 0 && n >= 0 && first + n <= t->n_rows);
    if (t->data && t->stored == t->dtype && t->col_step == 1 && t->row_step == t->n_cols &&
        !(t->add != 0)) {
        return as_stored(t, first, n, scratch);
    }
    if (is_made_in_place(t)) {
        return made_rows(t, first, n, scratch);
    }
    CHECK(t->dtype == ARCH_F32 || t->dtype == ARCH_F16 || t->dtype == ARCH_BF16);
    for (int64_t col = 0; col < t->n_cols; col += DECODE_SPAN) {
        const size_t wide = (size_t)(t->n_cols - col < DECODE_SPAN ? t->n_cols - col : DECODE_SPAN);
        for (int64_t row = 0; row < n; row++) { // rows of a transposed tensor share cache lines
            float values[DECODE_SPAN];
            decode_span(t, first + row, col, wide, values);
            put_span(t, values, wide, (size_t)(row * t->n_cols + col), scratch);
        }
    }
    return scratch;
}

/* Numbers of a vector that lie in the order of its matrix's rows: from where decode_row says. */
static void put_in_order(const struct weights_tensor *t, float *v)
{
    float *stored = xmalloc((size_t)t->n_cols * sizeof *stored);
    memcpy(stored, v, (size_t)t->n_cols * sizeof *stored);
    for (int64_t i = 0; i < t->n_cols; i++) {
        v[i] = stored[decode_row(t, i)];
    }
    free(stored);
}

void weights_vector(const struct weights_tensor *t, float *out)
{
    for (int64_t col = 0; col < t->n_cols; col += DECODE_SPAN) {
        const int64_t left = t->n_cols - col;
        decode_span(t, 0, col, (size_t)(left < DECODE_SPAN ? left : DECODE_SPAN), out + col);
    }
    if (t->rotary_head > 0) {
        put_in_order(t, out);
    }
}

int64_t weights_stored_bytes(const struct weights_tensor *t)
{
    const int64_t factors = t->stored == ARCH_FP8 ? blocks_of(t->n_rows) * blocks_of(t->n_cols) : 0;
    return t->n_rows * weights_row_bytes(t->stored, t->n_cols) + factors * (int64_t)sizeof(float);
}
