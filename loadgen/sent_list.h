/*
 * Requests in order of sending, for deadlines that are the same for all: the first one is the next that
 * can be overdue. Links lie in the requests' own memory; adding and removing take no time.
 */
#pragma once

#include <stdint.h>

#define SENT_NONE UINT32_MAX

struct sent_link { // zeroed: in no list
    struct sent_link *before, *after;
    uint32_t slot;
};

struct sent_list {
    struct sent_link ends; // a ring through both ends
};

void sent_list_init(struct sent_list *l);
void sent_list_add(struct sent_list *l, struct sent_link *k, uint32_t slot);
/* Nothing happens when it is in no list. */
void sent_list_remove(struct sent_link *k);
/* The slot sent first, or SENT_NONE. */
uint32_t sent_list_first(const struct sent_list *l);
