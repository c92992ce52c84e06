#include "cli/world.h"

#include <jansson.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/links.h"
#include "cli/placement.h"
#include "cli/signals.h"
#include "cli/text_model.h"
#include "cli/wires.h"
#include "core/clock.h"
#include "core/log.h"
#include "core/mem.h"
#include "loadgen/loop.h"
#include "loadgen/plan.h"
#include "model/wire.h"
#include "results/provenance.h"
#include "workers/backend.h"
#include "workers/telemetry.h"

enum {
    CLOCK_ROUNDS = 200
};

#define SERVICE_NS (365LL * 86400 * NS_PER_S)
#define GIVE_UP_NS (700 * NS_PER_MS) // Open MPI kills a second after it has asked

/* --- joining ----------------------------------------------------------------------------------- */

/* Rank 0's resolved config becomes everybody's. */
static int share_config(struct world *w, struct run_config *config, struct err *e)
{
    char *text = NULL;
    uint64_t len = 0;
    if (w->rank == 0) {
        json_t *root = run_config_dump(config);
        text = json_dumps(root, JSON_COMPACT | JSON_SORT_KEYS);
        json_decref(root);
        CHECK(text);
        len = strlen(text);
    }
    run_config_free(config);
    if (comm_bcast(w->comm, &len, sizeof len, 0, e)) {
        free(text);
        return -1;
    }
    text = text ? text : xmalloc(len + 1);
    int rc = comm_bcast(w->comm, text, len, 0, e);
    if (rc == 0) {
        json_t *root = json_loadb(text, len, 0, NULL);
        CHECK(root);
        rc = run_config_from_json(&w->config, root, e);
        json_decref(root);
    }
    free(text);
    return rc;
}

/* Whether the endpoint is there and serves the model, and what it says of itself. */
static int meet_endpoint(struct world *w, struct err *e)
{
    struct endpoint_config *c = &w->config.endpoint;
    struct endpoint p;
    if (endpoint_open(&p, c, e)) {
        return -1;
    }
    int rc = c->check ? identity_ask(&p, w->config.target.model, &w->identity, e) : 0;
    endpoint_close(&p);
    if (rc == 0 && c->context == 0) {
        c->context = w->identity.context > 0 ? w->identity.context : ENDPOINT_CONTEXT;
    }
    return rc;
}

static int place(struct world *w, struct err *e)
{
    w->layout = run_config_layout(&w->config);
    if (layout_check(&w->layout, comm_size(w->comm), e) || wires_check(&w->layout, w->comm, e)) {
        return -1;
    }
    w->is_load = layout_is_load(&w->layout, w->rank);
    if (!w->is_load) {
        signals_leave();
    }
    if (w->config.target.kind == TARGET_OPENAI && meet_endpoint(w, e)) {
        return -1;
    }
    if (text_model_open(&w->config, &w->arch, e)) {
        return -1;
    }
    return w->config.target.kind == TARGET_STAGES ? target_check(&w->config.target, &w->arch, e)
                                                  : 0;
}

int world_agree(struct world *w, struct err *e)
{
    int rc = comm_agree(w->comm, e);
    w->agreed = rc != 0;
    return rc;
}

static int join(struct world *w, struct run_config *config, int rc, struct err *e)
{
    memset(w, 0, sizeof *w);
    struct err config_err = *e;
    *e = (struct err){0};
    signals_catch(); // a signal may come while MPI starts
    if (comm_open(&w->comm, e)) {
        return -1;
    }
    signals_catch();
    w->rank = comm_rank(w->comm);
    *e = w->rank == 0 && rc ? config_err : (struct err){0};
    if (world_agree(w, e) || share_config(w, config, e)) {
        return -1;
    }
    if (place(w, e)) {
        CHECK(e->code != ERR_NONE);
    }
    if (world_agree(w, e)) {
        return -1;
    }
    size_t worker_bytes = worker_max_message_bytes(&w->config.target, &w->arch);
    size_t loop_bytes = loop_max_message_bytes(w->arch.max_context);
    size_t max_bytes = worker_bytes > loop_bytes ? worker_bytes : loop_bytes;
    size_t telemetry_bytes = telemetry_max_message_bytes();
    max_bytes = max_bytes > telemetry_bytes ? max_bytes : telemetry_bytes;
    w->jobs = jobs_create("helper");
    return comm_start(w->comm, max_bytes, e) ||
                   comm_watch(w->comm, w->config.deadline.silence_ns, e)
               ? -1
               : 0;
}

int world_open(struct world *w, struct run_config *config, int rc, struct err *e)
{
    int joined = join(w, config, rc, e);
    run_config_free(config); // every rank has rank 0's by now, or has no use for one
    return joined;
}

