#include "results/store_schema.h"

#include <stdio.h>
#include <string.h>

#define COUNT(array) (sizeof(array) / sizeof(array)[0])

/* --- the run -------------------------------------------------------------------------------------- */

#define ROOT(name, type, units, text)                                                              \
    {                                                                                              \
#name, type, offsetof(struct store_root, name), sizeof(((struct store_root *)0)->name),    \
            units, text, false, NULL, 0                                                            \
    }

static const struct store_field root_fields[] = {
    ROOT(schema_name, FIELD_TEXT, "", "always tidemark.run"),
    ROOT(schema_version, FIELD_TEXT, "", "semantic version of this layout"),
    ROOT(uuid, FIELD_TEXT, "", "random identity of the run"),
    ROOT(name, FIELD_TEXT, "", "name given in the config"),
    ROOT(created_utc, FIELD_TEXT, "", "wall time at the start, ISO 8601"),
    ROOT(created_unix_ns, FIELD_I64, "ns", "the same since 1970-01-01 UTC"),
    ROOT(t0_ns, FIELD_I64, "ns", "rank 0's monotonic clock at time 0 of this file"),
    ROOT(time_base, FIELD_TEXT, "", "what the times of this file count"),
    ROOT(tool_version, FIELD_TEXT, "", "version of the tidemark that wrote the file"),
    ROOT(tool_git_sha, FIELD_TEXT, "", "its commit"),
};

const struct store_field store_schema_complete = {
    "complete", FIELD_BOOL, 0, 0, "1", "1 once everything below is whole and on disk",
    false,      NULL,       0};

static const char *const role_names[] = {"load", "worker"};

#define RANK(name, type, units, text, may_miss)                                                    \
    {                                                                                              \
#name, type, offsetof(struct store_rank, name), sizeof(((struct store_rank *)0)->name),    \
            units, text, may_miss, NULL, 0                                                         \
    }

static const struct store_field rank_fields[] = {
    RANK(rank, FIELD_I32, "1", "MPI rank", false),
    {"role", FIELD_ENUM, offsetof(struct store_rank, role), 0, "1", "what the rank does", false,
     role_names, COUNT(role_names)},
    RANK(replica, FIELD_I32, "1", "replica that the rank belongs to", true),
    RANK(stage, FIELD_I32, "1", "pipeline stage", true),
    RANK(tensor, FIELD_I32, "1", "place among the stage's tensor-parallel ranks", true),
    RANK(pid, FIELD_I32, "1", "process id on its host", false),
    RANK(host, FIELD_TEXT, "", "host name", false),
    RANK(cpuset, FIELD_TEXT, "", "CPU affinity in force", false),
    RANK(sched_class, FIELD_TEXT, "", "scheduling class of main / compute threads", false),
    RANK(kernels, FIELD_TEXT, "", "kernels that a worker computes with", false),
    RANK(clock_offset_ns, FIELD_I64, "ns", "added to the rank's clock to give rank 0's", false),
    RANK(clock_bound_ns, FIELD_I64, "ns", "largest error of that offset", false),
};

#define ENGINE(name, type, units, text, may_miss)                                                  \
    {                                                                                              \
#name, type, offsetof(struct engine, name), sizeof(((struct engine *)0)->name), units,     \
            text, may_miss, NULL, 0                                                                \
    }

