#include "workers/sched.h"

#include <stdlib.h>
#include <string.h>

#include "core/mem.h"
#include "workers/kv.h"
#include "workers/tickets.h"

#define NONE UINT32_MAX

/* Requests are named by their index; lists run through prev and next. */
struct list {
    uint32_t head, tail, n;
};

enum state {
    WAITING,
    PREFILL, // prompt not yet read whole
    DECODE,
};

struct request {
    uint32_t prev, next; // in the list of its state
    uint32_t slot;       // NONE while waiting
    enum state state;
    bool in_batch; // has a row in flight
    bool dropped;  // forgotten while in flight: only waits for its row to come back
    uint32_t lane;
    uint32_t n_in, n_out, n_done; // n_done: output tokens
    uint32_t pos;                 // tokens whose keys and values are, or are being, computed
    uint32_t n_blocks;            // taken so far
    uint32_t row_flags;           // BATCH_STOP_EOS or 0
    int32_t last_id;
    int32_t load_rank;
    struct wire_ticket ticket;
    int64_t t_recv_ns, t_admit_ns;
};

struct flight {
    uint32_t request, flags;
};

struct lane {
    struct list decode, prefill;
    bool in_flight;
    uint64_t seq;
    uint32_t n_rows;
    struct flight *rows; // (max_rows)
    int64_t t_ready_ns;  // its last batch came back
};

struct sched {
    struct sched_config cfg;
    uint32_t max_rows, max_requests, slot_blocks;
    struct request *requests;                 // (max_requests)
    int32_t *prompts;                         // (max_requests, max_context)
    uint32_t *blocks;                         // (max_running, slot_blocks)
    uint32_t *free_requests, n_free_requests; // (max_requests), the last one is used next
    uint32_t *free_slots, n_free_slots;       // (max_running)
    struct tickets tickets;
    struct kv_pool *pool;
    uint32_t n_reserved; // blocks promised to running requests, taken or not
    struct list waiting;
    struct lane *lanes; // (cfg.lanes)
    uint32_t next_lane, n_in_flight;
    uint32_t step;
    uint64_t seq;
};

/* --- lists ------------------------------------------------------------------------------------ */

static void list_push(struct sched *s, struct list *l, uint32_t i)
{
    struct request *r = &s->requests[i];
    r->prev = l->tail;
    r->next = NONE;
    if (l->tail == NONE) {
        l->head = i;
    } else {
        s->requests[l->tail].next = i;
    }
    l->tail = i;
    l->n++;
}

static void list_remove(struct sched *s, struct list *l, uint32_t i)
{
    struct request *r = &s->requests[i];
    if (r->prev == NONE) {
        l->head = r->next;
    } else {
        s->requests[r->prev].next = r->next;
    }
    if (r->next == NONE) {
        l->tail = r->prev;
    } else {
        s->requests[r->next].prev = r->prev;
    }
    l->n--;
}

/* Make i the head, keeping the circular order. */
static void list_rotate(struct sched *s, struct list *l, uint32_t i)
{
    if (l->head == i) {
        return;
    }
    s->requests[l->tail].next = l->head;
    s->requests[l->head].prev = l->tail;
    l->head = i;
    l->tail = s->requests[i].prev;
    s->requests[l->tail].next = NONE;
    s->requests[i].prev = NONE;
}

/* --- lanes and KV blocks ------------------------------------------------------------------------ */

static struct list *lane_list(struct sched *s, const struct request *r)
{
    struct lane *l = &s->lanes[r->lane];
    return r->state == DECODE ? &l->decode : &l->prefill;
}

static uint32_t lane_running(const struct lane *l)
{
    return l->decode.n + l->prefill.n;
}

static uint32_t emptiest_lane(const struct sched *s)
{
    uint32_t best = 0;
    for (uint32_t i = 1; i < s->cfg.lanes; i++) {
        if (lane_running(&s->lanes[i]) < lane_running(&s->lanes[best])) {
            best = i;
        }
    }
    return best;
}

static uint32_t fullest_lane(const struct sched *s)
{
    uint32_t best = 0;
    for (uint32_t i = 1; i < s->cfg.lanes; i++) {
        if (lane_running(&s->lanes[i]) > lane_running(&s->lanes[best])) {
            best = i;
        }
    }
    return best;
}

/* One request has left a lane: no two lanes may differ by more than one. */
static void rebalance(struct sched *s)
{
    struct lane *from = &s->lanes[fullest_lane(s)];
    uint32_t to = emptiest_lane(s);
    if (lane_running(from) <= lane_running(&s->lanes[to]) + 1) {
        return;
    }
    // A decoding one by preference: the order of prompts within a lane is the order of arrival.
    uint32_t i = from->decode.n > 0 ? from->decode.tail : from->prefill.tail;
    struct request *r = &s->requests[i];
    list_remove(s, lane_list(s, r), i);
    r->lane = to;
    list_push(s, lane_list(s, r), i);
}

