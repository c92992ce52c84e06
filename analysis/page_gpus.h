/*
 * The target's GPUs on the HTML page: what they took in each step, as a table, and who they are. Everything
 * that comes from the run is escaped. Pure.
 */
#pragma once

#include <stdbool.h>

#include "core/str.h"

struct json_t;

/* Whether any step has something of GPUs to show. */
bool page_gpus_any(const struct json_t *report);

void page_gpus_steps(struct str *out, const struct json_t *report);
/* As a folded part of the provenance; nothing without GPUs. */
void page_gpus_devices(struct str *out, const struct json_t *report);