static const struct store_field engine_fields[] = {
    ENGINE(rank, FIELD_I32, "1", "MPI rank of the worker", false),
    ENGINE(backend, FIELD_TEXT, "", "what computes: cpu, cuda, sim", false),
    ENGINE(device, FIELD_TEXT, "", "the processor, or what is simulated", false),
    ENGINE(pci, FIELD_TEXT, "", "bus address of its GPU; empty: none", false),
    ENGINE(first_layer, FIELD_I32, "1", "first layer of its stage", false),
    ENGINE(n_layers, FIELD_I32, "1", "layers of its stage", false),
    ENGINE(n_threads, FIELD_I32, "1", "threads that compute", false),
    ENGINE(cores, FIELD_TEXT, "", "CPUs that they are pinned to; empty: none", false),
    ENGINE(placement, FIELD_TEXT, "", "pinned, or why they are not", false),
    ENGINE(kernels, FIELD_TEXT, "", "kernels that they compute with", false),
    ENGINE(weights, FIELD_TEXT, "", "formats of its matrices in memory, most bytes first", false),
    ENGINE(weights_stored, FIELD_TEXT, "", "formats that the model has them in", false),
    ENGINE(weight_bytes, FIELD_I64, "byte", "its weights in memory, pads included", false),
    ENGINE(n_weights, FIELD_I64, "1", "weights that are in them", false),
    ENGINE(bytes_per_weight, FIELD_F64, "byte", "weight_bytes / n_weights", true),
    ENGINE(kv_cache, FIELD_TEXT, "", "format of keys and values", false),
    ENGINE(kv_bytes_per_token, FIELD_F64, "byte", "of one token in its cache, all included", false),
    ENGINE(kv_blocks, FIELD_I64, "1", "blocks of 16 tokens in its cache", false),
    ENGINE(moe_routing, FIELD_TEXT, "", "who chooses experts: model, uniform, zipf; none", false),
    ENGINE(moe_zipf, FIELD_F64, "1", "exponent of zipf", true),
    ENGINE(transport, FIELD_TEXT, "",
           "of hidden states, or else of sums, between ranks: mpi, ipc, nccl, memory; none", false),
    ENGINE(numa, FIELD_I32, "1", "memory node of its GPU, else of all its CPUs", true),
};

#define EDGE(name, type, units, text)                                                              \
    {                                                                                              \
#name, type, offsetof(struct edge, name), sizeof(((struct edge *)0)->name), units, text,   \
            false, NULL, 0                                                                         \
    }

static const struct store_field edge_fields[] = {
    EDGE(from_rank, FIELD_I32, "1", "MPI rank of the worker that sends"),
    EDGE(to_rank, FIELD_I32, "1", "MPI rank of the worker that receives; of sums both do both"),
    {"kind", FIELD_ENUM, offsetof(struct edge, kind), 0, "1", "what goes over it", false,
     record_edge_kind_names, EDGE_KIND_N},
    EDGE(transport, FIELD_TEXT, "", "by which way: mpi, ipc, nccl, memory"),
    EDGE(same_host, FIELD_BOOL, "1", "1: both ranks are on one host"),
};

#define GPU(name, type, units, text, may_miss)                                                     \
    {                                                                                              \
#name, type, offsetof(struct gpus_device, name), sizeof(((struct gpus_device *)0)->name),  \
            units, text, may_miss, NULL, 0                                                         \
    }

static const struct store_field gpu_fields[] = {
    GPU(rank, FIELD_I32, "1", "MPI rank that samples it", false),
    GPU(host, FIELD_TEXT, "", "host name", false),
    GPU(index, FIELD_I32, "1", "among the host's GPUs, in the order of bus addresses", false),
    GPU(name, FIELD_TEXT, "", "product name", false),
    GPU(uuid, FIELD_TEXT, "", "its UUID", false),
    GPU(pci, FIELD_TEXT, "", "bus address", false),
    GPU(driver, FIELD_TEXT, "", "version of its driver", false),
    GPU(memory_bytes, FIELD_F64, "byte", "its memory", true),
    GPU(power_limit_w, FIELD_F64, "W", "power that it may take, as the limit was at the start",
        true),
};

#define ANSWER(name, type, units, text, may_miss)                                                  \
    {                                                                                              \
#name, type, offsetof(struct store_answers, name),                                         \
            sizeof(((struct store_answers *)0)->name), units, text, may_miss, NULL, 0              \
    }

