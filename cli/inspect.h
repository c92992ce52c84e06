/*
 * `tidemark model inspect`: what a model weighs, what its parts take on a machine, how to split it and
 * how many requests it can hold there. The numbers are workers/capacity.h's and model/sizes.h's; this
 * is their table and their JSON (schema tidemark.model/1).
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "analysis/cost.h"
#include "core/err.h"

#define INSPECT_MAX_LIST 16

struct inspect_list {
    double v[INSPECT_MAX_LIST];
    size_t n;
};

struct inspect_options {
    const char *model;
    const char *hardware; // by name; NULL: this machine
    const char *costs;    // files of measured costs instead, or NULL
    bool measure;         // costs measured on this host's cores instead
    const char *save;     // write the costs there, or NULL
    int pipeline, tensor; // 0: all that fill the devices
    int n_devices;        // 0: pipeline x tensor
    double memory_bytes;  // of a device; 0: the hardware's
    double read_share, compute_share;
    double n_requests;                    // decoding together
    struct inspect_list shares, contexts; // contexts empty: 4096 and so on, as the model has them
    const char *edges;                    // file of measured edges: splits over its ranks, or NULL
    double n_in, n_out;                   // tokens of a request there
    const struct cost_config *cost;
    bool json;
};

int inspect_print(const struct inspect_options *o, struct err *e) ERR_CHECKED;
