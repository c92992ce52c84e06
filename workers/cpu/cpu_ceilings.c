#include "workers/cpu/cpu_ceilings.h"

#include "core/clock.h"
#include "core/mem.h"
#include "workers/cpu/kernels.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LOOKS      16
#define SPINS      20000              // turns of the chains of multiply-adds in a look
#define READ_BYTES ((size_t)48 << 20) // of a member in a look

/* One member's work; returns what it did: operations or bytes. */
typedef double (*look_fn)(const char *from, size_t n_bytes);

struct cpu_ceilings {
    struct pool *pool;
    int n_members;
    char *buffer; // (n_bytes), of each member a part
    size_t n_bytes;
    size_t read_at; // of every member's part
    struct ceilings best;

    // of the look at hand
    look_fn fn;
    double *done; // (n_members)
    int64_t begin_ns, end_ns;
};

/* --- what is done ----------------------------------------------------------------------------- */

#if defined(__x86_64__)

/* Twelve chains on registers alone: more than latency times width needs. */
#define ONE(op, v, i)           op " %%" v "12, %%" v "12, %%" v #i "\n\t"
#define FOUR(op, v, a, b, c, d) ONE(op, v, a) ONE(op, v, b) ONE(op, v, c) ONE(op, v, d)
#define CHAINS(op, v)           FOUR(op, v, 0, 1, 2, 3) FOUR(op, v, 4, 5, 6, 7) FOUR(op, v, 8, 9, 10, 11)
#define CLOBBERED                                                                                  \
    "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10",       \
        "xmm11", "xmm12"

/* `each` operations of an instruction. */
#define SPIN(name, op, v, each)                                                                    \
    static double name(const char *from, size_t n_bytes)                                           \
    {                                                                                              \
        (void)from;                                                                                \
        (void)n_bytes;                                                                             \
        __asm__ volatile("vzeroall" ::: CLOBBERED);                                                \
        for (int i = 0; i < SPINS; i++) {                                                          \
            __asm__ volatile(CHAINS(op, v)::: CLOBBERED);                                          \
        }                                                                                          \
        __asm__ volatile("vzeroupper" :::);                                                        \
        return 12.0 * (each)*SPINS;                                                                \
    }
SPIN(fma_256, "vfmadd231ps", "ymm", 16)
SPIN(fma_512, "vfmadd231ps", "zmm", 32)
SPIN(bf16_512, "vdpbf16ps", "zmm", 64)
SPIN(int8_512, "vpdpbusd", "zmm", 128)

/* Four chains of tiles: sums in tmm0 .. 3, of what is in tmm4 .. 7. */
static double tiles(const char *from, size_t n_bytes)
{
    (void)from;
    (void)n_bytes;
    // Palette 1, eight tiles of 16 rows of 64 bytes.
    struct {
        uint8_t palette, start_row, reserved[14];
        uint16_t line_bytes[16];
        uint8_t rows[16];
    } config = {.palette = 1};
    for (int i = 0; i < 8; i++) {
        config.line_bytes[i] = 64;
        config.rows[i] = 16;
    }
    __asm__ volatile("ldtilecfg %0" ::"m"(config)); // and zeros in all tiles
    for (int i = 0; i < SPINS / 8; i++) {
        __asm__ volatile("tdpbf16ps %tmm6, %tmm4, %tmm0\n\ttdpbf16ps %tmm7, %tmm4, %tmm1\n\t"
                         "tdpbf16ps %tmm6, %tmm5, %tmm2\n\ttdpbf16ps %tmm7, %tmm5, %tmm3");
    }
    __asm__ volatile("tilerelease");
    return 4.0 * 16 * 16 * 32 * 2 * (SPINS / 8);
}

static bool has_tiles(void)
{
    const struct kernels *k;
    struct err e = {0};
    return kernels_select(&k, "amx", &e) == 0;
}

