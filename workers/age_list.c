#include "workers/age_list.h"

#define NONE AGE_LIST_NONE

void age_list_insert(struct age_list *l, struct age_links *links, uint32_t i)
{
    struct age_links *k = &links[i];
    k->prev = l->tail;
    while (k->prev != NONE && links[k->prev].age > k->age) {
        k->prev = links[k->prev].prev;
    }
    uint32_t *from = k->prev == NONE ? &l->head : &links[k->prev].next;
    k->next = *from;
    *from = i;
    *(k->next == NONE ? &l->tail : &links[k->next].prev) = i;
    l->n++;
}

void age_list_remove(struct age_list *l, struct age_links *links, uint32_t i)
{
    const struct age_links *k = &links[i];
    *(k->prev == NONE ? &l->head : &links[k->prev].next) = k->next;
    *(k->next == NONE ? &l->tail : &links[k->next].prev) = k->prev;
    l->n--;
}
