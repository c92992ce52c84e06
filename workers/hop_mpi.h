/* Hops through host memory and comm's bulk plane: the kind that works between any two ranks. */
#pragma once

#include "core/err.h"
#include "workers/hop.h"

int hop_mpi_create(struct hop **out, const struct hop_config *cfg, struct err *e) ERR_CHECKED;
