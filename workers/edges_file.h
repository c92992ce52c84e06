/*
 * Measured edges as JSON, schema tidemark.edges/1: everything that workers/edges.h holds, times in
 * ns and lists by the transport's sizes. workers/fabric.h reads what a prediction needs of it.
 */
#pragma once

#include "core/json_out.h"
#include "workers/edges.h"

#define EDGES_FILE_WIRE "tidemark.edges/1"

/* The members of an object that is open, schema first. */
void edges_file_put(struct json_out *o, const struct edges *e);
