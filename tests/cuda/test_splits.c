/*
 * Every split of a model over P stages x T ranks of each, P and T 1 or 2, on GPUs, and over every kind of hop: equal
 * batches have the same bits however many stages there are and whatever carries hidden states, and on all ranks of a
 * stage; another T is as near as test_tensor.c has it. Sums are by shared memory, and once over NCCL, whose stand-in
 * adds up in the order of the ranks, too. The stand-in for CUDA, or GPUs, or one that four processes share, without NCCL.
 * TIDEMARK_FULL=1 tries all families and longer prompts, otherwise one of each kind of hidden states.
 *
 *     mpirun -np 4 test_cuda_splits [MODEL]
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>

#include <cmocka.h>

#include "core/clock.h"
#include "core/comm.h"
#include "core/mem.h"
#include "tests/support/oracle.h"
#include "workers/backend.h"
#include "workers/hop_mpi.h"
#include "workers/tp_group.h"
#include "workers/transport.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LONGEST_NS (600 * NS_PER_S)
#define LATE_NS    (300 * NS_PER_MS)

enum {
    RANKS = 4,
    FEW = 12,        // positions: 23 tokens
    TAG_LOGITS = 90, // of the bulk plane
};

static struct comm *comm;
static int rank;
static const char *only; // this model; NULL: all

static void must(int rc, const struct err *e)
{
    if (rc < 0) {
        comm_abort(comm, 1, "%s", e->msg);
    }
}

/* --- one rank of a split -------------------------------------------------------------------------------- */

struct split {
    int pipeline, tensor;
    const char *hops; // NULL: there is one stage
    const char *sums; // NULL: in shared memory
};

static const struct split splits[] = {
    {1, 1, NULL, NULL},  {2, 1, "mpi", NULL}, {2, 1, "ipc", NULL},    {1, 2, NULL, NULL},
    {2, 2, "mpi", NULL}, {2, 2, "ipc", NULL}, {2, 2, "nccl", "nccl"},
};

struct place {
    const struct split *split;
    int stage, tensor;
    struct tp_group *group;
    struct transport *transport;
    const struct arch *arch;
    bool has_next, has_begun;
    int idle;         // turns since something came
    int64_t begin_ns; // since then it waits
};

static struct shard_slice slice_of(const struct place *p, uint32_t n_tokens)
{
    return shard_hidden(p->arch, n_tokens, p->tensor, p->split->tensor);
}

/* Something has come, or begins: what is next is waited for from now on. */
static void wait_anew(struct place *p)
{
    p->idle = 0;
    p->begin_ns = clock_local_ns();
}

static void pause_for(struct place *p)
{
    struct err e = {0};
    if (clock_local_ns() - p->begin_ns > LONGEST_NS) {
        comm_abort(comm, 1, "rank %d, stage %d tensor %d: nothing comes", rank, p->stage,
                   p->tensor);
    }
    must(comm_pause(comm, p->idle++, &e), &e);
}

static const void *take(void *ctx, uint32_t n_tokens)
{
    struct place *p = ctx;
    struct err e = {0};
    void *in = NULL;
    if (!p->has_begun) { // late, so that the sender gets as far as it may
        clock_sleep_until_ns(clock_local_ns() + LATE_NS);
        p->has_begun = true;
    }
    for (int rc = 0; rc != 1;) {
        rc = transport_recv(p->transport, slice_of(p, n_tokens).n_bytes, &in, &e);
        must(rc, &e);
        pause_for(p);
    }
    wait_anew(p);
    return in;
}

static void see_off(struct place *p)
{
    struct err e = {0};
    if (p->has_next) {
        must(transport_sent(p->transport, &e), &e);
    }
}

static void *room(void *ctx)
{
    struct place *p = ctx;
    void *to;
    while ((to = transport_send_buffer(p->transport)) == NULL) {
        see_off(p);
        pause_for(p);
    }
    wait_anew(p);
    return to;
}

static void turn(void *ctx)
{
    struct place *p = ctx;
    struct err e = {0};
    if (p->group) {
        must(tp_group_turn(p->group, &e), &e);
    }
    see_off(p);
    pause_for(p);
}

