/*
 * Errors come in three kinds, each with its own mechanism:
 *
 *   1. a bug: CHECK(cond). Always on; prints where, then aborts the process.
 *   2. the environment or the user's input: `int f(..., struct err *e)`, 0 or -1. The function that
 *      knows fills `e` once; callers may prefix context (err_wrap); only main() prints (err_say_once) and exits.
 *   3. a failed request: data (enum outcome in results/record.h), never an error.
 *
 * Outputs are set only on success. The code becomes the process's exit status.
 */
#pragma once

#include <stdbool.h>

enum err_code {
    ERR_NONE = 0,
    ERR_ENV = 1,   // the environment failed: file system, network, memory, a rank
    ERR_INPUT = 2, // the user's input is wrong: what, where, what is allowed
};

struct err {
    enum err_code code;
    char msg[512]; // one line, no newline at the end
};

#define ERR_CHECKED __attribute__((warn_unused_result))

/* Fill `e` (never NULL) and return -1, so that `return err_set(e, ERR_INPUT, "...")` reads well. */
int err_set(struct err *e, enum err_code code, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* Put "context: " before the message and return -1. The code stays. */
int err_wrap(struct err *e, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/*
 * The line that ends a process, on stderr: "tidemark: message". Who must say it before main() does so here: the message
 * is empty then, and main() says it no more. Nothing where there is no error. The code stays.
 */
void err_say_once(struct err *e);

/* A bug in tidemark: say where, then abort. Never used for anything that comes from outside. */
#define CHECK(cond)                                                                                \
    do {                                                                                           \
        if (!(cond)) {                                                                             \
            err_check_failed(__FILE__, __LINE__, #cond);                                           \
        }                                                                                          \
    } while (0)

__attribute__((noreturn)) void err_check_failed(const char *file, int line, const char *what);
