/*
 * The scheduler on a virtual clock: a pipeline of stages with made-up compute times, random arrivals
 * and lengths, and a mirror of every request that checks each batch as it is built. What is computed is a
 * hash of all tokens up to a position, chained through the KV blocks that the batches name, and ids are
 * drawn from it: whatever goes wrong with a block, a position or a token, now or in a preemption or with
 * a shared block, changes the ids from there on.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "core/rng.h"
#include "workers/kv.h"
#include "workers/sched.h"

enum {
    VOCAB = 1000,
    EOS = 17,
    MAX_LANES = 8,
    MAX_CONTEXT = 256,
    N_GROUPS = 5, // of requests whose prompts begin alike ...
    N_LOAD_RANKS = 3,
    N_ALIKE = 3 * BATCH_KV_BLOCK + 5, // ... in so many tokens
};

static const int eos_ids[] = {EOS};

struct mirror { // what a request must have seen so far
    uint32_t n_in, n_out, flags;
    int64_t t_submit_ns, t_admit_ns; // t_admit -1: not seen in a batch yet
    uint32_t pos, n_done, slot;
    uint32_t waited; // batches since it last had a row
    uint64_t state;  // hash of all known tokens
    int32_t ids[MAX_CONTEXT];
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
    bool cancels, talks; // talks: little is asked, and much said
    struct sched *s;
    struct batch *batch;
    struct mirror *m;        // (n_requests)
    struct kv_tables tables; // the engine's
    uint64_t *kv;            // (n_kv_blocks, BATCH_KV_BLOCK) hash of all tokens up to there
    struct flying fly[MAX_LANES];
    uint32_t first_fly, n_fly; // a queue: a pipeline returns batches in order
    int64_t stage_free_ns[8];
    int64_t now_ns, t_arrival_ns;
    uint32_t n_arrived, n_rejected, n_batches, n_mixed, n_again;
    bool was_full;                                              // no block was free at some time
    uint64_t n_preempted, n_cached, n_slack_tokens, n_slack_of; // n_cached: tokens
    uint64_t hash;                                              // of all batches
};

static uint64_t draw(const struct sim *w, uint64_t n, uint64_t a, uint64_t b)
{
    return rng_below(n, w->seed, RNG_SHUFFLE, a, b);
}

static int32_t prompt_id(uint32_t request, uint32_t pos)
{
    uint32_t whose = pos < N_ALIKE ? request % N_GROUPS : request;
    return (int32_t)((whose * 31 + pos * 7) % VOCAB);
}

static uint64_t mix(uint64_t state, int32_t id)
{
    uint64_t x = (state ^ (uint64_t)(id + 1)) * 0x9E3779B97F4A7C15u;
    return x ^ (x >> 29);
}

static int32_t sampled_id(uint64_t state)
{
    return (int32_t)((state >> 20) % VOCAB);
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
    assert_true(c.running <= w->cfg.max_running);
    assert_true(c.waiting <= w->cfg.max_waiting + w->cfg.max_running - c.running);
    assert_true(c.kv_taken <= c.kv_size);
    assert_int_equal(c.in_flight, w->n_fly);
}

/* What load ranks are told is what requests that arrived still have to come. */
static void check_outstanding(const struct sim *w)
{
    uint64_t want[N_LOAD_RANKS] = {0};
    for (uint32_t i = 0; i < w->n_arrived; i++) {
        const struct mirror *m = &w->m[i];
        if (!m->rejected && !m->cancelled && !m->ended) {
            want[i % N_LOAD_RANKS] += (m->n_done == 0 ? m->n_in : 0) + m->n_out - m->n_done;
        }
    }
    for (int r = 0; r < N_LOAD_RANKS; r++) {
        assert_int_equal(sched_outstanding(w->s, r), want[r]);
    }
}

static void check_row_flags(const struct mirror *m, const struct batch_row *r)
{
    bool is_prefill = (r->flags & BATCH_PREFILL) != 0;
    bool begins = (r->flags & BATCH_BEGIN) != 0;
    bool sampled = r->pos + r->n_tokens == m->n_in + m->n_done;
    bool stops = (m->flags & WIRE_STOP_AT_EOS) != 0;
    assert_true(is_prefill || (m->n_done > 0 && r->n_tokens == 1 && sampled && !begins));
    assert_int_equal((r->flags & BATCH_AGAIN) != 0, begins && m->t_admit_ns >= 0);
    assert_int_equal((r->flags & BATCH_SAMPLE) != 0, sampled);
    assert_int_equal((r->flags & BATCH_FIRST) != 0, sampled && m->n_done == 0);
    assert_int_equal((r->flags & BATCH_LAST) != 0, sampled && m->n_done + 1 == m->n_out);
    assert_int_equal((r->flags & BATCH_STOP_EOS) != 0, sampled && stops);
}

