/*
 * Where a run comes from, for its result file: the build and machine (results/provenance.h), and what
 * only here is known of all at once: the hashes of the model's files and the price of its instance.
 * results/schema.md says what stands where.
 */
#pragma once

#include "cli/world.h"

struct json_t;

/*
 * Rank 0, once the world is loaded; the files are read in its helper thread. New reference.
 * ERR_INPUT: the price table has no such price.
 */
int origin_collect(struct world *w, int argc, char **argv, struct json_t **out,
                   struct err *e) ERR_CHECKED;
