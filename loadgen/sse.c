#include "loadgen/sse.h"

#include <string.h>

#define BOM "\xef\xbb\xbf"

static bool is_over(const struct sse *s, size_t n)
{
    return s->max_bytes > 0 && n > s->max_bytes;
}

/* Another data line of the event. */
static int add_data(struct sse *s, const char *value, size_t len, bool in_place)
{
    if (!s->has_data && in_place) {
        s->whole = value;
        s->whole_len = len;
    } else {
        if (s->whole) {
            str_append(&s->data, s->whole, s->whole_len);
            s->whole = NULL;
        }
        if (s->has_data) {
            str_append(&s->data, "\n", 1);
        }
        str_append(&s->data, value, len);
    }
    s->has_data = true;
    return is_over(s, s->data.len) ? -1 : 0;
}

static void dispatch(struct sse *s, sse_event_fn *fn, void *arg)
{
    if (s->has_data) {
        const char *data = s->whole ? s->whole : s->data.len > 0 ? s->data.data : "";
        fn(arg, data, s->whole ? s->whole_len : s->data.len);
    }
    s->has_data = false;
    s->whole = NULL;
    str_clear(&s->data);
}

/* A whole line without its end. in_place: it lies in what is being fed. */
static int take_line(struct sse *s, const char *line, size_t len, bool in_place, sse_event_fn *fn,
                     void *arg)
{
    if (!s->is_begun) {
        s->is_begun = true;
        if (len >= 3 && memcmp(line, BOM, 3) == 0) {
            line += 3;
            len -= 3;
        }
    }
    if (is_over(s, len)) {
        return -1;
    }
    if (len == 0) {
        dispatch(s, fn, arg);
        return 0;
    }
    if (len < 4 || memcmp(line, "data", 4) != 0 || (len > 4 && line[4] != ':')) {
        return 0; // a comment, or a field that says nothing about tokens
    }
    size_t skip = len > 5 && line[5] == ' ' ? 6 : len > 4 ? 5 : 4;
    return add_data(s, line + skip, len - skip, in_place);
}

/* Where the line ends: its CR or LF, or NULL. */
static const char *line_end(const char *at, const char *end)
{
    if (*at == '\n') {
        return at; // the empty line that ends an event
    }
    const char *lf = memchr(at, '\n', (size_t)(end - at));
    const char *cr = memchr(at, '\r', (size_t)((lf ? lf : end) - at));
    return cr ? cr : lf;
}

/* What is left of the fed bytes when the call returns is copied. */
static int keep(struct sse *s, const char *at, const char *end)
{
    if (s->whole) {
        str_append(&s->data, s->whole, s->whole_len);
        s->whole = NULL;
    }
    if (at < end) {
        str_append(&s->line, at, (size_t)(end - at));
    }
    size_t bom = s->is_begun ? 0 : strlen(BOM); // no part of the line
    return s->line.len > bom && is_over(s, s->line.len - bom) ? -1 : 0;
}

int sse_feed(struct sse *s, const char *bytes, size_t n, sse_event_fn *fn, void *arg)
{
    const char *at = bytes, *end = bytes + n;
    while (at < end) {
        if (s->after_cr) {
            s->after_cr = false;
            at += *at == '\n';
            continue;
        }
        const char *stop = line_end(at, end);
        if (!stop) {
            break;
        }
        int rc;
        if (s->line.len > 0) {
            str_append(&s->line, at, (size_t)(stop - at));
            rc = take_line(s, s->line.data, s->line.len, false, fn, arg);
            str_clear(&s->line);
        } else {
            rc = take_line(s, at, (size_t)(stop - at), true, fn, arg);
        }
        if (rc != 0) {
            return -1;
        }
        s->after_cr = *stop == '\r';
        at = stop + 1;
    }
    return keep(s, at, end);
}

int sse_end(struct sse *s, sse_event_fn *fn, void *arg)
{
    if (s->line.len > 0 && take_line(s, s->line.data, s->line.len, false, fn, arg) != 0) {
        return -1;
    }
    dispatch(s, fn, arg);
    return 0;
}

bool sse_is_between(const struct sse *s)
{
    return s->is_begun && !s->has_data && !s->after_cr && s->line.len == 0;
}

void sse_reset(struct sse *s)
{
    str_clear(&s->line);
    str_clear(&s->data);
    s->whole = NULL;
    s->has_data = s->after_cr = s->is_begun = false;
}

void sse_free(struct sse *s)
{
    str_free(&s->line);
    str_free(&s->data);
    *s = (struct sse){0};
}
