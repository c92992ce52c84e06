/*
 * What choosing a token costs, per row of logits: microseconds by vocabulary and parameters, the fastest of
 * ROUNDS, which other work on the machine disturbs least. Logits are like a model's: a normal distribution of standard deviation 2.5 with a few likely ids.
 *
 *   sampler_cost
 */
#include "core/clock.h"
#include "core/mem.h"
#include "core/rng.h"
#include "workers/sampler.h"

#include <stdio.h>
#include <stdlib.h>

enum {
    ROUNDS = 101,
};

static void fill(float *logits, int vocab)
{
    for (int i = 0; i < vocab; i++) {
        double sum = -6;
        for (uint64_t k = 0; k < 12; k++) {
            sum += rng_uniform(1, RNG_TOKENS, (uint64_t)i, k);
        }
        logits[i] = (float)(2.5 * sum);
    }
    for (int i = 0; i < 20; i++) {
        logits[(i * 7919 + 13) % vocab] += 12.0F - (float)i * 0.4F;
    }
}

static double measure(int vocab, const struct wire_sampling *how)
{
    struct err e;
    struct sampler *s;
    double least_us = 1e9;
    const size_t n_bytes = (size_t)vocab * sizeof(float);
    float *logits = xmalloc(n_bytes);
    CHECK(sampler_create(&s, vocab, &e) == 0);
    fill(logits, vocab);
    for (uint32_t k = 0; k < ROUNDS; k++) {
        struct sampler_job job = {.how = how, .index = k};
        int64_t t_ns = clock_local_ns();
        sampler_run(s, logits, &job);
        double us = (double)(clock_local_ns() - t_ns) / 1e3;
        least_us = us < least_us ? us : least_us;
    }
    sampler_destroy(s);
    free(logits);
    return least_us;
}

int main(void)
{
    static const struct {
        const char *name;
        struct wire_sampling how;
    } cases[] = {
        {"greedy", {.top_p = 1}},
        {"greedy, 20 logprobs", {.top_p = 1, .logprobs = 21}},
        {"temperature 1", {.temperature = 1, .top_p = 1}},
        {"top_k 50", {.temperature = 1, .top_p = 1, .top_k = 50}},
        {"top_k 50, top_p 0.9", {.temperature = 1, .top_p = 0.9F, .top_k = 50}},
        {"top_p 0.95", {.temperature = 1, .top_p = 0.95F}},
        {"top_p 0.95, temperature 100", {.temperature = 100, .top_p = 0.95F}},
        {"min_p 0.05", {.temperature = 1, .top_p = 1, .min_p = 0.05F}},
    };
    static const int vocabs[] = {32000, 128256, 262144};
    printf("%-30s", "us per row, vocabulary");
    for (size_t v = 0; v < sizeof vocabs / sizeof vocabs[0]; v++) {
        printf("%10d", vocabs[v]);
    }
    printf("\n");
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        printf("%-30s", cases[i].name);
        for (size_t v = 0; v < sizeof vocabs / sizeof vocabs[0]; v++) {
            printf("%10.1f", measure(vocabs[v], &cases[i].how));
        }
        printf("\n");
    }
    return 0;
}