static void give(void *ctx, uint32_t n_tokens)
{
    struct place *p = ctx;
    struct err e = {0};
    if (p->stage > 0) {
        must(transport_release(p->transport, &e), &e);
    }
    if (p->has_next) {
        must(transport_send(p->transport, slice_of(p, n_tokens).n_bytes, &e), &e);
    }
    wait_anew(p);
}

static struct hop *open_hop(const struct place *p, struct chain *c, int away)
{
    struct err e = {0};
    struct hop *hop = NULL;
    const int stage = p->stage + away;
    if (stage < 0 || stage >= p->split->pipeline) {
        return NULL;
    }
    const struct hop_config cfg = {
        .sends = away > 0,
        .rank = rank,
        .peer = stage * p->split->tensor + p->tensor,
        .max_bytes = slice_of(p, c->cfg.max_tokens).each_bytes,
    };
    must(strcmp(p->split->hops, "mpi") == 0
             ? hop_mpi_create(&hop, &cfg, &e)
             : backend_hop(c->stages[p->stage].ranks[0], p->split->hops, &cfg, &hop, &e),
         &e);
    return hop;
}

static void open_group(struct place *p)
{
    struct err e = {0};
    int ranks[RANKS];
    for (int t = 0; t < p->split->tensor; t++) {
        ranks[t] = p->stage * p->split->tensor + t;
    }
    const struct tp_group_config cfg = {
        .ranks = ranks, .size = p->split->tensor, .index = p->tensor, .max_n_values = 1};
    must(tp_group_create(&p->group, &cfg, &e), &e);
    must(tp_group_start(p->group, comm, &e), &e);
}

/* The prompt by this rank: out (n_logits) is filled in by ranks of the last stage. */
static void compute(struct place *p, const struct oracle *o, struct oracle_way way, float *out)
{
    struct err e = {0};
    struct chain c;
    const struct chain_ends ends = {p->stage, p, take, room, turn, give};
    open_group(p);
    const struct shard_group group = tp_group_shard(p->group);
    way.n_stages = p->split->pipeline;
    way.ends = &ends;
    way.group = &group;
    way.sums = p->split->sums;
    way.index = rank;
    way.n_neighbours = RANKS;
    oracle_chain(&c, o, &way);
    p->arch = &c.arch;
    p->transport = transport_create(open_hop(p, &c, -1), open_hop(p, &c, 1));
    must(transport_start(p->transport, comm, &e), &e);
    wait_anew(p);
    oracle_compute(&c, o, &way, out);
    wait_anew(p);
    while (!transport_is_quiet(p->transport)) {
        see_off(p);
        pause_for(p);
    }
    must(comm_barrier(comm, LONGEST_NS, &e), &e);
    transport_stop(p->transport);
    transport_destroy(p->transport);
    chain_close(&c);
    tp_group_destroy(p->group);
}

/* --- all ranks ------------------------------------------------------------------------------------------ */

/* Rank 0 gets what each rank of the last stage has: all (tensor, n). */
static void collect(const struct split *s, const float *mine, size_t n, float *all)
{
    struct err e = {0};
    const int first = (s->pipeline - 1) * s->tensor;
    struct comm_req reqs[RANKS + 1] = {{0}};
    for (int t = 0; rank == 0 && t < s->tensor; t++) {
        must(comm_irecv(comm, all + (size_t)t * n, n * sizeof *all, first + t, TAG_LOGITS, &reqs[t],
                        &e),
             &e);
    }
    if (rank >= first && rank < first + s->tensor) {
        must(comm_isend(comm, mine, n * sizeof *mine, 0, TAG_LOGITS, &reqs[RANKS], &e), &e);
    }
    for (int i = 0; i <= RANKS; i++) {
        for (int idle = 0, rc = 0; reqs[i].handle && rc != 1;) {
            rc = comm_test(comm, &reqs[i], &e);
            must(rc, &e);
            must(comm_pause(comm, idle++, &e), &e);
        }
    }
}

/* All ranks compute or wait; rank 0 has the logits: all (tensor, n_logits). */
static void run_split(const struct split *s, const struct oracle *o, const struct oracle_way *way,
                      float *all)
{
    struct err e = {0};
    float *mine = xcalloc(o->n_logits, sizeof *mine);
    struct place p = {.split = s, .stage = rank / s->tensor, .tensor = rank % s->tensor};
    p.has_next = p.stage + 1 < s->pipeline;
    if (p.stage < s->pipeline) {
        compute(&p, o, *way, mine);
    } else {
        must(comm_barrier(comm, LONGEST_NS, &e), &e);
    }
    collect(s, mine, o->n_logits, all);
    free(mine);
}

