#include "workers/sched.h"

#include <stdlib.h>
#include <string.h>

#include "core/mem.h"
#include "workers/age_list.h"
#include "workers/kv.h"
#include "workers/outstanding.h"
#include "workers/tickets.h"

#define NONE AGE_LIST_NONE

enum state {
    WAITING,
    PREFILL, // known tokens not yet read whole
    DECODE,
};

struct request {
    uint32_t slot; // NONE until first admitted; kept while preempted: nobody overtakes
    enum state state;
    bool in_batch; // has a row in flight
    bool dropped;  // forgotten while in flight: only waits for its row to come back
    uint32_t lane;
    uint32_t n_in, n_out, n_done; // n_done: output tokens
    uint32_t pos;                 // tokens whose keys and values are, or are being, computed
    uint32_t n_blocks;            // held
    uint32_t n_sent;           // of these, known to the stages; 0: its first row is still to come
    uint32_t n_shared, n_kept; // of these, found in the prefix cache; known to it
    uint64_t chain;            // of the first n_kept blocks
    uint32_t row_flags;        // BATCH_STOP_EOS, BATCH_STOP_IDS: what may end it; BATCH_AGAIN
    bool has_params;           // s->params has them
    int32_t load_rank;
    struct wire_ticket ticket;
    int64_t t_queued_ns, t_admit_ns; // received, or preempted
};

struct flight {
    uint32_t request, flags;
};

struct lane {
    struct age_list decode, prefill; // oldest first
    uint32_t
        first_decode; // where the next batch begins, if this one was too small for all; or NONE
    bool in_flight;
    uint64_t seq;
    uint32_t n_rows;
    struct flight *rows; // (max_rows)
    int64_t t_ready_ns;  // its last batch came back
};

struct sched {
    struct sched_config cfg;
    uint32_t max_rows, max_requests, slot_blocks;
    struct request *requests;                 // (max_requests) named by their index
    struct age_links *links;                  // (max_requests) age: number of its submission
    int32_t *ids;                             // (max_requests, max_context) prompt, then output
    struct wire_sampling *params;             // (max_requests)
    uint32_t *blocks;                         // (max_running, slot_blocks)
    uint32_t *free_requests, n_free_requests; // (max_requests), the last one is used next
    uint32_t *free_slots, n_free_slots;       // (max_running)
    struct tickets tickets;
    struct kv_pool *pool;
    uint32_t *found;     // (slot_blocks) blocks that the prefix cache has of a request
    uint32_t n_promised; // blocks that requests in PREFILL have yet to take for their known tokens
    uint32_t n_running;
    uint32_t n_batch_shared; // blocks of the prefix cache in the batch that is being built
    struct age_list waiting, preempted; // the latter go first, oldest first
    struct lane *lanes;                 // (cfg.lanes)
    uint32_t next_lane, n_in_flight;
    uint32_t step;
    uint64_t seq, n_submitted;
    uint64_t n_preempted, n_queried_tokens, n_cached_tokens;
    struct outstanding outstanding;
};

/* --- lanes and KV blocks ------------------------------------------------------------------------ */

static struct age_list *lane_list(struct sched *s, const struct request *r)
{
    struct lane *l = &s->lanes[r->lane];
    return r->state == DECODE ? &l->decode : &l->prefill;
}

static void leave_lane(struct sched *s, uint32_t i)
{
    const struct request *r = &s->requests[i];
    struct lane *l = &s->lanes[r->lane];
    if (l->first_decode == i) {
        l->first_decode = s->links[i].next;
    }
    age_list_remove(lane_list(s, r), s->links, i);
}

static uint32_t lane_running(const struct lane *l)
{
    return l->decode.n + l->prefill.n;
}

/* The first of those with the fewest, or the most. */
static uint32_t lane_with(const struct sched *s, bool fewest)
{
    uint32_t best = 0;
    for (uint32_t i = 1; i < s->cfg.lanes; i++) {
        const uint32_t n = lane_running(&s->lanes[i]), of_best = lane_running(&s->lanes[best]);
        best = (fewest ? n < of_best : n > of_best) ? i : best;
    }
    return best;
}

