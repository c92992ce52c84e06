/*
 * Any bytes as a server's metrics, from a block of their own size. A server is named exactly when
 * something was told, numbers are finite, and lines stand for themselves: what is told of the text is
 * told of it with every line end doubled.
 */
#include "core/err.h"
#include "core/str.h"
#include "loadgen/metrics.h"

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static bool is_same(double a, double b)
{
    return a == b || (isnan(a) && isnan(b));
}

static void check(const struct metrics *m)
{
    bool is_told = !isnan(m->waiting) || !isnan(m->running) || !isnan(m->kv_used);
    CHECK(is_told == (m->server != NULL));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct metrics m, again;
    struct str doubled = {0};
    char *block = malloc(size + (size == 0));
    CHECK(block);
    memcpy(block, data, size);
    metrics_parse(block, size, &m);
    check(&m);
    for (size_t i = 0; i < size; i++) {
        str_append(&doubled, &block[i], 1);
        str_append(&doubled, "\n", block[i] == '\n');
    }
    metrics_parse(doubled.data ? doubled.data : "", doubled.len, &again);
    CHECK(m.server == again.server && is_same(m.waiting, again.waiting));
    CHECK(is_same(m.running, again.running) && is_same(m.kv_used, again.kv_used));
    str_free(&doubled);
    free(block);
    return 0;
}
