#include "model/stops.h"

#include <stdint.h>
#include <string.h>

void stops_stream_free(struct stops_stream *t)
{
    str_free(&t->held);
}

/* The index of the text that ends first in `held`, of several the longest; where it begins in *at. -1: none. */
static int find(const struct stops *s, const struct str *held, size_t *at)
{
    size_t first_end = SIZE_MAX;
    int found = -1;
    for (size_t i = 0; i < s->n && held->len > 0; i++) {
        const size_t n = strlen(s->texts[i]);
        const char *p = memmem(held->data, held->len, s->texts[i], n);
        const size_t begin = p ? (size_t)(p - held->data) : 0;
        if (p && (begin + n < first_end || (begin + n == first_end && begin < *at))) {
            first_end = begin + n;
            *at = begin;
            found = (int)i;
        }
    }
    return found;
}

static bool may_begin(const struct stops *s, const char *text, size_t n)
{
    for (size_t i = 0; i < s->n; i++) {
        if (strlen(s->texts[i]) > n && memcmp(s->texts[i], text, n) == 0) {
            return true;
        }
    }
    return false;
}

/* How much of the end of `held` may become a stop text. */
static size_t doubtful(const struct stops *s, const struct str *held)
{
    size_t most = held->len < STOPS_MAX_BYTES ? held->len : STOPS_MAX_BYTES;
    for (size_t n = most; n > 0; n--) {
        if (may_begin(s, held->data + held->len - n, n)) {
            return n;
        }
    }
    return 0;
}

bool stops_push(const struct stops *s, struct stops_stream *t, const char *text, size_t n,
                struct str *out)
{
    size_t at = 0;
    if (t->hit) {
        return true;
    }
    if (s->n == 0) {
        str_append(out, text, n);
        return false;
    }
    str_append(&t->held, text, n);
    t->hit = 1 + find(s, &t->held, &at);
    if (t->hit) {
        str_append(out, t->held.data, at);
        str_clear(&t->held);
        return true;
    }
    const size_t kept = doubtful(s, &t->held), shown = t->held.len - kept;
    if (shown > 0) {
        str_append(out, t->held.data, shown);
        memmove(t->held.data, t->held.data + shown, kept + 1);
        t->held.len = kept;
    }
    return false;
}

void stops_finish(struct stops_stream *t, struct str *out)
{
    if (t->held.len > 0) {
        str_append(out, t->held.data, t->held.len);
        str_clear(&t->held);
    }
}
