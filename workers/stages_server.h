/*
 * An OpenAI-compatible endpoint over this job's worker ranks: a request goes to the leader of a replica
 * (model/routing.h), as one from a load rank does (model/wire.h), and what its last stage
 * says becomes events. Text is made here: what may be part of a character or of a stop text is held back, and
 * a request is cancelled when a stop text is found or its client goes.
 *
 * One thread: the HTTP server's loop polls the comm in each of its turns.
 */
#pragma once

#include "core/comm.h"
#include "core/err.h"
#include "core/httpd.h"
#include "model/arch.h"
#include "model/layout.h"
#include "model/routing.h"
#include "model/tokenizer.h"
#include "workers/serve_config.h"

struct stages_server_config {
    const struct serve_config *serve;
    const char *model_name;
    const char *version;
    struct comm *comm;
    struct layout layout;
    enum routing_kind routing;
    const struct arch *arch;
    const struct tokenizer *tokenizer; // NULL: prompts are ids, and ids are the text
};

struct stages_server;

/* What `cfg` points to must outlive it. The workers are in a step. */
void stages_server_open(struct stages_server **out, const struct stages_server_config *cfg);
struct httpd_app stages_server_app(struct stages_server *s);
void stages_server_started(struct stages_server *s, struct httpd *h);
void stages_server_report(const struct stages_server *s);
void stages_server_close(struct stages_server *s);
