/*
 * The ladder of closed loops, one part of search.h. A rung is a step of so many users (kind base), each
 * of whom sends when its reply has ended: the limit of requests in flight.
 *
 *   list    the rungs as given
 *   best    1, 2, 4, ... until two rungs in a row miss the objectives (or are errors or client_limited:
 *           neither can be the best), or two add less than 3 % to the throughput; then between the highest rung that meets them and the first above it that does
 *           not, and between the lowest rung with 97 % of the highest throughput and the one below it,
 *           until neighbours are less than 15 % (or one user) apart
 *
 * The best limit itself is chosen by the report, with its interval (analysis/ladder.h). Pure.
 */
#pragma once

#include "loadgen/search.h"

#define SEARCH_ENOUGH 0.97 // of the highest throughput: less waiting is worth the rest

bool search_ladder_next(const struct search *s, struct search_step *out);
const char *search_ladder_ending(const struct search *s);
int64_t search_ladder_most(const struct search *s); // of one pass
