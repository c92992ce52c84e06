/*
 * Which replica gets the next request: the one with the fewest tokens outstanding, prompt and output
 * together, in a tie and with ROUTING_ROUND_ROBIN the next in turn. Outstanding is what the owner itself
 * has sent and not seen come back, and, with ROUTING_LEAST_TOKENS, what the replica's leader last said of
 * other owners (workers/load_teller.h). What is offered, and when, does not depend on it. Pure.
 */
#pragma once

#include <stdint.h>

enum routing_kind { // in the order of target.routing's choices
    ROUTING_LEAST_TOKENS,
    ROUTING_ROUND_ROBIN,
    ROUTING_OWN_TOKENS, // as LEAST_TOKENS, but nobody tells
};

struct routing {
    enum routing_kind kind;
    int n_replicas, next;
    uint64_t *outstanding; // (n_replicas) tokens of its owner
    uint64_t *others;      // (n_replicas) of other owners, as last told
};

/* first: where turns begin, modulo replicas; several owners begin at different ones. */
void routing_init(struct routing *r, enum routing_kind kind, int n_replicas, int first);
void routing_free(struct routing *r);

/* The replica for a request of so many tokens, which are outstanding from then on. */
int routing_pick(struct routing *r, uint64_t n_tokens);
/* So many of them are not any more. */
void routing_done(struct routing *r, int replica, uint64_t n_tokens);

/* So many of other owners are outstanding there now; none anywhere. */
void routing_tell(struct routing *r, int replica, uint64_t n_tokens);
void routing_tell_none(struct routing *r);
