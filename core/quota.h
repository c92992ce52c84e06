/*
 * How much CPU time the control groups of this process give it: a container that may run on all CPUs of
 * its host is often allowed the time of a few.
 */
#pragma once

#include <stddef.h>

/* CPUs' worth of time, 2.5 for 250 ms in 100 ms; infinite where nothing bounds it. */
double quota_cpus(void);

/* Of "QUOTA PERIOD", as cpu.max has it ("max 100000": infinite), or of v1's two numbers. NAN: neither. */
double quota_parse(const char *text);
