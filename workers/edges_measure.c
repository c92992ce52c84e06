#include "workers/edges_measure.h"

#include <math.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/clock.h"
#include "core/mem.h"
#include "workers/edges_wire.h"
#include "workers/reach.h"

#define TAG_SAY      17               // of the bulk plane: what is sent next
#define WAIT_NS      (30 * NS_PER_S)  // for one message, or for the other side's next word
#define WARM_NS      (120 * NS_PER_S) // for the first message of a hop
#define COPY_SHARE   0.05             // of the budget goes to copies, before and after
#define COPY_SIZE_NS (50 * NS_PER_MS)
#define MAX_MESSAGES 1000
#define MAX_COPIES   100
#define GPU_COPIES   10
#define GUESS_NS     1e6 // of the very first message
#define LOOKS        64
#define MESSAGE_PART 0.2 // of a turn goes to transports that do not carry hidden states

_Static_assert(EDGES_MEASURE_MESSAGE_BYTES == EDGES_WIRE_MAX_MESSAGE, "the message plane's room");

/* What a rank found out: edges from it, its copies. */
struct mine {
    struct edges_rank rank;
    struct edges_times times[]; // (n_transports, EDGES_PLAN_MAX_SIZES, n_ranks)
};

struct job {
    const struct edges_measure *cfg;
    struct comm *comm;
    struct edges_wire wire;
    struct edges_hops *hops[EDGES_MAX_TRANSPORTS]; // with the peer at hand
    struct reach reach;
    int64_t wait_ns; // at most, for the peer
    struct mine *mine;
    size_t mine_bytes;
    int rank, size;
    int n_sizes, n_transports;
    size_t sizes[EDGES_PLAN_MAX_SIZES]; // of a transport with no limit of its own
    int64_t t_begin_ns, t_end_ns;       // of the budget; rank 0's count
    double *samples;                    // (MAX_MESSAGES)
};

/* What the one that measures says to the other: n_messages of n_bytes come; 0: its turn is over. */
struct say {
    int64_t n_bytes;
    int32_t n_messages, transport;
};

static int sizes_of(const struct job *j, const struct edges_wire_kind *k, size_t *sizes)
{
    const size_t max = j->cfg->max_bytes;
    return edges_plan_sizes(k->max_bytes > 0 && k->max_bytes < max ? k->max_bytes : max, sizes);
}

static struct edges_times *times_at(struct job *j, int transport, int size, int peer)
{
    return &j->mine->times[((size_t)transport * EDGES_PLAN_MAX_SIZES + (size_t)size) *
                               (size_t)j->size +
                           (size_t)peer];
}

/* --- who has what ----------------------------------------------------------------------------- */

static bool can(const struct job *j, int transport, int a, int b)
{
    const struct reach *r = &j->reach;
    switch (edges_wire_row(transport)->needs) {
    case EDGES_NEED_REACH:
        return reach_sees(r, a, b) && reach_sees(r, b, a);
    case EDGES_NEED_NCCL:
        return r->has_nccl && reach_has_gpu(r, a) && reach_has_gpu(r, b) &&
               !reach_is_one_gpu(r, a, b);
    case EDGES_NEED_NOTHING:
        break;
    }
    return true;
}

static bool anybody_can(const struct job *j, int transport)
{
    bool found = false;
    for (int a = 0; a < j->size; a++) {
        for (int b = 0; b < a; b++) {
            found = found || can(j, transport, a, b);
        }
    }
    return found;
}

/* Collective. */
static int tell_reach(struct job *j, struct err *e)
{
    const bool has_gpu = j->cfg->gpu;
    struct reach_gpu mine = {""};
    struct engine about;
    char why_not[sizeof j->reach.why_not] = "";
    if (has_gpu) {
        backend_about(j->cfg->gpu, &about);
        snprintf(mine.pci, sizeof mine.pci, "%s", about.pci);
        snprintf(j->mine->rank.gpu, sizeof j->mine->rank.gpu, "%.80s", about.device);
    }
    const bool has_nccl = has_gpu && backend_has_nccl(why_not, sizeof why_not);
    if (reach_tell_gpu(&j->reach, j->comm, &mine, e) ||
        reach_tell_nccl(&j->reach, has_nccl, why_not, e)) {
        return -1;
    }
    unsigned char *row = xcalloc((size_t)j->size, 1);
    reach_find_row(&j->reach, comm_index_on_this_host(j->comm), comm_ranks_on_this_host(j->comm),
                   row);
    const int rc = reach_tell_row(&j->reach, row, e);
    free(row);
    return rc;
}

