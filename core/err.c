#include "core/err.h"

#include "core/log.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Messages quote users and files, so control bytes are made harmless: one line stays one. */
static void make_one_line(char *s)
{
    for (; *s != '\0'; s++) {
        if ((unsigned char)*s < 0x20 || *s == 0x7f) {
            *s = ' ';
        }
    }
}

int err_set(struct err *e, enum err_code code, const char *fmt, ...)
{
    CHECK(e != NULL && code != ERR_NONE);
    char msg[sizeof e->msg]; // apart from e->msg, which may be among the arguments
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(msg, sizeof msg, fmt, ap);
    va_end(ap);
    make_one_line(msg);
    memcpy(e->msg, msg, sizeof msg);
    e->code = code;
    return -1;
}

int err_wrap(struct err *e, const char *fmt, ...)
{
    CHECK(e != NULL && e->code != ERR_NONE);
    char context[sizeof e->msg];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(context, sizeof context, fmt, ap);
    va_end(ap);
    char msg[2 * sizeof e->msg + 2];
    snprintf(msg, sizeof msg, "%s: %s", context, e->msg);
    make_one_line(msg);
    snprintf(e->msg, sizeof e->msg, "%.*s", (int)sizeof e->msg - 1, msg);
    return -1;
}

void err_say_once(struct err *e)
{
    if (e->code != ERR_NONE && e->msg[0] != '\0') {
        fprintf(stderr, "tidemark: %s\n", e->msg);
        e->msg[0] = '\0';
    }
}

void err_check_failed(const char *file, int line, const char *what)
{
    log_at(LOG_ERROR, "bug", "%s:%d: CHECK(%s) failed", file, line, what);
    abort();
}
