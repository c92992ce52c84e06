#include "workers/weights/maker.h"

#include <dirent.h>
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "core/mem.h"
#include "model/arch.h"
#include "model/presets.h"
#include "workers/weights/bf16.h"
#include "workers/weights/f16.h"
#include "workers/weights/fill.h"
#include "workers/weights/formats.h"
#include "workers/weights/tensors.h"
#include "workers/weights/writer.h"

enum {
    PIECE = 1 << 16, // values at a time, a multiple of every group
    FP8_EXPONENT = 12,
    MXFP4_EXPONENT = 7,
};

/* One tensor of the files, and how its values come about. */
struct made {
    struct writer_tensor file;
    enum content {
        VALUES,   // of `stored`
        CONSTANT, // all `constant`, float32 or of `stored`
        CODES,    // 4-bit, two a byte
        BYTES,    // all the byte `constant`
    } content;
    enum arch_dtype stored;
    float constant;
    uint64_t key;
    int64_t n_values;
};

struct maker {
    const struct maker_config *cfg;
    struct arch arch;
    struct writer *writer;
    struct made *made; // (n_made)
    size_t n_made, cap;
    int64_t n_done;
    float *values; // (PIECE)
    void *piece;   // (PIECE) in the stored form
};

/* --- what there is to write ------------------------------------------------------------------------ */

static const char *dtype_name(enum arch_dtype dtype)
{
    switch (dtype) {
    case ARCH_BF16:
        return "BF16";
    case ARCH_F16:
        return "F16";
    case ARCH_FP8:
        return "F8_E4M3";
    default:
        return "F32";
    }
}

static int64_t value_bytes(enum arch_dtype dtype)
{
    return dtype == ARCH_F32 ? 4 : dtype == ARCH_FP8 ? 1 : 2;
}

static void declare(struct maker *m, const struct made *t, int64_t n_bytes)
{
    if (m->n_made == m->cap) {
        m->cap = m->cap ? 2 * m->cap : 256;
        m->made = xrealloc(m->made, m->cap * sizeof *m->made);
    }
    struct made *to = &m->made[m->n_made++];
    *to = *t;
    to->file.n_bytes = n_bytes;
    writer_declare(m->writer, &to->file);
}

static int64_t blocks_of(int64_t n)
{
    return (n + FORMATS_FP8_BLOCK - 1) / FORMATS_FP8_BLOCK;
}

static void declare_fp8_factors(struct maker *m, const struct made *t)
{
    struct made f = {.content = CONSTANT, .stored = ARCH_F32, .constant = 0x1p-12f};
    snprintf(f.file.name, sizeof f.file.name, "%.100s_scale_inv", t->file.name);
    f.file.dtype = "F32";
    f.file.n_dims = 2;
    f.file.shape[0] = blocks_of(t->file.shape[0]);
    f.file.shape[1] = blocks_of(t->file.shape[1]);
    f.n_values = f.file.shape[0] * f.file.shape[1];
    declare(m, &f, f.n_values * 4);
}

/* Blocks of 16 bytes, and an exponent each, for 32 values of the last dimension. */
static void declare_mxfp4(struct maker *m, const struct made *t)
{
    struct made blocks = *t, scales = *t;
    int64_t groups = t->file.shape[2] / FORMATS_GROUP;
    snprintf(blocks.file.name, sizeof blocks.file.name, "%.100s_blocks", t->file.name);
    snprintf(scales.file.name, sizeof scales.file.name, "%.100s_scales", t->file.name);
    blocks.file.dtype = scales.file.dtype = "U8";
    blocks.content = CODES;
    blocks.file.n_dims = 4;
    blocks.file.shape[2] = scales.file.shape[2] = groups;
    blocks.file.shape[3] = FORMATS_GROUP / 2;
    scales.content = BYTES;
    scales.constant = 127 - MXFP4_EXPONENT;
    scales.n_values = t->n_values / FORMATS_GROUP;
    declare(m, &blocks, t->n_values / 2);
    declare(m, &scales, scales.n_values);
}

static uint64_t key_of(const struct maker *m, const char *name)
{
    return fill_key(name) ^ m->cfg->seed * 0x9e3779b97f4a7c15u;
}

