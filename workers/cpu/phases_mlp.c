/* The dense MLP, which is also a shared expert's. */
#include "workers/cpu/phases_impl.h"

void phases_mlp_in(void *ctx, int layer)
{
    const struct phases_walk *w = ctx;
    struct phases *p = w->p;
    const struct packed_layer *weights = &p->cfg.weights->layers[layer];
    const struct matrix *m = &weights->gate_up;
    const float *x = phases_impl_normed(w, weights->mlp_norm, NULL, p->n_tokens);
    const struct kernels_rows rows = phases_impl_input(w, m, x, p->ld.hidden, p->n_tokens);
    const struct phases_range r = phases_impl_share(w, m->n_panels / 2);
    const size_t column = (size_t)r.from * MATRIX_PANEL, ld = p->ld.gate_up;
    phases_impl_product(p, m, (struct phases_range){2 * r.from, 2 * r.to}, &rows, p->n_tokens, NULL,
                        p->gate_up, ld);
    for (size_t i = 0; i < (size_t)p->n_tokens; i++) {
        p->cfg.kernels->gate(p->cfg.arch->activation, p->act + i * p->ld.mlp + column,
                             p->gate_up + i * ld + 2 * column, r.to - r.from);
    }
    phases_impl_meet(w);
}

void phases_mlp_out(void *ctx, int layer)
{
    const struct phases_walk *w = ctx;
    const struct packed_layer *weights = &w->p->cfg.weights->layers[layer];
    const struct phases_residual r = {
        .m = &weights->down,
        .norm = weights->post_mlp_norm,
        .onto = weights->experts.down != NULL, // what the experts gave
        .is_last = true,
    };
    phases_impl_residual(w, &r, w->p->act, w->p->ld.mlp);
}