/* A request begins: for the first time, or once more after a preemption. */
static void check_begin(struct sim *w, struct mirror *m, const struct batch_row *r)
{
    assert_true(r->pos % BATCH_KV_BLOCK == 0 && r->pos < m->n_in + m->n_done);
    assert_true(r->pos == 0 || w->cfg.prefix_cache);
    if (m->t_admit_ns < 0) {
        assert_true(r->t_recv_ns == m->t_submit_ns && r->t_admit_ns >= r->t_recv_ns);
        m->t_admit_ns = r->t_admit_ns;
        m->slot = r->slot;
        w->n_cached += r->pos;
    } else {
        assert_true(r->t_recv_ns >= m->t_admit_ns && r->t_admit_ns >= r->t_recv_ns);
        w->n_again++;
    }
    m->pos = r->pos;
}

static void check_row(struct sim *w, const struct batch_row *r)
{
    uint32_t request = r->ticket.generation;
    assert_true(request < w->n_arrived);
    struct mirror *m = &w->m[request];
    assert_false(m->in_flight || m->ended || m->cancelled || m->rejected);
    check_row_flags(m, r);
    if (r->flags & BATCH_BEGIN) {
        check_begin(w, m, r);
    }
    assert_int_equal(r->pos, m->pos); // each token exactly once, in order
    assert_int_equal(r->slot, m->slot);
    assert_memory_equal(w->batch->tokens + r->first, m->ids + r->pos, r->n_tokens * sizeof *m->ids);
    m->pos += r->n_tokens;
    m->waited = 0;
    m->in_flight = true;
}

/* Prompt chunks come behind all decode rows; only the budget, or want of blocks, may cut them. */
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
        assert_true(whole || w->was_full || i == b->n_rows - 1);
        assert_true(whole || w->was_full || b->n_tokens == w->cfg.max_batch_tokens);
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
    struct sched_counts c = sched_counts(w->s);
    w->was_full |= c.kv_taken == c.kv_size || c.n_preempted > 0;
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

/* While there are blocks for all, a decoding request that is not in flight gets its turn after everybody
 * else had one. */
static void check_starvation(struct sim *w)
{
    uint32_t bound = 2 + 2 * w->cfg.lanes * (w->cfg.max_running / w->cfg.max_batch_tokens + 1);
    for (uint32_t i = 0; i < w->n_arrived; i++) {
        struct mirror *m = &w->m[i];
        if (m->n_done > 0 && !m->ended && !m->cancelled && !m->in_flight) {
            assert_true(++m->waited <= bound || w->was_full);
        }
    }
}

/* --- the simulated pipeline ---------------------------------------------------------------------- */

static uint64_t *kv_at(struct sim *w, uint32_t slot, uint32_t pos)
{
    uint32_t block = w->tables.blocks[(size_t)slot * w->tables.max_blocks + pos / BATCH_KV_BLOCK];
    return &w->kv[(size_t)block * BATCH_KV_BLOCK + pos % BATCH_KV_BLOCK];
}

/* What the stages would do with the batch: ids (n_rows). */
static void compute(struct sim *w, int32_t *ids)
{
    struct err e;
    const struct batch *b = w->batch;
    assert_int_equal(kv_tables_check(&w->tables, b, &e), 0);
    kv_tables_apply(&w->tables, b);
    for (uint32_t i = 0; i < b->n_rows; i++) {
        const struct batch_row *r = &b->rows[i];
        uint64_t state = r->pos > 0 ? *kv_at(w, r->slot, r->pos - 1) : 0;
        for (uint32_t k = 0; k < r->n_tokens; k++) {
            state = mix(state, b->tokens[r->first + k]);
            *kv_at(w, r->slot, r->pos + k) = state;
        }
        ids[i] = (r->flags & BATCH_SAMPLE) ? sampled_id(state) : -1;
        uint32_t end = r->pos + r->n_tokens;
        w->n_slack_tokens += (0 - end) % BATCH_KV_BLOCK;
        w->n_slack_of += end;
    }
}

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
        f->requests[i] = b->rows[i].ticket.generation;
    }
    compute(w, f->ids);
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
    assert_int_equal(id, sampled_id(m->state)); // as if it were alone
    m->ids[m->n_in + m->n_done++] = id;
    m->state = mix(m->state, id);
    bool stopped = (m->flags & WIRE_STOP_AT_EOS) != 0 && id == EOS;
    m->ended = stopped || m->n_done == m->n_out;
}