static const struct store_field answer_fields[] = {
    ANSWER(saturation_verdict, FIELD_TEXT, "", "found, not_reached, first_step, inconclusive",
           false),
    ANSWER(saturation_rate_rps, FIELD_F64, "1/s", "request rate at saturation", true),
    ANSWER(saturation_lo95_rps, FIELD_F64, "1/s", "lower end of its 95 % interval", true),
    ANSWER(saturation_hi95_rps, FIELD_F64, "1/s", "upper end of its 95 % interval", true),
    ANSWER(saturation_output_tokens_per_s, FIELD_F64, "1/s", "output tokens there", true),
    ANSWER(slo_rate_rps, FIELD_F64, "1/s", "highest rate that meets the objectives", true),
    ANSWER(slo_lo95_rps, FIELD_F64, "1/s", "lower end of its 95 % interval", true),
    ANSWER(slo_hi95_rps, FIELD_F64, "1/s", "upper end of its 95 % interval", true),
    ANSWER(usd_per_m_input, FIELD_F64, "USD", "cost of 10^6 input tokens at saturation", true),
    ANSWER(usd_per_m_output, FIELD_F64, "USD", "cost of 10^6 output tokens at saturation", true),
};

/* --- a step --------------------------------------------------------------------------------------- */

#define STEP_FIELD(name, type, units, text, may_miss)                                              \
    {                                                                                              \
#name, type, offsetof(struct step_info, name), sizeof(((struct step_info *)0)->name),      \
            units, text, may_miss, NULL, 0                                                         \
    }
#define STEP(name, type, units, text)    STEP_FIELD(name, type, units, text, false)
#define STEP_MAY_MISS(name, units, text) STEP_FIELD(name, FIELD_F64, units, text, true)

static const struct store_field step_fields[] = {
    STEP(index, FIELD_U32, "1", "number of the step in the run, from 0"),
    {"kind", FIELD_ENUM, offsetof(struct step_info, kind), 0, "1", "why this rate was run", false,
     record_step_kind_names, STEP_KIND_N},
    STEP(rate_rps, FIELD_F64, "1/s", "nominal request rate; 0 in a closed loop"),
    STEP(users, FIELD_U32, "1", "concurrent users of a closed loop, else 0"),
    STEP(seed, FIELD_U64, "1", "seed of the step's schedule"),
    STEP(t_begin_ns, FIELD_I64, "ns", "begin of the load"),
    STEP(t_warm_ns, FIELD_I64, "ns", "end of the warm-up: begin of the window"),
    STEP(t_end_ns, FIELD_I64, "ns", "end of the window and of the load"),
    STEP(t_drain_ns, FIELD_I64, "ns", "end of the drain: what was left is cancelled"),
    STEP(t_planned_ns, FIELD_I64, "ns",
         "end of the load as announced: the schedule reaches that far"),
    STEP(stopped_early, FIELD_BOOL, "1",
         "1: overloaded beyond doubt, so that t_end_ns was brought forward"),
    STEP(repeat, FIELD_U32, "1", "pass over the rates, from 0 (load.repeats)"),
    STEP(schedule_hash, FIELD_U64, "1", "xxh64 of the whole schedule"),
    STEP(n_scheduled, FIELD_U64, "1", "requests of the schedule"),
    STEP(n_filtered, FIELD_U64, "1", "draws left out because they do not fit the context"),
    STEP_MAY_MISS(poll_gap_p50_ns, "ns", "median time between two looks of a load rank"),
    STEP_MAY_MISS(poll_gap_p99_ns, "ns", "its 99th percentile, worst load rank"),
    STEP_MAY_MISS(
        stamp_p50_ns, "ns",
        "median time from the arrival of bytes (TLS: a readable socket) to their reading"),
    STEP_MAY_MISS(stamp_p99_ns, "ns", "its 99th percentile, worst load rank"),
    STEP_MAY_MISS(chunk_p50_ns, "ns", "median time to deal with what a socket brought"),
    STEP_MAY_MISS(chunk_p99_ns, "ns", "its 99th percentile, worst load rank"),
    STEP_MAY_MISS(load_cpu_share, "1", "CPU time of the load ranks / their wall time"),
    STEP(recovered, FIELD_BOOL, "1", "1: folded from the journal of a killed run"),
    {"verdict", FIELD_ENUM, offsetof(struct step_info, verdict), 0, "1", "judgement of the step",
     false, record_verdict_names, VERDICT_N},
    STEP(reason, FIELD_TEXT, "", "the verdict's statistic in words"),
    STEP(achieved_rps, FIELD_F64, "1/s", "requests sent in the window / window"),
    STEP(offered_output_tokens_per_s, FIELD_F64, "1/s",
         "output tokens asked for in the window; bounds count as replies take"),
    STEP(served_output_tokens_per_s, FIELD_F64, "1/s", "output tokens received in the window"),
    STEP(n_late, FIELD_U64, "1", "requests of the whole step that are marked late"),
};

