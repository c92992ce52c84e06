/*
 * The scheduler on a virtual clock: a pipeline of stages with made-up compute times, random arrivals
 * and lengths, and a mirror of every request that checks each batch as it is built.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "core/rng.h"
#include "workers/sched.h"

enum {
    VOCAB = 1000,
    EOS = 17,
    MAX_LANES = 8,
};

static const int eos_ids[] = {EOS};

struct mirror { // what a request must have seen so far
    uint32_t n_in, n_out, flags;
    int64_t t_submit_ns, t_admit_ns; // t_admit -1: not seen in a batch yet
    uint32_t pos, n_done, n_blocks, slot;
    uint32_t waited; // batches of its lane since it last had a row
    bool in_flight, ended, cancelled, rejected;
};

struct flying {
    uint32_t lane, n_rows;
    uint64_t seq;
    int64_t t_back_ns;
    uint32_t *requests; // (n_rows)
    int32_t *ids;       // (n_rows)
};

struct sim {
    struct sched_config cfg;
    uint32_t n_stages, n_requests;
    uint64_t seed;
    double mean_gap_ns;
    bool cancels;
    struct sched *s;
    struct batch *batch;
    struct mirror *m; // (n_requests)
    int32_t *owner;   // (n_kv_blocks) request that holds the block, -1 none
    struct flying fly[MAX_LANES];
    uint32_t first_fly, n_fly; // a queue: a pipeline returns batches in order
    int64_t stage_free_ns[8];
    int64_t now_ns, t_arrival_ns;
    uint32_t n_arrived, n_rejected, n_batches, n_mixed;
    uint64_t hash; // of all batches
};

static uint64_t draw(const struct sim *w, uint64_t n, uint64_t a, uint64_t b)
{
    return rng_below(n, w->seed, RNG_SHUFFLE, a, b);
}

static int32_t prompt_id(uint32_t request, uint32_t pos)
{
    return (int32_t)((request * 31 + pos * 7) % VOCAB);
}

static int32_t output_id(uint32_t request, uint32_t k)
{
    return (int32_t)((request * 131 + k * 29 + 3) % VOCAB);
}

static struct wire_ticket ticket_of(uint32_t request)
{
    return (struct wire_ticket){.slot = request % 50, .generation = request};
}

static void absorb(struct sim *w, uint64_t v)
{
    w->hash = (w->hash ^ v) * 0x100000001B3u;
}

/* --- checks --------------------------------------------------------------------------------------- */

static void check_lanes(const struct sim *w)
{
    uint32_t lo = UINT32_MAX, hi = 0, sum = 0;
    for (uint32_t i = 0; i < w->cfg.lanes; i++) {
        uint32_t n = sched_lane_running(w->s, i);
        lo = n < lo ? n : lo;
        hi = n > hi ? n : hi;
        sum += n;
    }
    struct sched_counts c = sched_counts(w->s);
    assert_true(hi - lo <= 1);
    assert_int_equal(sum, c.running);
    assert_true(c.running <= w->cfg.max_running && c.waiting <= w->cfg.max_waiting);
    assert_true(c.kv_taken <= c.kv_size);
    assert_int_equal(c.in_flight, w->n_fly);
}

static void free_blocks(struct sim *w, uint32_t request)
{
    for (uint32_t k = 0; k < w->cfg.n_kv_blocks; k++) {
        w->owner[k] = w->owner[k] == (int32_t)request ? -1 : w->owner[k];
    }
}

static void check_row_tokens(const struct sim *w, uint32_t request, const struct batch_row *r)
{
    const struct mirror *m = &w->m[request];
    const int32_t *tokens = w->batch->tokens + r->first;
    if (r->flags & BATCH_PREFILL) {
        assert_true(m->n_done == 0 && r->pos + r->n_tokens <= m->n_in);
        for (uint32_t k = 0; k < r->n_tokens; k++) {
            assert_int_equal(tokens[k], prompt_id(request, r->pos + k));
        }
        return;
    }
    assert_true(m->pos >= m->n_in && m->n_done > 0);
    assert_int_equal(r->n_tokens, 1);
    assert_int_equal(tokens[0], output_id(request, m->n_done - 1));
}

