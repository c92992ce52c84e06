/*
 * One load rank and a replica of P = size - 1 worker ranks on preset:tiny (of 5 ranks: two replicas of P = 2,
 * one of which gets three quarters of the requests): requests go in as wire messages, as a load rank would
 * send them, and every token must come back once, in order, with the ids that a single backend in this process
 * computes for the request alone, greedy or drawn. Steps end in mid-flight, requests are cancelled and rejected, and the next
 * step must find everything clean. The KV pool has hardly room for the longest request, so that others are
 * preempted; once more with a prefix cache. Two replicas get random traffic with cancellations
 * for 2 s, or for TIDEMARK_SOAK seconds: every request is accounted for, and no rank's memory grows.
 */
#include "core/clock.h"
#include "core/comm.h"
#include "core/mem.h"
#include "core/rng.h"
#include "model/layout.h"
#include "model/wire.h"
#include "results/record.h"
#include "tests/support/chain.h"
#include "workers/batch.h"
#include "workers/target.h"
#include "workers/worker.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    N_REQUESTS = 40,
    N_OVERLOAD = 120, // more than may run and wait
    MAX_RUNNING = 6,
    MAX_WAITING = 50,
    BATCH_TOKENS = 64, // long prompts take several chunks
    MAX_IN = 400,
    MAX_OUT = 100,
    MAX_RANKS = 8,
};

#define DEADLINE_NS       (50 * NS_PER_S)
#define SOAK_STEP_NS      (20 * NS_PER_S)
#define SOAK_GROWTH_BYTES (8 << 20)

struct request {
    int32_t prompt[MAX_IN], want[MAX_OUT];
    uint32_t n_in, n_out, flags;
    struct wire_sampling how; // with WIRE_SAMPLED
    float logprobs[MAX_OUT];  // of `want`
    bool stops;               // the last of `want` is an EOS or a stop id
    // of the present step:
    uint32_t generation, n_got;
    uint32_t traces; // phases seen
    uint32_t n_logprobs;
    int64_t t_sent_ns, t_first_ns, t_last_ns, trace_total_us[2];
    bool live, cancelled, rejected, ended;
};

struct from_worker { // of the present step
    uint64_t last_seq;
    uint32_t n_compute, n_wait, n_send, n_points;
    struct series_point last; // point
    int64_t busy_ns;
    bool done;
};

static struct comm *c;
static struct layout layout;
static struct arch arch;
static struct target_config target;
static int rank, size;
static struct request requests[N_OVERLOAD];
static struct from_worker workers[MAX_RANKS];
static uint32_t step, generation, n_preempted, n_cached; // of all requests with the present worker
static int64_t deadline_ns;
static bool soaking;

static uint64_t draw(uint64_t n, uint64_t i, uint64_t k)
{
    return rng_below(n, 3, RNG_SHUFFLE, i, k);
}

static int replica_of(const struct request *r)
{
    return layout.replicas == 2 && (r - requests) % 4 == 3;
}

static int leader_of(const struct request *r)
{
    return layout_leader(&layout, replica_of(r));
}

/* The rank whose batches a rank's are. */
static int leader_of_rank(int worker)
{
    return layout_leader(&layout, layout_worker(&layout, worker).replica);
}

static void must(int rc, const struct err *e)
{
    if (rc < 0) {
        comm_abort(c, 1, "%s", e->msg);
    }
}

/* --- requests and what they must yield ----------------------------------------------------------- */

/* A third of the requests draw their tokens, each in its own way; some want to know how likely they were. */
static void make_sampling(uint32_t i, struct request *r)
{
    if (i % 3 != 1) {
        return;
    }
    r->flags |= WIRE_SAMPLED;
    r->how = (struct wire_sampling){
        .seed = 100 + i,
        .temperature = i % 2 ? 0.8F : 3,
        .top_p = i % 4 == 3 ? 0.9F : 1,
        .top_k = i % 5 ? 0 : 40,
        .logprobs = i % 7 < 3 ? 1 + i % 7 : 0,
    };
}

