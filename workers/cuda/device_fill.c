#include "workers/cuda/device_fill.h"

#include <math.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "core/clock.h"
#include "core/mem.h"
#include "workers/cuda/device_encode.h"
#include "workers/cuda/preset.h"
#include "workers/layers.h"

#define HALF_BYTES  ((size_t)32 << 20)  // of the buffer
#define GRAB_BYTES  ((size_t)256 << 10) // of a matrix that a thread takes at a time
#define DEADLINE_NS (120 * NS_PER_S) // for a copy of half the buffer, and what is queued before it
#define POLL_NS     (20 * NS_PER_US)

struct device_fill {
    struct gpu *g;
    struct pool *pool;
    const char *model;
    const struct arch *arch;
    char *halves[2]; // (HALF_BYTES) each
    int half;        // the one to be filled next
    float **room;    // (members, n_room)
    size_t n_room;
    // the piece that the members make: n items from `first` on
    struct device_matrix m;
    struct device_fill_source s;
    bool as_stored;
    int first, n, grab; // items are rows of the matrix, or of KEYS_UP heads
    char *data, *factors;
    atomic_int next;
    atomic_int bad_row; // of the tensor, plus 1
};

/* --- opening ------------------------------------------------------------------------------------- */

int device_fill_open(struct device_fill **out, struct gpu *g, struct pool *pool, const char *model,
                     const struct arch *a, struct err *e)
{
    struct device_fill *f = xcalloc(1, sizeof *f);
    void *buffer;
    if (gpu_take_host(g, 2 * HALF_BYTES, "weights on their way", &buffer, e)) {
        free(f);
        return -1;
    }
    f->g = g;
    f->pool = pool;
    f->model = model;
    f->arch = a;
    f->halves[0] = buffer;
    f->halves[1] = f->halves[0] + HALF_BYTES;
    f->room = xcalloc((size_t)pool_size(pool), sizeof *f->room);
    *out = f;
    return 0;
}

void device_fill_close(struct device_fill *f)
{
    if (!f) {
        return;
    }
    for (int i = 0; i < pool_size(f->pool); i++) {
        free(f->room[i]);
    }
    free(f->room);
    struct err ignored = {0};
    if (device_fill_finish(f, &ignored) == 0) { // or a copy may yet use it, until gpu_close
        gpu_give_host(f->g, f->halves[0]);
    }
    free(f);
}

int device_fill_finish(struct device_fill *f, struct err *e)
{
    return gpu_wait(f->g, clock_local_ns() + DEADLINE_NS, e);
}

/* --- one piece: rows to a half of the buffer ------------------------------------------------------ */

static bool is_coded(enum arch_dtype dtype)
{
    return dtype == ARCH_FP8 || dtype == ARCH_MXFP4;
}

static int factor_rows(const struct device_matrix *m)
{
    return m->factor_rows > 0 ? m->factor_rows : 1;
}

/* The tensor's row that becomes this item of the source. */
static int tensor_row(const struct device_fill *f, int row)
{
    const struct device_fill_source *s = &f->s;
    const struct arch *a = f->arch;
    const int both = a->latent.nope_dim + a->v_dim;
    if (s->making == DEVICE_FILL_KEYS_UP) {
        return (s->first + row) * both; // the head's first
    }
    if (s->making == DEVICE_FILL_VALUES_UP) {
        return (s->first + row / a->v_dim) * both + a->latent.nope_dim + row % a->v_dim;
    }
    return s->first + (s->head > 0 ? layers_rotary_source(row, s->head, a->rope_dim) : row);
}

static bool are_numbers(const float *values, size_t n)
{
    bool all = true;
    for (size_t i = 0; i < n; i++) {
        all &= isfinite(values[i]) != 0;
    }
    return all;
}

/* Row `row` of the piece; false where a code is no number. */
static bool make_row(const struct device_fill *f, int row, float *room)
{
    const struct device_matrix *m = &f->m;
    const struct device_fill_source *s = &f->s;
    const int from = tensor_row(f, f->first + row), n_cols = m->n_cols;
    char *data = f->data + (size_t)row * device_matrix_row_bytes(m->dtype, n_cols);
    char *factors =
        f->factors + (size_t)(row / factor_rows(m)) * device_matrix_factor_bytes(m->dtype, n_cols);
    if (f->as_stored) {
        return device_encode_stored(&s->t, from, s->first_col, n_cols, data,
                                    row % factor_rows(m) == 0 ? factors : NULL);
    }
    const float *values = weights_rows(&s->t, from, 1, room);
    values += s->first_col;
    device_encode_row(m->dtype, values, n_cols, data, factors);
    return !is_coded(s->t.stored) || are_numbers(values, (size_t)n_cols);
}