static void declare_tensor(struct maker *m, enum weights_id id, int layer, int expert)
{
    const struct tensors_place p = tensors_place(&m->arch, id, layer, expert);
    if (p.first != 0) {
        return; // inside a tensor that another one begins
    }
    const struct tensors_shape s = tensors_shape(&m->arch, id);
    struct made t = {
        .content = s.is_norm ? CONSTANT : VALUES,
        .stored = s.exact ? m->arch.dtype : s.dtype,
        .constant = m->arch.norm_plus_one ? 0 : 1, // a norm that only norms
        .key = key_of(m, p.name),
        .n_values = 1,
    };
    snprintf(t.file.name, sizeof t.file.name, "%s", p.name);
    t.file.n_dims = p.n_dims;
    for (int i = 0; i < p.n_dims; i++) {
        t.file.shape[i] = p.shape[i];
        t.n_values *= p.shape[i];
    }
    if (t.stored == ARCH_MXFP4) {
        declare_mxfp4(m, &t);
        return;
    }
    t.file.dtype = dtype_name(t.stored);
    declare(m, &t, t.n_values * value_bytes(t.stored));
    if (t.stored == ARCH_FP8) {
        declare_fp8_factors(m, &t);
    }
}

static void declare_id(struct maker *m, enum weights_id id, int layer)
{
    if (!tensors_has(&m->arch, id, layer)) {
        return;
    }
    if (!tensors_is_of_expert(id)) {
        declare_tensor(m, id, layer, -1);
        return;
    }
    for (int expert = 0; expert < m->arch.moe.n_experts; expert++) {
        declare_tensor(m, id, layer, expert);
    }
}

static void declare_all(struct maker *m)
{
    declare_id(m, WEIGHTS_EMBED, 0);
    for (int layer = 0; layer < m->arch.n_layers; layer++) {
        for (int id = 0; id < WEIGHTS_N; id++) {
            if (tensors_is_of_layer((enum weights_id)id)) {
                declare_id(m, (enum weights_id)id, layer);
            }
        }
    }
    declare_id(m, WEIGHTS_NORM, 0);
    declare_id(m, WEIGHTS_HEAD, 0);
}

/* --- values ---------------------------------------------------------------------------------------- */

static void encode(struct maker *m, const struct made *t, size_t n)
{
    uint16_t *halves = m->piece;
    uint8_t *codes = m->piece;
    for (size_t i = 0; i < n; i++) {
        float v = m->values[i];
        switch (t->stored) {
        case ARCH_BF16:
            halves[i] = bf16_from_f32(v);
            break;
        case ARCH_F16:
            halves[i] = f16_from_f32(v);
            break;
        case ARCH_FP8:
            codes[i] = formats_to_e4m3(v * (1 << FP8_EXPONENT));
            break;
        default:
            memcpy((float *)m->piece + i, &v, sizeof v);
        }
    }
}

static void encode_4_bits(struct maker *m, size_t n)
{
    uint8_t *codes = m->piece;
    for (size_t i = 0; i < n; i += 2) {
        unsigned low = formats_to_e2m1(m->values[i] * (1 << MXFP4_EXPONENT));
        unsigned high = formats_to_e2m1(m->values[i + 1] * (1 << MXFP4_EXPONENT));
        codes[i / 2] = (uint8_t)(low | high << 4);
    }
}

/* Values at .. at + n - 1 into m->piece; how many bytes. */
static size_t make_piece(struct maker *m, const struct made *t, int64_t at, size_t n)
{
    if (t->content == BYTES) {
        memset(m->piece, (int)t->constant, n);
        return n;
    }
    if (t->content == CONSTANT) {
        for (size_t i = 0; i < n; i++) {
            m->values[i] = t->constant;
        }
    } else {
        fill_f32(t->key, (uint64_t)at, n, m->values);
    }
    if (t->content == CODES) {
        encode_4_bits(m, n);
        return n / 2;
    }
    encode(m, t, n);
    return n * (size_t)value_bytes(t->stored);
}

