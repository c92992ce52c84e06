/*
 * How many bytes of a model are in which format, and the formats as words. Transparent; pure.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "model/arch.h"

struct tally {
    int64_t bytes[ARCH_N_DTYPES];
};

void tally_add(struct tally *t, enum arch_dtype dtype, int64_t n_bytes);
int64_t tally_bytes(const struct tally *t);

/* "mxfp4+bf16": the formats that are there, most bytes first, into buf; what does not fit is left out. */
const char *tally_text(const struct tally *t, char *buf, size_t cap);
