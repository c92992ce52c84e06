/*
 * Which request a ticket means: a hash index from (load rank, ticket) to a small integer, for
 * cancelling. Sized once, O(1), one thread. A ticket may be present more than once only while a load
 * rank misbehaves; then the latest is found.
 */
#pragma once

#include <stdint.h>

#include "core/err.h"
#include "model/wire.h"

#define TICKETS_NONE UINT32_MAX

struct tickets_key {
    int32_t load_rank;
    struct wire_ticket ticket;
    uint32_t next; // in its chain
};

struct tickets {
    uint32_t *heads, mask;    // (mask + 1) chains
    struct tickets_key *keys; // (n) by index
};

/* For indices 0..n-1. */
int tickets_init(struct tickets *t, uint32_t n, struct err *e) ERR_CHECKED;
void tickets_free(struct tickets *t);

void tickets_add(struct tickets *t, uint32_t i, int32_t load_rank, struct wire_ticket ticket);
void tickets_remove(struct tickets *t, uint32_t i); // must be present
uint32_t tickets_find(const struct tickets *t, int32_t load_rank, struct wire_ticket ticket);
