/*
 * The search for the highest rate at which the objectives hold, one part of search.h:
 *
 *   sweep      start, times factor, ..., until two rates in a row miss or max_steps rates; where the
 *              very first one misses, bisect goes down by the same factor until one is met
 *   bisect     between the highest rate met and the lowest one missed above it, until they are
 *              load.rates.bisect apart
 *   revisit    a rate whose interval straddles the objective is offered again, each time twice as long, at
 *              most load.rates.extend times; all steps at it decide together. What is undecided then
 *              counts as missed. At the end the lowest rate met once more: has the target drifted?
 *
 * An overloaded rate misses, whatever the interval says: latency there grows for as long as it is offered.
 * Where the client could not offer the rate (client_limited) nothing is decided, and the search stops: what
 * lies beyond would be the client's too.
 * That a rate is met or missed is decided by analysis (analysis/slo_decision.h). Pure.
 */
#pragma once

#include "loadgen/search.h"

bool search_slo_next(const struct search *s, struct search_step *out);
const char *search_slo_ending(const struct search *s);
int64_t search_slo_most(const struct search *s); // of one pass, without the probe