/* What ends it among the tokens it would have: EOS where asked for, and a stop id, which becomes the one
 * that it has in the middle. */
static void find_end(struct request *r, uint32_t i)
{
    if ((r->flags & WIRE_SAMPLED) && i % 2) {
        r->how.stop_ids[r->how.n_stop_ids++] = r->want[r->n_out / 2];
    }
    for (uint32_t k = 0; k < r->n_out && !r->stops; k++) {
        r->stops = (r->flags & WIRE_STOP_AT_EOS) && r->want[k] == arch.eos_ids[0];
        r->stops |= r->how.n_stop_ids && r->want[k] == r->how.stop_ids[0];
        r->n_out = r->stops ? k + 1 : r->n_out;
    }
}

/* The tokens of a request that is alone, one row after the other. */
static void generate_alone(struct chain *chain, struct request *r)
{
    struct sampler_job job = {.how = &r->how};
    for (uint32_t k = 0; k < r->n_out; k++) {
        const uint32_t pos = k ? r->n_in + k - 1 : 0;
        const struct chain_row row = {.pos = pos,
                                      .tokens = k ? &r->want[k - 1] : r->prompt,
                                      .n = k ? 1 : r->n_in,
                                      .sample = true};
        job.index = k;
        chain->jobs = (struct sampler_jobs){&job, (r->flags & WIRE_SAMPLED) ? 1 : 0};
        chain_step(chain, &row, 1);
        r->want[k] = chain->ids[0];
        r->logprobs[k] = job.logprob;
    }
}

static void make_requests(void)
{
    static const uint32_t lengths_in[] = {1, 5, 15, 16, 17, 64, 65, 130, 399, 33};
    static const uint32_t lengths_out[] = {1, 2, 9, 16, 17, 100, 64};
    struct chain chain;
    const struct chain_config cfg = {
        .model = "preset:tiny",
        .n_stages = 1,
        .n_threads = 1,
        .kernels = "auto",
        .max_tokens = MAX_IN,
        .max_rows = 1,
        .n_slots = 1,
        .context = MAX_IN + MAX_OUT,
    };
    chain_open(&chain, &cfg);
    for (uint32_t i = 0; i < N_OVERLOAD; i++) {
        struct request *r = &requests[i];
        if (i >= N_REQUESTS) { // the same ones again
            *r = requests[i % N_REQUESTS];
            continue;
        }
        r->n_in = lengths_in[i % 10];
        r->n_out = lengths_out[i % 7];
        r->flags = i % 3 == 0 ? WIRE_STOP_AT_EOS : 0;
        for (uint32_t k = 0; k < r->n_in; k++) {
            r->prompt[k] = (int32_t)rng_below((uint64_t)arch.vocab, 1, RNG_TOKENS, i, k);
        }
        make_sampling(i, r);
        generate_alone(&chain, r);
        find_end(r, i);
    }
    chain_close(&chain);
}

static void send_request(uint32_t i, uint32_t n_out_asked)
{
    static union {
        struct wire_request q;
        uint8_t bytes[sizeof(struct wire_request) + MAX_IN * sizeof(int32_t) +
                      sizeof(struct wire_sampling)];
    } m;
    struct err e;
    struct request *r = &requests[i];
    m.q = (struct wire_request){
        .ticket = {.slot = i, .generation = ++generation},
        .n_in = r->n_in,
        .n_out = n_out_asked,
        .flags = r->flags,
    };
    memcpy(m.q.ids, r->prompt, r->n_in * sizeof(int32_t));
    const size_t tail = (r->flags & WIRE_SAMPLED) ? sizeof r->how : 0;
    memcpy(m.q.ids + r->n_in, &r->how, tail);
    r->generation = generation;
    r->n_got = r->traces = r->n_logprobs = 0;
    r->cancelled = r->rejected = r->ended = false;
    r->live = true;
    r->t_sent_ns = clock_now_ns();
    must(comm_post(c, leader_of(r), WIRE_REQUEST, &m, sizeof m.q + r->n_in * sizeof(int32_t) + tail,
                   &e),
         &e);
}

