#include "cli/status_line.h"

#include <stdarg.h>
#include <stdio.h>

#include "loadgen/progress.h"

#define CLEAR_LINE "\r\033[K"

void status_line_clear(void)
{
    if (progress_columns() > 0) {
        fputs(CLEAR_LINE, stderr);
    }
}

void status_line_show(const char *fmt, ...)
{
    const int columns = progress_columns();
    char text[PROGRESS_MAX_COLUMNS + 1];
    if (columns == 0) {
        return;
    }
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, (size_t)columns, fmt, args); // no wrap at the edge
    va_end(args);
    fprintf(stderr, CLEAR_LINE "%s\r", text);
}
