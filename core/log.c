#include "core/log.h"

#include <errno.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define LEVEL_UNSET (-1)
#define LINE_BYTES  2048

static atomic_int level_now = LEVEL_UNSET;
static atomic_int rank_now = -1;

void log_set_level(enum log_level level)
{
    atomic_store(&level_now, (int)level);
}

void log_set_rank(int rank)
{
    atomic_store(&rank_now, rank);
}

static int level_from_env(void)
{
    static const char *const names[] = {"debug", "info", "warn", "error"};
    const char *s = getenv("TIDEMARK_LOG");
    for (int i = 0; s != NULL && i < (int)(sizeof names / sizeof names[0]); i++) {
        if (strcmp(s, names[i]) == 0) {
            return i;
        }
    }
    return LOG_INFO;
}

static bool is_wanted(enum log_level level, int rank)
{
    int min = atomic_load(&level_now);
    if (min == LEVEL_UNSET) {
        min = level_from_env();
        atomic_store(&level_now, min);
    }
    return (int)level >= min && !(level == LOG_INFO && rank > 0);
}

/* "hh:mm:ss.mmm [rank N ]module: " into buf; returns its length. */
static size_t put_head(char *buf, size_t cap, int rank, const char *module)
{
    struct timespec ts;
    struct tm tm;
    clock_gettime(CLOCK_REALTIME, &ts);
    localtime_r(&ts.tv_sec, &tm);
    char who[24] = "";
    if (rank >= 0) {
        snprintf(who, sizeof who, "rank %d ", rank);
    }
    int n = snprintf(buf, cap, "%02d:%02d:%02d.%03ld %s%.64s: ", tm.tm_hour, tm.tm_min, tm.tm_sec,
                     ts.tv_nsec / 1000000, who, module);
    return n < 0 ? 0 : (size_t)n;
}

static void write_line(const char *line, size_t n)
{
    ssize_t rc;
    do {
        rc = write(STDERR_FILENO, line, n);
    } while (rc < 0 && errno == EINTR);
}

void log_at(enum log_level level, const char *module, const char *fmt, ...)
{
    int rank = atomic_load(&rank_now);
    if (!is_wanted(level, rank)) {
        return;
    }
    int saved_errno = errno;
    char line[LINE_BYTES];
    size_t n = put_head(line, sizeof line, rank, module);
    va_list ap;
    va_start(ap, fmt);
    int m = vsnprintf(line + n, sizeof line - 1 - n, fmt, ap);
    va_end(ap);
    if (m > 0) {
        size_t room = sizeof line - 2 - n;
        size_t end = n + ((size_t)m < room ? (size_t)m : room);
        for (; n < end; n++) {
            line[n] = (unsigned char)line[n] < 0x20 ? ' ' : line[n]; // one event, one line
        }
    }
    line[n] = '\n';
    write_line(line, n + 1);
    errno = saved_errno;
}
