#include "workers/choices.h"

#include <stdlib.h>
#include <string.h>

#include "core/mem.h"

enum {
    MAX_EOS = sizeof((struct arch *)0)->eos_ids / sizeof(int),
};

struct slot {
    struct batch_params params;
    bool is_set;
    uint32_t n_ends;
    int32_t ends[MAX_EOS + WIRE_MAX_STOP_IDS]; // (n_ends) what must not come too early
};

struct choices {
    const struct arch *arch;
    struct slot *slots; // (n_slots)
    struct sampler_jobs jobs;
};

int choices_create(struct choices **out, const struct batch_limits *lim, const struct arch *arch,
                   struct err *e)
{
    struct choices *c = xcalloc(1, sizeof *c);
    c->arch = arch;
    c->slots = calloc(lim->n_slots, sizeof *c->slots);
    c->jobs.v = calloc(lim->max_rows, sizeof *c->jobs.v);
    if (c->slots == NULL || c->jobs.v == NULL) {
        choices_destroy(c);
        return err_set(e, ERR_ENV, "no memory for the parameters of %u requests", lim->n_slots);
    }
    *out = c;
    return 0;
}

void choices_destroy(struct choices *c)
{
    if (c != NULL) {
        free(c->slots);
        free(c->jobs.v);
        free(c);
    }
}

static void begin(struct choices *c, struct slot *s, const struct batch_params *params)
{
    s->is_set = params != NULL;
    if (params == NULL) {
        return;
    }
    s->params = *params;
    s->n_ends = 0;
    for (int i = 0; i < c->arch->n_eos; i++) {
        s->ends[s->n_ends++] = c->arch->eos_ids[i];
    }
    for (uint32_t i = 0; i < params->how.n_stop_ids; i++) {
        s->ends[s->n_ends++] = params->how.stop_ids[i];
    }
}

static void add_job(struct choices *c, const struct slot *s, const struct batch_row *r,
                    uint32_t row)
{
    const struct wire_sampling *how = &s->params.how;
    const uint32_t end = r->pos + r->n_tokens;
    const uint32_t index = end > s->params.n_in ? end - s->params.n_in : 0;
    const bool too_early = index < how->min_out;
    if (how->temperature <= 0 && how->logprobs == 0 && !too_early) {
        return;
    }
    c->jobs.v[c->jobs.n++] = (struct sampler_job){
        .row = row,
        .index = index,
        .how = how,
        .banned = s->ends,
        .n_banned = too_early ? s->n_ends : 0,
    };
}

void choices_apply(struct choices *c, const struct batch *b)
{
    const struct batch_params *params = b->params;
    c->jobs.n = 0;
    for (uint32_t i = 0; i < b->n_rows; i++) {
        const struct batch_row *r = &b->rows[i];
        struct slot *s = &c->slots[r->slot];
        if (r->flags & BATCH_BEGIN) {
            begin(c, s, (r->flags & BATCH_PARAMS) ? params++ : NULL);
        }
        if (s->is_set && (r->flags & BATCH_SAMPLE)) {
            add_job(c, s, r, i);
        }
    }
}

const struct sampler_jobs *choices_jobs(const struct choices *c)
{
    return &c->jobs;
}

const struct wire_sampling *choices_how(const struct choices *c, uint32_t slot)
{
    return c->slots[slot].is_set ? &c->slots[slot].params.how : NULL;
}
