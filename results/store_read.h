/*
 * What reading and validating share. Inner header of results/store*.c.
 */
#pragma once

#include "results/store_hdf5.h"

/* Group of the index-th complete step, or of the one just folded; close with store_read_close. */
int store_read_open(struct store *s, size_t index, struct store_group *step,
                    struct err *e) ERR_CHECKED;
void store_read_close(const struct store *s, struct store_group *step);

/* How many stages have columns in path/. */
unsigned store_read_n_stages(const struct store_group *step);