/* Requests have left lanes: no two lanes may differ by more than one. */
static void rebalance(struct sched *s)
{
    for (;;) {
        struct lane *from = &s->lanes[lane_with(s, false)];
        uint32_t to = lane_with(s, true);
        if (lane_running(from) <= lane_running(&s->lanes[to]) + 1) {
            return;
        }
        // A decoding one by preference: others wait for their prompt already.
        uint32_t i = from->decode.n > 0 ? from->decode.tail : from->prefill.tail;
        leave_lane(s, i);
        s->requests[i].lane = to;
        age_list_insert(lane_list(s, &s->requests[i]), s->links, i);
    }
}

static uint32_t blocks_for(uint64_t n_tokens)
{
    return (uint32_t)((n_tokens + BATCH_KV_BLOCK - 1) / BATCH_KV_BLOCK);
}

static int32_t *ids_of(const struct sched *s, uint32_t i)
{
    return s->ids + (size_t)i * s->cfg.max_context;
}

static uint32_t *blocks_of(const struct sched *s, const struct request *r)
{
    return s->blocks + (size_t)r->slot * s->slot_blocks;
}

static uint32_t n_known(const struct request *r)
{
    return r->n_in + r->n_done;
}

static uint32_t promised(const struct request *r)
{
    return r->state == PREFILL ? blocks_for(n_known(r)) - r->n_blocks : 0;
}

/* The last blocks are the least worth finding again: they are freed first, and reused first. */
static void free_blocks(struct sched *s, struct request *r)
{
    while (r->n_blocks > 0) {
        kv_pool_unref(s->pool, blocks_of(s, r)[--r->n_blocks]);
    }
}

/* Give back what a request that was admitted holds. */
static void release(struct sched *s, uint32_t i)
{
    struct request *r = &s->requests[i];
    free_blocks(s, r);
    s->free_slots[s->n_free_slots++] = r->slot;
    s->free_requests[s->n_free_requests++] = i;
}

static void stop_running(struct sched *s, uint32_t i)
{
    s->n_promised -= promised(&s->requests[i]);
    s->n_running--;
    leave_lane(s, i);
}

/* Take a request out of all lists; its slot and blocks stay until its row in flight is back. */
static void forget(struct sched *s, uint32_t i)
{
    struct request *r = &s->requests[i];
    outstanding_end(&s->outstanding, r->load_rank, r->n_in, r->n_out, r->n_done);
    tickets_remove(&s->tickets, i);
    if (r->state != WAITING) {
        stop_running(s, i);
        r->dropped = true;
        if (!r->in_batch) {
            release(s, i);
        }
    } else if (r->slot != NONE) {
        age_list_remove(&s->preempted, s->links, i);
        release(s, i);
    } else {
        age_list_remove(&s->waiting, s->links, i);
        s->free_requests[s->n_free_requests++] = i;
    }
}

/* --- the prefix cache ------------------------------------------------------------------------------ */

/* Blocks that the cache has of a request's known tokens, but for the last one, into `blocks` (slot_blocks). */
static uint32_t find_cached(const struct sched *s, uint32_t i, uint32_t *blocks, uint64_t *chain)
{
    uint32_t n = 0, n_most = (n_known(&s->requests[i]) - 1) / BATCH_KV_BLOCK;
    *chain = KV_CHAIN_START;
    for (; n < n_most; n++) {
        int64_t block = kv_pool_find(s->pool, chain, ids_of(s, i) + (size_t)n * BATCH_KV_BLOCK);
        if (block < 0) {
            break;
        }
        blocks[n] = (uint32_t)block;
    }
    return n;
}

/* Of the blocks it needs, those that somebody else has in use. */
static uint32_t blocks_in_use(const struct sched *s, uint32_t i)
{
    uint64_t chain;
    uint32_t in_use = 0, n = find_cached(s, i, s->found, &chain);
    for (uint32_t k = 0; k < n; k++) {
        in_use += kv_pool_in_use(s->pool, s->found[k]);
    }
    return in_use;
}

static void share_cached(struct sched *s, uint32_t i)
{
    struct request *r = &s->requests[i];
    uint32_t *blocks = blocks_of(s, r);
    r->n_blocks = r->n_shared = r->n_kept = find_cached(s, i, blocks, &r->chain);
    r->pos = r->n_blocks * BATCH_KV_BLOCK;
    for (uint32_t k = 0; k < r->n_blocks; k++) {
        kv_pool_ref(s->pool, blocks[k]);
    }
}