/* --- what comes back -------------------------------------------------------------------------------- */

/* NULL for what belongs to an earlier life of the slot. */
static struct request *request_of(struct wire_ticket t)
{
    CHECK(t.slot < N_OVERLOAD && t.generation <= generation);
    struct request *r = &requests[t.slot];
    return r->live && r->generation == t.generation ? r : NULL;
}

static void take_trace(const struct comm_msg *m)
{
    const struct wire_trace *t = m->data;
    CHECK(t->n_stages == (uint32_t)layout.pipeline);
    CHECK(m->n_bytes == sizeof *t + t->n_stages * sizeof(uint32_t));
    CHECK(t->phase == WIRE_FIRST || t->phase == WIRE_LAST);
    struct request *r = request_of(t->ticket);
    if (r == NULL) {
        return;
    }
    CHECK(m->src == leader_of(r) + layout.pipeline - 1);
    CHECK(!(r->traces & t->phase));
    CHECK(t->phase == WIRE_FIRST ? r->n_got == 0 : (r->traces & WIRE_FIRST) != 0);
    r->traces |= t->phase;
    CHECK(t->t_recv_ns >= r->t_sent_ns && t->t_admit_ns >= t->t_recv_ns);
    CHECK(t->t_prefill_ns >= t->t_admit_ns);
    int64_t sum_us = (int64_t)t->hop_us + t->bubble_us + t->requeue_us;
    CHECK(t->requeue_us == 0 || t->n_preempted > 0);
    CHECK(t->n_cached < r->n_in && (t->n_cached == 0 || target.prefix_cache));
    n_preempted += t->phase == WIRE_LAST ? t->n_preempted : 0;
    n_cached += t->phase == WIRE_LAST ? t->n_cached : 0;
    for (uint32_t s = 0; s < t->n_stages; s++) {
        CHECK(t->stage_us[s] > 0 || t->n_cached > 0);
        sum_us += t->stage_us[s];
    }
    // From here on: t_emit = t_recv + queue + sum, to the rounding of each part.
    r->trace_total_us[t->phase == WIRE_LAST] = t->t_admit_ns / NS_PER_US + sum_us;
}

static void take_logprobs(const struct comm_msg *m)
{
    const struct wire_logprobs *l = m->data;
    struct request *r = request_of(l->ticket);
    if (r == NULL) {
        return;
    }
    CHECK(r->how.logprobs > 0 && l->n_top == r->how.logprobs - 1);
    CHECK(m->n_bytes == sizeof *l + l->n_top * sizeof l->top[0]);
    CHECK(l->token.id == r->want[r->n_got] && l->token.logprob == r->logprobs[r->n_got]);
    CHECK(l->n_top < 2 || l->top[0].logprob >= l->top[1].logprob);
    r->n_logprobs++;
}

static void take_token(int src, const struct wire_token *t)
{
    struct request *r = request_of(t->ticket);
    if (r == NULL) {
        return;
    }
    CHECK(src == leader_of(r) + layout.pipeline - 1);
    CHECK(!r->ended && !r->rejected && r->n_got < r->n_out);
    CHECK(t->id == r->want[r->n_got]);
    bool first = r->n_got == 0, last = r->n_got + 1 == r->n_out;
    CHECK(t->flags == ((first ? WIRE_FIRST : 0u) | (last ? WIRE_LAST : 0u) |
                       (last && r->stops ? WIRE_STOPPED : 0u)));
    CHECK(r->n_logprobs == (r->how.logprobs ? r->n_got + 1 : 0));
    CHECK(first || t->t_emit_ns > r->t_last_ns);
    r->n_got++;
    r->ended = last;
    r->t_last_ns = t->t_emit_ns;
    int64_t slack_us = layout.pipeline + 3; // one rounding per part
    for (int phase = first ? 0 : 1; phase < (last ? 2 : 1); phase++) {
        CHECK(r->traces & (phase == 0 ? WIRE_FIRST : WIRE_LAST));
        int64_t off_us = t->t_emit_ns / NS_PER_US - r->trace_total_us[phase];
        CHECK(off_us >= -slack_us && off_us <= slack_us);
    }
}

