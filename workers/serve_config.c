#include "workers/serve_config.h"

#include <stddef.h>
#include <stdlib.h>

#include "core/clock.h"

#define MAX_TIME_NS (86400 * NS_PER_S)

#define ROW(key_, type_, def_, lo_, hi_, help_, field_)                                            \
    .key = (key_), .type = (type_), .def = (def_), .lo = (double)(lo_), .hi = (double)(hi_),       \
    .help = (help_), .offset = offsetof(struct serve_config, field_)

static const struct opt rows[] = {
    {ROW("target.kind", OPT_CHOICE, "stages", 0, 0, "what is served; null computes nothing",
         target),
     .choices = "stages|null"},
    {ROW("serve.host", OPT_STRING, "127.0.0.1", 0, 0, "numeric address to listen on", host)},
    {ROW("serve.port", OPT_INT, "8000", 0, 65535, "port; 0: any that is free", port)},
    {ROW("serve.model", OPT_STRING, NULL, 0, 0,
         "name of the model, other names get 404; empty: any name is served", model)},
    {ROW("serve.ttft", OPT_DURATION, "0s", 0, MAX_TIME_NS, "time to the first token", ttft_ns)},
    {ROW("serve.itl", OPT_DURATION, "0s", 0, MAX_TIME_NS,
         "time between tokens; 0s: as fast as possible", itl_ns)},
    {ROW("serve.law", OPT_CHOICE, "constant", 0, 0,
         "how both times are drawn; they are the means of the draws", law),
     .choices = "constant|exponential|lognormal"},
    {ROW("serve.cv", OPT_NUMBER, "0.5", 0.001, 10,
         "standard deviation over mean of serve.law=lognormal", cv)},
    {ROW("serve.seed", OPT_INT, "1", 0, 0, "all that is drawn follows from it", seed)},
    {ROW("serve.tokens", OPT_INT, "16", 1, 1 << 24, "tokens of a reply without max_tokens",
         tokens)},
    {ROW("serve.tokens_per_event", OPT_INT, "1", 1, 64, "tokens in one SSE event",
         tokens_per_event)},
    {ROW("serve.events_per_packet", OPT_INT, "1", 1, 64, "SSE events in one send",
         events_per_packet)},
    {ROW("serve.role_chunk", OPT_BOOL, "true", 0, 0,
         "chat streams begin, with the head, with a chunk that has a role only", role_chunk)},
    {ROW("serve.max_concurrent", OPT_INT, "1048576", 1, 1 << 20,
         "replies under way; further requests queue in order", max_concurrent)},
    {ROW("serve.kv_tokens", OPT_INT, "1000000", 1, 1e12,
         "tokens that make vllm:kv_cache_usage_perc 1", kv_tokens)},
    {ROW("serve.stall", OPT_WINDOW, NULL, 0, 0,
         "[from, to]: nothing is read or sent, and the laws stand still", stall)},
    {ROW("serve.stall_from", OPT_CHOICE, "first_request", 0, 0, "what serve.stall counts from",
         stall_from),
     .choices = "first_request|start"},
    {ROW("serve.log", OPT_STRING, NULL, 0, 0,
         "CSV of every token's actual send; kept in memory, written at the end", log)},
    {ROW("serve.api_key_env", OPT_STRING, NULL, 0, 0,
         "environment variable with the key that requests must bear; else 401", api_key_env)},
    {ROW("serve.spin", OPT_DURATION, "0s", 0, NS_PER_S,
         "wait for a token's time spinning, this long before it, under SCHED_FIFO where permitted",
         spin_ns)},
    {ROW("serve.drain", OPT_DURATION, "5s", 0, MAX_TIME_NS,
         "after the first SIGTERM or SIGINT replies under way may end", drain_ns)},
    {ROW("serve.idle", OPT_DURATION, "10m", NS_PER_MS, MAX_TIME_NS,
         "how long a connection may wait for its next request", idle_ns)},
    {ROW("serve.request_deadline", OPT_DURATION, "30s", NS_PER_MS, MAX_TIME_NS,
         "from a request's first byte to its last", request_ns)},
    {ROW("serve.write_deadline", OPT_DURATION, "60s", NS_PER_MS, MAX_TIME_NS,
         "a client that takes nothing for so long is dropped", write_ns)},
    {ROW("serve.connections", OPT_INT, "65536", 1, 1 << 20, "connections held at a time",
         connections)},
    {ROW("serve.max_body", OPT_BYTES, "64MiB", 1024, 1 << 30, "size of a request", max_body_bytes)},
};

const struct opt_table serve_config_options = {rows, sizeof rows / sizeof rows[0]};

int serve_config_check(const struct serve_config *c, struct err *e)
{
    if (c->stall.to_ns < 0) {
        return err_set(e, ERR_INPUT, "serve.stall: needs an end ([from, to])");
    }
    if (c->api_key_env && !getenv(c->api_key_env)) {
        return err_set(e, ERR_INPUT, "serve.api_key_env: %s is not set in the environment",
                       c->api_key_env);
    }
    return 0;
}

struct httpd_config serve_config_httpd(const struct serve_config *c)
{
    return (struct httpd_config){
        .host = c->host,
        .port = (int)c->port,
        .max_connections = c->connections,
        .max_body_bytes = (size_t)c->max_body_bytes,
        .request_ns = c->request_ns,
        .idle_ns = c->idle_ns,
        .write_ns = c->write_ns,
        .spin_ns = c->spin_ns,
        .drain_ns = c->drain_ns,
    };
}