static void check_row_flags(const struct mirror *m, const struct batch_row *r)
{
    bool is_prefill = m->n_done == 0;
    bool sampled = !is_prefill || r->pos + r->n_tokens == m->n_in;
    bool stops = (m->flags & WIRE_STOP_AT_EOS) != 0;
    assert_int_equal((r->flags & BATCH_PREFILL) != 0, is_prefill);
    assert_int_equal((r->flags & BATCH_BEGIN) != 0, is_prefill && r->pos == 0);
    assert_int_equal((r->flags & BATCH_SAMPLE) != 0, sampled);
    assert_int_equal((r->flags & BATCH_FIRST) != 0, sampled && is_prefill);
    assert_int_equal((r->flags & BATCH_LAST) != 0, sampled && m->n_done + 1 == m->n_out);
    assert_int_equal((r->flags & BATCH_STOP_EOS) != 0, sampled && stops);
}

static void check_row(struct sim *w, const struct batch_row *r)
{
    uint32_t request = r->ticket.generation;
    assert_true(request < w->n_arrived);
    struct mirror *m = &w->m[request];
    assert_false(m->in_flight || m->ended || m->cancelled || m->rejected);
    assert_int_equal(r->pos, m->pos); // the prompt exactly once, in order
    check_row_tokens(w, request, r);
    check_row_flags(m, r);
    if (r->flags & BATCH_BEGIN) {
        assert_true(r->t_recv_ns == m->t_submit_ns && r->t_admit_ns >= r->t_recv_ns);
        m->t_admit_ns = r->t_admit_ns;
        m->slot = r->slot;
    }
    assert_int_equal(r->slot, m->slot);
    for (uint32_t k = 0; k < r->n_blocks; k++) {
        uint32_t block = w->batch->blocks[r->first_block + k];
        assert_true(block < w->cfg.n_kv_blocks && w->owner[block] < 0);
        w->owner[block] = (int32_t)request;
    }
    m->n_blocks += r->n_blocks;
    m->pos += r->n_tokens;
    m->waited = 0;
    m->in_flight = true;
    assert_int_equal(m->n_blocks, (m->pos + BATCH_KV_BLOCK - 1) / BATCH_KV_BLOCK); // lazily
}

/* Prompt chunks come behind all decode rows, and only the last of them may be cut by the budget. */
static void check_order(struct sim *w)
{
    const struct batch *b = w->batch;
    uint32_t n_decode = 0;
    while (n_decode < b->n_rows && !(b->rows[n_decode].flags & BATCH_PREFILL)) {
        n_decode++;
    }
    for (uint32_t i = n_decode; i < b->n_rows; i++) {
        assert_true(b->rows[i].flags & BATCH_PREFILL);
        bool whole = (b->rows[i].flags & BATCH_SAMPLE) != 0;
        assert_true(whole || i == b->n_rows - 1);
        assert_true(whole || b->n_tokens == w->cfg.max_batch_tokens);
    }
    w->n_mixed += n_decode > 0 && n_decode < b->n_rows;
}

static void check_batch(struct sim *w)
{
    const struct batch *b = w->batch;
    assert_true(b->n_rows > 0 && b->n_tokens <= w->cfg.max_batch_tokens);
    assert_int_equal(b->seq, w->n_batches + 1);
    for (uint32_t i = 0; i < w->n_fly; i++) {
        assert_int_not_equal(w->fly[(w->first_fly + i) % MAX_LANES].lane, b->lane);
    }
    check_order(w);
    uint32_t n_tokens = 0, n_blocks = 0;
    for (uint32_t i = 0; i < b->n_rows; i++) {
        assert_int_equal(b->rows[i].first, n_tokens);
        assert_int_equal(b->rows[i].first_block, n_blocks);
        check_row(w, &b->rows[i]);
        n_tokens += b->rows[i].n_tokens;
        n_blocks += b->rows[i].n_blocks;
        absorb(w, b->rows[i].slot * 8191 + b->rows[i].flags * 131 + b->rows[i].n_tokens);
    }
    assert_int_equal(n_tokens, b->n_tokens);
    assert_int_equal(n_blocks, b->n_blocks);
    absorb(w, b->lane);
}

