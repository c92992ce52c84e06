#include "core/str.h"

#include "core/err.h"
#include "core/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define MIN_CAP        64u
#define WORD_MAX       63
#define READ_AT_A_TIME ((size_t)1 << 20)

/* The capacity for n_more bytes and the NUL: at least doubled, so that appending is linear. */
static size_t grown_cap(const struct str *s, size_t n_more)
{
    CHECK(n_more < SIZE_MAX / 4 && s->len < SIZE_MAX / 4);
    size_t need = s->len + n_more + 1;
    size_t cap = s->cap < MIN_CAP ? MIN_CAP : s->cap * 2;
    return cap < need ? need : cap;
}

void str_reserve(struct str *s, size_t n_more)
{
    if (s->cap - s->len > n_more) {
        return;
    }
    s->cap = grown_cap(s, n_more);
    s->data = xrealloc(s->data, s->cap);
    s->data[s->len] = '\0';
}

void str_append(struct str *s, const void *bytes, size_t n)
{
    str_reserve(s, n);
    if (n != 0) {
        memcpy(s->data + s->len, bytes, n);
    }
    s->len += n;
    s->data[s->len] = '\0';
}

void str_puts(struct str *s, const char *text)
{
    str_append(s, text, strlen(text));
}

void str_printf(struct str *s, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    va_list again;
    va_copy(again, ap);
    str_reserve(s, MIN_CAP);
    int n = vsnprintf(s->data + s->len, s->cap - s->len, fmt, ap);
    va_end(ap);
    CHECK(n >= 0);
    if ((size_t)n >= s->cap - s->len) {
        str_reserve(s, (size_t)n);
        vsnprintf(s->data + s->len, s->cap - s->len, fmt, again);
    }
    va_end(again);
    s->len += (size_t)n;
}

void str_clear(struct str *s)
{
    s->len = 0;
    if (s->data != NULL) {
        s->data[0] = '\0';
    }
}

void str_free(struct str *s)
{
    free(s->data);
    *s = (struct str){0};
}

static int min_int(int a, int b)
{
    return a < b ? a : b;
}

int str_choice(const char *choices, const char *text)
{
    size_t len = strlen(text);
    int i = 0;
    for (const char *c = choices; *c != '\0'; i++) {
        size_t n = strcspn(c, "|");
        if (n == len && memcmp(c, text, n) == 0) {
            return i;
        }
        c += n + (c[n] == '|');
    }
    return -1;
}

void str_put_choices(struct str *s, const char *choices)
{
    for (const char *c = choices; *c != '\0'; c++) {
        str_append(s, *c == '|' ? ", " : c, *c == '|' ? 2 : 1);
    }
}

/*
 * Optimal string alignment distance: insertions, deletions, substitutions and swaps of neighbours
 * cost 1 each (Damerau 1964, restricted form). Swaps count once because they are common typos.
 */
int str_distance(const char *a, const char *b)
{
    int n_a = (int)strnlen(a, WORD_MAX);
    int n_b = (int)strnlen(b, WORD_MAX);
    int rows[3][WORD_MAX + 1]; // distances of the prefixes a[0..i) and b[0..j), rows i-2, i-1, i
    int *before = rows[0], *last = rows[1], *now = rows[2];
    for (int j = 0; j <= n_b; j++) {
        before[j] = last[j] = j;
    }
    for (int i = 1; i <= n_a; i++) {
        now[0] = i;
        for (int j = 1; j <= n_b; j++) {
            int d = min_int(last[j], now[j - 1]) + 1;
            d = min_int(d, last[j - 1] + (a[i - 1] != b[j - 1]));
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1]) {
                d = min_int(d, before[j - 2] + 1);
            }
            now[j] = d;
        }
        int *spare = before;
        before = last;
        last = now;
        now = spare;
    }
    return last[n_b];
}

/* Like str_reserve, but a file's size is the user's business: out of memory is reported. */
static bool try_reserve(struct str *s, size_t n_more)
{
    if (s->cap - s->len > n_more) {
        return true;
    }
    size_t cap = grown_cap(s, n_more);
    char *p = realloc(s->data, cap);
    if (p == NULL) {
        return false;
    }
    s->data = p;
    s->cap = cap;
    return true;
}

static int open_regular(const char *path, size_t *n_bytes, struct err *e)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); // a FIFO must not block us
    if (fd < 0) {
        return err_set(e, ERR_INPUT, "%s: %s", path, strerror(errno));
    }
    struct stat st;
    if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode)) {
        close(fd);
        return err_set(e, ERR_INPUT, "%s: not a regular file", path);
    }
    *n_bytes = (size_t)st.st_size;
    return fd;
}

static int read_all(struct str *s, int fd, const char *path, size_t max_bytes, struct err *e)
{
    for (;;) {
        if (!try_reserve(s, READ_AT_A_TIME)) {
            return err_set(e, ERR_ENV, "%s: out of memory after %zu bytes", path, s->len);
        }
        ssize_t n = read(fd, s->data + s->len, s->cap - s->len - 1);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0) {
            return err_set(e, ERR_ENV, "%s: %s", path, strerror(errno));
        }
        s->len += (size_t)n;
        s->data[s->len] = '\0';
        if (s->len > max_bytes) {
            return err_set(e, ERR_INPUT, "%s: larger than %zu bytes", path, max_bytes);
        }
        if (n == 0) {
            return 0;
        }
    }
}

int str_read_file(struct str *s, const char *path, size_t max_bytes, struct err *e)
{
    size_t n_bytes = 0;
    int fd = open_regular(path, &n_bytes, e);
    if (fd < 0) {
        return -1;
    }
    int rc;
    struct str text = {0};
    if (n_bytes > max_bytes) {
        rc = err_set(e, ERR_INPUT, "%s: %zu bytes, larger than %zu", path, n_bytes, max_bytes);
    } else if (!try_reserve(&text, n_bytes + READ_AT_A_TIME)) {
        rc = err_set(e, ERR_ENV, "%s: out of memory for %zu bytes", path, n_bytes);
    } else {
        rc = read_all(&text, fd, path, max_bytes, e);
    }
    close(fd);
    if (rc != 0) {
        str_free(&text);
        return -1;
    }
    str_free(s);
    *s = text;
    return 0;
}
