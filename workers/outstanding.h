/*
 * Tokens that a scheduler's requests have still to come, by the load rank that sent them: output tokens, and
 * the prompt's until the first of these. Transparent.
 */
#pragma once

#include <stdint.h>

struct outstanding {
    int n_load_ranks; // others are not counted
    uint64_t *tokens; // (n_load_ranks)
};

void outstanding_init(struct outstanding *o, int n_load_ranks);
void outstanding_free(struct outstanding *o);

void outstanding_add(struct outstanding *o, int load_rank, uint32_t n_in, uint32_t n_out);
/* The first n_done of the request's tokens had come, and now one more. */
void outstanding_token(struct outstanding *o, int load_rank, uint32_t n_in, uint32_t n_done);
/* It ends with n_done of n_out. */
void outstanding_end(struct outstanding *o, int load_rank, uint32_t n_in, uint32_t n_out,
                     uint32_t n_done);