/* --- waiting ----------------------------------------------------------------------------------- */

static int wait_for_job(struct world *w, long ticket, struct err *e)
{
    int64_t deadline_ns = clock_local_ns() + w->config.deadline.start_ns;
    for (int idle = 0; !jobs_done(w->jobs, ticket); idle++) {
        if (signals_abort()) {
            return err_set(e, ERR_ENV, SIGNALS_ABORTED);
        }
        if (clock_local_ns() > deadline_ns) {
            return err_set(e, ERR_ENV, "rank %d: not ready within deadline.start", w->rank);
        }
        if (comm_pause(w->comm, idle, e)) {
            return -1;
        }
    }
    return 0;
}

/* A job that was given up still uses its caller's memory: it is waited for, or the process ends. */
int world_wait(struct world *w, void (*fn)(void *), void *arg, struct err *e)
{
    long ticket = jobs_push(w->jobs, fn, arg);
    if (wait_for_job(w, ticket, e) == 0) {
        return 0;
    }
    int64_t deadline_ns = clock_local_ns() + GIVE_UP_NS;
    while (!jobs_done(w->jobs, ticket)) {
        if (clock_local_ns() > deadline_ns) {
            world_fail(w, e);
            _exit(e->code);
        }
        clock_sleep_until_ns(clock_local_ns() + NS_PER_MS);
    }
    return -1;
}

int world_next_message(struct world *w, struct comm_msg *m, int64_t timeout_ns, const char *what,
                       struct err *e)
{
    int64_t deadline_ns = clock_local_ns() + timeout_ns;
    for (int idle = 0;; idle++) {
        int rc = comm_poll(w->comm, m, e);
        if (rc) {
            return rc;
        }
        if (signals_abort()) {
            return err_set(e, ERR_ENV, SIGNALS_ABORTED);
        }
        if (timeout_ns >= 0 && clock_local_ns() > deadline_ns) {
            return err_set(e, ERR_ENV, "rank %d: no %s within %.0f s", w->rank, what,
                           (double)timeout_ns / 1e9);
        }
        if (comm_pause(w->comm, idle, e)) {
            return -1;
        }
    }
}

/* --- a service without steps --------------------------------------------------------------------- */

static int tell_workers(struct world *w, int tag, const void *data, size_t n_bytes, struct err *e)
{
    for (int r = 1; r < comm_size(w->comm); r++) {
        if (comm_post(w->comm, r, tag, data, n_bytes, e)) {
            return -1;
        }
    }
    return 0;
}

int world_begin_service(struct world *w, struct err *e)
{
    struct wire_step step = {.kind = STEP_BASE, .users = 1, .t_begin_ns = clock_now_ns()};
    step.t_warm_ns = step.t_begin_ns;
    step.t_end_ns = step.t_drain_ns = step.t_begin_ns + SERVICE_NS;
    return tell_workers(w, WIRE_STEP, &step, sizeof step, e);
}

int world_end_service(struct world *w, struct err *e)
{
    struct wire_step_end end = {0};
    if (tell_workers(w, WIRE_STEP_END, &end, sizeof end, e)) {
        return -1;
    }
    for (int n_left = comm_size(w->comm) - 1; n_left > 0;) {
        struct comm_msg m;
        if (world_next_message(w, &m, w->config.deadline.start_ns, "end", e) < 0) {
            return -1;
        }
        n_left -= m.tag == WIRE_STEP_DONE;
    }
    return tell_workers(w, WIRE_SHUTDOWN, NULL, 0, e);
}

/* --- loading ----------------------------------------------------------------------------------- */

struct load_job {
    struct world *w;
    struct placement placement; // of a worker
    struct links links;
    bool with_dataset;
    int rc;
    struct err e;
};

static int create_worker(struct world *w, struct placement *p, const struct links *l, struct err *e)
{
    if (placement_plan(p, e)) {
        return -1;
    }
    const struct worker_cores cores = {
        .n_threads = p->part.n_threads,
        .cpus = p->cpus,
        .placement = cores_placement_text(p->part.placement),
        .index = p->index,
        .n_neighbours = p->n_neighbours,
        .hop_in = links_hop(l, w, -1),
        .hop_out = links_hop(l, w, 1),
        .sums = links_sums(l, w),
    };
    if (worker_create(&w->worker, &w->layout, w->rank, &cores, &w->config.target, &w->arch, e)) {
        return -1;
    }
    worker_set_deadline(w->worker, w->config.deadline.batch_ns);
    return 0;
}

