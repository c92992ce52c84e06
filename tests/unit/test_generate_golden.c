/*
 * Greedy ids of a trained model against an independent implementation's, for every split into
 * stages, every way of cutting the prompt, alone and in company; and hidden states bit by bit.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>

#include <cmocka.h>

#include "core/mem.h"
#include "tests/support/chain.h"

#include <jansson.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_IDS 512

struct golden {
    uint32_t n_prompt, n_ids;
    int32_t prompt[MAX_IDS], ids[MAX_IDS];
};

static char *folder;
static struct golden *cases; // (n_cases)
static uint32_t n_cases;

static uint32_t read_ids(const json_t *list, int32_t *out)
{
    uint32_t n = (uint32_t)json_array_size(list);
    assert_true(n > 0 && n <= MAX_IDS);
    for (uint32_t i = 0; i < n; i++) {
        out[i] = (int32_t)json_integer_value(json_array_get(list, i));
    }
    return n;
}

static int find_model(void **state)
{
    (void)state;
    const char *shared = getenv("TIDEMARK_SHARED"), *source = getenv("TIDEMARK_SOURCE");
    folder = shared ? xasprintf("%s/models/stories260K", shared)
                    : xasprintf("%s/../shared/models/stories260K", source ? source : ".");
    char *path = xasprintf("%s/golden.json", folder);
    json_t *root = json_load_file(path, 0, NULL);
    free(path);
    if (!root) {
        printf("skipped: no golden.json in %s\n", folder);
        exit(77);
    }
    const json_t *list = json_object_get(root, "cases");
    n_cases = (uint32_t)json_array_size(list);
    assert_true(n_cases > 0);
    cases = xcalloc(n_cases, sizeof *cases);
    for (uint32_t i = 0; i < n_cases; i++) {
        const json_t *one = json_array_get(list, i);
        cases[i].n_prompt = read_ids(json_object_get(one, "prompt_ids"), cases[i].prompt);
        cases[i].n_ids = read_ids(json_object_get(one, "ids"), cases[i].ids);
    }
    json_decref(root);
    return 0;
}

static int drop_model(void **state)
{
    (void)state;
    free(cases);
    free(folder);
    return 0;
}

static struct chain_config config(int n_stages, int n_threads, const char *kernels)
{
    return (struct chain_config){
        .model = folder,
        .n_stages = n_stages,
        .n_threads = n_threads,
        .kernels = kernels,
        .max_tokens = 512,
        .max_rows = 64,
        .n_slots = 32,
        .context = 512,
    };
}

static void expect_golden(const struct chain_config *cfg, uint32_t chunk)
{
    struct chain c;
    chain_open(&c, cfg);
    int32_t out[MAX_IDS];
    for (uint32_t i = 0; i < n_cases; i++) {
        chain_generate(&c, cases[i].prompt, cases[i].n_prompt, chunk, out, cases[i].n_ids);
        assert_memory_equal(out, cases[i].ids, cases[i].n_ids * sizeof *out);
    }
    chain_close(&c);
}

static void every_split_gives_the_ids(void **state)
{
    (void)state;
    const int splits[] = {1, 2, 3, 5};
    for (size_t i = 0; i < sizeof splits / sizeof *splits; i++) {
        struct chain_config cfg = config(splits[i], 1, "auto");
        expect_golden(&cfg, MAX_IDS);
    }
}

static void every_chunk_size_gives_the_ids(void **state)
{
    (void)state;
    const uint32_t chunks[] = {1, 3, 16};
    for (size_t i = 0; i < sizeof chunks / sizeof *chunks; i++) {
        struct chain_config cfg = config(2, 1, "auto");
        expect_golden(&cfg, chunks[i]);
    }
}

static void every_kernel_set_and_team_gives_the_ids(void **state)
{
    (void)state;
    struct chain_config portable = config(1, 1, "portable");
    expect_golden(&portable, MAX_IDS);
    struct chain_config team = config(2, 3, "auto");
    expect_golden(&team, 5);
}

/* All cases at once, prompts admitted one after the other in chunks of 3 beside running requests. */
static void company_does_not_change_the_ids(void **state)
{
    (void)state;
    struct chain c;
    struct chain_config cfg = config(3, 2, "auto");
    chain_open(&c, &cfg);
    assert_true(n_cases <= cfg.n_slots);
    uint32_t *done = xcalloc(n_cases, sizeof *done); // tokens of prompt and output in the cache
    int32_t(*out)[MAX_IDS] = xcalloc(n_cases, sizeof *out);
    for (uint32_t turn = 0, busy = 1; busy > 0; turn++) {
        struct chain_row rows[32];
        uint32_t who[32];
        busy = 0;
        for (uint32_t i = 0; i < n_cases && i <= turn / 2; i++) {
            const struct golden *g = &cases[i];
            uint32_t at = done[i], left = at < g->n_prompt ? g->n_prompt - at : 1;
            if (at + 1 >= g->n_prompt + g->n_ids) {
                continue;
            }
            bool prompt = at < g->n_prompt;
            who[busy] = i;
            rows[busy++] = (struct chain_row){
                .slot = i,
                .pos = at,
                .tokens = prompt ? g->prompt + at : &out[i][at - g->n_prompt],
                .n = left < 3 ? left : 3,
                .sample = at + (left < 3 ? left : 3) >= g->n_prompt,
            };
        }
        if (busy == 0) {
            busy = turn / 2 < n_cases; // later ones have yet to come
            continue;
        }
        chain_step(&c, rows, busy);
        for (uint32_t r = 0; r < busy; r++) {
            done[who[r]] += rows[r].n;
            if (rows[r].sample) {
                out[who[r]][done[who[r]] - cases[who[r]].n_prompt] = c.ids[r];
            }
        }
    }
    for (uint32_t i = 0; i < n_cases; i++) {
        assert_memory_equal(out[i], cases[i].ids, cases[i].n_ids * sizeof **out);
    }
    free(done);
    free(out);
    chain_close(&c);
}