/* A decoding request that is not in flight gets its turn after everybody else had one. */
static void check_starvation(struct sim *w)
{
    uint32_t bound = 2 + 2 * w->cfg.lanes * (w->cfg.max_running / w->cfg.max_batch_tokens + 1);
    for (uint32_t i = 0; i < w->n_arrived; i++) {
        struct mirror *m = &w->m[i];
        if (m->n_done > 0 && !m->ended && !m->cancelled && !m->in_flight) {
            assert_true(++m->waited <= bound);
        }
    }
}

/* --- the simulated pipeline ---------------------------------------------------------------------- */

static void launch(struct sim *w)
{
    const struct batch *b = w->batch;
    check_batch(w);
    check_starvation(w);
    struct flying *f = &w->fly[(w->first_fly + w->n_fly++) % MAX_LANES];
    *f = (struct flying){.lane = b->lane, .seq = b->seq, .n_rows = b->n_rows};
    f->requests = malloc(b->n_rows * sizeof *f->requests);
    f->ids = malloc(b->n_rows * sizeof *f->ids);
    for (uint32_t i = 0; i < b->n_rows; i++) {
        uint32_t request = b->rows[i].ticket.generation;
        bool sampled = (b->rows[i].flags & BATCH_SAMPLE) != 0;
        f->requests[i] = request;
        f->ids[i] = sampled ? output_id(request, w->m[request].n_done) : -1;
    }
    int64_t t_ns = w->now_ns;
    for (uint32_t s = 0; s < w->n_stages; s++) {
        t_ns = t_ns > w->stage_free_ns[s] ? t_ns : w->stage_free_ns[s];
        t_ns += 1000 + 100 * b->n_tokens + (int64_t)draw(w, 500, 10 + s, b->seq);
        w->stage_free_ns[s] = t_ns;
    }
    f->t_back_ns = t_ns + 50;
    w->n_batches++;
}

static void note_token(struct sim *w, uint32_t request, int32_t id)
{
    struct mirror *m = &w->m[request];
    m->n_done++;
    bool stopped = (m->flags & WIRE_STOP_AT_EOS) != 0 && id == EOS;
    m->ended = stopped || m->n_done == m->n_out;
    if (m->ended) {
        free_blocks(w, request);
    }
}

static void land(struct sim *w)
{
    struct err e;
    struct flying *f = &w->fly[w->first_fly];
    assert_int_equal(sched_complete(w->s, f->lane, f->seq, f->ids, f->n_rows, w->now_ns, &e), 0);
    for (uint32_t i = 0; i < f->n_rows; i++) {
        struct mirror *m = &w->m[f->requests[i]];
        m->in_flight = false;
        if (m->cancelled) {
            free_blocks(w, f->requests[i]);
        } else if (f->ids[i] >= 0) {
            note_token(w, f->requests[i], f->ids[i]);
        }
    }
    free(f->requests);
    free(f->ids);
    w->first_fly = (w->first_fly + 1) % MAX_LANES;
    w->n_fly--;
}

static void arrive(struct sim *w)
{
    uint32_t i = w->n_arrived++;
    struct mirror *m = &w->m[i];
    bool is_long = draw(w, 4, 1, i) == 0;
    m->n_in = 1 + (uint32_t)draw(w, is_long ? w->cfg.max_context / 2 : 40, 2, i);
    m->n_out = 1 + (uint32_t)draw(w, is_long ? w->cfg.max_context / 2 : 30, 3, i);
    m->flags = draw(w, 3, 4, i) == 0 ? WIRE_STOP_AT_EOS : 0;
    m->t_submit_ns = w->now_ns;
    m->t_admit_ns = -1;
    int32_t ids[4096];
    for (uint32_t k = 0; k < m->n_in; k++) {
        ids[k] = prompt_id(i, k);
    }
    struct sched_request q = {
        .load_rank = (int32_t)(i % 3),
        .ticket = ticket_of(i),
        .n_in = m->n_in,
        .n_out = m->n_out,
        .flags = m->flags,
        .ids = ids,
        .t_recv_ns = w->now_ns,
    };
    uint32_t waiting = sched_counts(w->s).waiting;
    m->rejected = !sched_submit(w->s, &q, w->now_ns);
    bool can_never_fit = (m->n_in + m->n_out + 15) / 16 > w->cfg.n_kv_blocks;
    if (m->rejected) {
        w->n_rejected++;
        assert_true(can_never_fit || waiting == w->cfg.max_waiting);
    } else {
        assert_false(can_never_fit);
    }
    w->t_arrival_ns = w->now_ns + (int64_t)(w->mean_gap_ns * 2 *
                                            rng_uniform(w->seed, RNG_ARRIVAL, 0, w->n_arrived));
}