static int write_tensor(struct maker *m, const struct made *t, struct err *e)
{
    for (int64_t at = 0; at < t->n_values; at += PIECE) {
        size_t n = t->n_values - at < PIECE ? (size_t)(t->n_values - at) : PIECE;
        size_t n_bytes = make_piece(m, t, at, n);
        if (writer_put(m->writer, m->piece, n_bytes, e)) {
            return -1;
        }
        m->n_done += (int64_t)n_bytes;
        if (m->cfg->progress) {
            m->cfg->progress(m->cfg->arg, m->n_done, writer_bytes(m->writer));
        }
    }
    return 0;
}

/* --- the folder ------------------------------------------------------------------------------------ */

static const char *architecture_of(const char *family)
{
    static const char *const names[][2] = {
        {"llama", "LlamaForCausalLM"},
        {"qwen2", "Qwen2ForCausalLM"},
        {"gemma2", "Gemma2ForCausalLM"},
        {"gpt_oss", "GptOssForCausalLM"},
        {"deepseek_v3", "DeepseekV3ForCausalLM"},
    };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        if (strcmp(names[i][0], family) == 0) {
            return names[i][1];
        }
    }
    return NULL;
}

/* Takes the reference. */
static int put_json(const struct maker *m, const char *name, json_t *root, struct err *e)
{
    char *path = xasprintf("%s/%s", m->cfg->folder, name);
    int rc = json_dump_file(root, path, JSON_INDENT(2) | JSON_REAL_PRECISION(15))
                 ? err_set(e, ERR_ENV, "%s: %s", path, strerror(errno))
                 : 0;
    free(path);
    json_decref(root);
    return rc;
}

/* The preset's text, cut to as many layers as its name says. */
static int write_config(const struct maker *m, struct err *e)
{
    const char *text;
    int n_layers;
    if (presets_find(m->cfg->preset, &text, &n_layers, e)) {
        return -1;
    }
    json_t *root = json_loads(text, 0, NULL);
    const char *architecture = architecture_of(m->arch.family);
    CHECK(root && architecture);
    json_object_set_new(root, "architectures", json_pack("[s]", architecture));
    json_object_set_new(root, "num_hidden_layers", json_integer(m->arch.n_layers));
    if (json_integer_value(json_object_get(root, "first_k_dense_replace")) > m->arch.n_layers) {
        json_object_set_new(root, "first_k_dense_replace", json_integer(m->arch.n_layers));
    }
    return put_json(m, "config.json", root, e);
}

static int write_origin(const struct maker *m, struct err *e)
{
    json_t *root = json_pack("{s:s, s:s, s:I}", "schema", "tidemark.made/1", "preset",
                             m->cfg->preset, "seed", (json_int_t)m->cfg->seed);
    return put_json(m, MAKER_FILE, root, e);
}

static int make_folder(const char *path, struct err *e)
{
    if (mkdir(path, 0777) == 0) {
        return 0;
    }
    DIR *dir = errno == EEXIST ? opendir(path) : NULL;
    if (!dir) {
        return err_set(e, ERR_INPUT, "%s: %s", path, strerror(errno));
    }
    int n = 0;
    while (readdir(dir)) {
        n++;
    }
    closedir(dir);
    return n <= 2 ? 0 : err_set(e, ERR_INPUT, "%s: not empty; a new folder is wanted", path);
}

static int write_weights(struct maker *m, struct err *e)
{
    declare_all(m);
    for (size_t i = 0; i < m->n_made; i++) {
        if (write_tensor(m, &m->made[i], e)) {
            return -1;
        }
    }
    return writer_finish(m->writer, e);
}

int maker_write(const struct maker_config *cfg, struct err *e)
{
    struct maker m = {.cfg = cfg};
    char *model = xasprintf("preset:%s", cfg->preset);
    int rc = arch_open(model, &m.arch, e) || make_folder(cfg->folder, e) ? -1 : 0;
    if (rc == 0) {
        m.writer = writer_create(cfg->folder, cfg->shard_bytes);
        m.values = xcalloc(PIECE, sizeof *m.values);
        m.piece = xcalloc(PIECE, sizeof(float));
        rc = write_weights(&m, e) || write_origin(&m, e) || write_config(&m, e) ? -1 : 0;
    }
    writer_destroy(m.writer);
    free(m.values);
    free(m.piece);
    free(m.made);
    free(model);
    return rc;
}
