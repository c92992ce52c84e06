/*
 * What a worker does not understand ends its service with one line that names the sender, and nothing
 * worse. Rank 0 sends one bad message per case, rank 1 (a whole replica) serves each with a new worker.
 */
#include "core/clock.h"
#include "core/comm.h"
#include "core/mem.h"
#include "model/layout.h"
#include "model/wire.h"
#include "workers/stage.h"
#include "workers/target.h"
#include "workers/worker.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    WAIT_S = 30,
};

static struct comm *c;
static struct arch arch;
static struct target_config target;
static const struct layout layout = {.load_ranks = 1, .replicas = 1, .pipeline = 1, .tensor = 1};

static void must(int rc, const struct err *e)
{
    if (rc < 0) {
        comm_abort(c, 1, "%s", e->msg);
    }
}

static void send_bytes(int tag, const void *data, size_t n_bytes)
{
    struct err e;
    must(comm_post(c, 1, tag, data, n_bytes, &e), &e);
}

/* A request that says n_in but carries n_ids of this id. */
static void send_request(uint32_t n_in, uint32_t n_out, uint32_t n_ids, int32_t id)
{
    static union {
        struct wire_request q;
        uint8_t bytes[sizeof(struct wire_request) + 8 * sizeof(int32_t)];
    } m;
    m.q = (struct wire_request){.n_in = n_in, .n_out = n_out};
    for (uint32_t i = 0; i < n_ids; i++) {
        m.q.ids[i] = id;
    }
    send_bytes(WIRE_REQUEST, &m, sizeof m.q + n_ids * sizeof(int32_t));
}

static void send_step(uint32_t index)
{
    struct wire_step s = {.index = index};
    send_bytes(WIRE_STEP, &s, sizeof s);
}

static void send_end(uint32_t index)
{
    struct wire_step_end end = {.index = index};
    send_bytes(WIRE_STEP_END, &end, sizeof end);
}

/* --- the cases ------------------------------------------------------------------------------------- */

static void unknown_tag(void)
{
    send_bytes(99, "x", 1);
}

static void half_a_request(void)
{
    send_bytes(WIRE_REQUEST, "xxxx", 4);
}

static void fewer_ids_than_said(void)
{
    send_request(5, 1, 4, 1);
}

static void more_ids_than_said(void)
{
    send_request(3, 1, 4, 1);
}

static void huge_length(void)
{
    send_request(UINT32_MAX, 1, 4, 1);
}

static void no_prompt(void)
{
    send_request(0, 1, 0, 1);
}

static void no_output(void)
{
    send_request(4, 0, 4, 1);
}

static void id_past_the_vocabulary(void)
{
    send_request(4, 1, 4, arch.vocab);
}

static void negative_id(void)
{
    send_request(4, 1, 4, -1);
}

/* A request that draws its tokens in this way, all but `lacking` bytes of it. */
static void send_sampled(const struct wire_sampling *how, size_t lacking)
{
    static union {
        struct wire_request q;
        uint8_t bytes[sizeof(struct wire_request) + sizeof(int32_t) + sizeof *how];
    } m;
    m.q = (struct wire_request){.n_in = 1, .n_out = 1, .flags = WIRE_SAMPLED};
    m.q.ids[0] = 1;
    memcpy(m.q.ids + 1, how, sizeof *how);
    send_bytes(WIRE_REQUEST, &m, sizeof m - lacking);
}

static void half_a_sampling(void)
{
    send_sampled(&(struct wire_sampling){.top_p = 1}, 4);
}

static void no_sampling(void)
{
    send_sampled(&(struct wire_sampling){.top_p = 1}, sizeof(struct wire_sampling));
}

static void sampling_out_of_range(void)
{
    send_sampled(&(struct wire_sampling){.temperature = -1, .top_p = 1}, 0);
}

static void too_many_stop_ids(void)
{
    send_sampled(&(struct wire_sampling){.top_p = 1, .n_stop_ids = WIRE_MAX_STOP_IDS + 1}, 0);
}

static void short_cancel(void)
{
    send_bytes(WIRE_CANCEL, "xxxx", 4);
}

static void short_step(void)
{
    send_bytes(WIRE_STEP, "xxxx", 4);
}

static void step_in_step(void)
{
    send_step(0);
    send_step(1);
}

static void end_of_no_step(void)
{
    send_end(0);
}

static void end_of_another_step(void)
{
    send_step(3);
    send_end(4);
}

static void batch_for_the_leader(void)
{
    send_bytes(WORKER_BATCH, "xxxxxxxx", 8);
}

static void ids_from_a_load_rank(void)
{
    struct worker_ids ids = {.seq = 1, .n_rows = 0};
    send_bytes(WORKER_IDS, &ids, sizeof ids);
}

static void drained_for_the_leader(void)
{
    struct worker_drained d = {.step = 0};
    send_step(0);
    send_bytes(WORKER_DRAINED, &d, sizeof d);
}

static void (*const cases[])(void) = {
    unknown_tag,
    half_a_request,
    fewer_ids_than_said,
    more_ids_than_said,
    huge_length,
    no_prompt,
    no_output,
    id_past_the_vocabulary,
    negative_id,
    half_a_sampling,
    no_sampling,
    sampling_out_of_range,
    too_many_stop_ids,
    short_cancel,
    short_step,
    step_in_step,
    end_of_no_step,
    end_of_another_step,
    batch_for_the_leader,
    ids_from_a_load_rank,
    drained_for_the_leader,
};

static void serve_case(size_t i)
{
    struct err e = {0};
    struct worker *w;
    must(worker_create(&w, &layout, 1, &(struct worker_cores){.n_threads = 1, .placement = "test"},
                       &target, &arch, &e),
         &e);
    if (worker_serve(w, c, &e) != -1 || e.code != ERR_ENV || !strstr(e.msg, "from rank 0")) {
        comm_abort(c, 1, "case %zu: '%s'", i, e.msg);
    }
    worker_destroy(w);
}

int main(void)
{
    struct err e = {0};
    if (comm_open(&c, &e) != 0) {
        fprintf(stderr, "%s\n", e.msg);
        return 1;
    }
    CHECK(comm_size(c) == 2);
    opt_defaults(target_options, &target);
    target.model = xstrdup("preset:tiny");
    must(arch_open(target.model, &arch, &e), &e);
    must(comm_start(c, worker_max_message_bytes(&target, &arch), &e), &e);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        if (comm_rank(c) == 0) {
            cases[i]();
        } else {
            serve_case(i);
        }
        must(comm_barrier(c, WAIT_S * NS_PER_S, &e), &e);
    }
    opt_free(target_options, &target);
    comm_close(c);
    return 0;
}
