/*
 * Every family by several ranks of a stage on GPUs, against Hugging Face transformers: a process each, which put
 * partial sums together in each other's memory (workers/cuda/group.h). All processes run the same tests; what one
 * finds ends its own, and the others miss it then. The stand-in for CUDA, or a GPU that they share.
 *
 * float32: 1e-4 of the largest logit and the same ids; bfloat16 and 4 bits: as test_families.c. All ranks have the
 * same bits, and stages change none.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>

#include <cmocka.h>

#include "core/clock.h"
#include "core/mem.h"
#include "tests/support/oracle.h"
#include "workers/backend.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
    MOST = 4,
    WORDS = 1 << 16, // bytes that a rank may bring at once
    SOME_IDS = 6,
};

#define LONGEST_NS (120 * NS_PER_S)

/* --- what the processes see of each other ------------------------------------------------------------- */

struct page {
    atomic_int n_there, n_meetings;
    _Alignas(64) unsigned char brought[MOST][WORDS];
};

static struct page *page;
static int size, rank;

static void meet(void)
{
    const int meeting = atomic_load(&page->n_meetings);
    if (atomic_fetch_add(&page->n_there, 1) + 1 == size) {
        atomic_store(&page->n_there, 0);
        atomic_fetch_add(&page->n_meetings, 1);
        return;
    }
    const int64_t begin_ns = clock_local_ns();
    while (atomic_load(&page->n_meetings) == meeting) {
        if (clock_local_ns() - begin_ns > LONGEST_NS) {
            fprintf(stderr, "rank %d of %d waits for the others\n", rank, size);
            _exit(1);
        }
        usleep(100);
    }
}

static void gather(void *ctx, const void *mine, size_t n_bytes, void *all)
{
    (void)ctx;
    assert_true(n_bytes <= WORDS);
    memcpy(page->brought[rank], mine, n_bytes);
    meet();
    for (int r = 0; r < size; r++) {
        memcpy((char *)all + (size_t)r * n_bytes, page->brought[r], n_bytes);
    }
    meet();
}

/* All ranks have the same n_bytes. */
static void expect_same(const void *mine, size_t n_bytes)
{
    for (size_t at = 0, n; at < n_bytes; at += n) {
        n = n_bytes - at < WORDS ? n_bytes - at : WORDS;
        char *all = xcalloc((size_t)size, n);
        gather(NULL, (const char *)mine + at, n, all);
        for (int r = 0; r < size; r++) {
            assert_memory_equal(all + (size_t)r * n, (const char *)mine + at, n);
        }
        free(all);
    }
}

/* --- families --------------------------------------------------------------------------------------- */

/* The whole prompt by as many stages: out (n_logits). In pieces with other requests, too, and ids: `more` (n_logits). */
static void run_model(const struct oracle *o, int n_stages, enum arch_dtype kv_dtype, bool with_ids,
                      float *out, float *more)
{
    const struct shard_group group = {.rank = rank, .size = size, .gather = gather};
    struct chain c;
    struct oracle_way way = {.backend = "cuda",
                             .kv_dtype = kv_dtype,
                             .n_stages = n_stages,
                             .n_threads = 1,
                             .group = &group,
                             .chunk = 256};
    oracle_chain(&c, o, &way);
    oracle_compute(&c, o, &way, out);
    expect_same(out, o->n_logits * sizeof *out);
    if (more) {
        way.chunk = 64;
        way.strangers = way.again = true;
        oracle_compute(&c, o, &way, more);
        expect_same(more, o->n_logits * sizeof *more);
    }
    if (with_ids) {
        oracle_expect_ids(&c, o, ORACLE_MAX_IDS);
    }
    chain_close(&c);
}

/* By two stages; by one as well, in pieces and among strangers, the first model of each kind and, with TIDEMARK_FULL, all. */
static void check_model(const char *name, enum arch_dtype kv_dtype, double distance, bool is_first)
{
    const bool whole = is_first || getenv("TIDEMARK_FULL");
    struct oracle o;
    if (rank == 0) {
        print_message("%s, %d ranks\n", name, size);
    }
    oracle_open(&o, name);
    o.n_ids = SOME_IDS;
    float *one = xcalloc(o.n_logits, sizeof *one), *two = xcalloc(o.n_logits, sizeof *two);
    float *more = xcalloc(o.n_logits, sizeof *more);
    run_model(&o, 2, kv_dtype, distance == 0, two, NULL);
    oracle_expect_logits(&o, two, distance);
    if (whole) {
        run_model(&o, 1, kv_dtype, distance == 0, one, more);
        oracle_expect_logits(&o, more, distance);
        assert_memory_equal(one, two, o.n_logits * sizeof *one);
    }
    free(one);
    free(two);
    free(more);
    oracle_close(&o);
}

static const char *const families[] = {"gemma2", "deepseek_v3", "llama", "qwen2", "gpt_oss"};
enum {
    OF_FOUR = 2, // the first so many have heads for four ranks
};

static void float32_weights(void **state)
{
    (void)state;
    const size_t n = size > 2 ? OF_FOUR : sizeof families / sizeof *families;
    for (size_t i = 0; i < n; i++) {
        char name[64];
        snprintf(name, sizeof name, "%s_even_f32", families[i]);
        check_model(name, ARCH_F32, 0, i == 0);
    }
}

static void fewer_bits(void **state)
{
    (void)state;
    if (size > 2) { // than parts of such MLPs that kernels take
        return;
    }
    check_model("llama_even_bf16", ARCH_BF16, 2e-2, false);
    check_model("gpt_oss_even_mxfp4", ARCH_BF16, 2e-2, false);
    check_model("deepseek_v3_even_fp8", ARCH_F32, 2e-2, false);
}

/* --- the processes ------------------------------------------------------------------------------------- */

static int run_all(void)
{
    char why[128] = "";
    if (strcmp(backend_auto(why, sizeof why), "cuda") != 0) {
        printf("skipped: %s\n", why);
        return 77;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(float32_weights),
        cmocka_unit_test(fewer_bits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) ? 1 : 0;
}

/* CUDA does not survive a fork: this process never asks it anything. */
static int run_ranks(int n)
{
    int worst = 0;
    page = mmap(NULL, sizeof *page, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    size = n;
    fflush(NULL);
    for (rank = 0; rank < n; rank++) {
        if (fork() == 0) {
            const int code = run_all();
            fflush(NULL);
            _exit(code);
        }
    }
    for (int i = 0; i < n; i++) {
        int status = 0;
        wait(&status);
        const int code = WIFEXITED(status) ? WEXITSTATUS(status) : 1;
        worst = code > worst && worst != 1 ? code : worst;
    }
    munmap(page, sizeof *page);
    return worst;
}

int main(void)
{
    const int code = run_ranks(2);
    return code != 0 || !getenv("TIDEMARK_FULL") ? code : run_ranks(MOST);
}
