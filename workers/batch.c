#include "workers/batch.h"

#include <stdlib.h>
#include <string.h>

#include "core/mem.h"
#include "workers/sampler.h"

#define ROW_FLAGS                                                                                  \
    (BATCH_SAMPLE | BATCH_PREFILL | BATCH_BEGIN | BATCH_FIRST | BATCH_LAST | BATCH_STOP_EOS |      \
     BATCH_AGAIN | BATCH_STOP_IDS | BATCH_PARAMS)

// 4.5 years of uptime: sums of differences of stamps stay far from overflow.
#define STAMP_MAX_NS (INT64_C(1) << 57)

/* Ahead of rows, times, params, tokens and blocks, in this order: every part stays aligned. */
struct head {
    uint64_t seq;
    uint32_t step;
    uint16_t lane, n_stages;
    uint32_t n_rows, n_tokens, n_blocks, n_params;
    int64_t t_build_ns, t_ready_ns;
};

_Static_assert(sizeof(struct head) == 48, "no padding on the wire");
_Static_assert(sizeof(struct batch_row) == 56, "no padding on the wire");
_Static_assert(sizeof(struct batch_stage_times) == 32, "no padding on the wire");
_Static_assert(sizeof(struct batch_params) == 112, "no padding on the wire");

static size_t body_bytes(size_t n_rows, size_t n_stages, size_t n_params, size_t n_tokens,
                         size_t n_blocks)
{
    return n_rows * sizeof(struct batch_row) + n_stages * sizeof(struct batch_stage_times) +
           n_params * sizeof(struct batch_params) + n_tokens * sizeof(int32_t) +
           n_blocks * sizeof(uint32_t);
}

int batch_create(struct batch **out, const struct batch_limits *lim, struct err *e)
{
    CHECK(lim->n_stages > 0 && lim->n_stages <= RECORD_MAX_STAGES);
    size_t head_bytes = (sizeof(struct batch) + 15) / 16 * 16;
    size_t n_bytes = head_bytes + body_bytes(lim->max_rows, lim->n_stages, lim->max_rows,
                                             lim->max_tokens, lim->max_blocks);
    struct batch *b = mem_aligned(n_bytes);
    if (b == NULL) {
        return err_set(e, ERR_ENV, "no memory for a batch of %u tokens", lim->max_tokens);
    }
    uint8_t *p = (uint8_t *)b + head_bytes;
    b->rows = (struct batch_row *)p;
    p += lim->max_rows * sizeof *b->rows;
    b->times = (struct batch_stage_times *)p;
    p += lim->n_stages * sizeof *b->times;
    b->params = (struct batch_params *)p;
    p += lim->max_rows * sizeof *b->params;
    b->tokens = (int32_t *)p;
    p += lim->max_tokens * sizeof *b->tokens;
    b->blocks = (uint32_t *)p;
    b->n_stages = (uint16_t)lim->n_stages;
    *out = b;
    return 0;
}

void batch_destroy(struct batch *b)
{
    free(b);
}

uint32_t batch_ends(uint32_t row_flags, int32_t id, const int *eos_ids, int n_eos,
                    const struct wire_sampling *how)
{
    bool stops = false;
    for (int i = 0; (row_flags & BATCH_STOP_EOS) && i < n_eos; i++) {
        stops |= eos_ids[i] == id;
    }
    for (uint32_t i = 0; (row_flags & BATCH_STOP_IDS) && how && i < how->n_stop_ids; i++) {
        stops |= how->stop_ids[i] == id;
    }
    return stops ? WIRE_LAST | WIRE_STOPPED : (row_flags & BATCH_LAST) ? WIRE_LAST : 0;
}

/* --- wire ------------------------------------------------------------------------------------ */

size_t batch_max_bytes(const struct batch_limits *lim)
{
    return sizeof(struct head) + body_bytes(lim->max_rows, lim->n_stages, lim->max_rows,
                                            lim->max_tokens, lim->max_blocks);
}

