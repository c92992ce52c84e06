/*
 * Buffers for copies of small messages: size classes of powers of two, kept on free lists, so that
 * a steady stream of messages allocates nothing. The total is bounded. One thread.
 */
#pragma once

#include <stddef.h>

enum {
    MSGBUF_MIN_BYTES = 256,
    MSGBUF_N_CLASSES = 23, // the largest: 1 GiB
};

struct msgbuf {
    struct msgbuf *next; // for the owner's lists
    size_t n_bytes;      // of data in use
    int peer, tag;
    int size_class;
    _Alignas(16) unsigned char data[]; // (MSGBUF_MIN_BYTES << size_class)
};

struct msgbuf_pool {
    struct msgbuf *free[MSGBUF_N_CLASSES];
    size_t held_bytes; // allocated, on loan or not
    size_t cap_bytes;  // bound on held_bytes
};

/* A copy of data; NULL when the bound is reached or memory is out. */
struct msgbuf *msgbuf_get(struct msgbuf_pool *p, const void *data, size_t n_bytes);

void msgbuf_put(struct msgbuf_pool *p, struct msgbuf *b);

/* Frees what is not on loan. */
void msgbuf_trim(struct msgbuf_pool *p);
