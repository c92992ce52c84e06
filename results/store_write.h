/*
 * JSON in the result file: texts of /meta, of a step's summary and of the report. Inner header of
 * results/store*.c.
 */
#pragma once

#include "results/store_hdf5.h"

struct json_t;

/* JSON as an indented text dataset, keys sorted, URLs without their user part. */
int store_write_json(const struct store_group *g, const char *name, const struct json_t *json,
                     const char *long_name, struct err *e) ERR_CHECKED;