static uint8_t *put(uint8_t *p, const void *from, size_t n_bytes)
{
    memcpy(p, from, n_bytes);
    return p + n_bytes;
}

static const uint8_t *take(void *to, const uint8_t *p, size_t n_bytes)
{
    memcpy(to, p, n_bytes);
    return p + n_bytes;
}

size_t batch_encode(const struct batch *b, void *out)
{
    struct head h = {
        .seq = b->seq,
        .step = b->step,
        .lane = b->lane,
        .n_stages = b->n_stages,
        .n_rows = b->n_rows,
        .n_tokens = b->n_tokens,
        .n_blocks = b->n_blocks,
        .n_params = b->n_params,
        .t_build_ns = b->t_build_ns,
        .t_ready_ns = b->t_ready_ns,
    };
    uint8_t *p = put(out, &h, sizeof h);
    p = put(p, b->rows, b->n_rows * sizeof *b->rows);
    p = put(p, b->times, b->n_stages * sizeof *b->times);
    p = put(p, b->params, b->n_params * sizeof *b->params);
    p = put(p, b->tokens, b->n_tokens * sizeof *b->tokens);
    p = put(p, b->blocks, b->n_blocks * sizeof *b->blocks);
    return (size_t)(p - (uint8_t *)out);
}

static int check_head(const struct head *h, const struct batch_limits *lim, size_t n_bytes,
                      struct err *e)
{
    if (h->seq == 0 || h->n_rows == 0 || h->n_rows > lim->max_rows || h->n_tokens == 0 ||
        h->n_tokens > lim->max_tokens || h->n_blocks > lim->max_blocks) {
        return err_set(
            e, ERR_ENV, "batch of %u rows, %u tokens, %u blocks: at most %u, %u, %u are allowed",
            h->n_rows, h->n_tokens, h->n_blocks, lim->max_rows, lim->max_tokens, lim->max_blocks);
    }
    if (h->n_stages != lim->n_stages || h->lane >= lim->n_lanes || h->n_params > h->n_rows) {
        return err_set(e, ERR_ENV, "batch for %u stages in lane %u: there are %u stages, %u lanes",
                       h->n_stages, h->lane, lim->n_stages, lim->n_lanes);
    }
    size_t want =
        sizeof *h + body_bytes(h->n_rows, h->n_stages, h->n_params, h->n_tokens, h->n_blocks);
    if (n_bytes != want) {
        return err_set(e, ERR_ENV, "batch of %zu bytes: its head asks for %zu", n_bytes, want);
    }
    return 0;
}

static bool flags_fit(const struct batch_row *r)
{
    uint32_t only_sampled = BATCH_FIRST | BATCH_LAST | BATCH_STOP_EOS | BATCH_STOP_IDS;
    return (r->flags & ~(uint32_t)ROW_FLAGS) == 0 &&
           ((r->flags & BATCH_SAMPLE) != 0 || (r->flags & only_sampled) == 0) &&
           ((r->flags & BATCH_PREFILL) != 0 || r->n_tokens == 1) &&
           ((r->flags & BATCH_BEGIN) == 0 || r->pos % BATCH_KV_BLOCK == 0) &&
           ((r->flags & BATCH_BEGIN) != 0 || (r->flags & (BATCH_AGAIN | BATCH_PARAMS)) == 0);
}

static bool stamp_fits(int64_t t_ns)
{
    return t_ns >= -STAMP_MAX_NS && t_ns <= STAMP_MAX_NS;
}

static int check_stamps(const struct batch *b, struct err *e)
{
    bool fit = stamp_fits(b->t_build_ns) && stamp_fits(b->t_ready_ns);
    for (uint32_t s = 0; s < b->n_stages; s++) {
        const struct batch_stage_times *t = &b->times[s];
        fit = fit && stamp_fits(t->t_recv_ns) && stamp_fits(t->t_begin_ns) &&
              stamp_fits(t->t_end_ns) && stamp_fits(t->t_send_ns);
    }
    for (uint32_t i = 0; i < b->n_rows; i++) {
        fit = fit && stamp_fits(b->rows[i].t_recv_ns) && stamp_fits(b->rows[i].t_admit_ns);
    }
    return fit ? 0 : err_set(e, ERR_ENV, "batch with a time stamp out of all range");
}

