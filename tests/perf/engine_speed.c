/*
 * Speed of the CPU engine on one model: tokens/s of decoding at several batch sizes and of prefill,
 * each as arithmetic rate and as a share of the multiply-add peak measured here in the same process.
 *
 *     engine_speed [MODEL [THREADS [KERNELS]]]      default preset:tiny 1 auto
 *
 * Inside the timing: backend_submit to backend_poll of every step (greedy ids included). Outside:
 * loading, building batches. Decode starts behind a prompt of 128 tokens and runs 64 steps; each step
 * counts with its best time of several repeats, so that other users of the machine do not count.
 * Arithmetic counts 2 per weight and 4 head_dim per query head and visible position.
 */
#include "tests/support/chain.h"

#include "core/clock.h"
#include "core/mem.h"
#include "model/sizes.h"
#include "workers/cpu/backend.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define REPEATS 15
#define PROMPT  128
#define STEPS   64

#if defined(__x86_64__)
/* Twelve chains of multiply-adds on registers alone: more than latency times width needs. */
#define FMA(v, i)           "vfmadd231ps %%" v "12, %%" v "12, %%" v #i "\n\t"
#define FOUR(v, a, b, c, d) FMA(v, a) FMA(v, b) FMA(v, c) FMA(v, d)
#define CHAINS(v)           FOUR(v, 0, 1, 2, 3) FOUR(v, 4, 5, 6, 7) FOUR(v, 8, 9, 10, 11)
#define CLOBBERED                                                                                  \
    "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10",       \
        "xmm11", "xmm12"

static double spin_256(int n)
{
    __asm__ volatile("vzeroall" ::: CLOBBERED);
    for (int k = 0; k < n; k++) {
        __asm__ volatile(CHAINS("ymm")::: CLOBBERED);
    }
    return 12.0 * 8 * 2 * n;
}

static double spin_512(int n)
{
    __asm__ volatile("vzeroall" ::: CLOBBERED);
    for (int k = 0; k < n; k++) {
        __asm__ volatile(CHAINS("zmm")::: CLOBBERED);
    }
    return 12.0 * 16 * 2 * n;
}

static double peak_gflops(double (*spin)(int))
{
    double best = 0;
    for (int i = 0; i < 5000; i++) {
        int64_t start_ns = clock_local_ns();
        double flops = spin(5000);
        double rate = flops / (double)(clock_local_ns() - start_ns);
        best = rate > best ? rate : best;
    }
    return best;
}

static double peak_of_vectors(void)
{
    if (__builtin_cpu_supports("avx512f")) {
        printf("peak 512-bit fma, 1 thread: %.1f GF/s (no kernel set uses it)\n",
               peak_gflops(spin_512));
    }
    return __builtin_cpu_supports("fma") ? peak_gflops(spin_256) : 0;
}
#else
static double peak_of_vectors(void)
{
    return 0;
}
#endif

/* Arithmetic of n tokens at positions pos, pos + 1, ...; `samples` of them need logits. */
static double flops_of(const struct arch *a, double pos, double n, double samples)
{
    double weights = (double)(a->n_layers * sizes_layer(a, 0).params);
    double seen = n * pos + n * (n + 1) / 2;
    return 2 * weights * n + 2 * (double)sizes_head_params(a) * samples +
           4.0 * a->n_layers * a->n_heads * a->head_dim * seen;
}

static void report(const char *what, double tokens, double flops, int64_t busy_ns, double peak,
                   int n_threads)
{
    double rate = flops / (double)busy_ns;
    printf("%-16s %10.0f tokens/s %8.2f us/token %7.1f GF/s", what, tokens * 1e9 / (double)busy_ns,
           (double)busy_ns / tokens / 1e3, rate);
    if (peak > 0) {
        printf(" %5.1f %% of fma peak", 100 * rate / (peak * n_threads));
    }
    printf("\n");
}

static void prefill(struct chain *c, const int32_t *tokens, uint32_t slot, uint32_t n)
{
    const struct chain_row row = {.slot = slot, .tokens = tokens, .n = n, .sample = true};
    chain_step(c, &row, 1);
}

static void measure_prefill(struct chain *c, const int32_t *tokens, uint32_t n, double peak)
{
    int64_t best_ns = INT64_MAX;
    for (int i = 0; i < REPEATS; i++) {
        prefill(c, tokens, 0, n);
        best_ns = c->busy_ns < best_ns ? c->busy_ns : best_ns;
    }
    char what[32];
    snprintf(what, sizeof what, "prefill %u", n);
    report(what, n, flops_of(&c->arch, 0, n, 1), best_ns, peak, c->cfg.n_threads);
}

static void measure_decode(struct chain *c, const int32_t *tokens, uint32_t n_rows, double peak)
{
    struct chain_row *rows = xcalloc(n_rows, sizeof *rows);
    int64_t best_ns[STEPS], sum_ns = 0;
    double flops = 0;
    for (uint32_t i = 0; i < n_rows; i++) {
        prefill(c, tokens + i, i, PROMPT);
    }
    for (int r = 0; r < REPEATS; r++) {
        for (uint32_t s = 0; s < STEPS; s++) {
            for (uint32_t i = 0; i < n_rows; i++) {
                rows[i] = (struct chain_row){
                    .slot = i, .pos = PROMPT + s, .tokens = tokens + s + i, .n = 1, .sample = true};
            }
            chain_step(c, rows, n_rows);
            best_ns[s] = r == 0 || c->busy_ns < best_ns[s] ? c->busy_ns : best_ns[s];
        }
    }
    for (uint32_t s = 0; s < STEPS; s++) {
        sum_ns += best_ns[s];
        flops += n_rows * flops_of(&c->arch, PROMPT + s, 1, 1);
    }
    char what[32];
    snprintf(what, sizeof what, "decode batch %u", n_rows);
    report(what, (double)n_rows * STEPS, flops, sum_ns, peak, c->cfg.n_threads);
    free(rows);
}

int main(int argc, char **argv)
{
    const struct chain_config cfg = {
        .model = argc > 1 ? argv[1] : "preset:tiny",
        .n_stages = 1,
        .n_threads = argc > 2 ? atoi(argv[2]) : 1,
        .kernels = argc > 3 ? argv[3] : "auto",
        .max_tokens = 512,
        .max_rows = 32,
        .n_slots = 32,
        .context = 512,
    };
    struct chain c;
    chain_open(&c, &cfg);
    backend_cpu_logits(c.stages[0].backend, NULL);
    double peak = peak_of_vectors();
    printf("%s, %lld parameters, %d thread(s), kernels %s\n", cfg.model,
           (long long)sizes_params(&c.arch), cfg.n_threads, backend_kernels(c.stages[0].backend));
    printf("peak 256-bit fma, 1 thread: %.1f GF/s\n", peak);
    int32_t tokens[512];
    for (int i = 0; i < 512; i++) {
        tokens[i] = (i * 37 + 11) % c.arch.vocab;
    }
    const uint32_t batches[] = {1, 2, 4, 8, 16, 32};
    for (size_t i = 0; i < sizeof batches / sizeof *batches; i++) {
        measure_decode(&c, tokens, batches[i], peak);
    }
    measure_prefill(&c, tokens, 128, peak);
    measure_prefill(&c, tokens, 512, peak);
    chain_close(&c);
    return 0;
}
