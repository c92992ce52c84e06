#include "loadgen/client_null.h"

#include "core/clock.h"
#include "core/mem.h"

#include <stdlib.h>

struct client_null {
    struct client base;
    struct live_table *table;
};

static void null_submit(struct client *c, struct live *l, struct str *payload)
{
    struct client_null *n = (struct client_null *)c;
    (void)payload;
    live_sent(l, clock_now_ns());
    int64_t now_ns = clock_now_ns();
    bool fits = live_tokens(n->table, l, l->rec.n_out_req, now_ns);
    CHECK(fits);
    live_end(n->table, l, OUTCOME_OK, 0, now_ns);
}

static void null_cancel(struct client *c, struct live *l)
{
    (void)c, (void)l; // nothing is ever left to forget
}

static void null_destroy(struct client *c)
{
    free(c);
}

static const struct client_ops null_ops = {
    .name = "null",
    .submit = null_submit,
    .cancel = null_cancel,
    .destroy = null_destroy,
};

struct client *client_null_create(struct live_table *t)
{
    struct client_null *n = xcalloc(1, sizeof *n);
    n->base.ops = &null_ops;
    n->table = t;
    return &n->base;
}