static void land(struct sim *w)
{
    struct err e;
    struct flying *f = &w->fly[w->first_fly];
    assert_int_equal(sched_complete(w->s, f->lane, f->seq, f->ids, f->n_rows, w->now_ns, &e), 0);
    for (uint32_t i = 0; i < f->n_rows; i++) {
        struct mirror *m = &w->m[f->requests[i]];
        m->in_flight = false;
        if (!m->cancelled && f->ids[i] >= 0) {
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
    if (w->talks) {
        m->n_in = 1 + m->n_in % 30;
        m->n_out = 100 + (uint32_t)draw(w, 100, 3, i);
    }
    m->flags = draw(w, 3, 4, i) == 0 ? WIRE_STOP_AT_EOS : 0;
    m->t_submit_ns = w->now_ns;
    m->t_admit_ns = -1;
    for (uint32_t k = 0; k < m->n_in; k++) {
        m->ids[k] = prompt_id(i, k);
        m->state = mix(m->state, m->ids[k]);
    }
    struct sched_request q = {
        .load_rank = (int32_t)(i % 3),
        .ticket = ticket_of(i),
        .n_in = m->n_in,
        .n_out = m->n_out,
        .flags = m->flags,
        .ids = m->ids,
        .t_recv_ns = w->now_ns,
    };
    uint32_t waiting = sched_counts(w->s).waiting;
    m->rejected = !sched_submit(w->s, &q, w->now_ns);
    bool can_never_fit = (m->n_in + m->n_out + 15) / 16 > w->cfg.n_kv_blocks;
    if (m->rejected) {
        w->n_rejected++;
        assert_true(can_never_fit || waiting >= w->cfg.max_waiting);
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
    assert_int_equal(sched_cancel(w->s, (int32_t)(i % N_LOAD_RANKS), ticket_of(i), w->now_ns),
                     was_live);
    m->cancelled |= was_live;
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
    w->cfg.n_load_ranks = N_LOAD_RANKS;
    w->cfg.n_eos = 1;
    struct batch_limits lim = sched_batch_limits(&w->cfg);
    lim.n_stages = w->n_stages;
    assert_int_equal(sched_create(&w->s, &w->cfg, &e), 0);
    assert_int_equal(batch_create(&w->batch, &lim, &e), 0);
    w->m = calloc(w->n_requests, sizeof *w->m);
    w->kv = calloc(w->cfg.n_kv_blocks, BATCH_KV_BLOCK * sizeof *w->kv);
    assert_int_equal(
        kv_tables_init(&w->tables, w->cfg.max_running, w->cfg.max_context / BATCH_KV_BLOCK, &e), 0);
    sched_begin_step(w->s, 0);
}

static void sim_close(struct sim *w)
{
    sched_destroy(w->s);
    batch_destroy(w->batch);
    free(w->m);
    free(w->kv);
    kv_tables_free(&w->tables);
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
        // First come, first served; but one that has blocks of the cache only may have to wait once more.
        assert_true(m->t_admit_ns >= last_admit_ns || w->cfg.prefix_cache);
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
        if (w->n_batches % 16 == 0) {
            check_outstanding(w);
        }
    }
    check_end(w);
    struct sched_counts c = sched_counts(w->s);
    w->n_preempted = c.n_preempted;
    assert_true(w->n_again <= c.n_preempted && w->n_cached == c.n_cached_tokens);
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
    w.cfg.max_context = MAX_CONTEXT;
    w.cfg.prefix_cache = seed % 3 == 1;
    w.cfg.n_kv_blocks = 10 + (uint32_t)draw(&w, 150, 24, 0);
    w.mean_gap_ns = 100.0 + (double)draw(&w, 60000, 25, 0);
    return w;
}

/* --- tests ------------------------------------------------------------------------------------------ */

static void test_simulated_loads(void **state)
{
    (void)state;
    uint32_t n_rejected = 0, n_mixed = 0;
    uint64_t n_preempted[2] = {0}, n_cached = 0; // without and with a prefix cache
    for (uint64_t seed = 0; seed < 120; seed++) {
        struct sim w = sim_of(seed);
        sim_run(&w);
        n_rejected += w.n_rejected;
        n_mixed += w.n_mixed;
        n_cached += w.n_cached;
        n_preempted[w.cfg.prefix_cache] += w.n_preempted;
    }
    assert_true(n_rejected > 100 && n_mixed > 1000 && n_cached > 10000);
    assert_true(n_preempted[0] > 20 && n_preempted[1] > 20);
}

/* Pools in which few of those that may run find room: whoever runs, runs into the others. */
static void test_scarce_blocks(void **state)
{
    (void)state;
    uint64_t n_preempted[2] = {0};
    for (uint64_t seed = 2000; seed < 2060; seed++) {
        struct sim w = sim_of(seed);
        w.cfg.n_kv_blocks = MAX_CONTEXT / BATCH_KV_BLOCK + (uint32_t)draw(&w, 8, 26, 0);
        w.cfg.max_running = 8 + (uint32_t)draw(&w, 60, 27, 0);
        w.cfg.max_waiting = 200;
        w.mean_gap_ns = 50;
        w.cancels = seed % 2;
        w.talks = true;
        sim_run(&w);
        n_preempted[w.cfg.prefix_cache] += w.n_preempted;
    }
    assert_true(n_preempted[0] > 500 && n_preempted[1] > 250);
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_simulated_loads),
        cmocka_unit_test(test_scarce_blocks),
        cmocka_unit_test(test_simulated_loads_with_cancels),
        cmocka_unit_test(test_same_input_same_batches),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
