/*
 * One line of a trace in one of its formats, read strictly: when, how many tokens, which prefix
 * blocks. Knows nothing of the lines around it.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/err.h"

#define TRACE_LINE_MAX_TOKENS 1000000000 // of one request

struct trace_span { // part of the text
    const char *s;
    size_t len;
};

struct trace_request {
    int64_t t_ns; // since whatever the format counts from
    int64_t n_in, n_out;
    uint64_t *blocks; // (n_blocks) owned, kept from line to line
    size_t n_blocks, blocks_cap;
};

struct trace_csv; // a CSV format: names of its columns and how it writes times

struct trace_columns { // of one file
    const struct trace_csv *format;
    int time, in, out, n; // which columns, and of how many
};

/* The columns of a header; ERR_INPUT says which headers are known. */
int trace_line_header(struct trace_columns *c, struct trace_span line, struct err *e) ERR_CHECKED;

int trace_line_csv(const struct trace_columns *c, struct trace_span line, struct trace_request *r,
                   struct err *e) ERR_CHECKED;
int trace_line_mooncake(struct trace_span line, struct trace_request *r, struct err *e) ERR_CHECKED;
