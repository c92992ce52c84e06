/* This machine as a row of workers/sim/hardware.h: its memory, and what it can read and compute. */
#pragma once

#include "workers/sim/hardware.h"

/* Cores that this process may use. */
int machine_cores(void);

/* Measures for about a second. */
void machine_measure(struct hardware *out);
