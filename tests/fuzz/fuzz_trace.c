/*
 * Any bytes as a trace; the first byte chooses window, scale and forced lengths. Kept requests come
 * in order, from time 0 on, fit the context, and every line is kept or counted.
 */
#include "core/err.h"
#include "datasets/trace.h"

#include <stdint.h>
#include <string.h>

#define CONTEXT 2048
#define SECOND  1000000000LL

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_entries(const struct entries *s)
{
    uint64_t n = s->n;
    int64_t last_ns = 0;
    for (int r = 0; r < ENTRIES_N_REASONS; r++) {
        n += s->filtered[r];
    }
    CHECK(n == s->n_source && s->n > 0 && s->ids.n == 0);
    for (size_t i = 0; i < s->n; i++) {
        const struct entry *x = &s->v[i];
        CHECK(x->t_ns >= last_ns && x->index < s->n_source);
        CHECK(x->n_in >= 1 && x->n_out >= 1 && x->n_in + x->n_out <= CONTEXT);
        last_ns = x->t_ns;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0) {
        return 0;
    }
    struct dataset_config c = {
        .time_scale = (data[0] & 1) != 0 ? 0.5 : ((data[0] & 2) != 0 ? 1e6 : 1.0),
        .window = {(data[0] & 4) != 0 ? SECOND : 0, (data[0] & 8) != 0 ? 60 * SECOND : -1},
        .input_tokens = (data[0] & 16) != 0 ? 100 : 0,
        .output_tokens = (data[0] & 32) != 0 ? 10 : 0,
    };
    struct entries s = {0};
    struct err e = {0};
    if (trace_parse(&s, &c, CONTEXT, (const char *)data + 1, size - 1, "fuzz", &e) != 0) {
        CHECK(e.code == ERR_INPUT && strncmp(e.msg, "fuzz:", 5) == 0);
        CHECK(strchr(e.msg, '\n') == NULL && s.v == NULL);
        return 0;
    }
    check_entries(&s);
    entries_free(&s);
    return 0;
}
