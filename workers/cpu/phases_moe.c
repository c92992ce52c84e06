/*
 * Mixture of experts. Tokens are sorted by expert; an expert's tokens are rows of small products, shared
 * over members by units of (expert, panels). The outputs of a token's experts are added in the order of
 * the experts' numbers, so sums do not depend on the batch.
 */
#include "workers/cpu/phases_impl.h"

#include <string.h>

static int least(int a, int b)
{
    return a < b ? a : b;
}

/* --- routing ---------------------------------------------------------------------------------- */

static void choose(const struct phases_walk *w, int layer)
{
    struct phases *p = w->p;
    const struct arch *a = p->cfg.arch;
    const size_t top_k = (size_t)a->moe.top_k;
    const struct phases_range mine = phases_impl_share(w, p->n_tokens);
    for (uint32_t i = 0; i < p->io.batch->n_rows; i++) {
        const struct batch_row *r = &p->io.batch->rows[i];
        for (uint32_t t = 0; t < r->n_tokens; t++) {
            const size_t at = r->first + t;
            if ((int)at < mine.from || (int)at >= mine.to) {
                continue;
            }
            const struct router_place place = {
                .layer = p->cfg.part.first_layer + layer,
                .token = p->io.batch->tokens[at],
                .pos = r->pos + t,
            };
            router_choose(a, &p->cfg.routing, p->router_logits + at * p->ld.experts,
                          p->cfg.weights->layers[layer].experts.correction_bias, &place,
                          p->chosen + at * top_k, p->weights + at * top_k);
        }
    }
}

/* Slots by expert, in the order of tokens. */
static void sort_slots(struct phases *p)
{
    const int n_experts = p->cfg.arch->moe.n_experts;
    const int n_slots = p->n_tokens * p->cfg.arch->moe.top_k;
    int *first = p->expert_first;
    memset(first, 0, (size_t)(n_experts + 1) * sizeof *first);
    for (int i = 0; i < n_slots; i++) {
        first[p->chosen[i] + 1]++;
    }
    p->n_busy = 0;
    for (int x = 0; x < n_experts; x++) {
        if (first[x + 1] > 0) {
            p->busy[p->n_busy++] = x;
        }
        first[x + 1] += first[x];
    }
    for (int i = 0; i < n_slots; i++) {
        p->sorted[first[p->chosen[i]]++] = i; // moves each beginning to its end
    }
    memmove(first + 1, first, (size_t)n_experts * sizeof *first);
    first[0] = 0;
}

void phases_moe_route(void *ctx, int layer)
{
    const struct phases_walk *w = ctx;
    struct phases *p = w->p;
    const struct packed_layer *weights = &p->cfg.weights->layers[layer];
    const struct matrix *m = &weights->experts.router;
    phases_impl_norm_all(w, weights->mlp_norm);
    const struct kernels_rows rows = phases_impl_input(w, m, p->normed, p->ld.hidden, p->n_tokens);
    phases_impl_product(p, m, phases_impl_share(w, m->n_panels), &rows, p->n_tokens,
                        weights->experts.router_bias, p->router_logits, p->ld.experts);
    phases_impl_meet(w);
    choose(w, layer);
    phases_impl_meet(w);
    if (w->member == 0) {
        sort_slots(p);
    }
    phases_impl_meet(w);
}

/* --- the experts' MLPs ------------------------------------------------------------------------ */

/* Rows of an expert's slots first .. first + n - 1 of `sorted`, side by side in `out`. */
static struct kernels_rows gather(const struct phases *p, const struct kernels_rows *x, int first,
                                  int n, char *out)
{
    const int top_k = p->cfg.arch->moe.top_k;
    const char *data = x->data;
    struct kernels_rows rows = *x;
    if (n == 1) {
        rows.data = data + (size_t)(p->sorted[first] / top_k) * x->stride;
        return rows;
    }
    for (int i = 0; i < n; i++) {
        memcpy(out + (size_t)i * x->stride,
               data + (size_t)(p->sorted[first + i] / top_k) * x->stride, x->stride);
    }
    rows.data = out;
    return rows;
}

/* Gate and up of some panels of one expert, and the activation, for all its tokens. */
static void expert_in(const struct phases_walk *w, int layer, int expert, struct phases_range pairs,
                      const struct kernels_rows *x)
{
    struct phases *p = w->p;
    const struct packed_experts *weights = &p->cfg.weights->layers[layer].experts;
    const struct phases_member *me = &p->members[w->member];
    const size_t wide = 2 * p->ld.expert, ld = 2 * (size_t)(pairs.to - pairs.from) * MATRIX_PANEL;
    const float *bias = weights->gate_up_bias ? weights->gate_up_bias + (size_t)expert * wide +
                                                    2 * (size_t)pairs.from * MATRIX_PANEL
                                              : NULL;
    const int end = p->expert_first[expert + 1];
    for (int i = p->expert_first[expert], n; i < end; i += n) {
        n = least(end - i, PHASES_EXPERT_ROWS);
        const struct kernels_rows rows = gather(p, x, i, n, me->gathered);
        for (int row = 0; bias && row < n; row++) {
            memcpy(me->made + (size_t)row * ld, bias, ld * sizeof *bias);
        }
        kernels_matmul(p->cfg.kernels, &weights->gate_up[expert], 2 * pairs.from, 2 * pairs.to,
                       &rows, n, me->made, ld, bias ? KERNELS_ADD : KERNELS_SET);
        for (int row = 0; row < n; row++) {
            float *act = p->expert_act + (size_t)(i + row) * p->ld.expert;
            p->cfg.kernels->gate(p->cfg.arch->activation, act + pairs.from * MATRIX_PANEL,
                                 me->made + (size_t)row * ld, pairs.to - pairs.from);
        }
    }
}