/* Reads as kernels do: whole lines, fetched ahead or not. */
#define READ(name, load, clobbered)                                                                \
    static double name(const char *from, size_t n_bytes)                                           \
    {                                                                                              \
        for (const char *p = from; p < from + n_bytes; p += 256) {                                 \
            __asm__ volatile(load ::"r"(p) : clobbered, "memory");                                 \
        }                                                                                          \
        __asm__ volatile("vzeroupper" :::);                                                        \
        return (double)n_bytes;                                                                    \
    }
#define LINES_512                                                                                  \
    "vmovups (%0), %%zmm0\n\tvmovups 64(%0), %%zmm1\n\t"                                           \
    "vmovups 128(%0), %%zmm2\n\tvmovups 192(%0), %%zmm3\n\t"
#define LINE_256(at) "vmovups " at "(%0), %%ymm0\n\t"
#define LINES_256                                                                                  \
    LINE_256("0")                                                                                  \
    LINE_256("32")                                                                                 \
    LINE_256("64") LINE_256("96") LINE_256("128") LINE_256("160") LINE_256("192") LINE_256("224")
#define FETCH(hint, ahead)                                                                         \
    "prefetch" hint " " ahead "(%0)\n\tprefetch" hint " 64+" ahead "(%0)\n\tprefetch" hint         \
    " 128+" ahead "(%0)\n\tprefetch" hint " 192+" ahead "(%0)\n\t"
READ(read_512, LINES_512, "xmm0")
READ(read_512_near, FETCH("t0", "2048") LINES_512, "xmm0")
READ(read_512_far, FETCH("t1", "16384") LINES_512, "xmm0")
READ(read_256, LINES_256, "xmm0")
READ(read_256_near, FETCH("t0", "2048") LINES_256, "xmm0")

static bool has_avx2(void)
{
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}

static bool has_avx512(void)
{
    return __builtin_cpu_supports("avx512f");
}

static bool has_bf16(void)
{
    return has_avx512() && __builtin_cpu_supports("avx512bf16");
}

static bool has_vnni(void)
{
    return has_avx512() && __builtin_cpu_supports("avx512vnni");
}
#endif

/* --- on any machine --------------------------------------------------------------------------- */

typedef float quad __attribute__((vector_size(16)));

static double read_words(const char *from, size_t n_bytes)
{
    const uint64_t *words = (const void *)from;
    uint64_t any[4] = {0};
    for (size_t i = 0; i < n_bytes / sizeof *words; i += 4) {
        any[0] |= words[i];
        any[1] |= words[i + 1];
        any[2] |= words[i + 2];
        any[3] |= words[i + 3];
    }
    __asm__ volatile("" ::"r"(any[0] | any[1] | any[2] | any[3]));
    return (double)n_bytes;
}

static double add_products(const char *from, size_t n_bytes)
{
    (void)from;
    (void)n_bytes;
    quad sum[8] = {0};
    const quad factor = {0.5f, 0.5f, 0.5f, 0.5f};
    for (int i = 0; i < SPINS; i++) {
        for (int c = 0; c < 8; c++) {
            sum[c] = sum[c] * factor + factor;
        }
        __asm__ volatile("" ::: "memory");
    }
    quad all = sum[0] + sum[1] + sum[2] + sum[3] + sum[4] + sum[5] + sum[6] + sum[7];
    __asm__ volatile("" ::"m"(all));
    return 8.0 * 8 * SPINS;
}

static bool always(void)
{
    return true;
}

/* --- looking ---------------------------------------------------------------------------------- */

static const struct look {
    const char *kind;
    look_fn fn;
    bool (*runs)(void);
    const char *name;
} looks[] = {
#if defined(__x86_64__)
    {"read", read_512, has_avx512, ""},
    {"read", read_512_near, has_avx512, ""},
    {"read", read_512_far, has_avx512, ""},
    {"read", read_256, has_avx2, ""},
    {"read", read_256_near, has_avx2, ""},
    {"float32", fma_256, has_avx2, "vfmadd231ps ymm"},
    {"float32", fma_512, has_avx512, "vfmadd231ps zmm"},
    {"bfloat16", bf16_512, has_bf16, "vdpbf16ps zmm"},
    {"bfloat16_tiles", tiles, has_tiles, "tdpbf16ps"},
    {"int8", int8_512, has_vnni, "vpdpbusd zmm"},
#endif
    {"read", read_words, always, ""},
    {"float32", add_products, always, "multiply and add, 128 bits"},
};

