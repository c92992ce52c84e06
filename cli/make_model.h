/*
 * `tidemark model make`: a preset's random weights as a folder in Hugging Face layout, with a line of
 * progress on a terminal.
 */
#pragma once

#include <stdint.h>

#include "core/err.h"

struct make_model_options {
    const char *family; // model_type, or NULL: the preset's
    const char *preset; // NAME, or with a family its tiny one: "tiny"
    const char *folder;
    uint64_t seed;
};

int make_model_write(const struct make_model_options *o, struct err *e) ERR_CHECKED;
