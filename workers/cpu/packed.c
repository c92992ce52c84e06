#include "workers/cpu/packed.h"

#include "core/mem.h"
#include "workers/weights/weights.h"

#include <stdlib.h>

#define ROWS_AT_A_TIME MATRIX_PANEL

struct loader {
    const struct weights *weights;
    const struct arch *arch;
    void *scratch; // (ROWS_AT_A_TIME, widest matrix)
    struct packed *packed;
    struct err *e;
};

/* Row i of the tensor goes to row `at` + i of the matrix; `stride` 2 leaves every second panel free. */
static int load_rows(struct loader *l, enum weights_id id, int layer, struct matrix *m, int at,
                     int stride)
{
    struct weights_tensor t;
    if (weights_find(l->weights, id, layer, &t, l->e)) {
        return -1;
    }
    for (int64_t row = 0; row < t.n_rows; row += ROWS_AT_A_TIME) {
        int64_t n = t.n_rows - row < ROWS_AT_A_TIME ? t.n_rows - row : ROWS_AT_A_TIME;
        matrix_pack(m, at + (int)row * stride, (int)n, t.dtype,
                    weights_rows(&t, row, n, l->scratch));
    }
    l->packed->n_bytes += t.n_rows * t.n_cols * weights_value_bytes(t.dtype);
    return 0;
}

static int load_vector(struct loader *l, enum weights_id id, int layer, float **out)
{
    struct weights_tensor t;
    if (weights_find(l->weights, id, layer, &t, l->e)) {
        return -1;
    }
    *out = mem_aligned((size_t)matrix_padded((int)t.n_cols) * sizeof **out);
    if (!*out) {
        return err_set(l->e, ERR_ENV, "no memory for tensor %s", t.name);
    }
    weights_vector(&t, *out);
    l->packed->n_bytes += t.n_cols * weights_value_bytes(t.dtype);
    return 0;
}

static int load_layer(struct loader *l, int layer, struct packed_layer *p)
{
    const struct arch *a = l->arch;
    const int q = a->n_heads * a->head_dim, kv = a->n_kv_heads * a->head_dim;
    if (load_vector(l, WEIGHTS_ATTN_NORM, layer, &p->attn_norm) ||
        load_vector(l, WEIGHTS_MLP_NORM, layer, &p->mlp_norm) ||
        matrix_init(&p->qkv, q + 2 * kv, a->hidden, a->dtype, l->e) ||
        matrix_init(&p->o, a->hidden, q, a->dtype, l->e) ||
        matrix_init(&p->gate_up, 2 * matrix_padded(a->intermediate), a->hidden, a->dtype, l->e) ||
        matrix_init(&p->down, a->hidden, a->intermediate, a->dtype, l->e)) {
        return -1;
    }
    if (load_rows(l, WEIGHTS_Q, layer, &p->qkv, 0, 1) ||
        load_rows(l, WEIGHTS_K, layer, &p->qkv, q, 1) ||
        load_rows(l, WEIGHTS_V, layer, &p->qkv, q + kv, 1) ||
        load_rows(l, WEIGHTS_O, layer, &p->o, 0, 1) ||
        load_rows(l, WEIGHTS_GATE, layer, &p->gate_up, 0, 2) ||
        load_rows(l, WEIGHTS_UP, layer, &p->gate_up, MATRIX_PANEL, 2) ||
        load_rows(l, WEIGHTS_DOWN, layer, &p->down, 0, 1)) {
        return -1;
    }
    return 0;
}

static int load_ends(struct loader *l, const struct packed_part *part)
{
    const struct arch *a = l->arch;
    struct packed *p = l->packed;
    if (part->has_embed && (matrix_init(&p->embed, a->vocab, a->hidden, a->dtype, l->e) ||
                            load_rows(l, WEIGHTS_EMBED, 0, &p->embed, 0, 1))) {
        return -1;
    }
    if (!part->has_head) {
        return 0;
    }
    if (load_vector(l, WEIGHTS_NORM, 0, &p->norm)) {
        return -1;
    }
    if (part->has_embed && a->tied_embedding) {
        return 0;
    }
    if (matrix_init(&p->head, a->vocab, a->hidden, a->dtype, l->e) ||
        load_rows(l, WEIGHTS_HEAD, 0, &p->head, 0, 1)) {
        return -1;
    }
    return 0;
}

static int widest(const struct arch *a)
{
    int w = a->hidden > a->intermediate ? a->hidden : a->intermediate;
    int q = a->n_heads * a->head_dim;
    return w > q ? w : q;
}

static int load_all(struct loader *l, const struct packed_part *part)
{
    l->scratch = mem_aligned((size_t)ROWS_AT_A_TIME * (size_t)widest(l->arch) * sizeof(float));
    if (!l->scratch) {
        return err_set(l->e, ERR_ENV, "no memory for a row of weights");
    }
    for (int i = 0; i < part->n_layers; i++) {
        if (load_layer(l, part->first_layer + i, &l->packed->layers[i])) {
            return -1;
        }
    }
    return load_ends(l, part);
}

int packed_load(struct packed *p, const char *model, const struct arch *a,
                const struct packed_part *part, struct err *e)
{
    CHECK(part->first_layer >= 0 && part->n_layers >= 1 &&
          part->first_layer + part->n_layers <= a->n_layers);
    struct weights *w;
    if (weights_open(&w, model, a, e)) {
        return -1;
    }
    *p = (struct packed){
        .n_layers = part->n_layers,
        .layers = xcalloc((size_t)part->n_layers, sizeof *p->layers),
    };
    struct loader l = {.weights = w, .arch = a, .packed = p, .e = e};
    int rc = load_all(&l, part);
    free(l.scratch);
    weights_close(w);
    if (rc) {
        packed_free(p);
    }
    return rc;
}

void packed_free(struct packed *p)
{
    for (int i = 0; i < p->n_layers; i++) {
        struct packed_layer *l = &p->layers[i];
        free(l->attn_norm);
        free(l->mlp_norm);
        matrix_free(&l->qkv);
        matrix_free(&l->o);
        matrix_free(&l->gate_up);
        matrix_free(&l->down);
    }
    free(p->layers);
    matrix_free(&p->embed);
    matrix_free(&p->head);
    free(p->norm);
    *p = (struct packed){0};
}

const struct matrix *packed_head(const struct packed *p)
{
    return p->head.data ? &p->head : &p->embed;
}