static void load_job_run(void *arg)
{
    struct load_job *job = arg;
    struct world *w = job->w;
    const struct run_config *c = &w->config;
    if (!w->is_load) {
        job->rc = create_worker(w, &job->placement, &job->links, &job->e);
        return;
    }
    job->rc = text_model_tokenizer(c, &w->arch, &w->tokenizer, &job->e);
    if (job->rc == 0 && job->with_dataset) {
        struct dataset_model model = text_model_dataset(c, &w->arch, w->tokenizer);
        job->rc = dataset_open(&w->dataset, &c->dataset, &model, &job->e);
        if (job->rc == 0) {
            job->rc = plan_check(&c->load, w->dataset, &job->e);
        }
    }
}

/* --- GPUs -------------------------------------------------------------------------------------- */

/* What `auto` is for a worker, and why it is not cuda. */
struct auto_job {
    int32_t is_cuda;
    char why[160];
};

static void auto_job_run(void *arg)
{
    struct auto_job *job = arg;
    job->is_cuda = strcmp(backend_auto(job->why, sizeof job->why), "cuda") == 0;
}

/* Rank 0's look at all workers: the first that has no GPU, or NULL. */
static const struct auto_job *without_gpu(const struct world *w, const struct auto_job *all)
{
    for (int r = w->layout.load_ranks; r < comm_size(w->comm); r++) {
        if (!all[r].is_cuda) {
            return &all[r];
        }
    }
    return NULL;
}

/* `auto` becomes cuda where every worker has a GPU, else cpu: for all ranks alike. Collective. */
static int choose_backend(struct world *w, struct err *e)
{
    struct target_config *t = &w->config.target;
    if (t->kind != TARGET_STAGES || t->backend != TARGET_BACKEND_AUTO) {
        return 0;
    }
    struct auto_job mine = {0};
    if (!w->is_load && world_wait(w, auto_job_run, &mine, e)) {
        return -1;
    }
    struct auto_job *all = w->rank == 0 ? xcalloc((size_t)comm_size(w->comm), sizeof *all) : NULL;
    int rc = comm_gather(w->comm, &mine, sizeof mine, all, e);
    int32_t chosen = TARGET_BACKEND_CUDA;
    const struct auto_job *without = rc == 0 && all ? without_gpu(w, all) : NULL;
    if (without) {
        chosen = TARGET_BACKEND_CPU;
        snprintf(w->auto_why, sizeof w->auto_why, "%s", without->why);
    }
    free(all);
    rc = rc || comm_bcast(w->comm, &chosen, sizeof chosen, 0, e) ? -1 : 0;
    t->chosen.backend = chosen;
    return rc;
}

struct settle_job {
    struct world *w;
    int rc;
    struct err e;
};

static void settle_job_run(void *arg)
{
    struct settle_job *job = arg;
    struct world *w = job->w;
    job->rc = w->worker ? worker_settle(w->worker, &w->config.target, &job->e) : 0;
}

/* The KV pool that the stage with the least room has room for, on all ranks. Collective. */
static int settle_workers(struct world *w, struct err *e)
{
    struct target_config *t = &w->config.target;
    if (t->kind != TARGET_STAGES || target_backend(t) != TARGET_BACKEND_CUDA) {
        return 0;
    }
    const size_t n = (size_t)comm_size(w->comm);
    int64_t room = w->worker ? worker_room(w->worker) : INT64_MAX;
    int64_t *all = w->rank == 0 ? xcalloc(n, sizeof *all) : NULL;
    int rc = comm_gather(w->comm, &room, sizeof room, all, e);
    for (size_t r = 0; rc == 0 && all && r < n; r++) {
        room = all[r] < room ? all[r] : room;
    }
    free(all);
    if (rc || comm_bcast(w->comm, &room, sizeof room, 0, e)) {
        return -1;
    }
    struct settle_job job = {.w = w};
    if (target_kv_fit(t, &w->arch, room, &t->chosen.kv_tokens, &job.e) == 0 &&
        world_wait(w, settle_job_run, &job, e)) {
        return -1;
    }
    *e = job.e;
    return world_agree(w, e);
}

static int open_links(struct world *w, struct load_job *job, struct err *e)
{
    const struct links_place place = {job->placement.index, job->placement.n_neighbours};
    return links_open(&job->links, w, &place, e);
}

int world_load(struct world *w, bool with_dataset, struct err *e)
{
    struct load_job job = {.w = w, .with_dataset = with_dataset};
    const struct target_config *t = &w->config.target;
    const int rc =
        choose_backend(w, e) ||
        placement_share(&job.placement, w->comm, &w->layout, (int)t->threads, t->pin, e) ||
        open_links(w, &job, e) || world_wait(w, load_job_run, &job, e);
    links_close(&job.links);
    placement_free(&job.placement);
    if (rc) {
        return -1;
    }
    *e = job.e;
    if (world_agree(w, e) || settle_workers(w, e) || world_measure_clocks(w, e)) {
        return -1;
    }
    clock_set_offset_ns(w->clock.offset_ns);
    return 0;
}

