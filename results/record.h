/*
 * THE data model: what is kept of every request, of every batch on every stage, and of the queues.
 * Pure data, no I/O; loadgen and workers fill these, journal and store keep them, analysis reads
 * them. Times are ns on rank 0's clock since the run's t0. RECORD_NONE marks "never happened".
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define RECORD_NONE       INT64_MIN
#define RECORD_MAX_STAGES 64
#define RECORD_LATE_NS    1000000 // a request that the client sends later than this is marked late

enum outcome { // a request's end; order is part of the file format
    OUTCOME_OK,
    OUTCOME_HTTP_STATUS,
    OUTCOME_CONNECT,
    OUTCOME_TIMEOUT_FIRST,
    OUTCOME_TIMEOUT_TOTAL,
    OUTCOME_TRUNCATED,
    OUTCOME_BAD_STREAM,
    OUTCOME_CANCELLED, // still unfinished when the step's drain ended
    OUTCOME_REJECTED,  // the target refused it: its queue was full
    OUTCOME_LOST,      // no record survived a killed run
    OUTCOME_N,
};
extern const char *const record_outcome_names[OUTCOME_N];

enum step_kind { // order is part of the file format
    STEP_BASE,   // closed loop: the probe, or a rung of a ladder
    STEP_SWEEP,
    STEP_BISECT,
    STEP_FILL,
    STEP_REVISIT, // a rate once more: longer, to decide it, or at the end, to see a drift
    STEP_KIND_N,
};
extern const char *const record_step_kind_names[STEP_KIND_N];

enum verdict { // order is part of the file format
    VERDICT_STABLE,
    VERDICT_UNSTABLE,
    VERDICT_TOO_SHORT,
    VERDICT_CLIENT_LIMITED,
    VERDICT_ERRORS,
    VERDICT_N,
};
extern const char *const record_verdict_names[VERDICT_N];

struct record {
    uint64_t id;                             // index in the step's schedule
    int64_t t_sched_ns;                      // q: when it was due
    int64_t t_send_ns;                       // s
    int64_t t_byte_ns;                       // b: first byte or message of the answer
    int64_t t_first_ns;                      // f: first content or reasoning token
    int64_t t_content_ns;                    // first content token (= f without reasoning)
    int64_t t_last_ns;                       // l: last token
    int64_t t_recv_ns;                       // internal targets: at the leader
    int64_t t_admit_ns;                      //   admitted to a lane
    int64_t t_prefill_ns;                    //   first batch built
    int64_t t_emit_first_ns, t_emit_last_ns; //   stamped by the last stage
    uint32_t n_in;                           // prompt tokens
    uint32_t n_out_req;                      // output tokens asked for
    uint32_t n_out;                          // output tokens counted here
    uint32_t n_out_usage;                    // as the server reported; UINT32_MAX when it did not
    uint32_t n_chunks;                       // messages or SSE events that carried tokens
    uint32_t itl_max_us;
    uint32_t hop_us[2], bubble_us[2]; // [0] up to the first token, [1] up to the last
    uint16_t load_rank;
    uint16_t replica;
    uint16_t http_status;   // 0 without HTTP
    uint8_t outcome;        // enum outcome
    uint8_t n_stages;       // length of stage_us[k]; 0 for external targets
    int32_t error;          // errno or library code behind a failed outcome, 0 otherwise
    uint32_t turn;          // in its conversation
    uint64_t conversation;  // 0: none
    uint32_t cap_wait_us;   // part of s - q that was the wait at the user's cap; saturates
    uint32_t late;          // 1: lag above RECORD_LATE_NS
    uint32_t n_in_usage;    // prompt tokens as the server reported; UINT32_MAX when it did not
    uint32_t n_out_local;   // output tokens by the tokenizer here; UINT32_MAX when not counted
    uint32_t n_preempted;   // internal targets: how often it was computed anew
    uint32_t n_cached;      //   prompt tokens found in the prefix cache
    uint32_t requeue_us[2]; //   waiting after preemptions; [0], [1] as hop_us
};

/* A record with every time RECORD_NONE and every count zero. */
void record_init(struct record *r);

/*
 * How late the client itself sent it: s - q without the wait at the user's cap, which is cut to whole
 * us. RECORD_NONE when it was not sent.
 */
int64_t record_lag_ns(const struct record *r);

/*
 * One record as bytes, with what has a length of its own: per-stage compute times
 * stage_us (2, n_stages), and the token times dt_us (n_out): dt[0] = t_first - t_send, then the gaps
 * between consecutive tokens of their arrival. Self-sized and checked: record_decode of bytes from
 * outside never reads past `len`.
 */