/* --- waiting ---------------------------------------------------------------------------------- */

static int late(const struct job *j, struct err *e)
{
    return err_set(e, ERR_ENV, "rank %d (pid %d on %s) did not answer rank %d within %lld s",
                   j->wire.peer, comm_pid(j->comm, j->wire.peer), comm_host(j->comm, j->wire.peer),
                   j->rank, (long long)(j->wait_ns / NS_PER_S));
}

/* Until the wire says that it is done, or, without `of_wire`, the request is. */
static int wait_for(struct job *j, int (*of_wire)(struct edges_wire *, struct err *),
                    struct comm_req *req, struct err *e)
{
    const int64_t until_ns = clock_local_ns() + j->wait_ns;
    for (int idle = 0;; idle++) {
        const int rc = of_wire ? of_wire(&j->wire, e) : comm_test(j->comm, req, e);
        if (rc != 0) {
            return rc < 0 ? -1 : 0;
        }
        if (comm_pause(j->comm, idle, e)) {
            return -1;
        }
        if (clock_local_ns() > until_ns) {
            return late(j, e);
        }
    }
}

static int wait_wire(struct job *j, int (*done)(struct edges_wire *, struct err *), struct err *e)
{
    return wait_for(j, done, NULL, e);
}

static int wait_req(struct job *j, struct comm_req *req, struct err *e)
{
    return wait_for(j, NULL, req, e);
}

static int tell(struct job *j, const struct say *s, struct err *e)
{
    struct comm_req req = {0};
    return comm_isend(j->comm, s, sizeof *s, j->wire.peer, TAG_SAY, &req, e) || wait_req(j, &req, e)
               ? -1
               : 0;
}

static int hear(struct job *j, struct say *s, struct err *e)
{
    struct comm_req req = {0};
    if (comm_irecv(j->comm, s, sizeof *s, j->wire.peer, TAG_SAY, &req, e) || wait_req(j, &req, e)) {
        return -1;
    }
    const struct edges_wire_kind *k = edges_wire_row(s->transport);
    const bool is_sane = req.n_bytes == sizeof *s && k && s->n_bytes >= 0 &&
                         (size_t)s->n_bytes <= j->cfg->max_bytes && s->n_messages >= 0 &&
                         (s->n_messages == 0 || can(j, s->transport, j->rank, j->wire.peer));
    return is_sane ? 0
                   : err_set(e, ERR_ENV, "rank %d says what cannot be: %zu bytes", j->wire.peer,
                             req.n_bytes);
}

/* --- one size, from both sides ------------------------------------------------------------------ */

/* n messages there, an answer to each: how long each took, into ns (n). */
static int send_messages(struct job *j, const struct edges_wire_kind *k, size_t n_bytes, int n,
                         double *ns, struct err *e)
{
    for (int i = 0; i < n; i++) {
        if (k->recv(&j->wire, EDGES_PLAN_MIN_BYTES, e)) {
            return -1;
        }
        const int64_t begin_ns = clock_local_ns();
        if (k->send(&j->wire, n_bytes, e) || wait_wire(j, k->received, e)) {
            return -1;
        }
        ns[i] = (double)(clock_local_ns() - begin_ns);
        if (wait_wire(j, k->sent, e)) {
            return -1;
        }
    }
    return 0;
}

/* The next message is awaited before the last one is answered. */
static int answer_messages(struct job *j, const struct edges_wire_kind *k, size_t n_bytes, int n,
                           struct err *e)
{
    if (n > 0 && k->recv(&j->wire, n_bytes, e)) {
        return -1;
    }
    for (int i = 0; i < n; i++) {
        if (wait_wire(j, k->received, e) || (i + 1 < n && k->recv(&j->wire, n_bytes, e)) ||
            k->send(&j->wire, EDGES_PLAN_MIN_BYTES, e) || wait_wire(j, k->sent, e)) {
            return -1;
        }
    }
    return 0;
}

