/*
 * The client of an OpenAI-compatible endpoint: bodies made ahead of time, answers read as server-sent
 * events (or whole), each event with text stamped when its socket was looked at, failures as outcomes.
 *
 *   connect        no connection, no such host, no agreement on TLS
 *   http_status    an answer of another status than 200
 *   bad_stream     not what the API says: another content type, no JSON, an error inside, too many tokens
 *   truncated      the answer ended before it was finished, or had no token
 *   timeout_first, timeout_total   target.first_timeout, target.timeout
 *
 * The first failure of each kind in a step is told in one line. Loop thread only.
 */
#pragma once

#include "core/err.h"
#include "loadgen/client.h"
#include "loadgen/endpoint.h"
#include "model/tokenizer.h"

/*
 * n_slots: of the live table. model: the name the server knows it by. tok: to count output tokens with; may
 * be NULL, then the server's usage is the count, or one token per event. Borrows all but the config's
 * secrets until destroyed.
 */
int client_openai_create(struct client **out, const struct endpoint_config *c, const char *model,
                         bool ignore_eos, struct live_table *t, uint32_t n_slots, uint32_t context,
                         const struct tokenizer *tok, struct err *e) ERR_CHECKED;
