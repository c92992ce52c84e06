/*
 * AMX_BF16 on top of AVX512_BF16; compiled with -mamx-tile -mamx-bf16 and entered only where CPU and
 * system have them. One instruction multiplies 16 rows of inputs by 16 rows of weights over 32
 * columns: the panels of bfloat16 weights are its operands as they lie. An output's sum runs over
 * pairs of columns from 0 upwards, whatever shares its tile.
 *
 * Eight tile registers: up to 32 rows x 2 panels or 16 rows x 4 panels of sums in tmm0 .. 3, two
 * times 16 rows of inputs in tmm4, 5, weights in tmm6, 7.
 */
#include "workers/cpu/kernels_512.h"

#include <string.h>

#define TILE_ROWS 16
#define TILE_K    32 // columns that one instruction sums over
#define TILE_LINE 64 // bytes of a tile's row

/* What ldtilecfg loads: the shapes of the eight registers. */
struct tile_config {
    uint8_t palette, start_row, reserved[14];
    uint16_t line_bytes[16];
    uint8_t rows[16];
};

static void configure(int m)
{
    const uint8_t upper = (uint8_t)(m < TILE_ROWS ? m : TILE_ROWS);
    const uint8_t lower = (uint8_t)(m > TILE_ROWS ? m - TILE_ROWS : upper);
    struct tile_config c = {
        .palette = 1,
        // Sums: the registers of upper and of lower rows; with few rows all are upper.
        .rows = {upper, upper, lower, lower, upper, lower, TILE_ROWS, TILE_ROWS},
    };
    for (int i = 0; i < 8; i++) {
        c.line_bytes[i] = TILE_LINE;
    }
    __asm__ volatile("ldtilecfg %0" ::"m"(c)); // the intrinsic names but a part of what it reads
}

/* Columns `k` on of a panel and of the inputs; the last ones padded with zeros in `pad`. */
struct operands {
    const char *w[4]; // of each panel
    const char *x;
    size_t x_stride;
};

struct pad {
    _Alignas(64) char w[4][TILE_ROWS * TILE_LINE];
    _Alignas(64) char x[2 * TILE_ROWS][TILE_LINE];
};

static void pad_tail(struct operands *o, struct pad *pad, const struct kernels_tile *t)
{
    const size_t left = (size_t)t->k % TILE_K;
    memset(pad, 0, sizeof *pad);
    for (size_t p = 0; p < (size_t)t->n_panels; p++) {
        memcpy(pad->w[p], o->w[p], (left + 1) / 2 * TILE_LINE);
        if (left % 2) { // the other half of the last pairs may hold anything
            uint16_t *pairs = (uint16_t *)(void *)(pad->w[p] + left / 2 * TILE_LINE);
            for (size_t r = 0; r < MATRIX_PANEL; r++) {
                pairs[2 * r + 1] = 0;
            }
        }
        o->w[p] = pad->w[p];
    }
    for (size_t i = 0; i < (size_t)t->m; i++) {
        memcpy(pad->x[i], o->x + i * o->x_stride, 2 * left);
    }
    o->x = pad->x[0];
    o->x_stride = TILE_LINE;
}

/* Lines first .. end - 1 of a tile of weights, for later; or all of one that is read soon. */
INLINE void fetch(const char *ahead, size_t first, size_t end)
{
    for (size_t line = first; line < end; line++) {
        _mm_prefetch(ahead + line * TILE_LINE, _MM_HINT_T1);
    }
}

INLINE void fetch_soon(const char *ahead)
{
    UNROLL
    for (size_t line = 0; line < TILE_ROWS; line++) {
        _mm_prefetch(ahead + line * TILE_LINE, _MM_HINT_T0);
    }
}

/* 32 columns: up to 16 rows and n panels, or up to 32 rows and n <= 2 panels. */
INLINE void add_low(const struct operands *o, const int n)
{
    _tile_loadd(4, o->x, o->x_stride);
    _tile_loadd(6, o->w[0], TILE_LINE);
    _tile_dpbf16ps(0, 4, 6);
    if (n > 1) {
        _tile_loadd(7, o->w[1], TILE_LINE);
        _tile_dpbf16ps(1, 4, 7);
    }
    if (n > 2) {
        _tile_loadd(6, o->w[2], TILE_LINE);
        _tile_dpbf16ps(2, 4, 6);
    }
    if (n > 3) {
        _tile_loadd(7, o->w[3], TILE_LINE);
        _tile_dpbf16ps(3, 4, 7);
    }
}

INLINE void add_high(const struct operands *o, const int n)
{
    _tile_loadd(4, o->x, o->x_stride);
    _tile_loadd(6, o->w[0], TILE_LINE);
    _tile_loadd(5, o->x + TILE_ROWS * o->x_stride, o->x_stride);
    _tile_dpbf16ps(0, 4, 6);
    _tile_dpbf16ps(2, 5, 6);
    if (n > 1) {
        _tile_loadd(7, o->w[1], TILE_LINE);
        _tile_dpbf16ps(1, 4, 7);
        _tile_dpbf16ps(3, 5, 7);
    }
}

