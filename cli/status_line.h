/* A line on the terminal that says what is going on, rewritten in place; where stderr is none, nothing. */
#pragma once

void status_line_show(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
void status_line_clear(void);