/* Its blocks that are full and computed. */
static void keep_blocks(struct sched *s, uint32_t i)
{
    struct request *r = &s->requests[i];
    for (; (r->n_kept + 1) * BATCH_KV_BLOCK <= r->pos; r->n_kept++) {
        const int32_t *ids = ids_of(s, i) + (size_t)r->n_kept * BATCH_KV_BLOCK;
        r->chain = kv_pool_keep(s->pool, r->chain, blocks_of(s, r)[r->n_kept], ids);
    }
}

/* --- admission ---------------------------------------------------------------------------------- */

/*
 * Blocks that stay free on admission, for the tokens to come of those that run. One for each of them, with
 * ShareGPT's lengths and pools for 25 to 200 requests (tests/perf/batching), makes less than half as many
 * tokens be computed again as half of one, a tenth of what none does, and no less throughput.
 */
static uint32_t reserve(const struct sched *s)
{
    return s->n_running;
}

static bool has_room(const struct sched *s, uint32_t i)
{
    const struct request *r = &s->requests[i];
    if (r->slot == NONE && s->n_free_slots == 0) {
        return false;
    }
    if (s->n_running == 0 && s->n_in_flight == 0) {
        return true; // alone it fits always
    }
    uint64_t want = (uint64_t)blocks_for(n_known(r)) + s->n_promised + reserve(s);
    uint32_t n_free = kv_pool_free(s->pool);
    return want <= n_free || (s->cfg.prefix_cache && want - blocks_in_use(s, i) <= n_free);
}

static void admit(struct sched *s, uint32_t i, int64_t now_ns)
{
    struct request *r = &s->requests[i];
    if (r->slot == NONE) {
        r->slot = s->free_slots[--s->n_free_slots];
    }
    if (s->cfg.prefix_cache) {
        share_cached(s, i);
    }
    r->state = PREFILL;
    r->lane = lane_with(s, true);
    r->t_admit_ns = now_ns;
    s->n_promised += promised(r);
    s->n_running++;
    age_list_insert(&s->lanes[r->lane].prefill, s->links, i);
}

static void admit_waiting(struct sched *s, int64_t now_ns)
{
    for (;;) {
        struct age_list *l = s->preempted.n > 0 ? &s->preempted : &s->waiting;
        uint32_t i = l->head;
        if (i == NONE || !has_room(s, i)) {
            return;
        }
        age_list_remove(l, s->links, i);
        admit(s, i, now_ns);
    }
}

bool sched_submit(struct sched *s, const struct sched_request *q, int64_t now_ns)
{
    CHECK(q->n_in > 0 && q->n_out > 0);
    uint64_t n_tokens = (uint64_t)q->n_in + q->n_out;
    if (n_tokens > s->cfg.max_context || blocks_for(n_tokens) > s->cfg.n_kv_blocks ||
        s->n_free_requests == 0) {
        return false;
    }
    uint32_t i = s->free_requests[s->n_free_requests - 1];
    struct request *r = &s->requests[i];
    *r = (struct request){
        .slot = NONE,
        .state = WAITING,
        .n_in = q->n_in,
        .n_out = q->n_out,
        .row_flags = (q->flags & WIRE_STOP_AT_EOS) ? BATCH_STOP_EOS : 0,
        .load_rank = q->load_rank,
        .ticket = q->ticket,
        .t_queued_ns = q->t_recv_ns,
    };
    if (q->how != NULL) {
        r->has_params = true;
        r->row_flags |= q->how->n_stop_ids > 0 ? BATCH_STOP_IDS : 0;
        s->params[i] = *q->how;
    }
    s->links[i].age = ++s->n_submitted;
    memcpy(ids_of(s, i), q->ids, q->n_in * sizeof *q->ids);
    bool at_once = s->waiting.n + s->preempted.n == 0 && has_room(s, i);
    if (!at_once && s->waiting.n >= s->cfg.max_waiting) {
        return false;
    }
    s->n_free_requests--;
    outstanding_add(&s->outstanding, r->load_rank, r->n_in, r->n_out);
    tickets_add(&s->tickets, i, r->load_rank, r->ticket);
    if (at_once) {
        admit(s, i, now_ns);
    } else {
        age_list_insert(&s->waiting, s->links, i);
    }
    return true;
}

bool sched_cancel(struct sched *s, int32_t load_rank, struct wire_ticket ticket, int64_t now_ns)
{
    uint32_t i = tickets_find(&s->tickets, load_rank, ticket);
    if (i == TICKETS_NONE) {
        return false;
    }
    forget(s, i);
    rebalance(s);
    admit_waiting(s, now_ns);
    return true;
}

