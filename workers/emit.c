#include "workers/emit.h"

#include <stdlib.h>
#include <string.h>

#include "core/mem.h"
#include "workers/request_trace.h"

struct emit {
    struct batch_limits lim;
    const struct arch *arch;
    const struct choices *choices;  // of the batch at hand
    struct request_trace *traces;   // (n_slots)
    struct wire_trace *message;     // (request_trace_bytes(n_stages))
    struct wire_logprobs *logprobs; // (logprobs_bytes(WIRE_MAX_TOP))
    struct wire_token *tokens;      // (max_rows) by load rank
    uint32_t *end;                  // (n_load_ranks) one behind a load rank's tokens
};

static size_t logprobs_bytes(uint32_t n_top)
{
    return sizeof(struct wire_logprobs) + n_top * sizeof(struct wire_logprob);
}

int emit_create(struct emit **out, const struct batch_limits *lim, const struct arch *arch,
                struct err *e)
{
    struct emit *m = xcalloc(1, sizeof *m);
    m->lim = *lim;
    m->arch = arch;
    m->traces = calloc(lim->n_slots, sizeof *m->traces);
    m->message = xcalloc(1, request_trace_bytes(lim->n_stages));
    m->logprobs = xcalloc(1, logprobs_bytes(WIRE_MAX_TOP));
    m->tokens = xcalloc(lim->max_rows, sizeof *m->tokens);
    m->end = xcalloc(lim->n_load_ranks, sizeof *m->end);
    if (m->traces == NULL) {
        emit_destroy(m);
        return err_set(e, ERR_ENV, "no memory for traces of %u requests", lim->n_slots);
    }
    *out = m;
    return 0;
}

void emit_destroy(struct emit *m)
{
    if (m != NULL) {
        free(m->traces);
        free(m->message);
        free(m->logprobs);
        free(m->tokens);
        free(m->end);
        free(m);
    }
}

size_t emit_max_message_bytes(const struct batch_limits *lim)
{
    size_t tokens = lim->max_rows * sizeof(struct wire_token);
    size_t trace = request_trace_bytes(lim->n_stages);
    size_t most = tokens > trace ? tokens : trace;
    return most > logprobs_bytes(WIRE_MAX_TOP) ? most : logprobs_bytes(WIRE_MAX_TOP);
}

static uint32_t token_flags(const struct emit *m, const struct batch_row *r, int32_t id)
{
    return ((r->flags & BATCH_FIRST) ? WIRE_FIRST : 0u) |
           batch_ends(r->flags, id, m->arch->eos_ids, m->arch->n_eos,
                      choices_how(m->choices, r->slot));
}

static int post_trace(struct emit *m, struct comm *comm, const struct batch_row *r, uint32_t phase,
                      struct err *e)
{
    request_trace_encode(&m->traces[r->slot], m->lim.n_stages, phase, m->message);
    return comm_post(comm, r->load_rank, WIRE_TRACE, m->message,
                     request_trace_bytes(m->lim.n_stages), e);
}

static int add_traces(struct emit *m, struct comm *comm, const struct batch *b, const int32_t *ids,
                      struct err *e)
{
    struct request_trace_parts parts;
    request_trace_measure(b, &parts);
    for (uint32_t i = 0; i < b->n_rows; i++) {
        const struct batch_row *r = &b->rows[i];
        request_trace_add(&m->traces[r->slot], b, &parts, r);
        uint32_t flags = (r->flags & BATCH_SAMPLE) ? token_flags(m, r, ids[i]) : 0;
        if ((flags & WIRE_FIRST) && post_trace(m, comm, r, WIRE_FIRST, e) != 0) {
            return -1;
        }
        if ((flags & WIRE_LAST) && post_trace(m, comm, r, WIRE_LAST, e) != 0) {
            return -1;
        }
    }
    return 0;
}

static int post_logprobs(struct emit *m, struct comm *comm, const struct batch *b, struct err *e)
{
    const struct sampler_jobs *jobs = choices_jobs(m->choices);
    for (uint32_t i = 0; i < jobs->n; i++) {
        const struct sampler_job *j = &jobs->v[i];
        const struct batch_row *r = &b->rows[j->row];
        if (j->how->logprobs == 0) {
            continue;
        }
        m->logprobs->ticket = r->ticket;
        m->logprobs->token = (struct wire_logprob){.id = j->id, .logprob = j->logprob};
        m->logprobs->n_top = j->n_top;
        memcpy(m->logprobs->top, j->top, j->n_top * sizeof j->top[0]);
        if (comm_post(comm, r->load_rank, WIRE_LOGPROBS, m->logprobs, logprobs_bytes(j->n_top),
                      e) != 0) {
            return -1;
        }
    }
    return 0;
}

/* A counting sort by load rank; afterwards load rank k's tokens end at end[k]. */
static void sort_tokens(struct emit *m, const struct batch *b, const int32_t *ids)
{
    uint32_t *at = m->end;
    for (uint32_t k = 0; k < m->lim.n_load_ranks; k++) {
        at[k] = 0;
    }
    for (uint32_t i = 0; i < b->n_rows; i++) {
        at[b->rows[i].load_rank] += (b->rows[i].flags & BATCH_SAMPLE) != 0;
    }
    uint32_t sum = 0;
    for (uint32_t k = 0; k < m->lim.n_load_ranks; k++) {
        uint32_t n = at[k];
        at[k] = sum;
        sum += n;
    }
    int64_t t_emit_ns = b->times[b->n_stages - 1].t_send_ns;
    for (uint32_t i = 0; i < b->n_rows; i++) {
        const struct batch_row *r = &b->rows[i];
        if (r->flags & BATCH_SAMPLE) {
            m->tokens[at[r->load_rank]++] = (struct wire_token){
                .ticket = r->ticket,
                .id = ids[i],
                .flags = token_flags(m, r, ids[i]),
                .t_emit_ns = t_emit_ns,
            };
        }
    }
}

int emit_batch(struct emit *m, struct comm *comm, const struct batch *b, const int32_t *ids,
               const struct choices *choices, struct err *e)
{
    m->choices = choices;
    if (add_traces(m, comm, b, ids, e) != 0 || post_logprobs(m, comm, b, e) != 0) {
        return -1;
    }
    sort_tokens(m, b, ids);
    uint32_t from = 0;
    for (uint32_t k = 0; k < m->lim.n_load_ranks; k++) {
        uint32_t n = m->end[k] - from;
        if (n > 0 &&
            comm_post(comm, (int)k, WIRE_TOKENS, m->tokens + from, n * sizeof *m->tokens, e) != 0) {
            return -1;
        }
        from = m->end[k];
    }
    return 0;
}
