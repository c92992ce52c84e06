/*
 * The course of a run: which step comes next, announced to all ranks; their journals kept; each
 * step folded into the result file, judged, and its verdict fed to the search. Rank 0 coordinates
 * and offers its own share of the load at the same time; coordinate_follow is what other load ranks do.
 *
 * Disk work and analysis run in rank 0's helper thread (cli/keeper.h); the main thread owns comm and
 * loop.
 */
#pragma once

#include <stdbool.h>

#include "cli/world.h"

struct coordinate_options {
    bool force, resume, dry_run, quiet;
};

struct coordinator;

/* Collective, all ranks: what every rank says of itself is gathered; rank 0 creates or reopens the
 * result file; load ranks size their loops. */
int coordinate_open(struct coordinator **out, struct world *w, const struct coordinate_options *o,
                    int argc, char **argv, struct err *e) ERR_CHECKED;

/* Rank 0: all steps, then WIRE_SHUTDOWN to everybody. Other load ranks: steps as announced. */
int coordinate_lead(struct coordinator *c, struct err *e) ERR_CHECKED;
int coordinate_follow(struct coordinator *c, struct err *e) ERR_CHECKED;

/* Collective, all ranks: clock offsets again; rank 0 finishes the file and prints the report. */
int coordinate_finish(struct coordinator *c, bool *valid, struct err *e) ERR_CHECKED;

/* After a failure: what rank 0 holds is written to the journal (no collective). */
void coordinate_abandon(struct coordinator *c);
void coordinate_destroy(struct coordinator *c);
