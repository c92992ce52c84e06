/* Input rows in narrow forms, in plain C: the one way for all kernel sets that have no faster one. */
#pragma once

#include "workers/cpu/kernels.h"

void narrow_row(enum kernels_input form, const float *x, int n, void *out);