static void take_spans(struct from_worker *w, int src, const struct span *s, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        CHECK(s[i].rank == src && s[i].n_rows > 0 && s[i].n_tokens <= BATCH_TOKENS);
        if (s[i].op == SPAN_WAIT_RECV) {
            w->n_wait++;
        } else if (s[i].op == SPAN_SEND) {
            w->n_send++;
        } else {
            CHECK(s[i].batch_seq == w->last_seq + 1); // each batch of the step, in order
            w->last_seq = s[i].batch_seq;
            w->n_compute++;
            w->busy_ns += s[i].dur_ns;
        }
    }
}

static void take_journal(const struct comm_msg *m)
{
    const struct wire_journal *j = m->data;
    struct from_worker *w = &workers[m->src];
    CHECK(m->n_bytes > sizeof *j && j->step == step && !w->done);
    size_t n_bytes = m->n_bytes - sizeof *j;
    if (j->kind == WIRE_JOURNAL_SPANS) {
        CHECK(n_bytes % sizeof(struct span) == 0);
        take_spans(w, m->src, (const void *)j->bytes, n_bytes / sizeof(struct span));
        return;
    }
    CHECK(j->kind == WIRE_JOURNAL_SERIES && n_bytes % sizeof(struct series_point) == 0);
    CHECK(m->src == leader_of_rank(m->src));
    const struct series_point *p = (const void *)j->bytes;
    for (size_t i = 0; i < n_bytes / sizeof *p; i++) {
        CHECK(p[i].running <= MAX_RUNNING && p[i].waiting <= MAX_WAITING + MAX_RUNNING);
        CHECK(p[i].kv_used >= 0 && p[i].kv_used <= 1);
        CHECK(p[i].n_preempted >= w->last.n_preempted);
        CHECK(p[i].prefix_hit_tokens <= p[i].prefix_query_tokens);
        CHECK((p[i].prefix_query_tokens > 0) <= target.prefix_cache);
        w->last = p[i];
        w->n_points++;
    }
}

static void take_done(const struct comm_msg *m)
{
    const struct wire_step_done *d = m->data;
    CHECK(m->n_bytes == sizeof *d && d->index == step && d->n_records == 0);
    CHECK(!workers[m->src].done && d->poll_gap_ns[0] <= d->poll_gap_ns[1]);
    workers[m->src].done = true;
}

static void take(const struct comm_msg *m)
{
    switch (m->tag) {
    case WIRE_TRACE:
        take_trace(m);
        break;
    case WIRE_LOGPROBS:
        take_logprobs(m);
        break;
    case WIRE_TOKENS:
        CHECK(m->n_bytes % sizeof(struct wire_token) == 0);
        for (size_t i = 0; i < m->n_bytes / sizeof(struct wire_token); i++) {
            take_token(m->src, (const struct wire_token *)m->data + i);
        }
        break;
    case WIRE_REJECT: {
        const struct wire_reject *reject = m->data;
        struct request *r = request_of(reject->ticket);
        CHECK(m->n_bytes == sizeof *reject && r != NULL && r->n_got == 0 && !r->rejected);
        r->rejected = true;
        break;
    }
    case WIRE_JOURNAL:
        take_journal(m);
        break;
    case WIRE_STEP_DONE:
        take_done(m);
        break;
    default:
        CHECK(!"a message for a load rank");
    }
}