/* Some columns of what one expert gives its tokens, weighed, onto those of the hidden states. */
static void expert_out(const struct phases_walk *w, int layer, int expert,
                       struct phases_range panels, const struct kernels_rows *x)
{
    struct phases *p = w->p;
    const struct packed_experts *weights = &p->cfg.weights->layers[layer].experts;
    float *made = p->members[w->member].made;
    float *sum = phases_impl_apart(p, NULL) ? p->branch : p->x;
    const size_t first = (size_t)panels.from * MATRIX_PANEL;
    const size_t ld = (size_t)(panels.to - panels.from) * MATRIX_PANEL;
    const float *bias =
        weights->down_bias
            ? weights->down_bias + (size_t)(expert * matrix_padded(p->cfg.arch->hidden)) + first
            : NULL;
    const int end = p->expert_first[expert + 1];
    for (int i = p->expert_first[expert], n; i < end; i += n) {
        n = least(end - i, PHASES_EXPERT_ROWS);
        struct kernels_rows rows = *x;
        rows.data = (const char *)x->data + (size_t)i * x->stride;
        for (int row = 0; bias && row < n; row++) {
            memcpy(made + (size_t)row * ld, bias, ld * sizeof *bias);
        }
        kernels_matmul(p->cfg.kernels, &weights->down[expert], panels.from, panels.to, &rows, n,
                       made, ld, bias ? KERNELS_ADD : KERNELS_SET);
        for (int row = 0; row < n; row++) {
            const int slot = p->sorted[i + row];
            const float weight = p->weights[slot], *from = made + (size_t)row * ld;
            const size_t token = (size_t)(slot / p->cfg.arch->moe.top_k);
            float *to = sum + token * p->ld.hidden + first;
            for (size_t k = 0; k < ld; k++) {
                to[k] += weight * from[k];
            }
        }
    }
}

/* Where sums go to the branch, they begin with nothing. */
static void clear_branch(const struct phases *p, struct phases_range panels)
{
    const size_t n = (size_t)(panels.to - panels.from) * MATRIX_PANEL;
    for (size_t i = 0; phases_impl_apart(p, NULL) && i < (size_t)p->n_tokens; i++) {
        float *branch = p->branch + i * p->ld.hidden + (size_t)panels.from * MATRIX_PANEL;
        memset(branch, 0, n * sizeof *branch);
    }
}

/* Panels of a unit: enough units for the members to share evenly. */
static int unit_panels(const struct phases *p, int n_panels, int most)
{
    const int n = n_panels / (4 * p->cfg.n_members);
    return n < 1 ? 1 : n > most ? most : n;
}

void phases_moe_experts(void *ctx, int layer)
{
    const struct phases_walk *w = ctx;
    struct phases *p = w->p;
    const struct packed_experts *weights = &p->cfg.weights->layers[layer].experts;
    const struct matrix *in = &weights->gate_up[0], *out = &weights->down[0];
    struct kernels_rows rows = phases_impl_input(w, in, p->normed, p->ld.hidden, p->n_tokens);
    const int n_pairs = in->n_panels / 2, busy = p->n_busy > 0 ? p->n_busy : 1;
    const int each = unit_panels(p, n_pairs * busy, PHASES_EXPERT_PANELS / 2);
    const int n_units = (n_pairs + each - 1) / each;
    int unit;
    while ((unit = phases_impl_next(w, layer, PHASES_EXPERTS_IN)) < p->n_busy * n_units) {
        const int from = unit % n_units * each;
        expert_in(w, layer, p->busy[unit / n_units],
                  (struct phases_range){from, least(from + each, n_pairs)}, &rows);
    }
    phases_impl_meet(w);
    rows = phases_impl_input(w, out, p->expert_act, p->ld.expert,
                             p->n_tokens * p->cfg.arch->moe.top_k);
    const int step = unit_panels(p, out->n_panels, PHASES_EXPERT_PANELS);
    const bool is_last = p->cfg.arch->moe.n_shared == 0, apart = phases_impl_apart(p, NULL);
    while ((unit = phases_impl_next(w, layer, PHASES_EXPERTS_OUT)) * step < out->n_panels) {
        const struct phases_range panels = {unit * step, least((unit + 1) * step, out->n_panels)};
        clear_branch(p, panels);
        for (int i = 0; i < p->n_busy; i++) {
            expert_out(w, layer, p->busy[i], panels, &rows);
        }
        if (is_last && !apart) {
            phases_impl_round(p, panels);
        }
    }
    if (is_last && apart) {
        phases_impl_add_branch(w, NULL, true);
    }
    phases_impl_meet(w);
}
