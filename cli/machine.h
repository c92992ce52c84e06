/* This machine as a row of workers/sim/hardware.h: its memory, and what it can read and compute. */
#pragma once

#include "core/err.h"
#include "workers/sim/hardware.h"

/* Cores that this process may use, or the time of so many. */
int machine_cores(void);

/* Measured by all of them, in about a second (workers/cpu/ceilings.h). ERR_ENV: no memory for it. */
int machine_measure(struct hardware *out, struct err *e) ERR_CHECKED;
