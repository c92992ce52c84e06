/*
 * The settings of an OpenAI-compatible endpoint: the `target.*` keys that only `target.kind: openai`
 * uses, and what follows from them: the HTTP settings, the headers, the addresses requests go to. Secrets
 * are read from the environment or from a file, never from the config, and never shown.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "core/err.h"
#include "core/http.h"
#include "core/opt.h"
#include "core/str.h"

enum endpoint_api {
    ENDPOINT_CHAT,        // URL/chat/completions
    ENDPOINT_COMPLETIONS, // URL/completions
};

enum endpoint_prompt {
    ENDPOINT_TEXT,
    ENDPOINT_IDS, // completions only
};

enum endpoint_usage {          // stream_options
    ENDPOINT_USAGE_FINAL,      // include_usage: the last event has it
    ENDPOINT_USAGE_CONTINUOUS, // continuous_usage_stats: every event has it (vLLM)
    ENDPOINT_USAGE_NONE,       // do not ask
};

struct endpoint_config {
    struct opt_strings urls;        // up to and with "/v1"
    struct opt_numbers url_weights; // (urls) or empty: alike
    int api;                        // enum endpoint_api
    bool stream;
    int usage;  // enum endpoint_usage
    int prompt; // enum endpoint_prompt
    int http;   // enum http_version
    char *api_key_env, *api_key_file;
    struct opt_strings headers; // "Name: value"; ${VAR} in a value is the environment's
    bool insecure;
    char *ca_file, *cert_file, *key_file, *proxy;
    char *tokenizer;    // folder with tokenizer.json; NULL: tokens are estimated or the server's
    int64_t context;    // tokens; 0: what the server says of the model, else ENDPOINT_CONTEXT
    bool min_tokens;    // ask for min_tokens = max_tokens
    int max_tokens_key; // 0 max_tokens, 1 max_completion_tokens
    /* how tokens are chosen; those of `stages` are, too */
    double temperature, top_p, min_p;
    int64_t top_k, seed;
    char *extra_body; // JSON object; its keys win over ours, null drops one
    struct opt_strings local_addresses;
    double connects_rps;
    int64_t connect_timeout_ns, first_timeout_ns, total_timeout_ns;
    bool check;    // ask for the model before the run
    char *metrics; // auto, none or a URL
    double metrics_hz;
    /* what cannot be asked of it, for profiles and cost: */
    char *server, *server_version, *instance, *accelerator;
    int64_t accelerators;
};

#define ENDPOINT_CONTEXT 32768 // tokens, where nobody says

extern const struct opt_table endpoint_options;

/* Across keys: a URL, weights as many as URLs, ids only for completions, no secret in a header, ... */
int endpoint_check(const struct endpoint_config *c, struct err *e) ERR_CHECKED;
/* Before a run, whose file will have the config: no password in a URL. Older files may have one. */
int endpoint_check_secrets(const struct endpoint_config *c, struct err *e) ERR_CHECKED;

/* --- what is made of them -------------------------------------------------------------------------- */

struct endpoint {
    const struct endpoint_config *cfg; // borrowed
    struct http_settings http;         // borrows from cfg
    struct http_headers *headers;      // with the key, if there is one
    char *key;                         // or NULL
    struct str proxy;                  // with what ${VAR} stood for
    char **secrets;                    // (n_secrets) the key, and what ${VAR} stood for
    size_t n_secrets;
    char **urls;    // (cfg->urls.n) that requests go to
    double *shares; // (cfg->urls.n) rising to 1: which part of requests goes up to here
};

/* Read the secrets, make headers and URLs. ERR_INPUT: a variable is not set or empty, a file cannot be
 * read or holds no key. */
int endpoint_open(struct endpoint *p, const struct endpoint_config *c, struct err *e) ERR_CHECKED;
void endpoint_close(struct endpoint *p);

/* Index of one of the URLs, by weight: a pure function of u in [0, 1). */
size_t endpoint_pick(const struct endpoint *p, double u);

/* URL of another thing on the server of urls[i]: "/models" below the base, or from the root. Caller frees. */
char *endpoint_sibling(const struct endpoint *p, size_t i, const char *path, bool from_root);

/*
 * Text that came from outside, fit to be shown: one line, at most max_bytes, secrets masked. Shorter ones
 * than ENDPOINT_SECRET_BYTES are not: they would hide half of what the server says, and none is so short.
 */
#define ENDPOINT_SECRET_BYTES 4
void endpoint_quote(const struct endpoint *p, const char *text, size_t len, size_t max_bytes,
                    struct str *out);