/* Take messages until cond(arg) holds. While soaking, whatever comes puts the deadline off: on a machine that does
 * much else everything is slow, but what was lost stays away. */
static void pump(bool (*cond)(uint32_t arg), uint32_t arg)
{
    struct err e;
    for (int idle = 0; !cond(arg);) {
        struct comm_msg m;
        int got = comm_poll(c, &m, &e);
        must(got, &e);
        if (got == 1) {
            take(&m);
            idle = 0;
            if (soaking) {
                deadline_ns = clock_local_ns() + DEADLINE_NS;
            }
        } else {
            must(comm_pause(c, idle++, &e), &e);
        }
        CHECK(clock_local_ns() < deadline_ns);
    }
}

static bool all_settled(uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        const struct request *r = &requests[i];
        if (r->live && !r->ended && !r->rejected && !r->cancelled) {
            return false;
        }
    }
    return true;
}

static bool tokens_came(uint32_t n)
{
    uint32_t sum = 0;
    for (uint32_t i = 0; i < N_OVERLOAD; i++) {
        sum += requests[i].live ? requests[i].n_got : 0;
    }
    return sum >= n;
}

static bool all_done(uint32_t unused)
{
    (void)unused;
    for (int r = 1; r < size; r++) {
        if (!workers[r].done) {
            return false;
        }
    }
    return true;
}

/* --- steps ------------------------------------------------------------------------------------------- */

static void tell_workers(int tag, const void *data, size_t n_bytes)
{
    struct err e;
    for (int r = 1; r < size; r++) {
        must(comm_post(c, r, tag, data, n_bytes, &e), &e);
    }
}

static void begin_step(void)
{
    struct wire_step s = {.index = step, .t_begin_ns = clock_now_ns()};
    memset(workers, 0, sizeof workers);
    tell_workers(WIRE_STEP, &s, sizeof s);
}

static void end_step(void)
{
    struct wire_step_end end = {.index = step};
    for (uint32_t i = 0; i < N_OVERLOAD; i++) {
        requests[i].live = false;
    }
    tell_workers(WIRE_STEP_END, &end, sizeof end);
    pump(all_done, 0);
    // All stages of a replica have seen the same batches.
    for (int r = 1; r < size; r++) {
        CHECK(workers[r].n_compute == workers[leader_of_rank(r)].n_compute);
        CHECK(workers[r].n_send == workers[r].n_compute);
    }
    step++;
}

static void cancel(uint32_t i)
{
    struct err e;
    struct wire_cancel w = {.ticket = {.slot = i, .generation = requests[i].generation}};
    must(comm_post(c, leader_of(&requests[i]), WIRE_CANCEL, &w, sizeof w, &e), &e);
    requests[i].cancelled = true;
    requests[i].live = false;
}

/* One more than will come where an id is to stop the request before. */
static uint32_t asked(uint32_t i)
{
    const struct request *r = &requests[i];
    return r->stops && r->n_out < MAX_OUT ? r->n_out + 1 : r->n_out;
}

static void test_all_tokens(void)
{
    begin_step();
    for (uint32_t i = 0; i < N_REQUESTS; i++) {
        send_request(i, asked(i));
    }
    pump(all_settled, N_REQUESTS);
    for (uint32_t i = 0; i < N_REQUESTS; i++) {
        CHECK(requests[i].ended && requests[i].n_got == requests[i].n_out);
        CHECK(requests[i].traces == (WIRE_FIRST | WIRE_LAST));
    }
    end_step();
    CHECK(workers[1].n_points > 0 && workers[1].n_compute > 0 && workers[1].busy_ns > 0);
}

static void test_end_in_mid_flight(uint32_t after_tokens)
{
    begin_step();
    for (uint32_t i = 0; i < N_REQUESTS; i++) {
        send_request(i, asked(i));
    }
    pump(tokens_came, after_tokens);
    end_step();
}