void sched_drop_all(struct sched *s)
{
    while (s->preempted.head != NONE) {
        forget(s, s->preempted.head);
    }
    while (s->waiting.head != NONE) {
        forget(s, s->waiting.head);
    }
    for (uint32_t l = 0; l < s->cfg.lanes; l++) {
        while (s->lanes[l].decode.head != NONE) {
            forget(s, s->lanes[l].decode.head);
        }
        while (s->lanes[l].prefill.head != NONE) {
            forget(s, s->lanes[l].prefill.head);
        }
    }
}

/* --- preemption --------------------------------------------------------------------------------- */

/* The youngest of a list that holds blocks and is not in flight, if it is younger than `age`. */
static uint32_t youngest(const struct sched *s, const struct age_list *l, uint64_t age)
{
    for (uint32_t i = l->tail; i != NONE && s->links[i].age > age; i = s->links[i].prev) {
        if (!s->requests[i].in_batch && s->requests[i].n_blocks > 0) {
            return i;
        }
    }
    return NONE;
}

static uint32_t find_victim(const struct sched *s, uint64_t age)
{
    uint32_t victim = NONE;
    for (uint32_t k = 0; k < 2 * s->cfg.lanes; k++) {
        const struct lane *l = &s->lanes[k / 2];
        uint32_t i = youngest(s, k % 2 ? &l->decode : &l->prefill, age);
        if (i != NONE) {
            victim = i;
            age = s->links[i].age;
        }
    }
    return victim;
}

static void preempt(struct sched *s, uint32_t i, int64_t now_ns)
{
    struct request *r = &s->requests[i];
    stop_running(s, i);
    free_blocks(s, r);
    if (r->n_sent > 0) { // else no stage has seen it since it was queued
        r->row_flags |= BATCH_AGAIN;
        r->t_queued_ns = now_ns;
    }
    r->state = WAITING;
    r->pos = r->n_sent = r->n_shared = r->n_kept = 0;
    r->chain = KV_CHAIN_START;
    s->n_preempted++;
    age_list_insert(&s->preempted, s->links, i);
}

/* A block for request i, which others have to make way for if `by_force`. */
static bool take_block(struct sched *s, uint32_t i, bool by_force, int64_t now_ns)
{
    struct request *r = &s->requests[i];
    int64_t block;
    while ((block = kv_pool_take(s->pool)) < 0) {
        uint32_t victim = by_force ? find_victim(s, s->links[i].age) : NONE;
        if (victim == NONE) {
            return false;
        }
        preempt(s, victim, now_ns);
    }
    blocks_of(s, r)[r->n_blocks++] = (uint32_t)block;
    s->n_promised -= r->state == PREFILL;
    return true;
}

/*
 * Blocks for n more tokens of request i, or for as many as there are blocks for: how many. Others are
 * preempted only where it could not get on at all.
 */
static uint32_t make_room(struct sched *s, uint32_t i, uint32_t n, int64_t now_ns)
{
    const struct request *r = &s->requests[i];
    uint32_t end = r->pos + n;
    for (uint32_t room; (room = r->n_blocks * BATCH_KV_BLOCK) < end;) {
        if (!take_block(s, i, room == r->pos, now_ns)) {
            return room - r->pos;
        }
    }
    return n;
}

/* --- batches ------------------------------------------------------------------------------------ */

static const struct wire_sampling *params_of(const struct sched *s, uint32_t i)
{
    return s->requests[i].has_params ? &s->params[i] : NULL;
}

static uint32_t row_flags(const struct sched *s, uint32_t i, uint32_t n_tokens)
{
    const struct request *r = &s->requests[i];
    const struct wire_sampling *how = params_of(s, i);
    uint32_t flags = r->state == PREFILL ? BATCH_PREFILL : 0;
    if (r->n_sent == 0) {
        flags |= BATCH_BEGIN | (r->row_flags & BATCH_AGAIN) | (how ? BATCH_PARAMS : 0);
    }
    if (r->pos + n_tokens < n_known(r)) {
        return flags;
    }
    flags |= BATCH_SAMPLE;
    if (how == NULL || r->n_done >= how->min_out) {
        flags |= r->row_flags & ~(uint32_t)BATCH_AGAIN;
    }
    flags |= r->n_done == 0 ? BATCH_FIRST : 0;
    return flags | (r->n_done + 1 == r->n_out ? BATCH_LAST : 0);
}

