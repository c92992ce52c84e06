/*
 * A whole regular file, mapped for reading. What is opened by name is never waited for (a FIFO is
 * refused, not read); an empty file has no bytes.
 */
#pragma once

#include <stddef.h>

#include "core/err.h"

struct mapped {
    const unsigned char *bytes; // (n_bytes); NULL when empty
    size_t n_bytes;
};

/* ERR_INPUT: missing, unreadable, not a regular file. ERR_ENV: cannot be mapped. */
int mapped_open(struct mapped *m, const char *path, struct err *e) ERR_CHECKED;

/* A zeroed struct is closed. */
void mapped_close(struct mapped *m);