INLINE void add_all(const struct kernels_tile *t, const int n, const bool high)
{
    struct operands o = {.x = t->x.data, .x_stride = t->x.stride};
    const char *ahead[4];
    UNROLL
    for (int p = 0; p < n; p++) {
        o.w[p] = t->panels[p];
        ahead[p] = t->ahead[p];
    }
    // A loaded tile brings no more than itself: here everything is fetched by hand.
    const size_t first = (size_t)(TILE_ROWS * t->turn / t->n_turns),
                 end = (size_t)(TILE_ROWS * (t->turn + 1) / t->n_turns);
    for (int k = 0; k + TILE_K <= t->k; k += TILE_K) {
        UNROLL
        for (int p = 0; p < n; p++) {
            if (t->soon) {
                fetch_soon(ahead[p]);
            } else {
                fetch(ahead[p], first, end);
            }
            ahead[p] += TILE_ROWS * TILE_LINE;
        }
        if (high) {
            add_high(&o, n);
        } else {
            add_low(&o, n);
        }
        UNROLL
        for (int p = 0; p < n; p++) {
            o.w[p] += TILE_ROWS * TILE_LINE;
        }
        o.x += TILE_LINE;
    }
    if (t->k % TILE_K) {
        struct pad pad;
        pad_tail(&o, &pad, t);
        if (high) {
            add_high(&o, n);
        } else {
            add_low(&o, n);
        }
    }
}

/* The sums' register of a row half and a panel: constants, which the instructions want. */
#define EACH_SUM(high, n, DO)                                                                      \
    DO(0, 0, 0)                                                                                    \
    if ((n) > 1) {                                                                                 \
        DO(1, 0, 1)                                                                                \
    }                                                                                              \
    if (high) {                                                                                    \
        DO(2, 1, 0)                                                                                \
        if ((n) > 1) {                                                                             \
            DO(3, 1, 1)                                                                            \
        }                                                                                          \
    } else {                                                                                       \
        if ((n) > 2) {                                                                             \
            DO(2, 0, 2)                                                                            \
        }                                                                                          \
        if ((n) > 3) {                                                                             \
            DO(3, 0, 3)                                                                            \
        }                                                                                          \
    }

INLINE float *sums_at(const struct kernels_tile *t, size_t half, size_t panel)
{
    return t->y + half * TILE_ROWS * t->ldy + panel * MATRIX_PANEL;
}

static void add_to(const struct kernels_tile *t, size_t half, size_t panel, const float *sums)
{
    float *y = sums_at(t, half, panel);
    const size_t left = (size_t)t->m - half * TILE_ROWS;
    for (size_t i = 0; i < (left < TILE_ROWS ? left : TILE_ROWS); i++, y += t->ldy) {
        _mm512_storeu_ps(
            y, _mm512_add_ps(_mm512_loadu_ps(y), _mm512_load_ps(sums + i * MATRIX_PANEL)));
    }
}

INLINE void tile_of(const struct kernels_tile *t, const int n, const bool high)
{
    _Alignas(64) float sums[TILE_ROWS * MATRIX_PANEL];
    const size_t stride = t->ldy * sizeof *t->y;
    configure(t->m);
#define ZERO(r, half, panel)  _tile_zero(r);
#define ONTO(r, half, panel)  _tile_loadd(r, sums_at(t, half, panel), stride);
#define STORE(r, half, panel) _tile_stored(r, sums_at(t, half, panel), stride);
#define ADD_TO(r, half, panel)                                                                     \
    _tile_stored(r, sums, MATRIX_PANEL * sizeof *sums);                                            \
    add_to(t, half, panel, sums);
    if (t->mode == KERNELS_ONTO) {
        EACH_SUM(high, n, ONTO)
    } else {
        EACH_SUM(high, n, ZERO)
    }
    add_all(t, n, high);
    if (t->mode == KERNELS_ADD) {
        EACH_SUM(high, n, ADD_TO)
    } else {
        EACH_SUM(high, n, STORE)
    }
    _tile_release();
}

/* --- one row ---------------------------------------------------------------------------------- */

/*
 * What tdpbf16ps computes, in vectors: of 32 columns the even and the odd ones each in a chain of fused
 * multiply-adds, their sum onto what came before; denormals are zeros throughout. A tile unit that
 * multiplies one row of 16 reads weights no faster than that and hides less of their way from memory.
 */
