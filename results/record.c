#include "results/record.h"

#include <string.h>

const char *const record_outcome_names[OUTCOME_N] = {
    [OUTCOME_OK] = "ok",
    [OUTCOME_HTTP_STATUS] = "http_status",
    [OUTCOME_CONNECT] = "connect",
    [OUTCOME_TIMEOUT_FIRST] = "timeout_first",
    [OUTCOME_TIMEOUT_TOTAL] = "timeout_total",
    [OUTCOME_TRUNCATED] = "truncated",
    [OUTCOME_BAD_STREAM] = "bad_stream",
    [OUTCOME_CANCELLED] = "cancelled",
    [OUTCOME_REJECTED] = "rejected",
    [OUTCOME_LOST] = "lost",
};

const char *const record_step_kind_names[STEP_KIND_N] = {
    [STEP_BASE] = "base", [STEP_SWEEP] = "sweep",     [STEP_BISECT] = "bisect",
    [STEP_FILL] = "fill", [STEP_REVISIT] = "revisit",
};

const char *const record_verdict_names[VERDICT_N] = {
    [VERDICT_STABLE] = "stable",       [VERDICT_UNSTABLE] = "unstable",
    [VERDICT_TOO_SHORT] = "too_short", [VERDICT_CLIENT_LIMITED] = "client_limited",
    [VERDICT_ERRORS] = "errors",
};

const char *const record_edge_kind_names[EDGE_KIND_N] = {"hidden", "sums", "ids"};

const char *const record_span_op_names[SPAN_OP_N] = {
    [SPAN_WAIT_RECV] = "wait_recv", [SPAN_PREFILL] = "prefill", [SPAN_DECODE] = "decode",
    [SPAN_MIXED] = "mixed",         [SPAN_SEND] = "send",
};

/*
 * The encoding: this head, struct record as it stands, stage_us, dt_us, zeros up to 8 bytes. Host
 * byte order: messages stay in one job, and the journal is folded on the machine that wrote it.
 */
struct head {
    uint32_t magic;
    uint32_t n_bytes; // in all, padding included
};

#define MAGIC ((uint32_t)0x33435254) // "TRC3"; changes with struct record

_Static_assert(sizeof(struct record) == 192,
               "encoded as it stands: no padding, new MAGIC on change");
_Static_assert(sizeof(struct span) == 40, "journalled as it stands: no padding");
_Static_assert(sizeof(struct series_point) == 48, "journalled as it stands: no padding");

void record_init(struct record *r)
{
    *r = (struct record){
        .t_sched_ns = RECORD_NONE,
        .t_send_ns = RECORD_NONE,
        .t_byte_ns = RECORD_NONE,
        .t_first_ns = RECORD_NONE,
        .t_content_ns = RECORD_NONE,
        .t_last_ns = RECORD_NONE,
        .t_recv_ns = RECORD_NONE,
        .t_admit_ns = RECORD_NONE,
        .t_prefill_ns = RECORD_NONE,
        .t_emit_first_ns = RECORD_NONE,
        .t_emit_last_ns = RECORD_NONE,
        .n_out_usage = UINT32_MAX,
        .n_in_usage = UINT32_MAX,
        .n_out_local = UINT32_MAX,
    };
}

int64_t record_lag_ns(const struct record *r)
{
    if (r->t_send_ns == RECORD_NONE) {
        return RECORD_NONE;
    }
    return r->t_send_ns - r->t_sched_ns - (int64_t)r->cap_wait_us * 1000;
}

size_t record_encoded_bytes(const struct record *r)
{
    size_t n_words = (size_t)2 * r->n_stages + r->n_out;
    size_t n = sizeof(struct head) + sizeof *r + n_words * sizeof(uint32_t);
    return (n + 7) & ~(size_t)7;
}

void record_encode(const struct record *r, const uint32_t *stage_us, const uint32_t *dt_us,
                   uint8_t *out)
{
    size_t n_bytes = record_encoded_bytes(r);
    struct head head = {.magic = MAGIC, .n_bytes = (uint32_t)n_bytes};
    size_t at = 0;
    memcpy(out, &head, sizeof head);
    at += sizeof head;
    memcpy(out + at, r, sizeof *r);
    at += sizeof *r;
    size_t stage_bytes = (size_t)2 * r->n_stages * sizeof *stage_us;
    if (stage_bytes > 0) {
        memcpy(out + at, stage_us, stage_bytes);
        at += stage_bytes;
    }
    size_t dt_bytes = r->n_out * sizeof *dt_us;
    if (dt_bytes > 0) {
        memcpy(out + at, dt_us, dt_bytes);
        at += dt_bytes;
    }
    memset(out + at, 0, n_bytes - at);
}

size_t record_decode(const uint8_t *in, size_t len, struct record *r, const uint32_t **stage_us,
                     const uint32_t **dt_us)
{
    struct head head;
    struct record got;
    if (len < sizeof head + sizeof got) {
        return 0;
    }
    memcpy(&head, in, sizeof head);
    memcpy(&got, in + sizeof head, sizeof got);
    if (head.magic != MAGIC || head.n_bytes > len || got.outcome >= OUTCOME_N ||
        got.n_stages > RECORD_MAX_STAGES || head.n_bytes != record_encoded_bytes(&got)) {
        return 0;
    }
    const uint8_t *stages = in + sizeof head + sizeof got;
    const uint8_t *dt = stages + (size_t)2 * got.n_stages * sizeof(uint32_t);
    *stage_us = got.n_stages > 0 ? (const uint32_t *)(const void *)stages : NULL;
    *dt_us = got.n_out > 0 ? (const uint32_t *)(const void *)dt : NULL;
    *r = got;
    return head.n_bytes;
}