static uint32_t blocks_for(uint64_t n_tokens)
{
    return (uint32_t)((n_tokens + BATCH_KV_BLOCK - 1) / BATCH_KV_BLOCK);
}

static uint32_t blocks_reserved(const struct request *r)
{
    return blocks_for((uint64_t)r->n_in + r->n_out);
}

/* Give back what a running request holds. */
static void release(struct sched *s, uint32_t i)
{
    struct request *r = &s->requests[i];
    for (uint32_t k = 0; k < r->n_blocks; k++) {
        kv_pool_unref(s->pool, s->blocks[(size_t)r->slot * s->slot_blocks + k]);
    }
    s->n_reserved -= blocks_reserved(r);
    s->free_slots[s->n_free_slots++] = r->slot;
    s->free_requests[s->n_free_requests++] = i;
}

/* Take a request out of all lists; its slot and blocks stay until its row in flight is back. */
static void forget(struct sched *s, uint32_t i)
{
    struct request *r = &s->requests[i];
    tickets_remove(&s->tickets, i);
    if (r->state == WAITING) {
        list_remove(s, &s->waiting, i);
        s->free_requests[s->n_free_requests++] = i;
        return;
    }
    list_remove(s, lane_list(s, r), i);
    r->dropped = true;
    if (!r->in_batch) {
        release(s, i);
    }
}

/* --- admission ---------------------------------------------------------------------------------- */

static bool has_room(const struct sched *s, const struct request *r)
{
    return s->n_free_slots > 0 && blocks_reserved(r) <= s->cfg.n_kv_blocks - s->n_reserved;
}

static void admit(struct sched *s, uint32_t i, int64_t now_ns)
{
    struct request *r = &s->requests[i];
    s->n_reserved += blocks_reserved(r);
    r->slot = s->free_slots[--s->n_free_slots];
    r->state = PREFILL;
    r->lane = emptiest_lane(s);
    r->t_admit_ns = now_ns;
    list_push(s, &s->lanes[r->lane].prefill, i);
}

static void admit_waiting(struct sched *s, int64_t now_ns)
{
    uint32_t i;
    while ((i = s->waiting.head) != NONE && has_room(s, &s->requests[i])) {
        list_remove(s, &s->waiting, i);
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
        .t_recv_ns = q->t_recv_ns,
    };
    bool at_once = s->waiting.n == 0 && has_room(s, r);
    if (!at_once && s->waiting.n >= s->cfg.max_waiting) {
        return false;
    }
    s->n_free_requests--;
    memcpy(s->prompts + (size_t)i * s->cfg.max_context, q->ids, q->n_in * sizeof *q->ids);
    tickets_add(&s->tickets, i, r->load_rank, r->ticket);
    if (at_once) {
        admit(s, i, now_ns);
    } else {
        list_push(s, &s->waiting, i);
    }
    return true;
}

bool sched_cancel(struct sched *s, int32_t load_rank, struct wire_ticket ticket, int64_t now_ns)
{
    uint32_t i = tickets_find(&s->tickets, load_rank, ticket);
    if (i == TICKETS_NONE) {
        return false;
    }
    bool was_running = s->requests[i].state != WAITING;
    forget(s, i);
    if (was_running) {
        rebalance(s);
    }
    admit_waiting(s, now_ns);
    return true;
}

