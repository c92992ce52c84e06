/*
 * What an OpenAI-compatible server says of itself, asked before the run: whether it serves the model at
 * all, how long a context may be, what software it is. Sources, as far as they answer:
 *
 *   URL/models     ids; "max_model_len" (vLLM, SGLang), "meta.n_ctx_train" (llama.cpp), "owned_by"
 *   /version       {"version": "0.10.1"} (vLLM)
 *   /metrics       whose names they are (loadgen/metrics.h)
 */
#pragma once

#include "core/err.h"
#include "loadgen/endpoint.h"

struct identity {
    char server[32], version[64]; // empty: not said
    int64_t context;              // tokens; 0: not said
};

/*
 * Ask every URL of the endpoint for the model; the rest is asked of the first. ERR_ENV: no connection,
 * or an answer that is no such list. ERR_INPUT: the key is refused, or the model is not served there
 * (which are). A server without a list of models (404, 405) is taken at its word.
 */
int identity_ask(const struct endpoint *p, const char *model, struct identity *out,
                 struct err *e) ERR_CHECKED;