#define REQUEST(name, type, units, text, may_miss)                                                 \
    {                                                                                              \
#name, type, offsetof(struct record, name), 0, units, text, may_miss, NULL, 0              \
    }

static const struct store_field request_fields[] = {
    REQUEST(id, FIELD_U64, "1", "index in the step's schedule", false),
    REQUEST(t_sched_ns, FIELD_I64, "ns", "when the request was due", true),
    REQUEST(t_send_ns, FIELD_I64, "ns", "when it was sent", true),
    REQUEST(t_byte_ns, FIELD_I64, "ns", "first byte or message of the answer", true),
    REQUEST(t_first_ns, FIELD_I64, "ns", "first content or reasoning token", true),
    REQUEST(t_content_ns, FIELD_I64, "ns", "first content token", true),
    REQUEST(t_last_ns, FIELD_I64, "ns", "last token", true),
    REQUEST(t_recv_ns, FIELD_I64, "ns", "received by the replica's leader", true),
    REQUEST(t_admit_ns, FIELD_I64, "ns", "admitted to a lane", true),
    REQUEST(t_prefill_ns, FIELD_I64, "ns", "first batch with it built", true),
    REQUEST(t_emit_first_ns, FIELD_I64, "ns", "first token sampled by the last stage", true),
    REQUEST(t_emit_last_ns, FIELD_I64, "ns", "last token sampled by the last stage", true),
    REQUEST(n_in, FIELD_U32, "1", "prompt tokens", false),
    REQUEST(n_out_req, FIELD_U32, "1", "output tokens asked for", false),
    REQUEST(n_out, FIELD_U32, "1", "output tokens counted by tidemark", false),
    REQUEST(n_out_usage, FIELD_U32, "1", "output tokens as the server reported", true),
    REQUEST(n_chunks, FIELD_U32, "1", "messages or events that carried tokens", false),
    REQUEST(itl_max_us, FIELD_U32, "us", "longest gap between consecutive tokens", false),
    REQUEST(load_rank, FIELD_U16, "1", "load rank that sent it", false),
    REQUEST(replica, FIELD_U16, "1", "replica that served it", false),
    REQUEST(http_status, FIELD_U16, "1", "HTTP status, 0 without HTTP", false),
    {"outcome", FIELD_ENUM8, offsetof(struct record, outcome), 0, "1", "how the request ended",
     false, record_outcome_names, OUTCOME_N},
    REQUEST(n_stages, FIELD_U8, "1", "stages that reported times in path/", false),
    REQUEST(error, FIELD_I32, "1", "errno or library code behind a failure, else 0", false),
    REQUEST(turn, FIELD_U32, "1", "turn in its conversation, from 0", false),
    REQUEST(conversation, FIELD_U64, "1", "conversation, 0: none", false),
    REQUEST(cap_wait_us, FIELD_U32, "us", "of t_send - t_sched, waited at the cap on concurrency",
            false),
    REQUEST(late, FIELD_U32, "1", "1: sent more than 1 ms late, the wait at the cap apart", false),
    REQUEST(n_in_usage, FIELD_U32, "1", "prompt tokens as the server reported", true),
    REQUEST(n_out_local, FIELD_U32, "1", "output tokens by the tokenizer of the load rank", true),
    REQUEST(n_preempted, FIELD_U32, "1", "times it was preempted and computed anew", false),
    REQUEST(n_cached, FIELD_U32, "1", "prompt tokens found in the prefix cache", false),
};

