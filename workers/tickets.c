#include "workers/tickets.h"

#include <stdlib.h>
#include <string.h>

int tickets_init(struct tickets *t, uint32_t n, struct err *e)
{
    uint32_t size = 16;
    while (size < n && size < UINT32_MAX / 2) {
        size *= 2;
    }
    t->mask = size - 1;
    t->heads = malloc(size * sizeof *t->heads);
    t->keys = calloc((size_t)n + 1, sizeof *t->keys);
    if (t->heads == NULL || t->keys == NULL) {
        tickets_free(t);
        return err_set(e, ERR_ENV, "no memory for an index of %u requests", n);
    }
    memset(t->heads, 0xFF, size * sizeof *t->heads); // TICKETS_NONE
    return 0;
}

void tickets_free(struct tickets *t)
{
    free(t->heads);
    free(t->keys);
    *t = (struct tickets){0};
}

/* Multiplicative hashing (Knuth): a load rank's slots are small consecutive numbers. */
static uint32_t *chain(const struct tickets *t, int32_t load_rank, uint32_t slot)
{
    uint32_t h = (slot + (uint32_t)load_rank * 0x9E3779B1u) * 0x85EBCA6Bu;
    return &t->heads[(h >> 8) & t->mask];
}

void tickets_add(struct tickets *t, uint32_t i, int32_t load_rank, struct wire_ticket ticket)
{
    uint32_t *head = chain(t, load_rank, ticket.slot);
    t->keys[i] = (struct tickets_key){.load_rank = load_rank, .ticket = ticket, .next = *head};
    *head = i;
}

void tickets_remove(struct tickets *t, uint32_t i)
{
    uint32_t *p = chain(t, t->keys[i].load_rank, t->keys[i].ticket.slot);
    while (*p != i) {
        CHECK(*p != TICKETS_NONE);
        p = &t->keys[*p].next;
    }
    *p = t->keys[i].next;
}

uint32_t tickets_find(const struct tickets *t, int32_t load_rank, struct wire_ticket ticket)
{
    uint32_t i = *chain(t, load_rank, ticket.slot);
    for (; i != TICKETS_NONE; i = t->keys[i].next) {
        const struct tickets_key *k = &t->keys[i];
        if (k->load_rank == load_rank && k->ticket.slot == ticket.slot &&
            k->ticket.generation == ticket.generation) {
            break;
        }
    }
    return i;
}