size_t record_encoded_bytes(const struct record *r);
void record_encode(const struct record *r, const uint32_t *stage_us, const uint32_t *dt_us,
                   uint8_t *out);

/*
 * Bytes used, or 0 when the bytes hold no whole valid record. The pointers returned point into
 * `in` (which must be 4-byte aligned) and may be NULL when their length is 0.
 */
size_t record_decode(const uint8_t *in, size_t len, struct record *r, const uint32_t **stage_us,
                     const uint32_t **dt_us);

/* --- what workers report ---------------------------------------------------------------------- */

enum span_op {      // order is part of the file format
    SPAN_WAIT_RECV, // nothing to compute: from the end of the last batch to the arrival of this one
    SPAN_PREFILL,   // compute: only prompt tokens
    SPAN_DECODE,    // compute: only one token per request
    SPAN_MIXED,     // compute: both
    SPAN_SEND,      // hidden states or ids to the next stage
    SPAN_OP_N,
};
extern const char *const record_span_op_names[SPAN_OP_N];

struct span {
    int64_t t_begin_ns;
    uint64_t batch_seq; // of the replica's leader, from 1 in each step
    uint32_t dur_ns;    // saturates at 4.29 s
    uint32_t n_tokens;
    uint32_t n_bytes; // moved, for SPAN_SEND
    uint16_t rank;
    uint16_t n_rows; // requests in the batch
    uint8_t op;      // enum span_op
    uint8_t lane;
    uint8_t reserved[6];
};

/*
 * What a worker rank computes with, as it is after loading; one per worker rank. A backend tells what it
 * really uses, not what was asked for. Texts are NUL-terminated.
 */
struct engine {
    int32_t rank;
    int32_t first_layer, n_layers; // of the model, in its stage
    int32_t n_threads;             // that compute; 0: none does
    char backend[16];
    char device[112];          // what computes, or what is simulated
    char pci[16];              // bus address of its GPU; empty: none
    char kernels[16];          // the set in use
    char cores[64];            // CPUs that its threads are pinned to, "0-3"; empty: none
    char placement[40];        // "pinned", or why not
    char weights[32];          // formats of its matrices in memory, most bytes first: "bf16+f32"
    char weights_stored[32];   // as the model has them
    int64_t weight_bytes;      // in memory: its part, vectors and pads included
    int64_t n_weights;         // that are in them
    double bytes_per_weight;   // NAN: none are
    char kv_cache[16];         // format of keys and values
    double kv_bytes_per_token; // in this rank, factors and pads included
    int64_t kv_blocks;         // of 16 tokens: room
    char moe_routing[16]; // who chooses experts: "model", "uniform", "zipf"; "none": it has none
    double moe_zipf;      // exponent of "zipf"; else NAN
    char transport[16];   // as struct edge: of hidden states, or else of sums; "none": one rank
    int32_t numa;         // memory node of its GPU, else of its CPUs; -1: of several, or not known
    // Of its edges: to the next stage, and in its tensor-parallel group; empty: it has none. In the file by edge.
    char to_next[16], in_group[16];
};

enum edge_kind { // order is part of the file format
    EDGE_HIDDEN, // hidden states, from a stage to the next
    EDGE_SUMS,   // sums and what else the ranks of a tensor-parallel group put together, both ways
    EDGE_IDS,    // sampled ids, from the last stage to the leader
    EDGE_KIND_N,
};
extern const char *const record_edge_kind_names[EDGE_KIND_N];

/* Two worker ranks that send to each other for every batch. */
struct edge {
    int32_t from_rank, to_rank;
    enum edge_kind kind;
    bool same_host;
    char transport[16]; // "mpi", "ipc", "nccl", or "memory": of CPUs' sums
};

/* State of one replica's scheduler, sampled at 10 Hz, or as often as an endpoint's metrics are read. What an
 * endpoint does not tell is UINT32_MAX, or NAN. */
struct series_point {
    int64_t t_ns;
    uint32_t in_flight; // waiting + running; not told where either is not
    uint32_t waiting;
    uint32_t running;
    float kv_used; // share of KV blocks
    uint16_t replica;
    uint16_t reserved;
    uint32_t n_preempted; // since the target started
    // Prompt tokens looked up in the prefix cache and found there, since it started; 0 without one.
    uint64_t prefix_query_tokens, prefix_hit_tokens;
};