/* And a GPU for each rank, as it wants. */
static bool has_nccl(void)
{
    char why[160], first[16], last[16];
    backend_gpu(0, RANKS, first, sizeof first);
    backend_gpu(RANKS - 1, RANKS, last, sizeof last);
    return backend_has_nccl(why, sizeof why) && strcmp(first, last) != 0;
}

/* Bits of the first split with as many tensor ranks; its own are near transformers'. */
static void check_model(const char *name, enum arch_dtype kv_dtype, double distance, bool is_whole,
                        int least_tensor)
{
    struct oracle_way way = {
        .backend = "cuda", .kv_dtype = kv_dtype, .n_threads = 1, .strangers = is_whole};
    struct oracle o;
    oracle_open(&o, name);
    if (!is_whole) {
        o.n_logits = o.n_logits / o.n_positions * FEW;
        o.n_positions = FEW;
    }
    way.max_tokens = is_whole ? 0 : 16;
    way.chunk = is_whole ? 100 : 16;
    const size_t n = o.n_logits;
    float *first[RANKS] = {NULL}, *all = xcalloc(RANKS * n, sizeof *all);
    for (size_t i = 0; i < sizeof splits / sizeof *splits; i++) {
        const struct split *s = &splits[i];
        if (s->tensor < least_tensor || (s->sums && !has_nccl())) {
            continue;
        }
        run_split(s, &o, &way, all);
        for (int t = 0; rank == 0 && t < s->tensor; t++) {
            if (!first[s->tensor]) {
                first[s->tensor] = xcalloc(n, sizeof *all);
                memcpy(first[s->tensor], all, n * sizeof *all);
                oracle_expect_logits(&o, all, distance);
            }
            if (memcmp(all + (size_t)t * n, first[s->tensor], n * sizeof *all) != 0) {
                fail_msg("%s: %d stages of %d ranks, hops by %s: other bits on rank %d of the last",
                         name, s->pipeline, s->tensor, s->hops ? s->hops : "nothing", t);
            }
        }
    }
    free(first[1]);
    free(first[2]);
    free(all);
    oracle_close(&o);
}

static void splits_have_the_same_bits(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        enum arch_dtype kv_dtype;
        double distance;
        int least_tensor; // without TIDEMARK_FULL; 0: not at all
    } models[] = {
        {"llama_even_bf16", ARCH_BF16, 2e-2, 1},  {"llama_even_f32", ARCH_F32, 0, 2},
        {"gemma2_even_bf16", ARCH_BF16, 2e-2, 0}, {"deepseek_v3_even_f32", ARCH_F32, 0, 0},
        {"qwen2_even_bf16", ARCH_BF16, 2e-2, 0},  {"gpt_oss_even_mxfp4", ARCH_BF16, 2e-2, 0},
    };
    const bool is_full = getenv("TIDEMARK_FULL") != NULL;
    for (size_t i = 0; i < sizeof models / sizeof *models; i++) {
        const int least_tensor = is_full ? 1 : models[i].least_tensor;
        if (least_tensor > 0 && (!only || strcmp(only, models[i].name) == 0)) {
            check_model(models[i].name, models[i].kv_dtype, models[i].distance, is_full,
                        least_tensor);
        }
    }
}

int main(int argc, char **argv)
{
    char why[128] = "";
    struct err e = {0};
    if (strcmp(backend_auto(why, sizeof why), "cuda") != 0) {
        printf("skipped: %s\n", why);
        return 77;
    }
    if (comm_open(&comm, &e) != 0 || comm_start(comm, 1 << 10, &e) != 0) {
        fprintf(stderr, "%s\n", e.msg);
        return 1;
    }
    rank = comm_rank(comm);
    only = argc > 1 ? argv[1] : NULL;
    CHECK(comm_size(comm) == RANKS);
    const struct CMUnitTest tests[] = {cmocka_unit_test(splits_have_the_same_bits)};
    const int n_failed = cmocka_run_group_tests(tests, NULL, NULL);
    if (n_failed > 0) {
        comm_abort(comm, 1, "splits of a model differ");
    }
    comm_close(comm);
    return 0;
}
