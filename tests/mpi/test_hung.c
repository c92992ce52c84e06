/*
 * One rank of a replica lives, beats and answers, but stops doing its part in the middle of a request: the job
 * must end with a line that names it. Run by hung_rank.sh; the parts that fail are wrapped by the linker.
 *   test_hung P T backend VICTIM   its backend does not end a batch any more, as it notices itself
 *   test_hung P T deaf VICTIM      nor does it notice: others have to
 *   test_hung P T wire VICTIM      its hidden states go nowhere
 */
#include "core/clock.h"
#include "core/comm.h"
#include "model/layout.h"
#include "model/wire.h"
#include "workers/backend.h"
#include "workers/patience.h"
#include "workers/target.h"
#include "workers/worker.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    N_IN = 20,
    N_OUT = 1000, // more than come
    N_GOOD = 40,  // batches before the victim fails
};

#define BATCH_NS    (500 * NS_PER_MS)
#define DEADLINE_NS (20 * NS_PER_S)

static struct comm *c;
static struct layout layout;
static bool is_victim, is_deaf, has_wire = true;
static int n_batches;

bool __real_backend_poll(struct backend *b);
bool __wrap_backend_poll(struct backend *b);
bool __real_patience_is_over(struct patience *p, int64_t now_ns, int64_t beyond_ns,
                             struct patience_late *late);
bool __wrap_patience_is_over(struct patience *p, int64_t now_ns, int64_t beyond_ns,
                             struct patience_late *late);
int __real_comm_isend(struct comm *comm, const void *buf, size_t n_bytes, int dst, int tag,
                      struct comm_req *r, struct err *e);
int __wrap_comm_isend(struct comm *comm, const void *buf, size_t n_bytes, int dst, int tag,
                      struct comm_req *r, struct err *e);

static bool has_failed(void)
{
    return is_victim && n_batches >= N_GOOD;
}

bool __wrap_backend_poll(struct backend *b)
{
    if (has_wire && has_failed()) {
        return false;
    }
    bool done = __real_backend_poll(b);
    n_batches += done;
    return done;
}

bool __wrap_patience_is_over(struct patience *p, int64_t now_ns, int64_t beyond_ns,
                             struct patience_late *late)
{
    return !is_deaf && __real_patience_is_over(p, now_ns, beyond_ns, late);
}

int __wrap_comm_isend(struct comm *comm, const void *buf, size_t n_bytes, int dst, int tag,
                      struct comm_req *r, struct err *e)
{
    bool is_lost = !has_wire && has_failed();
    return __real_comm_isend(comm, buf, n_bytes, is_lost ? comm_rank(comm) : dst, tag, r, e);
}

static void must(int rc, const struct err *e)
{
    if (rc < 0) {
        comm_abort(c, 3, "%s", e->msg);
    }
}

/* One long request, whose tokens are read until the job ends. */
static void lead(void)
{
    struct err e = {0};
    struct {
        struct wire_request q;
        int32_t ids[N_IN];
    } m = {.q = {.ticket = {.generation = 1}, .n_in = N_IN, .n_out = N_OUT}};
    const struct wire_step step = {.t_begin_ns = clock_now_ns()};
    const int64_t deadline_ns = clock_local_ns() + DEADLINE_NS;
    for (int i = 0; i < N_IN; i++) {
        m.ids[i] = i + 1;
    }
    for (int r = 1; r < comm_size(c); r++) {
        must(comm_post(c, r, WIRE_STEP, &step, sizeof step, &e), &e);
    }
    must(comm_post(c, layout_leader(&layout, 0), WIRE_REQUEST, &m, sizeof m, &e), &e);
    for (int idle = 0; clock_local_ns() < deadline_ns; idle++) {
        struct comm_msg got;
        must(comm_poll(c, &got, &e), &e);
        must(comm_pause(c, idle, &e), &e);
    }
    comm_abort(c, 4, "nobody noticed");
}

static void serve(void)
{
    struct err e = {0};
    struct arch arch;
    struct worker *w;
    struct target_config target = {.kind = TARGET_STAGES,
                                   .model = (char[]){"preset:tiny"},
                                   .replicas = 1,
                                   .pipeline = layout.pipeline,
                                   .tensor = layout.tensor,
                                   .max_running = 2,
                                   .max_waiting = 2,
                                   .max_batch_tokens = 64,
                                   .kv_tokens = 4096,
                                   .moe_zipf = 1};
    must(arch_open(target.model, &arch, &e), &e);
    must(target_check(&target, &arch, &e), &e);
    must(worker_create(&w, &layout, comm_rank(c),
                       &(struct worker_cores){.n_threads = 1, .placement = "test"}, &target, &arch,
                       &e),
         &e);
    worker_set_deadline(w, BATCH_NS);
    must(worker_serve(w, c, &e), &e);
}

int main(int argc, char **argv)
{
    struct err e = {0};
    if (argc != 5 || comm_open(&c, &e) != 0) {
        fprintf(stderr, "%s\n", e.msg);
        return 1;
    }
    layout = (struct layout){
        .load_ranks = 1, .replicas = 1, .pipeline = atoi(argv[1]), .tensor = atoi(argv[2])};
    is_victim = comm_rank(c) == atoi(argv[4]);
    is_deaf = is_victim && strcmp(argv[3], "deaf") == 0;
    has_wire = strcmp(argv[3], "wire") != 0;
    must(comm_start(c, (size_t)1 << 16, &e), &e);
    must(comm_watch(c, 5 * NS_PER_S, &e), &e);
    if (comm_rank(c) == 0) {
        lead();
    }
    serve();
    return 0;
}
