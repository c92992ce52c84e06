/*
 * Named shapes: config.json texts of published models, and of small ones for tests and first steps. A
 * name may end in "-Nl": the same model cut to its first N layers, for machines that cannot hold all.
 */
#pragma once

#include <stddef.h>

#include "core/err.h"

/* The config.json text of a name without its "-Nl", n_layers 0 where it has none. */
int presets_find(const char *name, const char **config, int *n_layers, struct err *e) ERR_CHECKED;

/* Names in the order of the table; NULL past the last one. */
const char *presets_name(size_t i);