static bool reads(const struct look *l)
{
    return strcmp(l->kind, "read") == 0;
}

static size_t part_bytes(const struct cpu_ceilings *m)
{
    return m->n_bytes / (size_t)m->n_members / READ_BYTES * READ_BYTES;
}

static char *part(const struct cpu_ceilings *m, int member)
{
    return m->buffer + (size_t)member * part_bytes(m);
}

static void touch(void *arg, int member, int n_members)
{
    (void)n_members;
    const struct cpu_ceilings *m = arg;
    memset(part(m, member), 1, part_bytes(m));
}

static void look_member(void *arg, int member, int n_members)
{
    struct cpu_ceilings *m = arg;
    if (n_members > 1) {
        pool_barrier(m->pool);
    }
    if (member == 0) {
        m->begin_ns = clock_local_ns();
    }
    m->done[member] = m->fn(part(m, member) + m->read_at, READ_BYTES);
    if (n_members > 1) {
        pool_barrier(m->pool);
    }
    if (member == 0) {
        m->end_ns = clock_local_ns();
    }
}

static void wait_for(struct pool *p)
{
    while (!pool_poll(p)) {
        clock_sleep_until_ns(clock_local_ns() + 100 * NS_PER_US);
    }
}

static void look_once(struct cpu_ceilings *m, const struct look *l)
{
    const enum ceilings_unit unit = reads(l) ? CEILINGS_BYTES : CEILINGS_OPERATIONS;
    if (!l->runs()) {
        ceilings_keep(&m->best, l->kind, unit, "", 0);
        return;
    }
    m->fn = l->fn;
    pool_submit(m->pool, look_member, m);
    wait_for(m->pool);
    double done = 0;
    for (int i = 0; i < m->n_members; i++) {
        done += m->done[i];
    }
    ceilings_keep(&m->best, l->kind, unit, l->name, done * 1e9 / (double)(m->end_ns - m->begin_ns));
    if (reads(l)) { // never twice what a large cache may still hold
        m->read_at = (m->read_at + READ_BYTES) % part_bytes(m);
    }
}

void cpu_ceilings_look(struct cpu_ceilings *m)
{
    for (int i = 0; i < LOOKS; i++) {
        for (size_t l = 0; l < sizeof looks / sizeof *looks; l++) {
            look_once(m, &looks[l]);
        }
    }
}

const struct ceilings *cpu_ceilings_best(const struct cpu_ceilings *m)
{
    return &m->best;
}

/* No part is read over twice in a row, which a cache might have. */
static size_t buffer_bytes(int n_members)
{
    const size_t least = 2 * (size_t)n_members * READ_BYTES;
    return least > CPU_CEILINGS_BYTES ? least : CPU_CEILINGS_BYTES;
}

int cpu_ceilings_open(struct cpu_ceilings **out, struct pool *pool, struct err *e)
{
    struct cpu_ceilings *m = xcalloc(1, sizeof *m);
    const size_t n_bytes = buffer_bytes(pool_size(pool));
    *m = (struct cpu_ceilings){
        .pool = pool,
        .n_members = pool_size(pool),
        .done = xcalloc((size_t)pool_size(pool), sizeof *m->done),
        .n_bytes = n_bytes,
        .buffer = mem_pages(n_bytes),
    };
    snprintf(m->best.of, sizeof m->best.of, "%d thread%s", m->n_members,
             m->n_members > 1 ? "s" : "");
    if (!m->buffer) {
        cpu_ceilings_close(m);
        return err_set(e, ERR_ENV, "no memory for the %zu MiB that read bandwidth is measured on",
                       n_bytes >> 20);
    }
    pool_submit(pool, touch, m);
    wait_for(pool);
    *out = m;
    return 0;
}

void cpu_ceilings_close(struct cpu_ceilings *m)
{
    if (m) {
        mem_pages_free(m->buffer, m->n_bytes);
        free(m->done);
        free(m);
    }
}
