/*
 * The settings of a server: `serve.*`. Transparent; owned by the command. Served are this job's own
 * `stages`, and `null`, which computes nothing and answers by laws (ttft, itl, law, cv, stall, log and
 * what comes in one packet are its alone).
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "core/httpd.h"
#include "core/opt.h"

enum serve_target {
    SERVE_STAGES,
    SERVE_NULL,
};

enum serve_law {
    SERVE_CONSTANT,
    SERVE_EXPONENTIAL,
    SERVE_LOGNORMAL,
};

/* What serve.stall counts from. */
enum serve_stall_from {
    SERVE_FIRST_REQUEST,
    SERVE_START,
};

struct serve_config {
    int target; // enum serve_target
    char *host; // numeric address
    int64_t port;
    char *model; // the only name that is served; NULL: any
    int64_t ttft_ns, itl_ns;
    int law; // enum serve_law: of both times, which are then its means
    double cv;
    int64_t seed;
    int64_t tokens; // of a reply whose request gives no max_tokens
    int64_t tokens_per_event, events_per_packet;
    bool role_chunk;
    int64_t max_concurrent; // replies under way; further requests queue
    int64_t kv_tokens;      // what vllm:kv_cache_usage_perc is a share of
    struct opt_window stall;
    int stall_from; // enum serve_stall_from
    char *log;
    char *api_key_env;
    int64_t spin_ns, drain_ns, idle_ns, request_ns, write_ns;
    int64_t connections;
    int64_t max_body_bytes;
};

extern const struct opt_table serve_config_options;

/* Checks across keys. ERR_INPUT. */
int serve_config_check(const struct serve_config *c, struct err *e) ERR_CHECKED;

/* What of it is the HTTP server's. Holds pointers into `c`. */
struct httpd_config serve_config_httpd(const struct serve_config *c);
