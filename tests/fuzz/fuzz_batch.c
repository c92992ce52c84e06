/*
 * Any bytes as a batch from the stage before: decoded, checked against a stage's block tables,
 * applied and traced twice, as a stage would. What was accepted must encode to the same bytes.
 */
#include "core/err.h"
#include "workers/batch.h"
#include "workers/kv.h"
#include "workers/request_trace.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum {
    N_SLOTS = 6,
    SLOT_BLOCKS = 4,
};

static const struct batch_limits limits = {
    .max_rows = 6,
    .max_tokens = 48,
    .max_blocks = 9,
    .n_stages = 2,
    .n_slots = N_SLOTS,
    .n_kv_blocks = 24,
    .n_lanes = 3,
    .n_load_ranks = 2,
};

static void apply(struct kv_tables *tables, struct request_trace *traces, const struct batch *b)
{
    struct err e = {0};
    if (kv_tables_check(tables, b, &e) != 0) {
        CHECK(e.code == ERR_ENV);
        return;
    }
    kv_tables_apply(tables, b);
    struct request_trace_parts parts;
    request_trace_measure(b, &parts);
    for (uint32_t i = 0; i < b->n_rows; i++) {
        const struct batch_row *r = &b->rows[i];
        CHECK(r->pos + r->n_tokens <= tables->n[r->slot] * BATCH_KV_BLOCK);
        CHECK(tables->n[r->slot] <= SLOT_BLOCKS);
        request_trace_add(&traces[r->slot], b, &parts, r);
    }
}

static void check_round_trip(const struct batch *b, const uint8_t *data, size_t size)
{
    uint8_t *wire = malloc(batch_max_bytes(&limits));
    CHECK(wire != NULL);
    CHECK(batch_encode(b, wire) == size);
    CHECK(memcmp(wire, data, size) == 0);
    free(wire);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct err e = {0};
    struct batch *b;
    struct kv_tables tables;
    struct request_trace traces[N_SLOTS] = {0};
    CHECK(batch_create(&b, &limits, &e) == 0);
    CHECK(kv_tables_init(&tables, N_SLOTS, SLOT_BLOCKS, &e) == 0);
    if (batch_decode(b, &limits, data, size, &e) == 0) {
        check_round_trip(b, data, size);
        apply(&tables, traces, b);
        apply(&tables, traces, b);
    } else {
        CHECK(e.code == ERR_ENV && strchr(e.msg, '\n') == NULL);
    }
    kv_tables_free(&tables);
    batch_destroy(b);
    return 0;
}