INLINE void row_add(const struct operands *o, const int n, const char *const *ahead, __m512 *sums)
{
    const __m512i high = _mm512_set1_epi32((int)0xffff0000);
    __m512 even[4], odd[4];
    UNROLL
    for (int p = 0; p < n; p++) {
        even[p] = odd[p] = _mm512_setzero_ps();
    }
    UNROLL
    for (size_t pair = 0; pair < TILE_ROWS; pair++) {
        int both;
        memcpy(&both, o->x + pair * sizeof both, sizeof both);
        const __m512i x = _mm512_set1_epi32(both);
        const __m512 x_even = _mm512_castsi512_ps(_mm512_slli_epi32(x, 16)),
                     x_odd = _mm512_castsi512_ps(_mm512_and_si512(x, high));
        UNROLL
        for (int p = 0; p < n; p++) {
            _mm_prefetch(ahead[p] + pair * TILE_LINE, _MM_HINT_T0);
            const __m512i w = _mm512_loadu_si512(o->w[p] + pair * TILE_LINE);
            const __m512 w_even = _mm512_castsi512_ps(_mm512_slli_epi32(w, 16)),
                         w_odd = _mm512_castsi512_ps(_mm512_and_si512(w, high));
            even[p] = _mm512_fmadd_ps(w_even, x_even, even[p]);
            odd[p] = _mm512_fmadd_ps(w_odd, x_odd, odd[p]);
        }
    }
    UNROLL
    for (int p = 0; p < n; p++) {
        sums[p] = _mm512_add_ps(sums[p], _mm512_add_ps(even[p], odd[p]));
    }
}

INLINE void row_sums(const struct kernels_tile *t, const int n, __m512 *sums)
{
    struct operands o = {.x = t->x.data, .x_stride = t->x.stride};
    const char *ahead[4];
    UNROLL
    for (int p = 0; p < n; p++) {
        o.w[p] = t->panels[p];
        ahead[p] = t->ahead[p];
    }
    for (int k = 0; k + TILE_K <= t->k; k += TILE_K, o.x += TILE_LINE) {
        row_add(&o, n, ahead, sums);
        UNROLL
        for (int p = 0; p < n; p++) {
            o.w[p] += TILE_ROWS * TILE_LINE;
            ahead[p] += TILE_ROWS * TILE_LINE;
        }
    }
    if (t->k % TILE_K) {
        struct pad pad;
        pad_tail(&o, &pad, t);
        row_add(&o, n, o.w, sums);
    }
}

/* The compiler knows nothing of how the control register changes arithmetic. */
INLINE void keep_order(__m512 *sums, const int n)
{
    UNROLL
    for (int p = 0; p < n; p++) {
        __asm__ volatile("" : "+v"(sums[p])::"memory");
    }
}

INLINE void row_of(const struct kernels_tile *t, const int n)
{
    __m512 sums[4];
    UNROLL
    for (int p = 0; p < n; p++) {
        sums[p] = t->mode == KERNELS_ONTO ? _mm512_loadu_ps(t->y + p * MATRIX_PANEL)
                                          : _mm512_setzero_ps();
    }
    const unsigned before = _mm_getcsr();
    _mm_setcsr(before | _MM_FLUSH_ZERO_ON | _MM_DENORMALS_ZERO_ON);
    keep_order(sums, n);
    row_sums(t, n, sums);
    keep_order(sums, n);
    _mm_setcsr(before);
    keep_order(sums, n);
    UNROLL
    for (int p = 0; p < n; p++) {
        float *y = t->y + p * MATRIX_PANEL;
        _mm512_storeu_ps(y, t->mode == KERNELS_ADD ? _mm512_add_ps(_mm512_loadu_ps(y), sums[p])
                                                   : sums[p]);
    }
}

static void row(const struct kernels_tile *t)
{
    switch (t->n_panels) {
    case 1:
        row_of(t, 1);
        break;
    case 2:
        row_of(t, 2);
        break;
    case 3:
        row_of(t, 3);
        break;
    default:
        row_of(t, 4);
    }
}

/* --- tiles ------------------------------------------------------------------------------------ */

static void pairs(const struct kernels_tile *t)
{
    switch (t->m > TILE_ROWS ? 4 + t->n_panels : t->n_panels) {
    case 1:
        tile_of(t, 1, false);
        break;
    case 2:
        tile_of(t, 2, false);
        break;
    case 3:
        tile_of(t, 3, false);
        break;
    case 4:
        tile_of(t, 4, false);
        break;
    case 5:
        tile_of(t, 1, true);
        break;
    default:
        tile_of(t, 2, true);
    }
}

static void tile(const struct kernels_tile *t)
{
    switch (t->x.form) {
    case KERNELS_INT8:
        kernels_avx512_bf16_int_tile(t);
        break;
    case KERNELS_BF16:
        (t->m == 1 ? row : pairs)(t);
        break;
    case KERNELS_F32:
        kernels_avx512_float_tile(t);
    }
}

const struct kernels kernels_amx = {
    .name = "amx",
    .bf16_form = KERNELS_BF16,
    .k_block = 1024,
    .shapes = {K512_FLOATS, {2 * TILE_ROWS, 4, 4 * TILE_ROWS, TILE_ROWS}, K512_INTS},
    K512_SHARED,
    .tile = tile,
    .narrow = kernels_avx512_bf16_narrow,
};
