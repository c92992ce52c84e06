/*
 * A serving system's own account of its queues, from its Prometheus metrics (text format 0.0.4):
 *
 *   vLLM       vllm:num_requests_waiting, vllm:num_requests_running, vllm:kv_cache_usage_perc
 *              (vllm:gpu_cache_usage_perc before 0.10), vllm:num_preemptions_total,
 *              vllm:prefix_cache_queries_total, vllm:prefix_cache_hits_total (tokens;
 *              with gpu_ before 0.10)
 *   SGLang     sglang:num_queue_reqs, sglang:num_running_reqs, sglang:token_usage
 *   TGI        tgi_queue_size, tgi_batch_current_size
 *   llama.cpp  llamacpp:requests_deferred, llamacpp:requests_processing, llamacpp:kv_cache_usage_ratio
 *
 * Where a metric has several series (engines, ranks), requests are added up and the KV share is the mean.
 */
#pragma once

#include <stddef.h>

struct metrics {
    const char
        *server; // whose names were found: "vllm", "sglang", "tgi", "llama.cpp"; NULL: nobody's
    double waiting, running; // NAN: not told
    double kv_used;          // share in 0..1; NAN: not told
    double n_preempted;      // counters, since it started; NAN: not told
    double prefix_query_tokens, prefix_hit_tokens;
};

/* Any bytes are accepted; lines that are none of these metrics are passed over. */
void metrics_parse(const char *text, size_t len, struct metrics *out);