static void cancel_one(struct sim *w)
{
    uint32_t i = (uint32_t)draw(w, w->n_arrived, 5, w->n_batches);
    struct mirror *m = &w->m[i];
    bool was_live = !m->ended && !m->cancelled && !m->rejected;
    assert_int_equal(sched_cancel(w->s, (int32_t)(i % 3), ticket_of(i), w->now_ns), was_live);
    m->cancelled |= was_live;
    if (was_live && !m->in_flight) {
        free_blocks(w, i);
    }
}

/* The next thing to happen; false when nothing is left. */
static bool advance(struct sim *w)
{
    int64_t next_ns = INT64_MAX;
    if (w->n_arrived < w->n_requests) {
        next_ns = w->t_arrival_ns;
    }
    if (w->n_fly > 0 && w->fly[w->first_fly].t_back_ns < next_ns) {
        next_ns = w->fly[w->first_fly].t_back_ns;
    }
    if (w->stage_free_ns[0] > w->now_ns && w->stage_free_ns[0] < next_ns) {
        next_ns = w->stage_free_ns[0];
    }
    if (next_ns == INT64_MAX) {
        return false;
    }
    w->now_ns = next_ns > w->now_ns ? next_ns : w->now_ns;
    if (w->n_arrived < w->n_requests && w->t_arrival_ns <= w->now_ns) {
        arrive(w);
    }
    while (w->n_fly > 0 && w->fly[w->first_fly].t_back_ns <= w->now_ns) {
        land(w);
    }
    return true;
}

static void sim_open(struct sim *w)
{
    struct err e;
    w->cfg.vocab = VOCAB;
    w->cfg.eos_ids = eos_ids;
    w->cfg.n_eos = 1;
    struct batch_limits lim = sched_batch_limits(&w->cfg);
    lim.n_stages = w->n_stages;
    assert_int_equal(sched_create(&w->s, &w->cfg, &e), 0);
    assert_int_equal(batch_create(&w->batch, &lim, &e), 0);
    w->m = calloc(w->n_requests, sizeof *w->m);
    w->owner = malloc(w->cfg.n_kv_blocks * sizeof *w->owner);
    memset(w->owner, 0xFF, w->cfg.n_kv_blocks * sizeof *w->owner);
    sched_begin_step(w->s, 0);
}

static void sim_close(struct sim *w)
{
    sched_destroy(w->s);
    batch_destroy(w->batch);
    free(w->m);
    free(w->owner);
}

static void assert_empty(const struct sim *w)
{
    struct sched_counts c = sched_counts(w->s);
    assert_int_equal(c.waiting, 0);
    assert_int_equal(c.running, 0);
    assert_int_equal(c.in_flight, 0);
    assert_int_equal(c.kv_taken, 0);
}

static void check_end(const struct sim *w)
{
    assert_empty(w);
    int64_t last_admit_ns = 0;
    for (uint32_t i = 0; i < w->n_requests; i++) {
        const struct mirror *m = &w->m[i];
        if (m->rejected || m->cancelled) {
            continue;
        }
        assert_true(m->ended);
        assert_true((m->flags & WIRE_STOP_AT_EOS) ? m->n_done <= m->n_out : m->n_done == m->n_out);
        assert_true(m->t_admit_ns >= last_admit_ns); // first come, first served
        last_admit_ns = m->t_admit_ns;
    }
}