/* A few unmeasured ones say how many fit. */
static int probe(struct job *j, int transport, size_t n_bytes, double *one_ns, struct err *e)
{
    const struct edges_wire_kind *k = edges_wire_row(transport);
    const int n = n_bytes < EDGES_LARGE_BYTES ? 3 : 1;
    const struct say s = {(int64_t)n_bytes, n, transport};
    double ns[3];
    if (tell(j, &s, e) || send_messages(j, k, n_bytes, n, ns, e)) {
        return -1;
    }
    *one_ns = ns[0];
    for (int i = 1; i < n; i++) {
        *one_ns = fmin(*one_ns, ns[i]);
    }
    return 0;
}

/* There and back becomes one way (edges.h). */
static void keep(struct job *j, int transport, int size, int n)
{
    struct edges_times *t = times_at(j, transport, size, j->wire.peer);
    const double back_ns = size > 0 ? times_at(j, transport, 0, j->wire.peer)->median_ns : 0;
    for (int i = 0; i < n; i++) {
        const double both_ns = fmax(j->samples[i], 2);
        j->samples[i] = size == 0 ? both_ns / 2 : fmax(both_ns - back_ns, both_ns / 2);
    }
    *t = edges_times_of(j->samples, n);
}

/* 1 when the size was measured, 0 where it does not fit what is left until then. */
static int measure_size(struct job *j, int transport, const size_t *sizes, int n_sizes, int i,
                        double *one_ns, int64_t until_ns, struct err *e)
{
    const int n_left = n_sizes - i;
    const double grown = i > 0 ? (double)sizes[i] / (double)sizes[i - 1] : 1;
    // What comes is not known: at most as much longer as it is larger.
    int n = edges_plan_messages(*one_ns * grown, until_ns - clock_local_ns(), n_left, i == 0);
    if (n == 0 || probe(j, transport, sizes[i], one_ns, e)) {
        return n == 0 ? 0 : -1;
    }
    n = edges_plan_messages(*one_ns, until_ns - clock_local_ns(), n_left, i == 0);
    if (n == 0) {
        return 0;
    }
    const struct say s = {(int64_t)sizes[i], n, transport};
    if (tell(j, &s, e) || send_messages(j, edges_wire_row(transport), sizes[i], n, j->samples, e)) {
        return -1;
    }
    keep(j, transport, i, n);
    return 1;
}

static int measure_transport(struct job *j, int transport, int64_t until_ns, struct err *e)
{
    size_t sizes[EDGES_PLAN_MAX_SIZES];
    const int n_sizes = sizes_of(j, edges_wire_row(transport), sizes);
    double one_ns = GUESS_NS;
    int rc = 1;
    for (int i = 0; i < n_sizes && rc == 1; i++) {
        rc = measure_size(j, transport, sizes, n_sizes, i, &one_ns, until_ns, e);
    }
    return rc < 0 ? -1 : 0;
}

/* --- one pair ----------------------------------------------------------------------------------- */

/* When the turn of a transport is over: the short messages first, what they leave is the others'. */
static int64_t until_of(const struct job *j, int transport, int64_t end_ns, int64_t turn_ns)
{
    const int64_t now_ns = clock_local_ns();
    int n_left = 0;
    for (int t = 0; t <= transport; t++) {
        n_left += edges_wire_row(t)->carries_hidden && can(j, t, j->rank, j->wire.peer);
    }
    return edges_wire_row(transport)->carries_hidden
               ? now_ns + (end_ns - now_ns) / (n_left > 0 ? n_left : 1)
               : now_ns + (int64_t)(MESSAGE_PART * (double)turn_ns);
}

static int lead(struct job *j, int64_t turn_ns, struct err *e)
{
    const int64_t end_ns = clock_local_ns() + turn_ns;
    for (int t = j->n_transports - 1; t >= 0; t--) {
        j->wire.hops = j->hops[t];
        if (can(j, t, j->rank, j->wire.peer) &&
            measure_transport(j, t, until_of(j, t, end_ns, turn_ns), e)) {
            return -1;
        }
    }
    const struct say over = {0};
    return tell(j, &over, e);
}

static int follow(struct job *j, struct err *e)
{
    for (;;) {
        struct say s;
        if (hear(j, &s, e)) {
            return -1;
        }
        if (s.n_messages == 0) {
            return 0;
        }
        j->wire.hops = j->hops[s.transport];
        if (answer_messages(j, edges_wire_row(s.transport), (size_t)s.n_bytes, s.n_messages, e)) {
            return -1;
        }
    }
}

