#include "model/arch.h"

#include "core/mem.h"
#include "core/str.h"
#include "model/arch_config.h"
#include "model/gguf.h"
#include "model/gguf_arch.h"
#include "model/presets.h"

#include <jansson.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define PRESET_PREFIX    "preset:"
#define GGUF_SUFFIX      ".gguf"
#define MAX_CONFIG_BYTES ((size_t)16 << 20)

/* --- what follows from the rest --------------------------------------------------------------- */

void arch_resolve(struct arch *a)
{
    a->v_dim = a->v_dim ? a->v_dim : a->head_dim;
    a->rope_dim = a->rope_dim ? a->rope_dim : a->head_dim;
    a->embed_scale = a->embed_scale != 0 ? a->embed_scale : 1;
    a->attn_scale = a->attn_scale != 0 ? a->attn_scale : (float)(1 / sqrt(a->head_dim));
    a->linear_dtype = a->linear_dtype != ARCH_F32 ? a->linear_dtype : a->dtype;
    a->expert_dtype = a->expert_dtype != ARCH_F32 ? a->expert_dtype : a->linear_dtype;
}

double arch_yarn_mscale(double factor, double k)
{
    return factor <= 1 ? 1 : 0.1 * k * log(factor) + 1;
}

/* To a number of significant bits, ties to even. */
static double rounded(double v, int bits)
{
    int exponent;
    double m = frexp(v, &exponent);
    return ldexp(nearbyint(ldexp(m, bits)), exponent - bits);
}

float arch_embed_scale(const struct arch *a)
{
    double scale = sqrt(a->hidden);
    switch (a->dtype) {
    case ARCH_BF16:
        return (float)rounded(scale, 8);
    case ARCH_F16:
        return (float)rounded(scale, 11);
    default:
        return (float)scale;
    }
}

/* --- from text and names ---------------------------------------------------------------------- */

int arch_parse(const char *json, size_t len, const char *where, struct arch *a, struct err *e)
{
    json_error_t je;
    json_t *root = json_loadb(json, len, JSON_REJECT_DUPLICATES, &je);
    if (!root) {
        return err_set(e, ERR_INPUT, "%s:%d: not JSON: %s", where, je.line, je.text);
    }
    struct arch parsed = {0};
    const struct config_reader r = {.root = root, .where = where, .e = e};
    int rc = arch_config_read(&r, &parsed);
    if (rc == 0) {
        *a = parsed;
    }
    json_decref(root);
    return rc;
}

const char *arch_dtype_name(enum arch_dtype dtype)
{
    static const char *const names[ARCH_N_DTYPES] = {
        [ARCH_F32] = "f32",     [ARCH_BF16] = "bf16", [ARCH_F16] = "f16",   [ARCH_FP8] = "fp8",
        [ARCH_MXFP4] = "mxfp4", [ARCH_INT8] = "int8", [ARCH_INT4] = "int4",
    };
    CHECK(dtype < ARCH_N_DTYPES);
    return names[dtype];
}

bool arch_is_preset(const char *model)
{
    return strncmp(model, PRESET_PREFIX, strlen(PRESET_PREFIX)) == 0;
}

static int open_preset(const char *model, struct arch *a, struct err *e)
{
    const char *config;
    int n_layers;
    struct arch whole;
    if (presets_find(model + strlen(PRESET_PREFIX), &config, &n_layers, e) ||
        arch_parse(config, strlen(config), model, &whole, e)) {
        return -1;
    }
    if (n_layers > whole.n_layers) {
        return err_set(e, ERR_INPUT, "model %s: the model has %d layers", model, whole.n_layers);
    }
    whole.n_layers = n_layers ? n_layers : whole.n_layers;
    *a = whole;
    return 0;
}

bool arch_is_gguf(const char *model)
{
    size_t n = strlen(model), suffix = strlen(GGUF_SUFFIX);
    return !arch_is_preset(model) && n > suffix && strcmp(model + n - suffix, GGUF_SUFFIX) == 0;
}

bool arch_is_folder(const char *model)
{
    return !arch_is_preset(model) && !arch_is_gguf(model);
}

static int open_gguf(const char *model, struct arch *a, struct err *e)
{
    struct gguf *g;
    if (gguf_open(&g, model, e)) {
        return -1;
    }
    int rc = gguf_arch_read(g, a, e);
    gguf_close(g);
    return rc;
}

int arch_open(const char *model, struct arch *a, struct err *e)
{
    if (arch_is_preset(model)) {
        return open_preset(model, a, e);
    }
    if (arch_is_gguf(model)) {
        return open_gguf(model, a, e);
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