static void sim_run(struct sim *w)
{
    sim_open(w);
    while (advance(w)) {
        if (w->now_ns >= w->stage_free_ns[0] && sched_build(w->s, w->batch, w->now_ns)) {
            launch(w);
        }
        if (w->cancels && w->n_arrived > 0 && draw(w, 20, 6, w->n_batches) == 0) {
            cancel_one(w);
        }
        check_lanes(w);
    }
    check_end(w);
    sim_close(w);
}

static struct sim sim_of(uint64_t seed)
{
    static const uint32_t budgets[] = {256, 64, 16, 5, 1};
    struct sim w = {.seed = seed, .n_requests = 150};
    w.cfg.lanes = 1 + (uint32_t)(seed % 4);
    w.n_stages = 1 + (uint32_t)draw(&w, 4, 20, 0);
    w.cfg.max_running = 1 + (uint32_t)draw(&w, 40, 21, 0);
    w.cfg.max_waiting = (uint32_t)draw(&w, 200, 22, 0);
    w.cfg.max_batch_tokens = budgets[draw(&w, 5, 23, 0)];
    w.cfg.max_context = 256;
    w.cfg.n_kv_blocks = 10 + (uint32_t)draw(&w, 150, 24, 0);
    w.mean_gap_ns = 100.0 + (double)draw(&w, 60000, 25, 0);
    return w;
}

/* --- tests ------------------------------------------------------------------------------------------ */

static void test_simulated_loads(void **state)
{
    (void)state;
    uint32_t n_rejected = 0, n_mixed = 0;
    for (uint64_t seed = 0; seed < 120; seed++) {
        struct sim w = sim_of(seed);
        sim_run(&w);
        n_rejected += w.n_rejected;
        n_mixed += w.n_mixed;
    }
    assert_true(n_rejected > 100 && n_mixed > 1000);
}

static void test_simulated_loads_with_cancels(void **state)
{
    (void)state;
    for (uint64_t seed = 1000; seed < 1080; seed++) {
        struct sim w = sim_of(seed);
        w.cancels = true;
        sim_run(&w);
    }
}

static void test_same_input_same_batches(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 10; seed++) {
        struct sim a = sim_of(seed), b = sim_of(seed), c = sim_of(seed + 500);
        sim_run(&a);
        sim_run(&b);
        sim_run(&c);
        assert_int_equal(a.hash, b.hash);
        assert_int_equal(a.n_batches, b.n_batches);
        assert_int_not_equal(a.hash, c.hash);
    }
}

static struct sched_config small_config(uint32_t lanes)
{
    return (struct sched_config){
        .lanes = lanes,
        .max_running = 4,
        .max_waiting = 3,
        .max_batch_tokens = 8,
        .max_context = 64,
        .n_kv_blocks = 8,
        .vocab = VOCAB,
        .eos_ids = eos_ids,
        .n_eos = 1,
    };
}

static struct sched *open_small(const struct sched_config *cfg, struct batch **b)
{
    struct err e;
    struct sched *s;
    struct batch_limits lim = sched_batch_limits(cfg);
    lim.n_stages = 1;
    assert_int_equal(sched_create(&s, cfg, &e), 0);
    assert_int_equal(batch_create(b, &lim, &e), 0);
    sched_begin_step(s, 0);
    return s;
}

static bool submit(struct sched *s, uint32_t request, uint32_t n_in, uint32_t n_out)
{
    int32_t ids[64] = {0};
    struct sched_request q = {
        .ticket = ticket_of(request),
        .n_in = n_in,
        .n_out = n_out,
        .ids = ids,
    };
    return sched_submit(s, &q, request);
}

/* The built batch comes back with this id wherever one was sampled. */
static int complete(struct sched *s, const struct batch *b, int32_t id)
{
    struct err e;
    int32_t ids[64];
    for (uint32_t i = 0; i < b->n_rows; i++) {
        ids[i] = (b->rows[i].flags & BATCH_SAMPLE) ? id : -1;
    }
    return sched_complete(s, b->lane, b->seq, ids, b->n_rows, 0, &e);
}

