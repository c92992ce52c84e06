#include "workers/outstanding.h"

#include <stdlib.h>

#include "core/err.h"
#include "core/mem.h"

void outstanding_init(struct outstanding *o, int n_load_ranks)
{
    CHECK(n_load_ranks >= 0);
    *o = (struct outstanding){
        .n_load_ranks = n_load_ranks,
        .tokens = xcalloc((size_t)n_load_ranks + 1, sizeof *o->tokens),
    };
}

void outstanding_free(struct outstanding *o)
{
    free(o->tokens);
    *o = (struct outstanding){0};
}

static void take(struct outstanding *o, int load_rank, uint64_t n)
{
    if (load_rank >= 0 && load_rank < o->n_load_ranks) {
        CHECK(o->tokens[load_rank] >= n);
        o->tokens[load_rank] -= n;
    }
}

void outstanding_add(struct outstanding *o, int load_rank, uint32_t n_in, uint32_t n_out)
{
    if (load_rank >= 0 && load_rank < o->n_load_ranks) {
        o->tokens[load_rank] += (uint64_t)n_in + n_out;
    }
}

void outstanding_token(struct outstanding *o, int load_rank, uint32_t n_in, uint32_t n_done)
{
    take(o, load_rank, (n_done == 0 ? (uint64_t)n_in : 0) + 1);
}

void outstanding_end(struct outstanding *o, int load_rank, uint32_t n_in, uint32_t n_out,
                     uint32_t n_done)
{
    take(o, load_rank, (n_done == 0 ? (uint64_t)n_in : 0) + n_out - n_done);
}
