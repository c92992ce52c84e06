#include "loadgen/live.h"

#include "core/clock.h"
#include "core/mem.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define CHUNK_TOKENS 63 // and a link: 256 bytes
#define NONE         UINT32_MAX

struct chunk {
    uint32_t next; // of the same reply, or in the free list
    uint32_t dt_us[CHUNK_TOKENS];
};

struct live_table {
    struct live *slots; // (n_slots), a reserved mapping
    uint32_t n_slots, max_tokens;
    uint32_t n_used_slots; // ever taken; the rest of the mapping was never touched
    uint32_t free_slot;    // list, last freed first
    uint32_t ended_head, ended_tail;
    uint32_t n_busy;
    struct chunk *chunks; // (n_chunks), a reserved mapping
    uint32_t n_chunks, n_used_chunks, free_chunk;
};

static void *map_reserved(size_t n_bytes)
{
    void *p = mmap(NULL, n_bytes, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return p == MAP_FAILED ? NULL : p;
}

int live_create(struct live_table **out, uint32_t n_slots, uint32_t max_tokens, struct err *e)
{
    CHECK(n_slots > 0 && n_slots < NONE && max_tokens > 0);
    struct live_table *t = xcalloc(1, sizeof *t);
    t->n_slots = n_slots;
    t->max_tokens = max_tokens;
    t->free_slot = t->ended_head = t->ended_tail = t->free_chunk = NONE;
    t->slots = map_reserved((size_t)n_slots * sizeof *t->slots);
    if (!t->slots) {
        free(t);
        return err_set(e, ERR_ENV, "no memory for %u requests in flight", n_slots);
    }
    *out = t;
    return 0;
}

static void unmap_chunks(struct live_table *t)
{
    if (t->chunks) {
        munmap(t->chunks, t->n_chunks * sizeof *t->chunks);
    }
    t->chunks = NULL;
    t->n_chunks = t->n_used_chunks = 0;
    t->free_chunk = NONE;
}

void live_destroy(struct live_table *t)
{
    unmap_chunks(t);
    munmap(t->slots, (size_t)t->n_slots * sizeof *t->slots);
    free(t);
}

uint32_t live_room(uint32_t n_out_req)
{
    return n_out_req + n_out_req / 4 + 64;
}

size_t live_chunks(uint32_t n_out_req)
{
    return ((size_t)live_room(n_out_req) + CHUNK_TOKENS - 1) / CHUNK_TOKENS;
}

int live_reserve(struct live_table *t, size_t n_chunks, struct err *e)
{
    CHECK(t->n_busy == 0 && t->ended_head == NONE);
    size_t most = live_chunks(t->max_tokens) * t->n_slots;
    n_chunks = n_chunks < most ? n_chunks : most;
    unmap_chunks(t);
    if (n_chunks == 0) {
        return 0;
    }
    t->chunks = n_chunks < NONE ? map_reserved(n_chunks * sizeof *t->chunks) : NULL;
    if (!t->chunks) {
        return err_set(e, ERR_ENV, "no memory for the token times of %u requests in flight",
                       t->n_slots);
    }
    t->n_chunks = (uint32_t)n_chunks;
    return 0;
}

bool live_is_full(const struct live_table *t)
{
    return t->free_slot == NONE && t->n_used_slots == t->n_slots;
}

static struct live *take_slot(struct live_table *t)
{
    struct live *l = &t->slots[t->n_used_slots];
    if (t->free_slot != NONE) {
        l = &t->slots[t->free_slot];
        t->free_slot = l->next;
    } else {
        l->ticket.slot = t->n_used_slots++;
    }
    return l;
}

struct live *live_take(struct live_table *t, const struct plan_event *ev, int64_t t_sched_ns)
{
    CHECK(!live_is_full(t) && ev->n_out <= t->max_tokens);
    struct live *l = take_slot(t);
    record_init(&l->rec);
    l->rec.id = ev->id;
    l->rec.t_sched_ns = t_sched_ns;
    l->rec.n_in = ev->n_in;
    l->rec.n_out_req = ev->n_out;
    l->rec.n_out_usage = UINT32_MAX;
    l->busy = true;
    l->first_chunk = l->last_chunk = l->next = NONE;
    l->last_us = 0;
    t->n_busy++;
    return l;
}

struct live *live_find(struct live_table *t, struct wire_ticket ticket)
{
    if (ticket.slot >= t->n_used_slots) {
        return NULL;
    }
    struct live *l = &t->slots[ticket.slot];
    return l->busy && l->ticket.generation == ticket.generation ? l : NULL;
}

struct live *live_busy_from(struct live_table *t, uint32_t slot)
{
    for (; slot < t->n_used_slots; slot++) {
        if (t->slots[slot].busy) {
            return &t->slots[slot];
        }
    }
    return NULL;
}

uint32_t live_in_flight(const struct live_table *t)
{
    return t->n_busy;
}

/* --- what clients report ------------------------------------------------------------------------ */

void live_sent(struct live *l, int64_t t_ns)
{
    l->rec.t_send_ns = t_ns;
}

void live_byte(struct live *l, int64_t t_ns)
{
    if (l->rec.t_byte_ns == RECORD_NONE) {
        l->rec.t_byte_ns = t_ns;
    }
}

/* The next free entry of the reply's chunks. Cannot run out: see live_reserve and live_tokens. */
static uint32_t *next_entry(struct live_table *t, struct live *l)
{
    uint32_t k = l->rec.n_out % CHUNK_TOKENS;
    if (k > 0) {
        return &t->chunks[l->last_chunk].dt_us[k];
    }
    uint32_t i = t->free_chunk;
    if (i != NONE) {
        t->free_chunk = t->chunks[i].next;
    } else {
        CHECK(t->n_used_chunks < t->n_chunks);
        i = t->n_used_chunks++;
    }
    if (l->last_chunk == NONE) {
        l->first_chunk = i;
    } else {
        t->chunks[l->last_chunk].next = i;
    }
    l->last_chunk = i;
    return &t->chunks[i].dt_us[0];
}

bool live_tokens(struct live_table *t, struct live *l, uint32_t n, int64_t t_ns)
{
    struct record *r = &l->rec;
    if (n > live_room(r->n_out_req) - r->n_out) {
        return false;
    }
    // Gaps are differences of times already cut to us, so that they add up to the whole.
    int64_t since_ns = t_ns - r->t_send_ns;
    uint64_t us = since_ns > 0 ? (uint64_t)(since_ns / NS_PER_US) : 0;
    uint64_t gap = us > l->last_us ? us - l->last_us : 0;
    uint32_t gap_us = gap < UINT32_MAX ? (uint32_t)gap : UINT32_MAX;
    l->last_us = us > l->last_us ? us : l->last_us;
    live_byte(l, t_ns);
    if (r->n_out == 0) {
        r->t_first_ns = r->t_content_ns = t_ns;
    } else if (gap_us > r->itl_max_us) {
        r->itl_max_us = gap_us;
    }
    for (uint32_t i = 0; i < n; i++) {
        *next_entry(t, l) = i == 0 ? gap_us : 0;
        r->n_out++;
    }
    r->t_last_ns = t_ns;
    r->n_chunks++;
    return true;
}

static void free_chunks(struct live_table *t, struct live *l)
{
    if (l->first_chunk != NONE) {
        t->chunks[l->last_chunk].next = t->free_chunk;
        t->free_chunk = l->first_chunk;
    }
    l->first_chunk = l->last_chunk = NONE;
}

void live_recount(struct live_table *t, struct live *l, const uint32_t *counts, uint32_t *gaps_us)
{
    struct record *r = &l->rec;
    uint32_t room = live_room(r->n_out_req);
    CHECK(r->n_out == r->n_chunks);
    live_copy_tokens(t, l, gaps_us);
    free_chunks(t, l);
    r->n_out = r->itl_max_us = 0;
    uint64_t gap_us = 0;
    for (uint32_t i = 0; i < r->n_chunks; i++) {
        gap_us += gaps_us[i];
        for (uint32_t k = 0; k < counts[i] && r->n_out < room; k++) {
            const uint32_t us = gap_us < UINT32_MAX ? (uint32_t)gap_us : UINT32_MAX;
            *next_entry(t, l) = us;
            r->itl_max_us = r->n_out > 0 && us > r->itl_max_us ? us : r->itl_max_us;
            gap_us = 0;
            r->n_out++;
        }
    }
}

void live_end(struct live_table *t, struct live *l, enum outcome outcome, int error, int64_t t_ns)
{
    CHECK(l->busy);
    l->t_end_ns = t_ns;
    l->rec.outcome = (uint8_t)outcome;
    l->rec.error = error;
    l->busy = false;
    l->next = NONE;
    t->n_busy--;
    if (t->ended_head == NONE) {
        t->ended_head = l->ticket.slot;
    } else {
        t->slots[t->ended_tail].next = l->ticket.slot;
    }
    t->ended_tail = l->ticket.slot;
}

/* --- what becomes of the ended ones --------------------------------------------------------------- */

struct live *live_next_ended(struct live_table *t)
{
    return t->ended_head == NONE ? NULL : &t->slots[t->ended_head];
}

void live_copy_tokens(const struct live_table *t, const struct live *l, uint32_t *dt_us)
{
    uint32_t i = l->first_chunk;
    for (uint32_t left = l->rec.n_out; left > 0;) {
        uint32_t n = left < CHUNK_TOKENS ? left : CHUNK_TOKENS;
        memcpy(dt_us, t->chunks[i].dt_us, n * sizeof *dt_us);
        i = t->chunks[i].next;
        dt_us += n;
        left -= n;
    }
}

void live_free(struct live_table *t, struct live *l)
{
    CHECK(t->ended_head == l->ticket.slot);
    t->ended_head = l->next;
    free_chunks(t, l);
    l->ticket.generation++;
    l->next = t->free_slot;
    t->free_slot = l->ticket.slot;
}