static void test_overload_is_rejected(void **state)
{
    (void)state;
    struct batch *b;
    struct sched_config cfg = small_config(1);
    struct sched *s = open_small(&cfg, &b);
    for (uint32_t i = 0; i < 4; i++) {
        assert_true(submit(s, i, 10, 10)); // runs: two blocks each, eight in all
    }
    for (uint32_t i = 4; i < 7; i++) {
        assert_true(submit(s, i, 1, 1)); // waits
    }
    assert_false(submit(s, 7, 1, 1));
    assert_int_equal(sched_counts(s).waiting, 3);
    assert_true(sched_cancel(s, 0, ticket_of(5), 9));
    assert_false(sched_cancel(s, 0, ticket_of(5), 9));
    assert_true(submit(s, 8, 1, 1)); // room in the queue again
    sched_destroy(s);
    batch_destroy(b);
}

static void test_what_never_fits_is_rejected(void **state)
{
    (void)state;
    struct batch *b;
    struct sched_config cfg = small_config(1);
    cfg.n_kv_blocks = 3;
    struct sched *s = open_small(&cfg, &b);
    assert_false(submit(s, 0, 40, 9)); // four blocks of three
    assert_false(submit(s, 1, 60, 5)); // past the context
    assert_true(submit(s, 2, 40, 8));
    assert_int_equal(sched_counts(s).running, 1);
    sched_destroy(s);
    batch_destroy(b);
}

static void test_nobody_overtakes(void **state)
{
    (void)state;
    struct batch *b;
    struct sched_config cfg = small_config(1);
    struct sched *s = open_small(&cfg, &b);
    assert_true(submit(s, 0, 40, 24)); // four of eight blocks
    assert_true(submit(s, 1, 40, 24 - 1));
    assert_true(submit(s, 2, 1, 1)); // no block is left unreserved
    assert_int_equal(sched_counts(s).running, 2);
    assert_true(sched_cancel(s, 0, ticket_of(0), 5));
    assert_int_equal(sched_counts(s).running, 2);
    assert_true(submit(s, 3, 48, 16)); // needs four, three are free: waits
    assert_true(submit(s, 4, 1, 1));   // would fit, but waits behind it
    assert_int_equal(sched_counts(s).waiting, 2);
    assert_int_equal(sched_counts(s).kv_taken, 0); // reserved is not taken
    sched_destroy(s);
    batch_destroy(b);
}

static void test_lanes_take_turns_and_keep_balance(void **state)
{
    (void)state;
    struct batch *b;
    struct sched_config cfg = small_config(2);
    struct sched *s = open_small(&cfg, &b);
    assert_true(submit(s, 0, 2, 1));
    assert_true(submit(s, 1, 2, 9));
    assert_true(submit(s, 2, 2, 1));
    assert_true(submit(s, 3, 2, 9));
    assert_true(sched_build(s, b, 0));
    assert_int_equal(b->lane, 0);
    assert_int_equal(b->n_rows, 2);
    assert_int_equal(b->rows[1].ticket.generation, 2);
    assert_int_equal(complete(s, b, 5), 0); // both of lane 0 end: one of lane 1 comes over
    assert_int_equal(sched_lane_running(s, 0), 1);
    assert_int_equal(sched_lane_running(s, 1), 1);
    assert_true(sched_build(s, b, 0));
    assert_int_equal(b->lane, 1); // its turn
    assert_true(sched_build(s, b, 0));
    assert_int_equal(b->lane, 0);
    assert_false(sched_build(s, b, 0)); // both lanes are in flight
    sched_destroy(s);
    batch_destroy(b);
}

