/*
 * One load rank and a replica of P stages x T tensor-parallel ranks, on the tiny models of tests/golden in
 * turn: 128 greedy ids must be those of Hugging Face transformers, whether the request is alone and its
 * prompt goes in one batch, or in chunks among strangers, or in a KV pool so small that requests are
 * preempted and computed again. Weights of fewer bits than float32, and presets, must give one answer in all three cases.
 * TIDEMARK_FULL=1: with every kernel set of the machine, not only the best.
 *
 *     mpirun -np 1+P*T mpi_families P T
 */
#include "core/clock.h"
#include "core/comm.h"
#include "core/mem.h"
#include "core/str.h"
#include "model/layout.h"
#include "model/wire.h"
#include "workers/cpu/kernels.h"
#include "workers/target.h"
#include "workers/worker.h"

#include <jansson.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    MAX_IDS = 256,
    N_OUT = 128,
    N_IN = 150,     // of presets
    N_REQUESTS = 5, // the golden one is the third
    GOLDEN = 2,
    N_SETS = 5, // of kernels
};

#define DEADLINE_NS (100 * NS_PER_S)

static const struct fixture {
    const char *name;
    bool exact; // float32: the ids are transformers'
} fixtures[] = {
    {"llama_tiny_f32", true},      {"llama_tiny_bf16", false},     {"qwen2_tiny_f32", true},
    {"gemma2_tiny_f32", true},     {"gemma2_tiny_bf16", false},    {"gpt_oss_tiny_f32", true},
    {"gpt_oss_tiny_mxfp4", false}, {"deepseek_v3_tiny_f32", true}, {"deepseek_v3_tiny_fp8", false},
};

/* For T = 4, which does not divide the heads of all of those: 4 heads, 2 KV heads. */
static const struct fixture of_4_heads[] = {
    {"preset:tiny", false},         {"preset:tiny-qwen2", false},   {"gemma2_tiny_f32", true},
    {"preset:tiny-gpt-oss", false}, {"deepseek_v3_tiny_f32", true},
};

static const struct mode {
    const char *name;
    uint32_t n_requests, batch_tokens, kv_tokens;
} modes[] = {
    {"alone", 1, 256, 2048},
    {"in chunks among strangers", N_REQUESTS, 16, 2048},
    {"preempted", N_REQUESTS, 48, 320},
};

static struct comm *c;
static struct layout layout;
static struct arch arch;
static struct target_config target;
static int rank;
static uint32_t n_in, n_preempted;
static int32_t prompt[MAX_IDS], ids[MAX_IDS]; // of the golden request
static struct {
    uint32_t n_got;
    int32_t got[N_OUT];
    bool ended;
} requests[N_REQUESTS];

static void must(int rc, const struct err *e)
{
    if (rc < 0) {
        comm_abort(c, 1, "%s", e->msg);
    }
}

static char *folder_of(const char *name)
{
    const char *source = getenv("TIDEMARK_SOURCE");
    return arch_is_preset(name) ? xstrdup(name)
                                : xasprintf("%s/tests/golden/%s", source ? source : ".", name);
}

static uint32_t read_ids(const json_t *root, const char *key, int32_t *out)
{
    const json_t *list = json_object_get(root, key);
    uint32_t n = (uint32_t)json_array_size(list);
    CHECK(n > 0 && n <= MAX_IDS);
    for (uint32_t i = 0; i < n; i++) {
        out[i] = (int32_t)json_integer_value(json_array_get(list, i));
    }
    return n;
}

static void read_golden(const char *folder)
{
    if (arch_is_preset(folder)) {
        n_in = N_IN;
        for (int i = 0; i < N_IN; i++) {
            prompt[i] = 3 + i * 7 % 900;
        }
        return;
    }
    char *path = xasprintf("%s/golden.json", folder);
    json_t *root = json_load_file(path, 0, NULL);
    CHECK(root);
    n_in = read_ids(root, "prompt_ids", prompt);
    CHECK(read_ids(root, "ids", ids) >= N_OUT);
    json_decref(root);
    free(path);
}

/* --- load rank ---------------------------------------------------------------------------------- */

static void tell_workers(int tag, const void *data, size_t n_bytes)
{
    struct err e;
    for (int r = 1; r < layout_size(&layout); r++) {
        must(comm_post(c, r, tag, data, n_bytes, &e), &e);
    }
}

/* Strangers have the beginning of the golden prompt, with another end. */
static void send_request(uint32_t slot)
{
    struct err e;
    struct {
        struct wire_request q;
        int32_t ids[MAX_IDS];
    } m = {.q = {.ticket = {.slot = slot, .generation = 1}, .n_in = n_in, .n_out = N_OUT}};
    memcpy(m.ids, prompt, n_in * sizeof *prompt);
    if (slot != GOLDEN) {
        m.q.n_in = n_in - 20 * slot;
        m.ids[m.q.n_in - 1] = (int32_t)slot + 3;
    }
    requests[slot].n_got = 0;
    requests[slot].ended = false;
    must(comm_post(c, layout_leader(&layout, 0), WIRE_REQUEST, &m,
                   sizeof m.q + m.q.n_in * sizeof *m.ids, &e),
         &e);
}

static void take_tokens(const struct comm_msg *m)
{
    const struct wire_token *t = m->data;
    for (size_t i = 0; i < m->n_bytes / sizeof *t; i++) {
        uint32_t slot = t[i].ticket.slot;
        CHECK(slot < N_REQUESTS && requests[slot].n_got < N_OUT && !requests[slot].ended);
        requests[slot].got[requests[slot].n_got++] = t[i].id;
        requests[slot].ended = (t[i].flags & WIRE_LAST) != 0;
    }
}