/* The next n_tokens of a request, for which it has blocks. */
static void add_row(struct sched *s, struct lane *l, uint32_t i, uint32_t n_tokens, struct batch *b)
{
    struct request *r = &s->requests[i];
    uint32_t flags = row_flags(s, i, n_tokens);
    uint32_t n_new = r->n_blocks - r->n_sent;
    memcpy(b->tokens + b->n_tokens, ids_of(s, i) + r->pos, n_tokens * sizeof *b->tokens);
    memcpy(b->blocks + b->n_blocks, blocks_of(s, r) + r->n_sent, n_new * sizeof *b->blocks);
    b->rows[b->n_rows] = (struct batch_row){
        .slot = r->slot,
        .flags = flags,
        .first = b->n_tokens,
        .n_tokens = n_tokens,
        .pos = r->pos,
        .first_block = b->n_blocks,
        .n_blocks = n_new,
        .load_rank = r->load_rank,
        .ticket = r->ticket,
        .t_recv_ns = (flags & BATCH_BEGIN) ? r->t_queued_ns : 0,
        .t_admit_ns = (flags & BATCH_BEGIN) ? r->t_admit_ns : 0,
    };
    if (flags & BATCH_PARAMS) {
        b->params[b->n_params++] = (struct batch_params){.how = s->params[i], .n_in = r->n_in};
    }
    l->rows[b->n_rows] = (struct flight){.request = i, .flags = flags};
    if ((flags & (BATCH_BEGIN | BATCH_AGAIN)) == BATCH_BEGIN) {
        s->n_queried_tokens += s->cfg.prefix_cache ? r->n_in : 0;
        s->n_cached_tokens += r->pos;
    }
    b->n_rows++;
    b->n_tokens += n_tokens;
    b->n_blocks += n_new;
    r->n_sent = r->n_blocks;
    r->pos += n_tokens;
    r->in_batch = true;
}

/*
 * Decoding requests from i on, up to one as old as `end_age`; false when the batch is full. A request
 * moved here from another lane may still be in flight there. One that is preempted is younger: it
 * comes behind.
 */
static bool add_decodes_from(struct sched *s, struct lane *l, uint32_t i, uint64_t end_age,
                             struct batch *b)
{
    for (; i != NONE && s->links[i].age < end_age; i = s->links[i].next) {
        if (s->requests[i].in_batch) {
            continue;
        }
        if (b->n_tokens == s->cfg.max_batch_tokens) {
            l->first_decode = i;
            return false;
        }
        if (make_room(s, i, 1, b->t_build_ns) == 1) {
            add_row(s, l, i, 1, b);
        }
    }
    return true;
}

/* Oldest first; but who did not fit into a batch goes first in the next. */
static void add_decodes(struct sched *s, struct lane *l, struct batch *b)
{
    uint32_t first = l->first_decode;
    if (first == NONE) {
        (void)add_decodes_from(s, l, l->decode.head, UINT64_MAX, b);
        return;
    }
    uint64_t age = s->links[first].age;
    l->first_decode = NONE;
    (void)(add_decodes_from(s, l, first, UINT64_MAX, b) &&
           add_decodes_from(s, l, l->decode.head, age, b));
}

static void add_chunks(struct sched *s, struct lane *l, struct batch *b)
{
    s->n_batch_shared = 0;
    for (uint32_t i = l->prefill.head; i != NONE; i = s->links[i].next) {
        const struct request *r = &s->requests[i];
        uint32_t left = n_known(r) - r->pos, room = s->cfg.max_batch_tokens - b->n_tokens;
        uint32_t n_shared = r->n_sent == 0 ? r->n_shared : 0;
        if (room == 0 || s->n_batch_shared + n_shared > s->slot_blocks) {
            return;
        }
        uint32_t n = r->in_batch ? 0 : make_room(s, i, left < room ? left : room, b->t_build_ns);
        if (n > 0) {
            add_row(s, l, i, n, b);
            s->n_batch_shared += n_shared;
        }
    }
}

