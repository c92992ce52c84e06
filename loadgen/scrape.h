/*
 * Looks at an endpoint's metrics while a run goes on, in a thread of its own that computes at low priority:
 * its samples carry the same clock as the requests. One sample per URL and look; a look that fails or
 * takes longer than a second is left out. The main thread takes what has come.
 */
#pragma once

#include "loadgen/endpoint.h"
#include "results/record.h"

struct scrape;

/* NULL where target.metrics is none or no URL had metrics of known names. Borrows the config. */
int scrape_start(struct scrape **out, const struct endpoint_config *c, struct err *e) ERR_CHECKED;

/* Take at most cap samples, oldest first; never waits. How many. */
size_t scrape_take(struct scrape *s, struct series_point *out, size_t cap);
void scrape_stop(struct scrape *s);
