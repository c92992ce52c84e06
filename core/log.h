/*
 * Log lines for people, on stderr, one write(2) each: "hh:mm:ss.mmm rank 2 stage: text".
 * stdout is for results only. Info lines come from rank 0 alone; warnings and errors from any rank.
 * Never called between a request's send and its last token.
 */
#pragma once

#include <stdbool.h>

enum log_level {
    LOG_DEBUG,
    LOG_INFO,
    LOG_WARN,
    LOG_ERROR,
};

/* Lines below `level` are dropped. Default LOG_INFO. TIDEMARK_LOG=debug|info|warn|error sets it. */
void log_set_level(enum log_level level);

/* The rank shown in each line; -1 (default) shows none. */
void log_set_rank(int rank);

void log_at(enum log_level level, const char *module, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

#define log_debug(module, ...) log_at(LOG_DEBUG, module, __VA_ARGS__)
#define log_info(module, ...)  log_at(LOG_INFO, module, __VA_ARGS__)
#define log_warn(module, ...)  log_at(LOG_WARN, module, __VA_ARGS__)
#define log_error(module, ...) log_at(LOG_ERROR, module, __VA_ARGS__)