static int check_params(const struct batch *b, struct err *e)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < b->n_rows; i++) {
        n += (b->rows[i].flags & BATCH_PARAMS) != 0;
    }
    if (n != b->n_params) {
        return err_set(e, ERR_ENV, "batch with parameters of %u requests: %u rows announce them",
                       b->n_params, n);
    }
    for (uint32_t i = 0; i < n; i++) {
        if (b->params[i].reserved != 0) {
            return err_set(e, ERR_ENV, "batch with parameters that are none");
        }
        if (sampler_check(&b->params[i].how, ERR_ENV, e) != 0) {
            return -1;
        }
    }
    return 0;
}

/* Rows lie side by side, in order, and together make up exactly the batch's tokens and blocks. */
static int check_rows(const struct batch *b, const struct batch_limits *lim, struct err *e)
{
    uint32_t n_tokens = 0, n_blocks = 0;
    for (uint32_t i = 0; i < b->n_rows; i++) {
        const struct batch_row *r = &b->rows[i];
        if (r->slot >= lim->n_slots || r->load_rank < 0 ||
            (uint32_t)r->load_rank >= lim->n_load_ranks) {
            return err_set(e, ERR_ENV, "batch row %u: unknown slot %u or load rank %d", i, r->slot,
                           r->load_rank);
        }
        if (r->n_tokens == 0 || r->first != n_tokens || r->n_tokens > b->n_tokens - n_tokens ||
            r->first_block != n_blocks || r->n_blocks > b->n_blocks - n_blocks ||
            r->pos > INT32_MAX || !flags_fit(r)) {
            return err_set(e, ERR_ENV, "batch row %u does not fit the rows before it", i);
        }
        n_tokens += r->n_tokens;
        n_blocks += r->n_blocks;
    }
    if (n_tokens != b->n_tokens || n_blocks != b->n_blocks) {
        return err_set(e, ERR_ENV, "batch rows hold %u of %u tokens and %u of %u blocks", n_tokens,
                       b->n_tokens, n_blocks, b->n_blocks);
    }
    for (uint32_t i = 0; i < b->n_blocks; i++) {
        if (b->blocks[i] >= lim->n_kv_blocks) {
            return err_set(e, ERR_ENV, "batch names KV block %u of %u", b->blocks[i],
                           lim->n_kv_blocks);
        }
    }
    return 0;
}

int batch_decode(struct batch *b, const struct batch_limits *lim, const void *in, size_t n_bytes,
                 struct err *e)
{
    struct head h;
    if (n_bytes < sizeof h) {
        return err_set(e, ERR_ENV, "batch of %zu bytes: shorter than its head", n_bytes);
    }
    const uint8_t *p = take(&h, in, sizeof h);
    if (check_head(&h, lim, n_bytes, e) != 0) {
        return -1;
    }
    b->seq = h.seq;
    b->step = h.step;
    b->lane = h.lane;
    b->n_stages = h.n_stages;
    b->n_rows = h.n_rows;
    b->n_tokens = h.n_tokens;
    b->n_blocks = h.n_blocks;
    b->n_params = h.n_params;
    b->t_build_ns = h.t_build_ns;
    b->t_ready_ns = h.t_ready_ns;
    p = take(b->rows, p, h.n_rows * sizeof *b->rows);
    p = take(b->times, p, h.n_stages * sizeof *b->times);
    p = take(b->params, p, h.n_params * sizeof *b->params);
    p = take(b->tokens, p, h.n_tokens * sizeof *b->tokens);
    take(b->blocks, p, h.n_blocks * sizeof *b->blocks);
    return check_rows(b, lim, e) != 0 || check_params(b, e) != 0 || check_stamps(b, e) != 0 ? -1
                                                                                            : 0;
}