static const struct store_field path_first_fields[] = {
    {"hop_us", FIELD_U32, offsetof(struct record, hop_us[0]), 0, "us",
     "between stages and back to the leader", false, NULL, 0},
    {"bubble_us", FIELD_U32, offsetof(struct record, bubble_us[0]), 0, "us",
     "waiting for a busy stage or a free lane", false, NULL, 0},
    {"requeue_us", FIELD_U32, offsetof(struct record, requeue_us[0]), 0, "us",
     "waiting to be admitted anew, after preemptions", false, NULL, 0},
};

static const struct store_field path_last_fields[] = {
    {"hop_us", FIELD_U32, offsetof(struct record, hop_us[1]), 0, "us",
     "between stages and back to the leader", false, NULL, 0},
    {"bubble_us", FIELD_U32, offsetof(struct record, bubble_us[1]), 0, "us",
     "waiting for a busy stage or a free lane", false, NULL, 0},
    {"requeue_us", FIELD_U32, offsetof(struct record, requeue_us[1]), 0, "us",
     "waiting to be admitted anew, after preemptions", false, NULL, 0},
};

const struct store_field store_schema_stage_us = {
    "stage_SS_us", FIELD_U32, 0, 0, "us", "compute time in stage SS (00, 01, ...)", true, NULL, 0};

const struct store_field store_schema_offsets = {
    "offsets", FIELD_U64, 0, 0, "1", "record k owns dt_us[offsets[k] .. offsets[k+1])",
    false,     NULL,      0};

const struct store_field store_schema_dt_us = {
    "dt_us", FIELD_U32, 0, 0, "us", "t_first - t_send, then the gap before each further token",
    false,   NULL,      0};

#define SPAN(name, type, units, text)                                                              \
    {                                                                                              \
#name, type, offsetof(struct span, name), 0, units, text, false, NULL, 0                   \
    }

static const struct store_field worker_fields[] = {
    SPAN(t_begin_ns, FIELD_I64, "ns", "begin of the activity"),
    SPAN(dur_ns, FIELD_U32, "ns", "its duration; 4294967295 and above saturate"),
    SPAN(rank, FIELD_U16, "1", "worker rank"),
    {"op", FIELD_ENUM8, offsetof(struct span, op), 0, "1", "activity", false, record_span_op_names,
     SPAN_OP_N},
    SPAN(lane, FIELD_U8, "1", "micro-batch lane"),
    SPAN(batch_seq, FIELD_U64, "1", "number of the batch at its leader, from 1 in each step"),
    SPAN(n_rows, FIELD_U16, "1", "requests in the batch"),
    SPAN(n_tokens, FIELD_U32, "1", "tokens in the batch"),
    SPAN(n_bytes, FIELD_U32, "byte", "bytes that this rank moved, for send"),
};

#define SERIES(name, type, units, text, may_miss)                                                  \
    {                                                                                              \
#name, type, offsetof(struct series_point, name), 0, units, text, may_miss, NULL, 0        \
    }

static const struct store_field series_fields[] = {
    SERIES(t_ns, FIELD_I64, "ns", "time of the sample", false),
    SERIES(replica, FIELD_U16, "1", "replica", false),
    SERIES(in_flight, FIELD_U32, "1", "requests waiting or running", true),
    SERIES(waiting, FIELD_U32, "1", "requests not admitted yet", true),
    SERIES(running, FIELD_U32, "1", "requests in lanes", true),
    SERIES(kv_used, FIELD_F32, "1", "share of the KV cache in use", false),
    SERIES(n_preempted, FIELD_U32, "1", "requests preempted since the target started", true),
    SERIES(prefix_query_tokens, FIELD_U64, "1",
           "prompt tokens looked up in the prefix cache since the target started, 0 without one",
           false),
    SERIES(prefix_hit_tokens, FIELD_U64, "1", "of these, found there", false),
};

