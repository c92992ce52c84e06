/*
 * When a server's packets really left: kept in memory, so that keeping it costs no system call, and
 * written as CSV at the end. A row is one send(2) that held tokens, or, with token -1, the read(2)
 * that made the request whole:
 *
 *   request,token,tokens,law_ns,before_ns,after_ns
 *
 * request: the X-Request-Id header, else the server's own number. token: index of the packet's first
 * token, from 0; tokens: how many it held. law_ns: when it was to be sent. before_ns, after_ns:
 * CLOCK_MONOTONIC right before send(2) was called and right after it came back; on loopback the
 * receiver can have the bytes in between.
 */
#pragma once

#include <stdint.h>

#include "core/err.h"

#define SEND_LOG_ID_BYTES 64 // with its NUL; longer ids are cut

struct send_log;

/* Opens the file at once, so that a wrong path is known before the first request. ERR_INPUT. */
int send_log_open(struct send_log **log, const char *path, struct err *e) ERR_CHECKED;

/* A request's name; its handle for send_log_add. */
uint32_t send_log_request(struct send_log *log, const char *id);

struct send_log_row {
    int64_t law_ns, before_ns;
    uint32_t request, after_ns; // after_ns: from before_ns on
    int32_t token, n_tokens;
};

void send_log_add(struct send_log *log, const struct send_log_row *row);

/* Writes the rows and closes; NULL is allowed. */
int send_log_close(struct send_log *log, struct err *e) ERR_CHECKED;
