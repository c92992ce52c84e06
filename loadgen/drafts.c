#include "loadgen/drafts.h"

#include <stdlib.h>

static int resize(struct drafts *d, size_t n, struct err *e)
{
    drafts_free(d);
    d->n = n;
    d->places = calloc(n + 1, sizeof *d->places);
    d->queue = calloc(n + 1, sizeof *d->queue);
    if (!d->places || !d->queue) {
        drafts_free(d);
        return err_set(e, ERR_ENV, "no memory for the next requests of %zu users", n);
    }
    return 0;
}

int drafts_begin(struct drafts *d, size_t n, size_t max_bytes, struct err *e)
{
    if (n != d->n && resize(d, n, e) != 0) {
        return -1;
    }
    for (size_t i = 0; i < n; i++) {
        d->places[i].is_wanted = d->places[i].is_ready = d->places[i].is_queued = false;
    }
    d->first = d->n_queued = d->n_bytes = 0;
    d->max_bytes = max_bytes;
    return 0;
}

void drafts_free(struct drafts *d)
{
    for (size_t i = 0; d->places && i < d->n; i++) {
        str_free(&d->places[i].payload);
    }
    free(d->places);
    free(d->queue);
    *d = (struct drafts){0};
}

void drafts_want(struct drafts *d, uint64_t place, uint64_t id)
{
    if (d->n == 0) {
        return;
    }
    struct draft *f = &d->places[place % d->n];
    if (f->is_wanted || f->is_ready) {
        return;
    }
    f->id = id;
    f->is_wanted = true;
    if (!f->is_queued) {
        f->is_queued = true;
        d->queue[(d->first + d->n_queued++) % d->n] = place % d->n;
    }
}

static struct draft *front(struct drafts *d)
{
    return &d->places[d->queue[d->first]];
}

static void leave_queue(struct drafts *d)
{
    front(d)->is_queued = false;
    d->first = (d->first + 1) % d->n;
    d->n_queued--;
}

bool drafts_next(struct drafts *d, uint64_t *id)
{
    while (d->n_queued > 0 && !front(d)->is_wanted) {
        leave_queue(d);
    }
    if (d->n_queued == 0 || d->n_bytes >= d->max_bytes) {
        return false;
    }
    *id = front(d)->id;
    return true;
}

struct str *drafts_make(struct drafts *d)
{
    CHECK(d->n_queued > 0 && front(d)->is_wanted);
    str_clear(&front(d)->payload);
    return &front(d)->payload;
}

void drafts_done(struct drafts *d)
{
    struct draft *f = front(d);
    f->is_wanted = false;
    f->is_ready = true;
    f->n_bytes = f->payload.len;
    d->n_bytes += f->n_bytes;
    leave_queue(d);
}

struct str *drafts_take(struct drafts *d, uint64_t place, uint64_t id)
{
    struct draft *f = d->n > 0 ? &d->places[place % d->n] : NULL;
    if (!f || f->id != id || !(f->is_wanted || f->is_ready)) {
        return NULL;
    }
    bool is_ready = f->is_ready;
    d->n_bytes -= is_ready ? f->n_bytes : 0;
    f->is_wanted = f->is_ready = false;
    return is_ready ? &f->payload : NULL;
}