static void test_stop_at_eos(void **state)
{
    (void)state;
    struct batch *b;
    struct sched_config cfg = small_config(1);
    struct sched *s = open_small(&cfg, &b);
    int32_t ids[2] = {1, 2};
    struct sched_request q = {.n_in = 2, .n_out = 20, .ids = ids, .flags = WIRE_STOP_AT_EOS};
    assert_true(sched_submit(s, &q, 0));
    q.flags = 0;
    q.ticket.generation = 1;
    assert_true(sched_submit(s, &q, 0));
    assert_true(sched_build(s, b, 0));
    assert_int_equal(complete(s, b, EOS), 0);
    assert_int_equal(sched_counts(s).running, 1); // only the one that asked for it has ended
    assert_true(sched_build(s, b, 0));
    assert_int_equal(b->tokens[0], EOS);
    assert_int_equal(b->rows[0].ticket.generation, 1);
    sched_destroy(s);
    batch_destroy(b);
}

static void test_ids_that_do_not_fit(void **state)
{
    (void)state;
    struct err e;
    struct batch *b;
    struct sched_config cfg = small_config(2);
    struct sched *s = open_small(&cfg, &b);
    assert_true(submit(s, 0, 12, 3)); // the first chunk of 8 samples nothing
    assert_true(sched_build(s, b, 0));
    int32_t none = -1, some = 3;
    assert_int_equal(sched_complete(s, 0, 2, &none, 1, 0, &e), -1);
    assert_int_equal(sched_complete(s, 1, 1, &none, 1, 0, &e), -1);
    assert_int_equal(sched_complete(s, 7, 1, &none, 1, 0, &e), -1);
    assert_int_equal(sched_complete(s, 0, 1, &none, 2, 0, &e), -1);
    assert_int_equal(sched_complete(s, 0, 1, &some, 1, 0, &e), -1);
    assert_int_equal(sched_complete(s, 0, 1, &none, 1, 0, &e), 0);
    assert_int_equal(sched_complete(s, 0, 1, &none, 1, 0, &e), -1); // twice
    assert_true(sched_build(s, b, 0));
    some = VOCAB;
    assert_int_equal(sched_complete(s, 0, 2, &none, 1, 0, &e), -1);
    assert_int_equal(sched_complete(s, 0, 2, &some, 1, 0, &e), -1);
    assert_int_equal(e.code, ERR_ENV);
    some = VOCAB - 1;
    assert_int_equal(sched_complete(s, 0, 2, &some, 1, 0, &e), 0);
    sched_destroy(s);
    batch_destroy(b);
}

static void test_drop_all_in_mid_flight(void **state)
{
    (void)state;
    struct batch *b;
    struct sched_config cfg = small_config(2);
    struct sched *s = open_small(&cfg, &b);
    for (uint32_t round = 0; round < 3; round++) {
        for (uint32_t i = 0; i < 7; i++) {
            assert_true(submit(s, i, 10, 10));
        }
        assert_true(sched_build(s, b, 0));
        assert_int_equal(b->seq, 1);
        assert_int_equal(b->step, round);
        sched_drop_all(s);
        struct sched_counts c = sched_counts(s);
        assert_int_equal(c.waiting + c.running, 0);
        assert_int_equal(c.in_flight, 1);
        assert_true(c.kv_taken > 0); // what is in flight still writes there
        struct batch *other;
        struct err e;
        struct batch_limits lim = sched_batch_limits(&cfg);
        lim.n_stages = 1;
        assert_int_equal(batch_create(&other, &lim, &e), 0);
        assert_false(sched_build(s, other, 0));
        batch_destroy(other);
        assert_int_equal(complete(s, b, 5), 0);
        c = sched_counts(s);
        assert_int_equal(c.in_flight + c.kv_taken, 0);
        sched_begin_step(s, round + 1);
    }
    sched_destroy(s);
    batch_destroy(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_simulated_loads),
        cmocka_unit_test(test_simulated_loads_with_cancels),
        cmocka_unit_test(test_same_input_same_batches),
        cmocka_unit_test(test_overload_is_rejected),
        cmocka_unit_test(test_what_never_fits_is_rejected),
        cmocka_unit_test(test_nobody_overtakes),
        cmocka_unit_test(test_lanes_take_turns_and_keep_balance),
        cmocka_unit_test(test_stop_at_eos),
        cmocka_unit_test(test_ids_that_do_not_fit),
        cmocka_unit_test(test_drop_all_in_mid_flight),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