/* W_UK of one head is (nope_dim, kv_rank); its columns become rows. */
static bool make_head(const struct device_fill *f, int head, float *room)
{
    const struct arch *a = f->arch;
    const size_t nope = (size_t)a->latent.nope_dim, rank = (size_t)a->latent.kv_rank;
    const size_t bytes = device_matrix_row_bytes(f->m.dtype, f->m.n_cols);
    const int from = tensor_row(f, f->first + head);
    float *column = room, *wide = room + nope;
    const float *rows = weights_rows(&f->s.t, from, a->latent.nope_dim, wide);
    for (size_t r = 0; r < rank; r++) {
        for (size_t k = 0; k < nope; k++) {
            column[k] = rows[k * rank + r];
        }
        device_encode_row(f->m.dtype, column, f->m.n_cols,
                          f->data + ((size_t)head * rank + r) * bytes, NULL);
    }
    return !is_coded(f->s.t.stored) || are_numbers(rows, nope * rank);
}

/* What each member does: as many items at a time as are worth it, until none is left. */
static void make_items(void *arg, int member, int n_members)
{
    struct device_fill *f = arg;
    const bool by_head = f->s.making == DEVICE_FILL_KEYS_UP;
    (void)n_members;
    for (int i; (i = atomic_fetch_add(&f->next, f->grab)) < f->n;) {
        const int end = f->n - i < f->grab ? f->n : i + f->grab;
        for (; i < end; i++) {
            if (!(by_head ? make_head : make_row)(f, i, f->room[member])) {
                atomic_store(&f->bad_row, tensor_row(f, f->first + i) + 1);
            }
        }
    }
}

/* Floats that one member needs: a row of the tensor, or W_UK of a head. */
static void make_room(struct device_fill *f)
{
    const size_t nope = (size_t)f->arch->latent.nope_dim, rank = (size_t)f->arch->latent.kv_rank;
    const size_t row = (size_t)f->s.t.n_cols, head = nope * (rank + 1);
    const size_t need = row > head ? row : head;
    for (int i = 0; need > f->n_room && i < pool_size(f->pool); i++) {
        f->room[i] = xrealloc(f->room[i], need * sizeof **f->room);
    }
    f->n_room = need > f->n_room ? need : f->n_room;
}

/* --- moving -------------------------------------------------------------------------------------- */

/* Wait for the copy of the half that was filled before: it is filled next, while this one is copied. */
static int turn_over(struct device_fill *f, struct err *e)
{
    f->half = 1 - f->half;
    return device_fill_finish(f, e);
}

static int copy_piece(struct device_fill *f, size_t at, size_t n, struct err *e)
{
    const size_t row_bytes = device_matrix_row_bytes(f->m.dtype, f->m.n_cols);
    const size_t factor_bytes = device_matrix_factor_bytes(f->m.dtype, f->m.n_cols);
    const size_t rows = (size_t)factor_rows(&f->m), lines = (n + rows - 1) / rows;
    // the matrix' memory is ours to fill
    char *data = (char *)(uintptr_t)f->m.data, *factors = (char *)(uintptr_t)f->m.factors;
    return turn_over(f, e) || gpu_copy_in(f->g, data + at * row_bytes, f->data, n * row_bytes, e) ||
                   (factors && gpu_copy_in(f->g, factors + at / rows * factor_bytes, f->factors,
                                           lines * factor_bytes, e))
               ? -1
               : 0;
}

/* Make items first .. first + n - 1, of `unit` rows each, and queue their copy. */
static int move_piece(struct device_fill *f, int first, int n, int unit, struct err *e)
{
    const size_t bytes = (size_t)unit * device_matrix_row_bytes(f->m.dtype, f->m.n_cols);
    f->data = f->halves[f->half];
    f->factors = f->data + (size_t)n * bytes;
    f->first = first;
    f->n = n;
    f->grab = (int)(GRAB_BYTES / bytes) + 1;
    atomic_store(&f->next, 0);
    atomic_store(&f->bad_row, 0);
    pool_submit(f->pool, make_items, f);
    while (!pool_poll(f->pool)) {
        clock_sleep_until_ns(clock_local_ns() + POLL_NS);
    }
    if (f->bad_row > 0) {
        return err_set(e, ERR_INPUT,
                       "%s: tensor %s: row %d has a weight that is no number; FP8 and MXFP4 "
                       "weights must be finite",
                       f->model, f->s.t.name, f->bad_row - 1);
    }
    return copy_piece(f, (size_t)f->s.at + (size_t)first * (size_t)unit, (size_t)n * (size_t)unit,
                      e);
}