void sched_drop_all(struct sched *s)
{
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

/* --- batches ------------------------------------------------------------------------------------ */

/* Blocks for all positions below `end`: reserved at admission, so the pool has them. */
static void take_blocks(struct sched *s, struct request *r, uint32_t end, struct batch *b)
{
    uint32_t *table = s->blocks + (size_t)r->slot * s->slot_blocks;
    for (uint32_t need = blocks_for(end); r->n_blocks < need; r->n_blocks++) {
        int64_t block = kv_pool_take(s->pool);
        CHECK(block >= 0);
        table[r->n_blocks] = (uint32_t)block;
        b->blocks[b->n_blocks++] = (uint32_t)block;
    }
}

static uint32_t row_flags(const struct request *r, uint32_t n_tokens)
{
    uint32_t flags = r->state == PREFILL ? BATCH_PREFILL : 0;
    if (flags != 0 && r->pos == 0) {
        flags |= BATCH_BEGIN;
    }
    if (flags != 0 && r->pos + n_tokens < r->n_in) {
        return flags;
    }
    flags |= BATCH_SAMPLE | r->row_flags;
    flags |= r->state == PREFILL ? BATCH_FIRST : 0;
    return flags | (r->n_done + 1 == r->n_out ? BATCH_LAST : 0);
}

static void add_row(struct sched *s, struct lane *l, uint32_t i, uint32_t n_tokens, struct batch *b)
{
    struct request *r = &s->requests[i];
    uint32_t flags = row_flags(r, n_tokens);
    uint32_t first_block = b->n_blocks;
    if (r->state == PREFILL) {
        memcpy(b->tokens + b->n_tokens, s->prompts + (size_t)i * s->cfg.max_context + r->pos,
               n_tokens * sizeof *b->tokens);
    } else {
        b->tokens[b->n_tokens] = r->last_id;
    }
    take_blocks(s, r, r->pos + n_tokens, b);
    b->rows[b->n_rows] = (struct batch_row){
        .slot = r->slot,
        .flags = flags,
        .first = b->n_tokens,
        .n_tokens = n_tokens,
        .pos = r->pos,
        .first_block = first_block,
        .n_blocks = b->n_blocks - first_block,
        .load_rank = r->load_rank,
        .ticket = r->ticket,
        .t_recv_ns = (flags & BATCH_BEGIN) ? r->t_recv_ns : 0,
        .t_admit_ns = (flags & BATCH_BEGIN) ? r->t_admit_ns : 0,
    };
    l->rows[b->n_rows] = (struct flight){.request = i, .flags = flags};
    b->n_rows++;
    b->n_tokens += n_tokens;
    r->pos += n_tokens;
    r->in_batch = true;
}

/* Who does not fit goes first the next time. A request moved here from another lane may still be in flight there. */
static void add_decodes(struct sched *s, struct lane *l, struct batch *b)
{
    for (uint32_t i = l->decode.head; i != NONE; i = s->requests[i].next) {
        if (b->n_tokens == s->cfg.max_batch_tokens) {
            list_rotate(s, &l->decode, i);
            return;
        }
        if (!s->requests[i].in_batch) {
            add_row(s, l, i, 1, b);
        }
    }
}

static void add_chunks(struct sched *s, struct lane *l, struct batch *b)
{
    for (uint32_t i = l->prefill.head; i != NONE; i = s->requests[i].next) {
        const struct request *r = &s->requests[i];
        uint32_t room = s->cfg.max_batch_tokens - b->n_tokens;
        if (room == 0) {
            return;
        }
        if (!r->in_batch) {
            add_row(s, l, i, r->n_in - r->pos < room ? r->n_in - r->pos : room, b);
        }
    }
}

bool sched_build(struct sched *s, struct batch *b, int64_t now_ns)
{
    b->n_rows = b->n_tokens = b->n_blocks = 0;
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
            b->t_build_ns = now_ns;
            b->t_ready_ns = l->t_ready_ns;
        }
    }
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
    r->n_done++;
    r->last_id = id;
    if (batch_ends(flags, id, s->cfg.eos_ids, s->cfg.n_eos)) {
        forget(s, i);
        rebalance(s);
    } else if (r->state == PREFILL) {
        list_remove(s, lane_list(s, r), i);
        r->state = DECODE;
        list_push(s, lane_list(s, r), i);
    }
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
        if (r->dropped) {
            release(s, i);
        } else {
            advance(s, i, l->rows[k].flags, ids[k]);
        }
    }
    l->in_flight = false;
    l->t_ready_ns = now_ns;
    s->n_in_flight--;
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
        .max_blocks = batch_max_blocks(max_rows, cfg->max_batch_tokens),
        .n_slots = cfg->max_running,
        .n_kv_blocks = cfg->n_kv_blocks,
        .n_lanes = cfg->lanes,
    };
}

static struct list empty_list(void)
{
    return (struct list){.head = NONE, .tail = NONE};
}

static void init_lanes(struct sched *s)
{
    s->waiting = empty_list();
    s->lanes = xcalloc(s->cfg.lanes, sizeof *s->lanes);
    for (uint32_t i = 0; i < s->cfg.lanes; i++) {
        s->lanes[i].decode = s->lanes[i].prefill = empty_list();
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
    // Only what prompts touch becomes memory.
    s->prompts = calloc(s->max_requests, (size_t)cfg->max_context * sizeof *s->prompts);
    s->blocks = calloc(cfg->max_running, s->slot_blocks * sizeof *s->blocks);
    s->free_requests = calloc(s->max_requests, sizeof *s->free_requests);
    s->free_slots = calloc(cfg->max_running, sizeof *s->free_slots);
    init_lanes(s);
    if (!s->requests || !s->prompts || !s->blocks || !s->free_requests || !s->free_slots) {
        sched_destroy(s);
        return err_set(e, ERR_ENV,
                       "no memory for a queue of %u requests of up to %u tokens: lower "
                       "target.max_waiting",
                       cfg->max_waiting, cfg->max_context);
    }
    if (tickets_init(&s->tickets, s->max_requests, e) != 0 ||
        kv_pool_create(&s->pool, cfg->n_kv_blocks, e) != 0) {
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
    free(s->prompts);
    free(s->requests);
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
    struct sched_counts c = {
        .waiting = s->waiting.n,
        .in_flight = s->n_in_flight,
        .kv_size = s->cfg.n_kv_blocks,
        .kv_taken = s->cfg.n_kv_blocks - kv_pool_free(s->pool),
    };
    for (uint32_t i = 0; i < s->cfg.lanes; i++) {
        c.running += lane_running(&s->lanes[i]);
    }
    return c;
}

uint32_t sched_lane_running(const struct sched *s, uint32_t lane)
{
    return lane_running(&s->lanes[lane]);
}