static int open_hops(struct job *j, struct err *e)
{
    for (int t = 0; t < j->n_transports; t++) {
        const struct edges_wire_kind *k = edges_wire_row(t);
        if (k->needs != EDGES_NEED_NOTHING && can(j, t, j->rank, j->wire.peer) &&
            edges_hops_open(&j->hops[t], k->name, j->cfg->gpu, j->comm, j->wire.peer,
                            j->cfg->max_bytes, e)) {
            return -1;
        }
    }
    return 0;
}

/* One message each way, unmeasured: NCCL makes its communicators for it, which takes seconds. */
static int warm_hops(struct job *j, struct err *e)
{
    double unused_ns;
    int rc = 0;
    j->wait_ns = WARM_NS;
    for (int t = 0; t < j->n_transports && rc == 0; t++) {
        const struct edges_wire_kind *k = edges_wire_row(t);
        j->wire.hops = j->hops[t];
        if (j->hops[t]) {
            rc = j->rank < j->wire.peer
                     ? send_messages(j, k, EDGES_PLAN_MIN_BYTES, 1, &unused_ns, e)
                     : answer_messages(j, k, EDGES_PLAN_MIN_BYTES, 1, e);
        }
    }
    j->wait_ns = WAIT_NS;
    return rc;
}

static void close_hops(struct job *j)
{
    for (int t = 0; t < j->n_transports; t++) {
        edges_hops_close(j->hops[t]);
        j->hops[t] = NULL;
    }
}

/* Where it fails the job is over, and hops would wait for their other ends. */
static int meet(struct job *j, int peer, int64_t turn_ns, struct err *e)
{
    j->wire.peer = peer;
    if (open_hops(j, e) || warm_hops(j, e)) {
        return -1;
    }
    for (int direction = 0; direction < 2; direction++) {
        const bool leads = (direction == 0) == (j->rank < peer);
        if (leads ? lead(j, turn_ns, e) : follow(j, e)) {
            return -1;
        }
    }
    close_hops(j);
    return 0;
}

/* --- rounds ------------------------------------------------------------------------------------- */

/* All ranks here; rank 0's word to all of them: a turn's length, < 0: it ends. */
static int begin_round(struct job *j, int round, int n_rounds, int64_t *turn_ns, struct err *e)
{
    char here = 1;
    char *all = j->rank == 0 ? xcalloc((size_t)j->size, 1) : NULL;
    int rc = comm_gather(j->comm, &here, 1, all, e);
    free(all);
    if (rc == 0 && j->rank == 0) {
        const int64_t left_ns = j->t_end_ns - clock_local_ns();
        const bool stops =
            j->cfg->stop && j->cfg->stop(j->cfg->arg, round, n_rounds, left_ns > 0 ? left_ns : 0);
        *turn_ns = stops ? -1 : edges_plan_turn_ns(left_ns, n_rounds - round);
    }
    rc = rc || comm_bcast(j->comm, turn_ns, sizeof *turn_ns, 0, e) ? -1 : 0;
    return rc == 0 && *turn_ns < 0
               ? err_set(e, ERR_ENV, "stopped before round %d of %d", round + 1, n_rounds)
               : rc;
}

static int play_rounds(struct job *j, struct err *e)
{
    const int n_rounds = edges_plan_rounds(j->size);
    for (int round = 0; round < n_rounds; round++) {
        int64_t turn_ns = 0;
        if (begin_round(j, round, n_rounds, &turn_ns, e)) {
            return -1;
        }
        const int peer = edges_plan_partner(j->size, round, j->rank);
        if (peer >= 0 && meet(j, peer, turn_ns, e)) {
            return -1;
        }
    }
    return 0;
}

/* --- looks -------------------------------------------------------------------------------------- */