#define SAMPLE(name, type, units, text, may_miss)                                                  \
    {                                                                                              \
#name, type, offsetof(struct gpus_sample, name), 0, units, text, may_miss, NULL, 0         \
    }

static const struct store_field gpu_sample_fields[] = {
    SAMPLE(t_ns, FIELD_I64, "ns", "time of the sample", false),
    SAMPLE(device, FIELD_U16, "1", "row of /meta/gpus", false),
    SAMPLE(power_w, FIELD_F32, "W", "power, as the driver averages it", true),
    SAMPLE(energy_j, FIELD_F64, "J", "energy counted since the driver was loaded", true),
    SAMPLE(sm_mhz, FIELD_F32, "MHz", "clock of the multiprocessors", true),
    SAMPLE(memory_mhz, FIELD_F32, "MHz", "clock of the memory", true),
    SAMPLE(gpu_util, FIELD_F32, "1", "share of time that any kernel ran", true),
    SAMPLE(memory_util, FIELD_F32, "1", "share of time that memory was read or written", true),
    SAMPLE(memory_used_bytes, FIELD_F64, "byte", "memory in use, by whomever", true),
    SAMPLE(temperature_c, FIELD_F32, "degC", "temperature of the chip", true),
    SAMPLE(throttle, FIELD_U32, "1",
           "what holds its clocks down, bits: 1 idle, 2 application_clocks, 4 power_cap, "
           "8 hw_slowdown, 16 sync_boost, 32 sw_thermal, 64 hw_thermal, 128 hw_power_brake, "
           "256 display_clocks",
           true),
};

#define SUMMARY(name, text)                                                                        \
    {                                                                                              \
#name, FIELD_F64, offsetof(struct store_summary_row, name), 0, "as in metric", text, true, \
            NULL, 0                                                                                \
    }

static const struct store_field summary_fields[] = {
    {"metric", FIELD_TEXT, offsetof(struct store_summary_row, metric),
     sizeof(((struct store_summary_row *)0)->metric), "", "name of the metric, its unit at the end",
     false, NULL, 0},
    {"n", FIELD_F64, offsetof(struct store_summary_row, n), 0, "1", "requests or gaps behind it",
     true, NULL, 0},
    SUMMARY(mean, "arithmetic mean"),
    SUMMARY(sd, "standard deviation"),
    SUMMARY(min, "smallest"),
    SUMMARY(p50, "median"),
    SUMMARY(p90, "90th percentile"),
    SUMMARY(p95, "95th percentile"),
    SUMMARY(p99, "99th percentile"),
    SUMMARY(p999, "99.9th percentile"),
    SUMMARY(max, "largest"),
    SUMMARY(lo95, "lower end of the mean's 95 % interval"),
    SUMMARY(hi95, "upper end of the mean's 95 % interval"),
};

/* --- the tables ----------------------------------------------------------------------------------- */

const struct store_table store_schema_root = {
    .group = "/",
    .is_attributes = true,
    .row_bytes = sizeof(struct store_root),
    .fields = root_fields,
    .n_fields = COUNT(root_fields),
};

const struct store_table store_schema_ranks = {
    .group = "meta/ranks",
    .row_bytes = sizeof(struct store_rank),
    .fields = rank_fields,
    .n_fields = COUNT(rank_fields),
};

const struct store_table store_schema_ranks_after = {
    .group = "meta/ranks_after",
    .row_bytes = sizeof(struct store_rank),
    .fields = rank_fields,
    .n_fields = COUNT(rank_fields),
};

const struct store_table store_schema_engine = {
    .group = "meta/engine",
    .row_bytes = sizeof(struct engine),
    .fields = engine_fields,
    .n_fields = COUNT(engine_fields),
};

