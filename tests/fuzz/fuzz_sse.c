/*
 * Any bytes as a stream of events; the first byte seeds how they are cut, the second sets the limit of
 * a line. However they are cut, the same events come out, with the same end or the same refusal; and
 * each event goes on to the scanner of replies, which must stay inside of it.
 */
#include "core/err.h"
#include "core/rng.h"
#include "loadgen/reply.h"
#include "loadgen/sse.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_inside(struct json_text t, const char *data, size_t len)
{
    CHECK(t.len == 0 || (t.data >= data && t.data + t.len <= data + len));
}

static void put_event(void *arg, const char *data, size_t len)
{
    struct str *out = arg;
    struct reply r;
    str_printf(out, "%zu:", len);
    str_append(out, data, len);
    if (reply_scan(data, len, &r)) {
        check_inside(r.content, data, len);
        check_inside(r.reasoning, data, len);
        check_inside(r.message, data, len);
    }
}

/* A piece lies in a block of its own size that is gone once it has been fed. */
static int feed_piece(struct sse *s, const char *bytes, size_t n, struct str *out)
{
    char *piece = malloc(n);
    CHECK(piece);
    memcpy(piece, bytes, n);
    int rc = sse_feed(s, piece, n, put_event, out);
    free(piece);
    return rc;
}

/* All events as text, from pieces of up to `step` bytes drawn from `seed`; 0: from one piece. */
static void read_all(struct str *out, const char *bytes, size_t n, size_t limit, size_t step,
                     uint64_t seed)
{
    struct sse s = {.max_bytes = limit};
    int rc = 0;
    for (size_t at = 0; at < n && rc == 0;) {
        size_t more = step ? 1 + (size_t)rng_below(step, seed, RNG_SHUFFLE, at, 0) : n;
        more = more < n - at ? more : n - at;
        rc = feed_piece(&s, bytes + at, more, out);
        at += more;
    }
    rc = rc == 0 ? sse_end(&s, put_event, out) : rc;
    str_puts(out, rc == 0 ? "end" : "too long");
    sse_free(&s);
}

static void check_same(const struct str *a, const struct str *b)
{
    CHECK(a->len == b->len && memcmp(a->data, b->data, a->len) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct str whole = {0}, cut = {0}, bytewise = {0};
    if (size < 2) {
        return 0;
    }
    const char *bytes = (const char *)data + 2;
    size_t limit = data[1] < 128 ? 0 : data[1] - 120u; // none, or 8..135
    read_all(&whole, bytes, size - 2, limit, 0, 0);
    read_all(&cut, bytes, size - 2, limit, 1 + data[0], data[0]);
    read_all(&bytewise, bytes, size - 2, limit, 1, 0);
    check_same(&whole, &cut);
    check_same(&whole, &bytewise);
    str_free(&whole);
    str_free(&cut);
    str_free(&bytewise);
    return 0;
}
