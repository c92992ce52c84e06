/*
 * Writes a preset as a model folder in Hugging Face layout: config.json and safetensors, with the very
 * values that are generated for the preset (fill.h), so that preset:NAME and the folder compute the
 * same. Values go out in the order in which they lie, a piece at a time.
 */
#pragma once

#include <stdint.h>

#include "core/err.h"

#define MAKER_FILE "tidemark.json" // in the folder: {"schema": "tidemark.made/1", "preset", "seed"}

struct maker_config {
    const char *preset; // without "preset:"
    const char *folder; // is made; ERR_INPUT where it holds anything
    uint64_t seed;      // 0: the preset's own values
    int64_t shard_bytes;
    void (*progress)(void *arg, int64_t n_done, int64_t n_bytes); // NULL: none
    void *arg;
};

int maker_write(const struct maker_config *cfg, struct err *e) ERR_CHECKED;