const struct store_table store_schema_edges = {
    .group = "meta/edges",
    .row_bytes = sizeof(struct edge),
    .fields = edge_fields,
    .n_fields = COUNT(edge_fields),
};

const struct store_table store_schema_gpus = {
    .group = "meta/gpus",
    .row_bytes = sizeof(struct gpus_device),
    .fields = gpu_fields,
    .n_fields = COUNT(gpu_fields),
};

const struct store_table store_schema_index = {
    .group = "meta/steps",
    .row_bytes = sizeof(struct step_info),
    .fields = step_fields,
    .n_fields = COUNT(step_fields),
};

const struct store_table store_schema_answers = {
    .group = "analysis",
    .is_attributes = true,
    .row_bytes = sizeof(struct store_answers),
    .fields = answer_fields,
    .n_fields = COUNT(answer_fields),
};

const struct store_table store_schema_step = {
    .group = "",
    .in_step = true,
    .is_attributes = true,
    .row_bytes = sizeof(struct step_info),
    .fields = step_fields,
    .n_fields = COUNT(step_fields),
};

const struct store_table store_schema_requests = {
    .group = "requests",
    .in_step = true,
    .scale = "id",
    .axis = "request",
    .row_bytes = sizeof(struct record),
    .fields = request_fields,
    .n_fields = COUNT(request_fields),
};

const struct store_table store_schema_path_first = {
    .group = "path/first",
    .in_step = true,
    .row_bytes = sizeof(struct record),
    .fields = path_first_fields,
    .n_fields = COUNT(path_first_fields),
};

const struct store_table store_schema_path_last = {
    .group = "path/last",
    .in_step = true,
    .row_bytes = sizeof(struct record),
    .fields = path_last_fields,
    .n_fields = COUNT(path_last_fields),
};

const struct store_table store_schema_workers = {
    .group = "workers",
    .in_step = true,
    .row_bytes = sizeof(struct span),
    .fields = worker_fields,
    .n_fields = COUNT(worker_fields),
};

const struct store_table store_schema_series = {
    .group = "series",
    .in_step = true,
    .scale = "t_ns",
    .axis = "time",
    .row_bytes = sizeof(struct series_point),
    .fields = series_fields,
    .n_fields = COUNT(series_fields),
};

const struct store_table store_schema_gpu_samples = {
    .group = "gpus",
    .in_step = true,
    .scale = "t_ns",
    .axis = "time",
    .row_bytes = sizeof(struct gpus_sample),
    .fields = gpu_sample_fields,
    .n_fields = COUNT(gpu_sample_fields),
};

const struct store_table store_schema_summary = {
    .group = "summary",
    .in_step = true,
    .row_bytes = sizeof(struct store_summary_row),
    .fields = summary_fields,
    .n_fields = COUNT(summary_fields),
};

static const struct {
    const char *text; // in schema.md
    size_t n_bytes;   // 0: the field's width
} types[] = {
    [FIELD_I64] = {"i64", 8}, [FIELD_U64] = {"u64", 8},  [FIELD_I32] = {"i32", 4},
    [FIELD_U32] = {"u32", 4}, [FIELD_U16] = {"u16", 2},  [FIELD_U8] = {"u8", 1},
    [FIELD_F64] = {"f64", 8}, [FIELD_F32] = {"f32", 4},  [FIELD_BOOL] = {"u8", 1},
    [FIELD_ENUM] = {"u8", 1}, [FIELD_ENUM8] = {"u8", 1}, [FIELD_TEXT] = {"text", 0},
};

const struct store_field *store_schema_field(const struct store_table *t, const char *name)
{
    for (size_t i = 0; i < t->n_fields; i++) {
        if (strcmp(t->fields[i].name, name) == 0) {
            return &t->fields[i];
        }
    }
    err_check_failed(__FILE__, __LINE__, name);
}

