/* The head: norm, logits and the largest of them. */
#include "workers/cpu/phases_impl.h"

#include <float.h>
#include <string.h>

static int least(int a, int b)
{
    return a < b ? a : b;
}

/* Look for a value above the best so far; the first of equals stays. */
static void look(const struct kernels *k, const float *logits, int n, int first_id, float *best,
                 int32_t *id)
{
    float largest = k->max(logits, n);
    if (!(largest > *best)) {
        return;
    }
    int i = 0;
    while (logits[i] != largest && i < n - 1) {
        i++;
    }
    *best = largest;
    *id = first_id + i;
}

static void head_panels(const struct phases_walk *w, const struct kernels_rows *x, int first,
                        int end)
{
    struct phases *p = w->p;
    const struct matrix *m = packed_head(p->cfg.weights);
    const struct phases_member *me = &p->members[w->member];
    const size_t ld = PHASES_HEAD_PANELS * MATRIX_PANEL, vocab = (size_t)p->cfg.arch->vocab;
    kernels_matmul(p->cfg.kernels, m, first, end, x, p->n_samples, me->logits, ld, KERNELS_SET);
    const int first_id = first * MATRIX_PANEL;
    const int n = least((end - first) * MATRIX_PANEL, m->n_rows - first_id);
    for (size_t i = 0; i < (size_t)p->n_samples; i++) {
        float *logits = me->logits + i * ld;
        if (p->cfg.arch->logit_softcap > 0) {
            p->cfg.kernels->softcap(logits, n, p->cfg.arch->logit_softcap);
        }
        look(p->cfg.kernels, logits, n, first_id, &me->best[i], &me->ids[i]);
        if (p->io.logits) {
            memcpy(p->io.logits + i * vocab + (size_t)first_id, logits, (size_t)n * sizeof *logits);
        }
    }
}

/* Members hold ascending ranges of ids, so the first of equals is the lowest id. */
static void merge_ids(const struct phases *p)
{
    for (uint32_t i = 0; i < p->io.batch->n_rows; i++) {
        p->io.ids[i] = -1;
    }
    for (int i = 0; i < p->n_samples; i++) {
        float best = -FLT_MAX;
        int32_t id = 0;
        for (int m = 0; m < p->cfg.n_members; m++) {
            if (p->members[m].best[i] > best) {
                best = p->members[m].best[i];
                id = p->members[m].ids[i];
            }
        }
        p->io.ids[p->sample_rows[i]] = id;
    }
}

void phases_head(void *ctx)
{
    const struct phases_walk *w = ctx;
    struct phases *p = w->p;
    const struct phases_member *me = &p->members[w->member];
    const struct matrix *m = packed_head(p->cfg.weights);
    const float *x = phases_impl_normed(w, p->cfg.weights->norm, p->sample_tokens, p->n_samples);
    const struct kernels_rows rows = phases_impl_input(w, m, x, p->ld.hidden, p->n_samples);
    for (int i = 0; i < p->n_samples; i++) {
        me->best[i] = -FLT_MAX;
        me->ids[i] = 0;
    }
    struct phases_range r = phases_impl_share(w, m->n_panels);
    for (int panel = r.from; panel < r.to && p->n_samples > 0; panel += PHASES_HEAD_PANELS) {
        head_panels(w, &rows, panel, least(panel + (int)PHASES_HEAD_PANELS, r.to));
    }
    phases_impl_meet(w);
    if (w->member == 0) {
        merge_ids(p);
    }
    phases_impl_meet(w);
}
