/*
 * Any bytes as what a server sends; the first byte seeds how they are cut. However they are cut, the
 * same answers come out, with the same end or the same refusal.
 */
#include "core/err.h"
#include "core/rng.h"
#include "tests/support/answers.h"

#include <stdint.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* From pieces of up to `step` bytes drawn from `seed`; 0: from one piece. */
static void read_all(struct answers *r, const char *bytes, size_t n, size_t step, uint64_t seed)
{
    for (size_t at = 0; at < n && !r->is_refused;) {
        size_t more = step ? 1 + (size_t)rng_below(step, seed, RNG_SHUFFLE, at, 0) : n;
        more = more < n - at ? more : n - at;
        answers_take(r, bytes + at, more);
        at += more;
    }
    answers_end(r);
}

static void check_same(const struct str *a, const struct str *b)
{
    CHECK(a->len == b->len && (a->len == 0 || memcmp(a->data, b->data, a->len) == 0));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct answers whole = {0}, cut = {0}, bytewise = {0};
    if (size == 0) {
        return 0;
    }
    const char *bytes = (const char *)data + 1;
    read_all(&whole, bytes, size - 1, 0, 0);
    read_all(&cut, bytes, size - 1, 1 + data[0], data[0]);
    read_all(&bytewise, bytes, size - 1, 1, 0);
    check_same(&whole.said, &cut.said);
    check_same(&whole.said, &bytewise.said);
    answers_free(&whole);
    answers_free(&cut);
    answers_free(&bytewise);
    return 0;
}