/* What happens meanwhile is noticed half of that later. */
static int time_looks(struct job *j, struct err *e)
{
    const int64_t tired_ns = clock_local_ns() + NS_PER_MS; // nobody spins for so long
    double ns[LOOKS];
    int idle = 0;
    while (clock_local_ns() < tired_ns) {
        if (comm_pause(j->comm, idle++, e)) {
            return -1;
        }
    }
    for (int i = 0; i < LOOKS; i++) {
        const int64_t begin_ns = clock_local_ns();
        if (comm_pause(j->comm, idle++, e)) {
            return -1;
        }
        ns[i] = (double)(clock_local_ns() - begin_ns);
    }
    j->mine->rank.look_ns = edges_times_of(ns, LOOKS).median_ns;
    return 0;
}

/* --- copies ------------------------------------------------------------------------------------- */

/* A few of each size, as far as the time goes; the smallest one in any case. */
static int copy_on_gpu(struct job *j, int64_t until_ns, struct err *e)
{
    for (int i = 0; i < j->n_sizes && (i == 0 || clock_local_ns() < until_ns); i++) {
        double *ns = &j->mine->rank.gpu_copy_ns[i], best_ns;
        if (backend_copy_ns(j->cfg->gpu, j->sizes[i], GPU_COPIES, &best_ns, e)) {
            return -1;
        }
        *ns = *ns > 0 ? fmin(*ns, best_ns) : best_ns;
    }
    return 0;
}

static int copy_sizes(struct job *j, int64_t share_ns, struct err *e)
{
    void *to = mem_pages(j->cfg->max_bytes);
    const int64_t each_ns = j->cfg->gpu ? share_ns / 2 : share_ns; // the host's, the GPU's
    const int64_t until_ns = clock_local_ns() + each_ns;
    double last_ns = 0;
    if (!to) {
        return err_set(e, ERR_ENV, "rank %d: no memory for copies of %zu bytes", j->rank,
                       j->cfg->max_bytes);
    }
    for (int i = 0; i < j->n_sizes; i++) {
        const int64_t left_ns = until_ns - clock_local_ns(), n_left = j->n_sizes - i;
        const int64_t size_ns = left_ns / n_left < COPY_SIZE_NS ? left_ns / n_left : COPY_SIZE_NS;
        const int64_t size_until_ns = clock_local_ns() + size_ns;
        if (i > 0 && 2 * EDGES_PLAN_FACTOR * last_ns > (double)left_ns) {
            break; // larger ones take longer
        }
        double best_ns = j->mine->rank.copy_ns[i] > 0 ? j->mine->rank.copy_ns[i] : HUGE_VAL;
        for (int k = 0; k < MAX_COPIES && (k < 3 || clock_local_ns() < size_until_ns); k++) {
            const int64_t begin_ns = clock_local_ns();
            memcpy(to, j->wire.large, j->sizes[i]);
            last_ns = (double)(clock_local_ns() - begin_ns);
            best_ns = fmin(best_ns, last_ns);
        }
        j->mine->rank.copy_ns[i] = fmax(best_ns, 1);
    }
    mem_pages_free(to, j->cfg->max_bytes);
    return j->cfg->gpu ? copy_on_gpu(j, clock_local_ns() + each_ns, e) : 0;
}

static int most_ranks_on_a_host(const struct job *j)
{
    int most = 0;
    for (int a = 0; a < j->size; a++) {
        int n = 0;
        for (int b = 0; b < j->size; b++) {
            n += strcmp(comm_host(j->comm, a), comm_host(j->comm, b)) == 0;
        }
        most = n > most ? n : most;
    }
    return most;
}

/* One rank of a host at a time: copies of several would share its memory's bandwidth. Best ones stay. */
static int copy_in_turns(struct job *j, struct err *e)
{
    const int n_turns = most_ranks_on_a_host(j);
    const int64_t share_ns = (int64_t)(COPY_SHARE * (double)j->cfg->budget_ns) / n_turns;
    for (int turn = 0; turn < n_turns; turn++) {
        if (comm_barrier(j->comm, WAIT_NS, e) ||
            (comm_index_on_this_host(j->comm) == turn && copy_sizes(j, share_ns, e))) {
            return -1;
        }
    }
    return 0;
}

/* --- all of it ------------------------------------------------------------------------------------ */