/* Until n of the events that `tag` tells have come; tokens count when they end a request. */
static void pump(int tag, uint32_t n)
{
    struct err e = {0};
    const int64_t deadline_ns = clock_local_ns() + DEADLINE_NS;
    for (uint32_t seen = 0, idle = 0; seen < n; idle++) {
        struct comm_msg m;
        int got = comm_poll(c, &m, &e);
        must(got, &e);
        if (got == 0) {
            CHECK(clock_local_ns() < deadline_ns);
            must(comm_pause(c, (int)idle, &e), &e);
            continue;
        }
        idle = 0;
        CHECK(m.tag != WIRE_REJECT);
        if (m.tag == WIRE_TOKENS) {
            take_tokens(&m);
        }
        if (m.tag == WIRE_TRACE) {
            const struct wire_trace *t = m.data;
            n_preempted += t->phase == WIRE_LAST ? t->n_preempted : 0;
        }
        seen += m.tag == tag && tag != WIRE_TOKENS;
        if (tag == WIRE_TOKENS) {
            seen = 0;
            for (uint32_t i = 0; i < N_REQUESTS; i++) {
                seen += requests[i].ended;
            }
        }
    }
}

static void lead(const struct fixture *f, const struct mode *mode)
{
    const struct wire_step step = {.t_begin_ns = clock_now_ns()};
    const struct wire_step_end end = {0};
    memset(requests, 0, sizeof requests);
    n_preempted = 0;
    tell_workers(WIRE_STEP, &step, sizeof step);
    for (uint32_t i = 0; i < mode->n_requests; i++) {
        send_request(mode->n_requests == 1 ? GOLDEN : i);
    }
    pump(WIRE_TOKENS, mode->n_requests);
    tell_workers(WIRE_STEP_END, &end, sizeof end);
    pump(WIRE_STEP_DONE, (uint32_t)layout_size(&layout) - 1);
    tell_workers(WIRE_SHUTDOWN, NULL, 0);
    if (mode == &modes[0] && !f->exact) {
        memcpy(ids, requests[GOLDEN].got, sizeof requests[GOLDEN].got);
    }
    uint32_t same = 0;
    while (same < N_OUT && requests[GOLDEN].got[same] == ids[same]) {
        same++;
    }
    if (same < N_OUT) {
        comm_abort(c, 1, "%s, %s: id %u is %d, not %d", f->name, mode->name, same,
                   requests[GOLDEN].got[same], ids[same]);
    }
    CHECK((n_preempted > 0) == (mode == &modes[2]));
}

/* --- all ranks ---------------------------------------------------------------------------------- */

static void run(const struct fixture *f, const struct mode *mode)
{
    struct err e = {0};
    struct worker *w = NULL;
    target.max_batch_tokens = mode->batch_tokens;
    target.kv_tokens = mode->kv_tokens;
    must(target_check(&target, &arch, &e), &e);
    if (rank == 0) {
        lead(f, mode);
    } else {
        must(worker_create(&w, &layout, rank,
                           &(struct worker_cores){.n_threads = 1, .placement = "test"}, &target,
                           &arch, &e),
             &e);
        must(worker_serve(w, c, &e), &e);
        worker_destroy(w);
    }
    must(comm_barrier(c, 20 * NS_PER_S, &e), &e);
}

static void configure(char **argv)
{
    layout = (struct layout){
        .load_ranks = 1, .replicas = 1, .pipeline = atoi(argv[1]), .tensor = atoi(argv[2])};
    target = (struct target_config){.kind = TARGET_STAGES,
                                    .replicas = 1,
                                    .pipeline = layout.pipeline,
                                    .tensor = layout.tensor,
                                    .max_running = 8,
                                    .max_waiting = 8,
                                    .moe_zipf = 1};
}

/* Preemption is the scheduler's, which two ranks show as well as four. */
static void run_all(const struct fixture *f)
{
    const size_t n = sizeof modes / sizeof *modes - (layout.tensor == 4);
    for (size_t k = 0; k < n; k++) {
        run(f, &modes[k]);
    }
}

/* As the `target.kernels` option counts them: auto first. */
static void run_every_set(const struct fixture *f)
{
    struct target_config *t = &target;
    struct err e = {0};
    for (t->kernels = 1; t->kernels <= N_SETS; t->kernels++) {
        const struct kernels *set;
        if (kernels_select(&set, target_kernels(t), &e) == 0) {
            run_all(f);
        }
    }
}

int main(int argc, char **argv)
{
    struct err e = {0};
    CHECK(argc == 3);
    configure(argv);
    if (comm_open(&c, &e) != 0) {
        fprintf(stderr, "%s\n", e.msg);
        return 1;
    }
    rank = comm_rank(c);
    CHECK(comm_size(c) == layout_size(&layout));
    must(comm_start(c, (size_t)1 << 20, &e), &e);
    const bool by_4 = layout.tensor == 4;
    const struct fixture *list = by_4 ? of_4_heads : fixtures;
    const size_t n =
        by_4 ? sizeof of_4_heads / sizeof *of_4_heads : sizeof fixtures / sizeof *fixtures;
    for (size_t i = 0; i < n; i++) {
        char *folder = folder_of(list[i].name);
        target.model = folder;
        must(arch_open(folder, &arch, &e), &e);
        read_golden(folder);
        (getenv("TIDEMARK_FULL") ? run_every_set : run_all)(&list[i]);
        free(folder);
    }
    comm_close(c);
    return 0;
}
