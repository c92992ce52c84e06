#include "core/msgbuf.h"

#include <stdlib.h>
#include <string.h>

#include "core/err.h"

static size_t class_bytes(int size_class)
{
    return (size_t)MSGBUF_MIN_BYTES << size_class;
}

static int class_of(size_t n_bytes)
{
    int k = 0;
    while (k < MSGBUF_N_CLASSES - 1 && class_bytes(k) < n_bytes) {
        k++;
    }
    CHECK(class_bytes(k) >= n_bytes);
    return k;
}

/* Buffers of other classes that lie idle make room before the bound is called reached. */
static struct msgbuf *allocate(struct msgbuf_pool *p, int size_class)
{
    size_t n_bytes = class_bytes(size_class);
    if (p->held_bytes + n_bytes > p->cap_bytes) {
        msgbuf_trim(p);
    }
    if (p->held_bytes + n_bytes > p->cap_bytes) {
        return NULL;
    }
    struct msgbuf *b = malloc(sizeof *b + n_bytes);
    if (b) {
        b->size_class = size_class;
        p->held_bytes += n_bytes;
    }
    return b;
}

struct msgbuf *msgbuf_get(struct msgbuf_pool *p, const void *data, size_t n_bytes)
{
    int k = class_of(n_bytes);
    struct msgbuf *b = p->free[k];
    if (b) {
        p->free[k] = b->next;
    } else {
        b = allocate(p, k);
    }
    if (!b) {
        return NULL;
    }
    b->next = NULL;
    b->n_bytes = n_bytes;
    if (n_bytes) {
        memcpy(b->data, data, n_bytes);
    }
    return b;
}

void msgbuf_put(struct msgbuf_pool *p, struct msgbuf *b)
{
    b->next = p->free[b->size_class];
    p->free[b->size_class] = b;
}

void msgbuf_trim(struct msgbuf_pool *p)
{
    for (int k = 0; k < MSGBUF_N_CLASSES; k++) {
        while (p->free[k]) {
            struct msgbuf *b = p->free[k];
            p->free[k] = b->next;
            p->held_bytes -= class_bytes(k);
            free(b);
        }
    }
}