bool sched_build(struct sched *s, struct batch *b, int64_t now_ns)
{
    b->n_rows = b->n_tokens = b->n_blocks = b->n_params = 0;
    b->t_build_ns = now_ns;
    for (uint32_t k = 0; k < s->cfg.lanes && b->n_rows == 0; k++) {
        uint32_t i = (s->next_lane + k) % s->cfg.lanes;
        struct lane *l = &s->lanes[i];
        if (l->in_flight) {
            continue;
        }
        add_decodes(s, l, b);
        add_chunks(s, l, b);
        if (b->n_rows > 0) {
            l->in_flight = true;
            l->seq = ++s->seq;
            l->n_rows = b->n_rows;
            s->n_in_flight++;
            s->next_lane = (i + 1) % s->cfg.lanes;
            b->seq = l->seq;
            b->step = s->step;
            b->lane = (uint16_t)i;
            b->t_ready_ns = l->t_ready_ns;
        }
    }
    rebalance(s);
    return b->n_rows > 0;
}

static int check_return(const struct sched *s, uint32_t lane, uint64_t seq, const int32_t *ids,
                        uint32_t n_rows, struct err *e)
{
    if (lane >= s->cfg.lanes || !s->lanes[lane].in_flight || s->lanes[lane].seq != seq ||
        s->lanes[lane].n_rows != n_rows) {
        return err_set(e, ERR_ENV, "ids of batch %llu (lane %u, %u rows), which is not in flight",
                       (unsigned long long)seq, lane, n_rows);
    }
    for (uint32_t k = 0; k < n_rows; k++) {
        bool sampled = (s->lanes[lane].rows[k].flags & BATCH_SAMPLE) != 0;
        if (sampled ? ids[k] < 0 || (uint32_t)ids[k] >= s->cfg.vocab : ids[k] != -1) {
            return err_set(e, ERR_ENV, "row %u of batch %llu came back with id %d", k,
                           (unsigned long long)seq, ids[k]);
        }
    }
    return 0;
}

/* A live request's row is back. */
static void advance(struct sched *s, uint32_t i, uint32_t flags, int32_t id)
{
    struct request *r = &s->requests[i];
    if ((flags & BATCH_SAMPLE) == 0) {
        return;
    }
    if (batch_ends(flags, id, s->cfg.eos_ids, s->cfg.n_eos, params_of(s, i))) {
        forget(s, i);
        return;
    }
    if (r->state == PREFILL) {
        leave_lane(s, i);
        r->state = DECODE;
        age_list_insert(lane_list(s, r), s->links, i);
    }
    outstanding_token(&s->outstanding, r->load_rank, r->n_in, r->n_done);
    ids_of(s, i)[r->n_in + r->n_done++] = id;
}

int sched_complete(struct sched *s, uint32_t lane, uint64_t seq, const int32_t *ids,
                   uint32_t n_rows, int64_t now_ns, struct err *e)
{
    if (check_return(s, lane, seq, ids, n_rows, e) != 0) {
        return -1;
    }
    struct lane *l = &s->lanes[lane];
    for (uint32_t k = 0; k < n_rows; k++) {
        uint32_t i = l->rows[k].request;
        struct request *r = &s->requests[i];
        r->in_batch = false;
        if (s->cfg.prefix_cache) {
            keep_blocks(s, i);
        }
        if (r->dropped) {
            release(s, i);
        } else {
            advance(s, i, l->rows[k].flags, ids[k]);
        }
    }
    l->in_flight = false;
    l->t_ready_ns = now_ns;
    s->n_in_flight--;
    rebalance(s);
    admit_waiting(s, now_ns);
    return 0;
}

/* --- the whole ----------------------------------------------------------------------------------- */

struct batch_limits sched_batch_limits(const struct sched_config *cfg)
{
    uint32_t max_rows =
        cfg->max_running < cfg->max_batch_tokens ? cfg->max_running : cfg->max_batch_tokens;
    return (struct batch_limits){
        .max_rows = max_rows,
        .max_tokens = cfg->max_batch_tokens,
        .max_blocks = batch_max_blocks(max_rows, cfg->max_batch_tokens) +
                      (cfg->prefix_cache ? blocks_for(cfg->max_context) : 0),
        .n_slots = cfg->max_running,
        .n_kv_blocks = cfg->n_kv_blocks,
        .n_lanes = cfg->lanes,
    };
}

static void init_lanes(struct sched *s)
{
    s->waiting = s->preempted = age_list_empty();
    s->lanes = xcalloc(s->cfg.lanes, sizeof *s->lanes);
    for (uint32_t i = 0; i < s->cfg.lanes; i++) {
        s->lanes[i].decode = s->lanes[i].prefill = age_list_empty();
        s->lanes[i].first_decode = NONE;
        s->lanes[i].rows = xcalloc(s->max_rows, sizeof *s->lanes[i].rows);
    }
}

