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

/* Where logits of a sample go: the batch's rows, or this rank's part of them; NULL: nowhere. */
static float *logits_row(const struct phases *p, size_t sample)
{
    if (!p->io.logits) {
        return NULL;
    }
    const size_t part = (size_t)shard_most_vocab(p->cfg.arch, p->shard.size);
    return p->shard.size > 1 ? p->part_logits + sample * part
                             : p->io.logits + sample * (size_t)p->cfg.arch->vocab;
}

static void head_panels(const struct phases_walk *w, const struct kernels_rows *x, int first,
                        int end)
{
    struct phases *p = w->p;
    const struct matrix *m = packed_head(p->cfg.weights);
    const struct phases_member *me = &p->members[w->member];
    const size_t ld = PHASES_HEAD_PANELS * MATRIX_PANEL;
    kernels_matmul(p->cfg.kernels, m, first, end, x, p->n_samples, me->logits, ld, KERNELS_SET);
    const int first_id = first * MATRIX_PANEL;
    const int n = least((end - first) * MATRIX_PANEL, m->n_rows - first_id);
    for (size_t i = 0; i < (size_t)p->n_samples; i++) {
        float *logits = me->logits + i * ld;
        if (p->cfg.arch->logit_softcap > 0) {
            p->cfg.kernels->softcap(logits, n, p->cfg.arch->logit_softcap);
        }
        look(p->cfg.kernels, logits, n, p->shard.vocab.first + first_id, &me->best[i], &me->ids[i]);
        float *row = logits_row(p, i);
        if (row) {
            memcpy(row + first_id, logits, (size_t)n * sizeof *logits);
        }
    }
}

/* The best of all members: they hold ascending ranges of ids, so the first of equals is the lowest. */
static struct phases_found best_of_members(const struct phases *p, int sample)
{
    struct phases_found best = {.value = -FLT_MAX};
    for (int m = 0; m < p->cfg.n_members; m++) {
        const struct phases_member *member = &p->members[m];
        if (member->best[sample] > best.value) {
            best = (struct phases_found){member->best[sample], member->ids[sample]};
        }
    }
    return best;
}

/* Likewise of all ranks. */
static void merge_ranks(const struct phases *p)
{
    const size_t n = (size_t)p->n_samples;
    p->cfg.group.gather(p->cfg.group.ctx, p->mine, n * sizeof *p->mine, p->all);
    for (size_t r = 0; r < (size_t)p->shard.size; r++) {
        for (size_t i = 0; i < n; i++) {
            const struct phases_found *found = &p->all[r * n + i];
            if (r == 0 || found->value > p->mine[i].value) {
                p->mine[i] = *found;
            }
        }
    }
}

/* The ranks' parts of the logits, side by side. */
static void merge_logits(const struct phases *p)
{
    const struct arch *a = p->cfg.arch;
    const size_t part = (size_t)shard_most_vocab(a, p->shard.size), n = (size_t)p->n_samples;
    const struct shard_group *g = &p->cfg.group;
    g->gather(g->ctx, p->part_logits, n * part * sizeof(float), p->all_logits);
    for (int r = 0; r < p->shard.size; r++) {
        const struct shard_span vocab = shard_vocab(a, r, p->shard.size);
        for (size_t i = 0; i < n; i++) {
            memcpy(p->io.logits + i * (size_t)a->vocab + vocab.first,
                   p->all_logits + ((size_t)r * n + i) * part, (size_t)vocab.n * sizeof(float));
        }
    }
}

static void merge(const struct phases *p)
{
    for (uint32_t i = 0; i < p->io.batch->n_rows; i++) {
        p->io.ids[i] = -1;
    }
    for (int i = 0; i < p->n_samples; i++) {
        p->mine[i] = best_of_members(p, i);
    }
    if (p->shard.size > 1 && p->n_samples > 0) {
        merge_ranks(p);
        if (p->io.logits) {
            merge_logits(p);
        }
    }
    for (int i = 0; i < p->n_samples; i++) {
        p->io.ids[p->sample_rows[i]] = p->mine[i].id;
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
        merge(p);
    }
    phases_impl_meet(w);
}