/* Logits after each of the case's tokens, computed in one way of cutting. */
static float *logits_of(const struct golden *g, const struct chain_config *cfg, uint32_t chunk)
{
    struct chain c;
    chain_open(&c, cfg);
    const size_t vocab = (size_t)c.arch.vocab;
    float *all = xcalloc(g->n_prompt * vocab, sizeof *all);
    // Every chunk ends in a row that samples: its logits stand for its last token.
    for (uint32_t at = 0; at < g->n_prompt; at += chunk) {
        uint32_t n = g->n_prompt - at < chunk ? g->n_prompt - at : chunk;
        const struct chain_row row = {.pos = at, .tokens = g->prompt + at, .n = n, .sample = true};
        chain_step(&c, &row, 1);
        memcpy(all + (at + n - 1) * vocab, c.logits, vocab * sizeof *all);
    }
    chain_close(&c);
    return all;
}

static void splits_and_chunks_keep_every_bit(void **state)
{
    (void)state;
    const struct golden *g = &cases[0];
    const struct chain_config base = config(1, 1, "auto");
    float *want = logits_of(g, &base, 1);
    const struct {
        int stages, threads;
        uint32_t chunk;
    } ways[] = {{2, 1, 1}, {3, 2, 1}, {5, 1, 1}, {5, 3, 3}, {1, 1, 16}, {2, 2, 4}};
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
        const struct chain_config cfg = config(ways[i].stages, ways[i].threads, "auto");
        float *got = logits_of(g, &cfg, ways[i].chunk);
        for (uint32_t t = 0; t < g->n_prompt; t++) {
            if ((t + 1) % ways[i].chunk == 0 || t + 1 == g->n_prompt) {
                assert_memory_equal(got + t * 512, want + t * 512, 512 * sizeof *got);
            }
        }
        free(got);
    }
    free(want);
}

/* What the stage that ends in layer 2 of 5 hands on, from one stage of three layers and from three. */
static void hidden_states_do_not_know_the_split(void **state)
{
    (void)state;
    struct chain five, two;
    struct chain_config a = config(5, 1, "auto"), b = config(2, 2, "auto");
    chain_open(&five, &a);
    chain_open(&two, &b);
    const struct golden *g = &cases[0];
    const struct chain_row row = {.tokens = g->prompt, .n = g->n_prompt, .sample = true};
    chain_step(&five, &row, 1);
    chain_step(&two, &row, 1);
    int same = two.first[1]; // layers done before the cut
    assert_in_range(same, 1, 4);
    assert_memory_equal(two.stages[0].out, five.stages[same - 1].out,
                        g->n_prompt * (size_t)two.arch.hidden * sizeof(float));
    chain_close(&five);
    chain_close(&two);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_split_gives_the_ids),
        cmocka_unit_test(every_chunk_size_gives_the_ids),
        cmocka_unit_test(every_kernel_set_and_team_gives_the_ids),
        cmocka_unit_test(company_does_not_change_the_ids),
        cmocka_unit_test(splits_and_chunks_keep_every_bit),
        cmocka_unit_test(hidden_states_do_not_know_the_split),
    };
    return cmocka_run_group_tests(tests, find_model, drop_model);
}