/* 0, 1, 2 ... in the order of use. */
static void fill_stack(uint32_t *stack, uint32_t *n, uint32_t size)
{
    for (uint32_t i = 0; i < size; i++) {
        stack[i] = size - 1 - i;
    }
    *n = size;
}

int sched_create(struct sched **out, const struct sched_config *cfg, struct err *e)
{
    CHECK(cfg->lanes > 0 && cfg->lanes <= UINT16_MAX && cfg->max_running > 0);
    CHECK(cfg->max_batch_tokens > 0 && cfg->max_context > 1);
    struct sched *s = xcalloc(1, sizeof *s);
    s->cfg = *cfg;
    s->max_rows = sched_batch_limits(cfg).max_rows;
    s->max_requests = cfg->max_running + cfg->max_waiting;
    s->slot_blocks = blocks_for(cfg->max_context);
    s->requests = calloc(s->max_requests, sizeof *s->requests);
    s->links = calloc(s->max_requests, sizeof *s->links);
    // Only what tokens touch becomes memory.
    s->ids = calloc(s->max_requests, (size_t)cfg->max_context * sizeof *s->ids);
    s->params = calloc(s->max_requests, sizeof *s->params);
    s->blocks = calloc(cfg->max_running, s->slot_blocks * sizeof *s->blocks);
    s->free_requests = calloc(s->max_requests, sizeof *s->free_requests);
    s->free_slots = calloc(cfg->max_running, sizeof *s->free_slots);
    outstanding_init(&s->outstanding, cfg->n_load_ranks);
    s->found = xcalloc(s->slot_blocks, sizeof *s->found);
    init_lanes(s);
    if (!s->requests || !s->links || !s->ids || !s->params || !s->blocks || !s->free_requests ||
        !s->free_slots) {
        sched_destroy(s);
        return err_set(e, ERR_ENV,
                       "no memory for a queue of %u requests of up to %u tokens: lower "
                       "target.max_waiting",
                       cfg->max_waiting, cfg->max_context);
    }
    if (tickets_init(&s->tickets, s->max_requests, e) != 0 ||
        kv_pool_create(&s->pool, cfg->n_kv_blocks, cfg->prefix_cache, e) != 0) {
        sched_destroy(s);
        return -1;
    }
    fill_stack(s->free_requests, &s->n_free_requests, s->max_requests);
    fill_stack(s->free_slots, &s->n_free_slots, cfg->max_running);
    *out = s;
    return 0;
}

void sched_destroy(struct sched *s)
{
    if (s == NULL) {
        return;
    }
    for (uint32_t i = 0; i < s->cfg.lanes; i++) {
        free(s->lanes[i].rows);
    }
    free(s->lanes);
    tickets_free(&s->tickets);
    free(s->free_slots);
    free(s->free_requests);
    free(s->blocks);
    free(s->ids);
    free(s->params);
    free(s->found);
    outstanding_free(&s->outstanding);
    free(s->requests);
    free(s->links);
    kv_pool_destroy(s->pool);
    free(s);
}

void sched_begin_step(struct sched *s, uint32_t step)
{
    CHECK(s->n_in_flight == 0);
    s->step = step;
    s->seq = 0;
    s->next_lane = 0;
    for (uint32_t i = 0; i < s->cfg.lanes; i++) {
        s->lanes[i].t_ready_ns = 0;
    }
}

struct sched_counts sched_counts(const struct sched *s)
{
    return (struct sched_counts){
        .waiting = s->waiting.n + s->preempted.n,
        .running = s->n_running,
        .in_flight = s->n_in_flight,
        .kv_size = s->cfg.n_kv_blocks,
        .kv_taken = s->cfg.n_kv_blocks - kv_pool_free(s->pool),
        .n_preempted = s->n_preempted,
        .n_queried_tokens = s->n_queried_tokens,
        .n_cached_tokens = s->n_cached_tokens,
    };
}

uint64_t sched_outstanding(const struct sched *s, int load_rank)
{
    CHECK(load_rank >= 0 && load_rank < s->cfg.n_load_ranks);
    return s->outstanding.tokens[load_rank];
}

uint32_t sched_lane_running(const struct sched *s, uint32_t lane)
{
    return lane_running(&s->lanes[lane]);
}
