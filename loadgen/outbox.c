#include "loadgen/outbox.h"

#include <stdlib.h>

#define PIECE_BYTES ((size_t)64 << 10) // at least; posting costs less than a microsecond per KiB

size_t outbox_message_bytes(uint32_t max_tokens)
{
    struct record r;
    record_init(&r);
    r.n_out = live_room(max_tokens);
    r.n_stages = RECORD_MAX_STAGES;
    size_t n_bytes = sizeof(struct wire_journal) + record_encoded_bytes(&r);
    return n_bytes > PIECE_BYTES ? n_bytes : PIECE_BYTES;
}

int outbox_init(struct outbox *o, struct comm *c, uint32_t max_tokens, struct err *e)
{
    *o = (struct outbox){.comm = c, .cap = outbox_message_bytes(max_tokens)};
    o->piece = calloc(1, o->cap);
    o->dt_us = calloc(live_room(max_tokens), sizeof *o->dt_us);
    if (!o->piece || !o->dt_us) {
        outbox_free(o);
        return err_set(e, ERR_ENV, "no memory for replies of %u tokens", max_tokens);
    }
    return 0;
}

void outbox_free(struct outbox *o)
{
    free(o->piece);
    free(o->dt_us);
    *o = (struct outbox){0};
}

void outbox_begin_step(struct outbox *o, uint32_t step, int64_t now_ns)
{
    o->piece->step = step;
    o->len = sizeof *o->piece;
    o->n_records = 0;
    o->t_posted_ns = now_ns;
}

static int add(struct outbox *o, const struct record *r, const uint32_t *stage_us, struct err *e)
{
    size_t n_bytes = record_encoded_bytes(r);
    if (o->len + n_bytes > o->cap && outbox_post(o, o->t_posted_ns, e) != 0) {
        return -1;
    }
    record_encode(r, stage_us, o->dt_us, (uint8_t *)o->piece + o->len);
    o->len += n_bytes;
    o->n_records++;
    return 0;
}

int outbox_add(struct outbox *o, const struct live_table *t, const struct live *l, struct err *e)
{
    live_copy_tokens(t, l, o->dt_us);
    return add(o, &l->rec, l->stage_us, e);
}

int outbox_add_unsent(struct outbox *o, const struct record *r, struct err *e)
{
    CHECK(r->n_out == 0 && r->n_stages == 0);
    return add(o, r, NULL, e);
}

bool outbox_is_due(const struct outbox *o, int64_t now_ns)
{
    return now_ns - o->t_posted_ns >= OUTBOX_PERIOD_NS;
}

int outbox_post(struct outbox *o, int64_t now_ns, struct err *e)
{
    size_t len = o->len;
    o->t_posted_ns = now_ns;
    o->len = sizeof *o->piece;
    if (len == sizeof *o->piece) {
        return 0;
    }
    o->piece->kind = WIRE_JOURNAL_RECORDS;
    return comm_post(o->comm, 0, WIRE_JOURNAL, o->piece, len, e);
}
