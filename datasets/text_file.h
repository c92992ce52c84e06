/*
 * A file of prompts, mapped read-only for as long as the dataset is open: requests take their text
 * straight from it. A file that shrinks meanwhile ends the process, as mapped files do.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "core/err.h"

struct text_file {
    const char *data; // (len)
    void *map;        // the same, as it is given back
    size_t len;
    uint64_t hash; // xxh64 of all bytes
};

/* ERR_INPUT: missing, not a regular file, empty. */
int text_file_open(struct text_file *f, const char *path, struct err *e) ERR_CHECKED;
void text_file_close(struct text_file *f);

/* These bytes of it will not be needed for long: their pages need not count as our memory. */
void text_file_release(const char *bytes, size_t len);