static void test_cancel(void)
{
    begin_step();
    for (uint32_t i = 0; i < N_REQUESTS; i++) {
        send_request(i, asked(i));
        if (i % 4 == 1) {
            cancel(i);
        }
    }
    pump(tokens_came, 5);
    for (uint32_t i = 0; i < N_REQUESTS; i += 3) {
        if (requests[i].live && !requests[i].ended) {
            cancel(i);
        }
    }
    pump(all_settled, N_REQUESTS);
    end_step();
}

static void test_overload(void)
{
    uint32_t n_rejected = 0;
    begin_step();
    for (uint32_t i = 0; i < N_OVERLOAD; i++) {
        send_request(i, asked(i));
    }
    pump(all_settled, N_OVERLOAD);
    for (uint32_t i = 0; i < N_OVERLOAD; i++) {
        n_rejected += requests[i].rejected;
        CHECK(requests[i].rejected || requests[i].ended);
    }
    CHECK(n_rejected > 0 && n_rejected <= N_OVERLOAD - MAX_WAITING - MAX_RUNNING);
    send_request(0, (uint32_t)arch.max_context); // can never fit
    pump(all_settled, 1);
    CHECK(requests[0].rejected);
    end_step();
}

/* The same prompt again, when its blocks are free: all full ones are found in a prefix cache. */
static void test_again(uint32_t i)
{
    begin_step();
    for (int k = 0; k < 2; k++) {
        n_cached = 0;
        send_request(i, asked(i));
        pump(all_settled, N_REQUESTS);
        CHECK(requests[i].ended);
    }
    end_step();
    uint32_t n_blocks = (requests[i].n_in - 1) / BATCH_KV_BLOCK;
    CHECK(n_cached == (target.prefix_cache ? n_blocks * BATCH_KV_BLOCK : 0));
}

static bool time_is_up(uint32_t at_ms)
{
    return clock_local_ns() / NS_PER_MS % UINT32_MAX >= at_ms;
}

/* Requests come and go at random; afterwards each has ended, been cancelled or been rejected. */
static void soak_step(uint64_t seed, int64_t ns)
{
    uint32_t n_cancelled = 0, n_whole = 0;
    bool enough = false; // on a slow machine it takes longer
    soaking = true;
    deadline_ns = clock_local_ns() + DEADLINE_NS;
    begin_step();
    int64_t end_ns = clock_local_ns() + ns;
    for (uint64_t k = 0; clock_local_ns() < end_ns || !enough; k++) {
        uint32_t i = (uint32_t)draw(N_REQUESTS, seed + k, 0);
        struct request *r = &requests[i];
        bool is_idle = !r->live || r->ended || r->rejected;
        n_whole += r->live && r->ended;
        enough = n_whole > 9 && n_cancelled > 9 && workers[1].last.n_preempted > 0;
        if (is_idle) {
            send_request(i, asked(i));
        } else if (draw(12, seed + k, 1) == 0) {
            cancel(i);
            n_cancelled++;
        }
        uint32_t now_ms = (uint32_t)(clock_local_ns() / NS_PER_MS % UINT32_MAX);
        pump(time_is_up, now_ms + (uint32_t)draw(6, seed + k, 2));
    }
    pump(all_settled, N_REQUESTS);
    end_step();
    soaking = false;
}

static void run_soak(int64_t ns)
{
    for (uint64_t seed = 0; ns > 0; seed++) {
        int64_t step_ns = ns < SOAK_STEP_NS ? ns : SOAK_STEP_NS;
        soak_step(seed << 32, step_ns);
        ns -= step_ns;
    }
    tell_workers(WIRE_SHUTDOWN, NULL, 0);
}