bool store_schema_is_recent(const struct store_field *f)
{
    static const char *const since_1_0[] = {
        "t_planned_ns",      "stopped_early", "repeat",       "n_late",
        "cap_wait_us",       "late",          "n_in_usage",   "n_out_local",
        "stamp_p50_ns",      "stamp_p99_ns",  "chunk_p50_ns", "chunk_p99_ns",
        "n_preempted",       "n_cached",      "requeue_us",   "prefix_query_tokens",
        "prefix_hit_tokens", "pci",           "numa"};
    for (size_t i = 0; i < COUNT(since_1_0); i++) {
        if (strcmp(f->name, since_1_0[i]) == 0) {
            return true;
        }
    }
    return false;
}

size_t store_schema_bytes(const struct store_field *f)
{
    return f->type == FIELD_TEXT ? f->width : types[f->type].n_bytes;
}

const char *store_schema_stage_name(unsigned stage, char *buf, size_t cap)
{
    snprintf(buf, cap, "stage_%02u_us", stage);
    return buf;
}

/* --- schema.md ------------------------------------------------------------------------------------ */

#define MARKDOWN_HEAD "| name | type | units | meaning | may miss |\n|---|---|---|---|---|\n"

static void markdown_row(struct str *out, const struct store_field *f)
{
    str_printf(out, "| `%s` | %s", f->name, types[f->type].text);
    if (f->type == FIELD_TEXT) {
        str_printf(out, "[%zu]", f->width);
    }
    str_printf(out, " | %s | %s", f->units, f->long_name);
    for (unsigned i = 0; i < f->n_names; i++) {
        str_printf(out, "%s%u %s", i == 0 ? ": " : ", ", i, f->names[i]);
    }
    str_printf(out, " | %s |\n", f->may_miss ? "yes" : "");
}

static const char *prefix_of(const struct store_table *t)
{
    if (!t->in_step) {
        return t->group[0] == '/' ? "" : "/";
    }
    return t->group[0] == '\0' ? "/steps/NNNN" : "/steps/NNNN/";
}

static void markdown_heading(struct str *out, const char *prefix, const char *group,
                             const char *what)
{
    str_printf(out, "\n### `%s%s` (%s)\n\n", prefix, group, what);
}

static void markdown_rows(struct str *out, const struct store_table *t)
{
    str_puts(out, MARKDOWN_HEAD);
    for (size_t i = 0; i < t->n_fields; i++) {
        markdown_row(out, &t->fields[i]);
    }
    if (t == &store_schema_root || t == &store_schema_step) {
        markdown_row(out, &store_schema_complete);
    }
    if (t == &store_schema_path_first || t == &store_schema_path_last) {
        markdown_row(out, &store_schema_stage_us);
    }
}

void store_schema_markdown(struct str *out)
{
    static const struct store_table *const tables[] = {
        &store_schema_root,       &store_schema_ranks,       &store_schema_ranks_after,
        &store_schema_engine,     &store_schema_edges,       &store_schema_gpus,
        &store_schema_step,       &store_schema_index,       &store_schema_requests,
        &store_schema_path_first, &store_schema_path_last,   &store_schema_workers,
        &store_schema_series,     &store_schema_gpu_samples, &store_schema_summary,
        &store_schema_answers,
    };
    for (size_t i = 0; i < COUNT(tables); i++) {
        const struct store_table *t = tables[i];
        markdown_heading(out, prefix_of(t), t->group, t->is_attributes ? "attributes" : "columns");
        size_t same = 0;
        while (tables[same]->fields != t->fields) {
            same++;
        }
        if (same < i) {
            str_printf(out, "As `%s%s`.\n", prefix_of(tables[same]), tables[same]->group);
        } else {
            markdown_rows(out, t);
        }
    }
    markdown_heading(out, "/steps/NNNN/", "tokens", "columns");
    str_puts(out, MARKDOWN_HEAD);
    markdown_row(out, &store_schema_offsets);
    markdown_row(out, &store_schema_dt_us);
}
