/*
 * Any bytes as a trace; the first byte chooses window, scale and forced lengths. Kept requests come
 * in order, from time 0 on, fit the context, and every line is kept or counted.
 */
#include "core/err.h"
#include "datasets/blocks.h"
#include "datasets/trace.h"

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#define CONTEXT 2048
#define SECOND  1000000000LL

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_entries(const struct entries *s, bool is_forced)
{
    uint64_t n = s->n;
    int64_t last_ns = 0;
    for (int r = 0; r < ENTRIES_N_REASONS; r++) {
        n += s->filtered[r];
    }
    CHECK(n == s->n_source && s->n > 0 && s->ids.n == 0);
    CHECK(s->n_turns == s->n);
    for (size_t i = 0; i < s->n; i++) {
        const struct entry *x = &s->v[i];
        CHECK(x->t_ns >= last_ns && x->index < s->n_source);
        const struct turn *t = &s->turns[x->turn_at];
        CHECK(is_forced || (t->n_in >= 1 && t->n_out >= 1 && t->n_in + t->n_out <= CONTEXT));
        CHECK(x->data_at + x->n_data <= s->n_blocks);
        CHECK(s->n_blocks == 0 || (uint64_t)x->n_data * BLOCKS_TOKENS >= t->n_in);
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
        .input.mean = (data[0] & 16) != 0 ? 100 : 0,
        .output.mean = (data[0] & 32) != 0 ? 10 : 0,
    };
    struct lengths in, out;
    struct entries s = {0};
    struct err e = {0};
    CHECK(lengths_init(&in, &c.input, &quantile_sharegpt_input, &e) == 0);
    CHECK(lengths_init(&out, &c.output, &quantile_sharegpt_output, &e) == 0);
    struct trace_input input = {.cfg = &c, .in = &in, .out = &out, .context = CONTEXT};
    if (trace_parse(&s, &input, (const char *)data + 1, size - 1, "fuzz", &e) != 0) {
        CHECK(e.code == ERR_INPUT && strncmp(e.msg, "fuzz:", 5) == 0);
        CHECK(strchr(e.msg, '\n') == NULL && s.v == NULL);
        return 0;
    }
    check_entries(&s, in.is_forced || out.is_forced);
    entries_free(&s);
    return 0;
}