static void run_load_rank(int64_t soak_ns)
{
    if (soak_ns > 0) {
        run_soak(soak_ns);
        return;
    }
    deadline_ns = clock_local_ns() + DEADLINE_NS;
    n_preempted = n_cached = 0;
    test_all_tokens();
    if (!target.prefix_cache) {
        test_end_in_mid_flight(1);
        test_all_tokens();
        test_end_in_mid_flight(150);
        test_end_in_mid_flight(0);
        test_overload();
    }
    test_cancel();
    test_all_tokens();
    CHECK(n_preempted > 0 && workers[1].last.n_preempted > 0);
    test_again(8);
    tell_workers(WIRE_SHUTDOWN, NULL, 0);
}

/* --- set-up ------------------------------------------------------------------------------------------- */

static void configure(void)
{
    struct err e;
    int n_replicas = size == 5 ? 2 : 1;
    layout = (struct layout){
        .load_ranks = 1,
        .replicas = n_replicas,
        .pipeline = (size - 1) / n_replicas,
        .tensor = 1,
    };
    opt_defaults(target_options, &target);
    target.model = xstrdup("preset:tiny");
    target.pipeline = layout.pipeline;
    target.replicas = layout.replicas;
    target.lanes = size == 4 ? 4 : 0; // also one more than stages
    target.max_running = MAX_RUNNING;
    target.max_waiting = MAX_WAITING;
    target.max_batch_tokens = BATCH_TOKENS;
    target.kv_tokens = MAX_IN + MAX_OUT;
    target.idle_class = false; // what else runs here may not starve it
    must(arch_open(target.model, &arch, &e), &e);
    must(target_check(&target, &arch, &e), &e);
}

/* With a worker of its own. */
static void run_once(bool prefix_cache, int64_t soak_ns)
{
    struct err e = {0};
    struct worker *w = NULL;
    target.prefix_cache = prefix_cache;
    if (rank > 0) {
        must(worker_create(&w, &layout, rank,
                           &(struct worker_cores){.n_threads = 1, .placement = "test"}, &target,
                           &arch, &e),
             &e);
    }
    must(comm_barrier(c, 20 * NS_PER_S, &e), &e);
    if (rank == 0) {
        run_load_rank(soak_ns);
    } else {
        must(worker_serve(w, c, &e), &e);
    }
    worker_destroy(w);
    must(comm_barrier(c, 20 * NS_PER_S, &e), &e);
}

static int64_t resident_bytes(void)
{
    long long n_pages = 0;
    FILE *f = fopen("/proc/self/statm", "r");
    CHECK(f != NULL && fscanf(f, "%*s %lld", &n_pages) == 1);
    fclose(f);
    return n_pages * sysconf(_SC_PAGESIZE);
}

/* The second time nothing is new: whatever grows is never given back. */
static void soak(void)
{
    const char *seconds = getenv("TIDEMARK_SOAK");
    int64_t ns = (seconds != NULL ? atoll(seconds) : 2) * NS_PER_S;
    run_once(true, NS_PER_S);
    int64_t before = resident_bytes();
    run_once(true, ns);
    int64_t grown = resident_bytes() - before;
    if (seconds != NULL) {
        printf("rank %d: %lld bytes, grown by %lld\n", rank, (long long)before, (long long)grown);
    }
    CHECK(grown < SOAK_GROWTH_BYTES);
}

int main(void)
{
    struct err e = {0};
    if (comm_open(&c, &e) != 0) {
        fprintf(stderr, "%s\n", e.msg);
        return 1;
    }
    rank = comm_rank(c);
    size = comm_size(c);
    CHECK(size >= 2 && size <= MAX_RANKS);
    configure();
    if (rank == 0) {
        make_requests();
    }
    must(comm_agree(c, &e), &e);
    target.prefix_cache = true; // its batches are the larger ones
    must(comm_start(c, worker_max_message_bytes(&target, &arch), &e), &e);
    must(comm_watch(c, 20 * NS_PER_S, &e), &e);
    if (layout.replicas > 1) {
        soak();
    } else {
        run_once(false, 0);
        run_once(true, 0);
    }
    opt_free(target_options, &target);
    comm_close(c);
    return 0;
}