/* --- describing --------------------------------------------------------------------------------- */

const char *world_describe_rank(const struct layout *l, int rank, char *buf, size_t cap)
{
    if (layout_is_load(l, rank)) {
        snprintf(buf, cap, "load rank");
    } else {
        struct layout_worker p = layout_worker(l, rank);
        int n = snprintf(buf, cap, "worker, replica %d stage %d", p.replica, p.stage);
        if (l->tensor > 1 && n > 0 && (size_t)n < cap) {
            snprintf(buf + n, cap - (size_t)n, " tensor %d", p.tensor);
        }
    }
    return buf;
}

static const char *class_name(void)
{
    switch (sched_getscheduler(0)) {
    case SCHED_FIFO:
        return "fifo";
    case SCHED_IDLE:
        return "idle";
    default:
        return "other";
    }
}

static struct store_rank own_row(const struct world *w)
{
    struct store_rank r = {
        .rank = w->rank,
        .role = !w->is_load,
        .replica = -1,
        .stage = -1,
        .tensor = -1,
        .pid = (int32_t)getpid(),
        .clock_offset_ns = w->clock.offset_ns,
        .clock_bound_ns = w->clock.bound_ns,
    };
    if (!w->is_load) {
        struct layout_worker p = layout_worker(&w->layout, w->rank);
        r.replica = p.replica;
        r.stage = p.stage;
        r.tensor = p.tensor;
    }
    if (w->worker) {
        struct engine mine;
        worker_about(w->worker, &mine);
        memcpy(r.kernels, mine.kernels, sizeof r.kernels);
    }
    snprintf(r.host, sizeof r.host, "%s", comm_host(w->comm, w->rank));
    cores_text_self(r.cpuset, sizeof r.cpuset);
    const char *compute = !w->worker ? "-" : worker_idle_class(w->worker) ? "idle" : "other";
    snprintf(r.sched_class, sizeof r.sched_class, "%s/%s", class_name(), compute);
    return r;
}

int world_measure_clocks(struct world *w, struct err *e)
{
    return clocksync_measure(w->comm, CLOCK_ROUNDS, &w->clock, e);
}

int world_ranks(struct world *w, struct store_rank **rows, struct err *e)
{
    struct store_rank mine = own_row(w);
    struct store_rank *all = w->rank == 0 ? xcalloc((size_t)comm_size(w->comm), sizeof *all) : NULL;
    if (comm_gather(w->comm, &mine, sizeof mine, all, e)) {
        free(all);
        return -1;
    }
    *rows = all;
    return 0;
}

/* The host's CPU, where the backend names no device of its own. */
static void name_device(struct engine *mine)
{
    if (mine->device[0] == '\0') {
        provenance_cpu(mine->device, sizeof mine->device);
    }
}

int world_engines(struct world *w, struct engine **rows, size_t *n, struct err *e)
{
    struct engine mine = {.rank = w->rank};
    if (w->worker) {
        worker_about(w->worker, &mine);
        name_device(&mine);
        mine.numa = wires_node(&mine);
    }
    struct engine *all = w->rank == 0 ? xcalloc((size_t)comm_size(w->comm), sizeof *all) : NULL;
    *rows = NULL;
    *n = 0;
    if (comm_gather(w->comm, &mine, sizeof mine, all, e)) {
        free(all);
        return -1;
    }
    for (int r = 0; all && r < comm_size(w->comm); r++) {
        if (!layout_is_load(&w->layout, r)) {
            all[(*n)++] = all[r];
        }
    }
    *rows = all;
    return 0;
}

int world_fail(struct world *w, struct err *e)
{
    int code = e->code;
    if (signals_abort() && comm_launched()) {
        _exit(ERR_ENV); // told to go: the launcher knows why
    }
    if (w->comm && !w->agreed && comm_size(w->comm) > 1) {
        comm_abort(w->comm, code, "%s", e->msg);
    }
    if (w->rank != 0) { // in peace: an exit code could end rank 0 before it has spoken
        *e = (struct err){0};
        code = 0;
    } else { // before it waits for the others: should one not come, the cause has been said
        err_say_once(e);
    }
    world_close(w);
    return code;
}

void world_close(struct world *w)
{
    if (w->jobs) {
        jobs_destroy(w->jobs);
    }
    worker_destroy(w->worker);
    dataset_close(w->dataset);
    tokenizer_close(w->tokenizer);
    run_config_free(&w->config);
    if (w->comm) {
        comm_close(w->comm);
    }
}
