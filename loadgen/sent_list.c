#include "loadgen/sent_list.h"

#include <stddef.h>

void sent_list_init(struct sent_list *l)
{
    l->ends = (struct sent_link){.before = &l->ends, .after = &l->ends, .slot = SENT_NONE};
}

void sent_list_add(struct sent_list *l, struct sent_link *k, uint32_t slot)
{
    *k = (struct sent_link){.before = l->ends.before, .after = &l->ends, .slot = slot};
    k->before->after = k;
    l->ends.before = k;
}

void sent_list_remove(struct sent_link *k)
{
    if (k->before) {
        k->before->after = k->after;
        k->after->before = k->before;
        *k = (struct sent_link){0};
    }
}

uint32_t sent_list_first(const struct sent_list *l)
{
    return l->ends.after->slot;
}
