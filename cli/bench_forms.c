#include "cli/bench_forms.h"

#include <string.h>

#include "core/str.h"

#define WEIGHTS "as-is|bf16|int8|int4"
#define KV      "f32|bf16|fp8|int8"

static const char *const weights_names[BENCH_FORMS_WEIGHTS] = {"as-is", "bf16", "int8", "int4"};
static const int weights_bits[BENCH_FORMS_WEIGHTS] = {0, 16, 8, 4};
static const char *const kv_names[BENCH_FORMS_KV] = {"f32", "bf16", "fp8", "int8"};
static const enum arch_dtype kv_dtypes[BENCH_FORMS_KV] = {ARCH_F32, ARCH_BF16, ARCH_FP8, ARCH_INT8};

/* Which of the choices a list names: the indices in `out`, how many returned; -1 and an error. */
static int parse_list(const char *flag, const char *choices, int n_choices, const char *text,
                      int *out, struct err *e)
{
    int n = 0;
    for (const char *p = text; p; p = strchr(p, ',') ? strchr(p, ',') + 1 : NULL) {
        char name[16] = "";
        const size_t len = strcspn(p, ",");
        memcpy(name, p, len < sizeof name ? len : 0);
        const int i = str_choice(choices, name);
        if (i < 0) {
            struct str known = {0};
            str_put_choices(&known, choices);
            err_set(e, ERR_INPUT, "%s: '%.*s' is not one of %s", flag, len < 40 ? (int)len : 40, p,
                    known.data);
            str_free(&known);
            return -1;
        }
        if (n == n_choices) {
            return err_set(e, ERR_INPUT, "%s: '%.40s': each at most once", flag, text);
        }
        out[n++] = i;
    }
    for (; !text && n < n_choices; n++) {
        out[n] = n;
    }
    return n;
}

static int one_of_list(const char *flag, const char *choices, int n_choices, const char *text,
                       struct err *e)
{
    int found[BENCH_FORMS_WEIGHTS];
    const int n = text ? parse_list(flag, choices, n_choices, text, found, e) : 0;
    if (n > 1) {
        return err_set(e, ERR_INPUT, "%s: '%.40s': one of them; a list is for --quality", flag,
                       text);
    }
    return n == 1 ? found[0] : n;
}

int bench_forms_one(struct bench_form *f, const char *backend, const char *weights, const char *kv,
                    struct err *e)
{
    const int w = one_of_list("--weights", WEIGHTS, BENCH_FORMS_WEIGHTS, weights, e);
    if (w < 0) {
        return -1;
    }
    const char *usual = strcmp(backend, "cuda") == 0 ? "bf16" : "f32";
    const int k = one_of_list("--kv", KV, BENCH_FORMS_KV, kv ? kv : usual, e);
    if (k < 0) {
        return -1;
    }
    *f = (struct bench_form){weights_names[w], kv_names[k]};
    return 0;
}

/* Formats that no kernel reads are kept in bfloat16. */
static bool is_bf16(enum arch_dtype stored)
{
    return stored == ARCH_BF16 || stored == ARCH_FP8 || stored == ARCH_MXFP4;
}

static void add(struct bench_forms *f, const char *weights, const char *kv)
{
    for (int i = 0; i < f->n; i++) {
        if (strcmp(f->v[i].weights, weights) == 0 && strcmp(f->v[i].kv, kv) == 0) {
            return;
        }
    }
    f->v[f->n++] = (struct bench_form){weights, kv};
}

int bench_forms_all(struct bench_forms *f, const struct arch *a, const char *weights,
                    const char *kv, struct err *e)
{
    int w[BENCH_FORMS_WEIGHTS], k[BENCH_FORMS_KV];
    const int n_weights = parse_list("--weights", WEIGHTS, BENCH_FORMS_WEIGHTS, weights, w, e);
    const int n_kv = n_weights < 0 ? -1 : parse_list("--kv", KV, BENCH_FORMS_KV, kv, k, e);
    if (n_kv < 0) {
        return -1;
    }
    const bool kept = is_bf16(a->dtype) && is_bf16(a->linear_dtype) &&
                      (a->moe.n_experts == 0 || is_bf16(a->expert_dtype));
    *f = (struct bench_forms){0};
    add(f, "bf16", "bf16");
    for (int i = 0; i < n_weights * n_kv; i++) {
        const char *name = weights_names[w[i / n_kv]];
        add(f, kept && strcmp(name, "as-is") == 0 ? "bf16" : name, kv_names[k[i % n_kv]]);
    }
    return 0;
}

void bench_forms_apply(const struct bench_form *f, struct bench_config *cfg)
{
    cfg->weight_bits = weights_bits[str_choice(WEIGHTS, f->weights)];
    cfg->kv_dtype = kv_dtypes[str_choice(KV, f->kv)];
}
