#include "cli/status_line.h"

#include <stdarg.h>
#include <stdio.h>
#include <unistd.h>

void status_line_clear(void)
{
    if (isatty(STDERR_FILENO)) {
        fputs("\r\033[K", stderr);
    }
}

void status_line_show(const char *fmt, ...)
{
    if (!isatty(STDERR_FILENO)) {
        return;
    }
    va_list args;
    va_start(args, fmt);
    status_line_clear();
    vfprintf(stderr, fmt, args);
    va_end(args);
}