static int move_rows(struct device_fill *f, struct err *e)
{
    const size_t bytes = device_matrix_row_bytes(f->m.dtype, f->m.n_cols) +
                         device_matrix_factor_bytes(f->m.dtype, f->m.n_cols);
    const bool by_head = f->s.making == DEVICE_FILL_KEYS_UP;
    const int unit = by_head ? f->arch->latent.kv_rank : 1, n = f->s.n / unit;
    const int step = factor_rows(&f->m);
    const size_t fit = HALF_BYTES / bytes / (size_t)unit / (size_t)step * (size_t)step;
    if (fit == 0) {
        return err_set(e, ERR_INPUT, "%s: tensor %s: rows of %zu bytes are too wide for the GPU",
                       f->model, f->s.t.name, bytes);
    }
    const int most = fit < (size_t)n ? (int)fit : n;
    for (int i = 0; i < n; i += most) {
        if (move_piece(f, i, n - i < most ? n - i : most, unit, e)) {
            return -1;
        }
    }
    return 0;
}

int device_fill_bytes(struct device_fill *f, void *device, const void *host, size_t n_bytes,
                      struct err *e)
{
    for (size_t at = 0, n; at < n_bytes; at += n) {
        n = n_bytes - at < HALF_BYTES ? n_bytes - at : HALF_BYTES;
        char *half = f->halves[f->half];
        memcpy(half, (const char *)host + at, n);
        if (turn_over(f, e) || gpu_copy_in(f->g, (char *)device + at, half, n, e)) {
            return -1;
        }
    }
    return 0;
}

/* --- generated values ---------------------------------------------------------------------------- */

/* n rows of the matrix from rows of the tensor, or from its columns below row `first`. */
static void queue_rows(const struct device_fill *f, int at, int n, int64_t first, bool transposed)
{
    const struct weights_tensor *t = &f->s.t;
    const struct device_matrix *m = &f->m;
    const size_t row_bytes = device_matrix_row_bytes(m->dtype, m->n_cols);
    const size_t factor_bytes = device_matrix_factor_bytes(m->dtype, m->n_cols);
    char *data = (char *)(uintptr_t)m->data, *factors = (char *)(uintptr_t)m->factors;
    const struct preset_rows p = {
        .stored = t->stored,
        .first = t->first + (transposed ? first * t->row_step : 0),
        .row_step = transposed ? t->col_step : t->row_step,
        .col_step = transposed ? t->row_step : t->col_step,
        .add = t->add,
        .is_norm = t->is_norm,
        .key = t->key,
        .n_rows = n,
        .n_cols = m->n_cols,
        .first_row = transposed ? 0 : first,
        .first_col = f->s.first_col,
        .head = f->s.head,
        .rope_dim = f->arch->rope_dim,
        .dtype = m->dtype,
        .out = data + (size_t)at * row_bytes,
        .factors = factors ? factors + (size_t)(at / factor_rows(m)) * factor_bytes : NULL,
        .factor_rows = factor_rows(m),
    };
    preset_queue(&p, gpu_stream(f->g));
}

static int generate(struct device_fill *f, struct err *e)
{
    const struct arch *a = f->arch;
    const struct device_fill_source *s = &f->s;
    const int both = a->latent.nope_dim + a->v_dim;
    const bool keys = s->making == DEVICE_FILL_KEYS_UP;
    if (gpu_use(f->g, e)) {
        return -1;
    }
    if (s->making == DEVICE_FILL_ROWS) {
        queue_rows(f, s->at, s->n, s->first, false);
        return gpu_launched(f->g, "weights made on the GPU", e);
    }
    const int each = keys ? a->latent.kv_rank : a->v_dim;
    for (int i = 0; i < s->n / each; i++) {
        const int64_t head = (int64_t)(s->first + i) * both;
        queue_rows(f, s->at + i * each, each, keys ? head : head + a->latent.nope_dim, keys);
    }
    return gpu_launched(f->g, "weights made on the GPU", e);
}

int device_fill_rows(struct device_fill *f, const struct device_matrix *m,
                     const struct device_fill_source *s, struct err *e)
{
    const bool is_integers = m->dtype == ARCH_INT8 || m->dtype == ARCH_INT4;
    CHECK(s->at % factor_rows(m) == 0 && s->first % factor_rows(m) == 0);
    CHECK(factor_rows(m) == 1 || s->head == 0);
    f->m = *m;
    f->s = *s;
    if (!s->t.data && !is_integers) {
        return generate(f, e);
    }
    f->as_stored = s->making == DEVICE_FILL_ROWS && s->t.stored == m->dtype &&
                   device_encode_can_take(&s->t, s->first_col, m->n_cols);
    if (!f->as_stored && is_coded(m->dtype)) {
        return err_set(e, ERR_INPUT,
                       "%s: tensor %s is stored as %s, others of its kind as %s; the GPU backend "
                       "wants one format",
                       f->model, s->t.name, arch_dtype_name(s->t.stored),
                       arch_dtype_name(m->dtype));
    }
    f->s.t.dtype = ARCH_F32;
    make_room(f);
    return move_rows(f, e);
}
