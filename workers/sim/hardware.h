/*
 * Accelerators by name, with what their makers' data sheets say of one device: for rooflines of
 * machines that are not here. Peaks are never reached; what share of them is, is the user's to say.
 */
#pragma once

#include "core/err.h"

struct hardware {
    const char *name;
    double memory_bytes;
    double read_bytes_per_s; // of its memory
    double bf16_flops;       // dense, matrix units
    double link_bytes_per_s; // one way, to another device of its host
};

/* ERR_INPUT lists the names. */
int hardware_find(const char *name, struct hardware *out, struct err *e) ERR_CHECKED;

/* Row i, NULL behind the last one. */
const struct hardware *hardware_row(int i);