static int prepare(struct job *j, struct err *e)
{
    size_t n_times = 0;
    while (edges_wire_row(j->n_transports)) {
        j->n_transports++;
    }
    CHECK(j->n_transports <= EDGES_MAX_TRANSPORTS);
    j->rank = comm_rank(j->comm);
    j->size = comm_size(j->comm);
    j->n_sizes = edges_plan_sizes(j->cfg->max_bytes, j->sizes);
    n_times = (size_t)j->n_transports * EDGES_PLAN_MAX_SIZES * (size_t)j->size;
    j->mine_bytes = sizeof *j->mine + n_times * sizeof(struct edges_times);
    j->mine = xcalloc(1, j->mine_bytes);
    j->samples = xcalloc(MAX_MESSAGES, sizeof *j->samples);
    j->wire.comm = j->comm;
    j->wire.large = mem_pages(j->cfg->max_bytes);
    if (!j->wire.large) {
        return err_set(e, ERR_ENV, "rank %d: no memory for messages of %zu bytes", j->rank,
                       j->cfg->max_bytes);
    }
    memset(j->wire.large, 1, j->cfg->max_bytes); // pages that are there
    cpu_set_t cpus;
    struct edges_rank *r = &j->mine->rank;
    snprintf(r->host, sizeof r->host, "%s", comm_host(j->comm, j->rank));
    r->n_cpus = sched_getaffinity(0, sizeof cpus, &cpus) ? 0 : CPU_COUNT(&cpus);
    r->spins = comm_spins(j->comm);
    return 0;
}

static void take_rank(const struct job *j, struct edges *out, int rank, const struct mine *m)
{
    out->ranks[rank] = m->rank;
    for (int row = 0, k = 0; row < j->n_transports; row++) {
        if (!anybody_can(j, row)) {
            continue;
        }
        struct edges_transport *t = &out->transports[k++];
        for (int s = 0; s < t->n_sizes; s++) {
            for (int to = 0; to < j->size; to++) {
                const size_t at =
                    ((size_t)row * EDGES_PLAN_MAX_SIZES + (size_t)s) * (size_t)j->size;
                edges_link(t, j->size, rank, to)->times[s] = m->times[at + (size_t)to];
            }
        }
    }
}

static void add_transport(const struct job *j, struct edges *out, int row)
{
    const struct edges_wire_kind *kind = edges_wire_row(row);
    struct edges_transport *t = &out->transports[out->n_transports++];
    t->name = kind->name;
    t->carries_hidden = kind->carries_hidden;
    t->on_device = kind->needs != EDGES_NEED_NOTHING;
    t->n_sizes = sizes_of(j, kind, t->sizes);
    t->links = xcalloc((size_t)j->size * (size_t)j->size, sizeof *t->links);
}

static int collect(struct job *j, struct edges *out, struct err *e)
{
    char *all = j->rank == 0 ? xcalloc((size_t)j->size, j->mine_bytes) : NULL;
    int rc = comm_gather(j->comm, j->mine, j->mine_bytes, all, e);
    if (rc == 0 && all) {
        out->n_ranks = j->size;
        out->n_sizes = j->n_sizes;
        memcpy(out->sizes, j->sizes, sizeof j->sizes);
        out->budget_s = (double)j->cfg->budget_ns / 1e9;
        for (int row = 0; row < j->n_transports; row++) {
            if (anybody_can(j, row)) {
                add_transport(j, out, row);
            }
        }
        for (int r = 0; r < j->size; r++) {
            take_rank(j, out, r, (const void *)(all + (size_t)r * j->mine_bytes));
        }
        out->took_s = (double)(clock_local_ns() - j->t_begin_ns) / 1e9;
        edges_judge(out);
    }
    free(all);
    return rc;
}

int edges_measure(const struct edges_measure *m, struct comm *comm, struct edges *out,
                  struct err *e)
{
    struct job j = {.cfg = m, .comm = comm, .wait_ns = WAIT_NS, .t_begin_ns = clock_local_ns()};
    j.t_end_ns = j.t_begin_ns + (int64_t)((1 - COPY_SHARE) * (double)m->budget_ns);
    if (prepare(&j, e)) {
        CHECK(e->code != ERR_NONE);
    }
    int rc = comm_agree(comm, e) || tell_reach(&j, e) || time_looks(&j, e) ||
                     copy_in_turns(&j, e) || play_rounds(&j, e) || collect(&j, out, e)
                 ? -1
                 : 0;
    mem_pages_free(j.wire.large, m->max_bytes);
    reach_free(&j.reach);
    free(j.samples);
    free(j.mine);
    return rc;
}
