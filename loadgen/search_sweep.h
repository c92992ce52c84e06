/*
 * The search for saturation, one part of search.h:
 *
 *   list       the rates as given, all of them, and nothing else
 *   sweep      start, times factor, ..., until saturated or max_steps rates
 *   bisect     between the last good rate (or one with a burst: served >= 0.95 of offered) and the
 *              first overloaded one above it, until they are load.rates.bisect apart
 *   fill       load.rates.fill times the middle of that bracket, where no rate was measured near it
 *   revisit    the lowest stable rate once more: has the target drifted?
 *
 * Saturated: two overloaded steps in a row. unstable, errors and client_limited are overloaded: the
 * target queues, refuses, or more cannot be offered. stable starts the count again; too_short says
 * nothing and leaves it as it is, since a window goes short of long requests just when they queue; and so
 * does an unstable step that served nearly all it was offered: a burst, not the plateau that the fit of the
 * saturation point needs. Between two rates of a bracket there is no such doubt about which side to
 * go: there unstable is overloaded, and too_short is where less than nearly all was served.
 *
 * until: max_steps runs the sweep alone. Only the rates of the sweep rise. Pure.
 */
#pragma once

#include "loadgen/search.h"

bool search_sweep_next(const struct search *s, struct search_step *out);
const char *search_sweep_ending(const struct search *s);
int64_t search_sweep_most(const struct search *s); // of one pass, without the probe
