/*
 * Lists of small integers, oldest first: the scheduler's queues and lanes. Each integer has an age and is in
 * one list at most; its links lie in one array for all lists. Transparent, pure.
 */
#pragma once

#include <stdint.h>

#define AGE_LIST_NONE UINT32_MAX

struct age_list {
    uint32_t head, tail, n;
};

struct age_links {
    uint64_t age; // as large as it is young; no two are equal
    uint32_t prev, next;
};

static inline struct age_list age_list_empty(void)
{
    return (struct age_list){.head = AGE_LIST_NONE, .tail = AGE_LIST_NONE};
}

/* Behind all that are older, with a look at each younger one: near the tail, as a rule. */
void age_list_insert(struct age_list *l, struct age_links *links, uint32_t i);
void age_list_remove(struct age_list *l, struct age_links *links, uint32_t i);
