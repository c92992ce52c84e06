/*
 * What a rank does when told to stop. SIGUSR1: graceful, finish the step and write the file.
 * SIGTERM, SIGINT: abort (without a launcher, from the second on), write what there is. Handlers only count; loops look.
 */
#pragma once

#include <stdbool.h>

/* What a rank says that has been told to go. */
#define SIGNALS_ABORTED "aborted; `tidemark recover FILE` closes the file"

void signals_catch(void); // after comm_open: MPI_Init may install its own
void signals_leave(void); // a rank that has nothing to write exits at once when told to abort
bool signals_graceful(void);
bool signals_abort(void);
