#include "workers/cuda/nccl_comm.h"

#include <cuda_runtime.h>

#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/clock.h"
#include "core/mem.h"
#include "core/thread.h"
#include "workers/cuda/gpu.h"

#define MULTI_RANK_VERSION 23000 // from here on two ranks may share a GPU, where a variable says so
#define MULTI_RANK_SWITCH  "NCCL_MULTI_RANK_GPU_ENABLE"
#define WAIT_SPIN_NS       (1 * NS_PER_MS)
#define WAIT_NAP_NS        (20 * NS_PER_US)

enum state {
    CREATING,
    READY,
    FINALIZING,
    LEAVING, // a thread makes NCCL's last call
    ENDED,
};

/* What NCCL was asked, for messages, and until when it may take. */
struct work {
    const char *call;
    size_t n_bytes;
    int peer, n_more; // index, or -1: all; parts beside the first
    int64_t begun_ns, deadline_ns;
};

struct message {
    struct work work;
    struct nccl_comm_part parts[NCCL_COMM_PARTS];
    int n_parts;
    cudaEvent_t done;
};

struct nccl_comm {
    struct nccl_comm_config cfg;
    int device;
    int *ranks;                       // (size)
    struct nccl_library_comm *handle; // NULL: NCCL made none
    enum state state;
    struct work call; // the last one that was not about messages
    struct err error; // the first one
    atomic_bool given_up;
    cudaStream_t stream;  // of messages
    cudaEvent_t computed; // on the GPU's stream, that messages come after
    // Message k is messages[k % NCCL_COMM_DEPTH]: posted >= queued >= done.
    struct message messages[NCCL_COMM_DEPTH];
    uint64_t n_posted, n_queued, n_done;
    bool is_queueing; // NCCL has been given message n_queued, and may not be done with it
    // the last call
    int (*leave)(struct nccl_library_comm *);
    pthread_t leaver;
    atomic_bool has_left;
    int left_with;
};

/* --- what is said --------------------------------------------------------------------------------- */

/* "ncclRecv of 8192 bytes from rank 3" */
static void describe(const struct nccl_comm *c, const struct work *w, char *text, size_t cap)
{
    char bytes[48] = "", peer[32] = "", more[32] = "";
    if (w->n_bytes > 0) {
        snprintf(bytes, sizeof bytes, " of %zu bytes", w->n_bytes);
    }
    if (w->peer >= 0) {
        snprintf(peer, sizeof peer, " %s rank %d", strcmp(w->call, "ncclSend") ? "from" : "to",
                 c->ranks[w->peer]);
    } else {
        snprintf(peer, sizeof peer, " among %d rank%s", c->cfg.size, c->cfg.size > 1 ? "s" : "");
    }
    if (w->n_more > 0) {
        snprintf(more, sizeof more, " and %d more", w->n_more);
    }
    snprintf(text, cap, "%s%s%s%s", w->call, bytes, peer, more);
}

/* What the communicator is at: its oldest message, or its last call. */
static const struct work *at_hand(const struct nccl_comm *c)
{
    return c->n_done < c->n_posted ? &c->messages[c->n_done % NCCL_COMM_DEPTH].work : &c->call;
}

/* The first error stays. */
static int keep(struct nccl_comm *c, const struct err *e)
{
    if (c->error.code == ERR_NONE) {
        c->error = *e;
    }
    return -1;
}

static int blame(struct nccl_comm *c, struct err *e)
{
    gpu_blame(c->cfg.gpu, e);
    return keep(c, e);
}

/* NCCL answered `result` to a call, or about work that was under way. */
static int failed(struct nccl_comm *c, const struct work *w, int result, struct err *e)
{
    const struct nccl_library *lib = c->cfg.library;
    const char *more = lib->last_error ? lib->last_error(NULL) : NULL;
    char what[160];
    describe(c, w, what, sizeof what);
    more = more ? more : "";
    err_set(e, ERR_ENV, "NCCL (%s): %s: %s%s%.*s", c->cfg.purpose, what, lib->error_string(result),
            more[0] ? "; " : "", (int)strcspn(more, "\n"), more);
    return blame(c, e);
}

static int failed_cuda(struct nccl_comm *c, const char *call, cudaError_t code, struct err *e)
{
    err_set(e, ERR_ENV, "NCCL (%s): %s: %s", c->cfg.purpose, call, cudaGetErrorString(code));
    cudaGetLastError();
    return blame(c, e);
}

static int late(struct nccl_comm *c, const struct work *w, struct err *e)
{
    char what[160];
    describe(c, w, what, sizeof what);
    err_set(e, ERR_ENV, "NCCL (%s): %s: not done after %.1f s, at its deadline", c->cfg.purpose,
            what, (double)(clock_local_ns() - w->begun_ns) / (double)NS_PER_S);
    return blame(c, e);
}

static bool is_late(const struct work *w)
{
    return clock_local_ns() > w->deadline_ns;
}

/* What is under way from now on that is not a message. */
static void begin_call(struct nccl_comm *c, const char *call, size_t n_bytes, int64_t deadline_ns)
{
    c->call = (struct work){
        .call = call,
        .n_bytes = n_bytes,
        .peer = -1,
        .begun_ns = clock_local_ns(),
        .deadline_ns = deadline_ns,
    };
}

/* 1: NCCL is done with what it was asked last; 0: not yet; -1: an error, its own or another rank's. */
static int look(struct nccl_comm *c, struct err *e)
{
    int result = NCCL_LIBRARY_DONE;
    if (c->error.code != ERR_NONE) {
        *e = c->error;
        return -1;
    }
    if (atomic_load_explicit(&c->given_up, memory_order_relaxed)) {
        err_set(e, ERR_ENV, "NCCL (%s): given up", c->cfg.purpose);
        return blame(c, e);
    }
    const int said = c->cfg.library->async_error(c->handle, &result);
    if (said != NCCL_LIBRARY_DONE || result == NCCL_LIBRARY_DONE) {
        return said == NCCL_LIBRARY_DONE ? 1 : failed(c, at_hand(c), said, e);
    }
    return result == NCCL_LIBRARY_IN_PROGRESS ? 0 : failed(c, at_hand(c), result, e);
}

static bool is_accepted(int result)
{
    return result == NCCL_LIBRARY_DONE || result == NCCL_LIBRARY_IN_PROGRESS;
}

/* --- before --------------------------------------------------------------------------------------- */

/* Two ranks on one GPU: a newer NCCL lets them where it is told to. */
static bool may_share(const struct nccl_library *library)
{
    const char *told = getenv(MULTI_RANK_SWITCH);
    return library->version >= MULTI_RANK_VERSION && told && strcmp(told, "1") == 0;
}

int nccl_comm_check(const struct nccl_library *library, const struct nccl_comm_place *places, int n,
                    struct err *e)
{
    for (int i = 0; i < n && !may_share(library); i++) {
        for (int k = 0; k < i; k++) {
            if (strcmp(places[i].host, places[k].host) == 0 &&
                strcmp(places[i].pci, places[k].pci) == 0) {
                return err_set(e, ERR_INPUT,
                               "NCCL %s takes no two ranks on one GPU: %d and %d are on %s of "
                               "host %s; CUDA IPC and host memory do",
                               library->numbers, places[k].rank, places[i].rank, places[i].pci,
                               places[i].host);
            }
        }
    }
    return 0;
}

int nccl_comm_make_id(const struct nccl_library *library, int rank, struct nccl_library_id *id,
                      struct err *e)
{
    const int result = library->make_id(id);
    if (result == NCCL_LIBRARY_DONE) {
        return 0;
    }
    const char *more = library->last_error ? library->last_error(NULL) : NULL;
    more = more ? more : "";
    return err_set(e, ERR_ENV, "rank %d: NCCL: ncclGetUniqueId: %s%s%.*s", rank,
                   library->error_string(result), more[0] ? "; " : "", (int)strcspn(more, "\n"),
                   more);
}

/* --- life ----------------------------------------------------------------------------------------- */

static int make_stream(struct nccl_comm *c, struct err *e)
{
    cudaError_t code = cudaStreamCreateWithFlags(&c->stream, cudaStreamNonBlocking);
    if (code != cudaSuccess) {
        return failed_cuda(c, "cudaStreamCreate", code, e);
    }
    code = cudaEventCreateWithFlags(&c->computed, cudaEventDisableTiming);
    for (int i = 0; i < NCCL_COMM_DEPTH && code == cudaSuccess; i++) {
        code = cudaEventCreateWithFlags(&c->messages[i].done, cudaEventDisableTiming);
    }
    return code == cudaSuccess ? 0 : failed_cuda(c, "cudaEventCreate", code, e);
}

static void forget(struct nccl_comm *c)
{
    for (int i = 0; i < NCCL_COMM_DEPTH; i++) {
        if (c->messages[i].done) {
            cudaEventDestroy(c->messages[i].done);
        }
    }
    if (c->computed) {
        cudaEventDestroy(c->computed);
    }
    if (c->stream) {
        cudaStreamDestroy(c->stream);
    }
    cudaGetLastError();
    free(c->ranks);
    free(c);
}

static int init(struct nccl_comm *c, struct err *e)
{
    struct nccl_library_settings settings = {
        .n_bytes = sizeof settings,
        .mark = NCCL_LIBRARY_MARK,
        .version = NCCL_LIBRARY_SETTINGS,
        .blocking = 0,
    };
    const int result =
        c->cfg.library->init(&c->handle, c->cfg.size, c->cfg.id, c->cfg.index, &settings);
    if (is_accepted(result) && c->handle) {
        return 0;
    }
    failed(c, &c->call, result, e);
    return c->handle ? 0 : -1; // what it made must be ended, as if it had failed later
}

int nccl_comm_start(struct nccl_comm **out, const struct nccl_comm_config *cfg, int64_t deadline_ns,
                    struct err *e)
{
    CHECK(cfg->size >= 1 && cfg->index >= 0 && cfg->index < cfg->size);
    const size_t size = (size_t)cfg->size;
    struct nccl_comm *c = xcalloc(1, sizeof *c);
    c->cfg = *cfg;
    c->device = gpu_info(cfg->gpu)->device;
    c->ranks = xcalloc(size, sizeof *c->ranks);
    memcpy(c->ranks, cfg->ranks, size * sizeof *c->ranks);
    begin_call(c, "ncclCommInitRankConfig", 0, deadline_ns);
    if (gpu_use(cfg->gpu, e) || make_stream(c, e) || init(c, e)) {
        forget(c);
        return -1;
    }
    *out = c;
    return 0;
}

int nccl_comm_ready(struct nccl_comm *c, struct err *e)
{
    if (c->state != CREATING && c->error.code == ERR_NONE) {
        return 1;
    }
    const int done = look(c, e);
    if (done == 0 && is_late(&c->call)) {
        return late(c, &c->call, e);
    }
    c->state = done == 1 ? READY : c->state;
    return done;
}

void nccl_comm_give_up(struct nccl_comm *c)
{
    atomic_store_explicit(&c->given_up, true, memory_order_relaxed);
}

static void *leave(void *arg)
{
    struct nccl_comm *c = arg;
    cudaSetDevice(c->device);
    c->left_with = c->leave(c->handle);
    atomic_store_explicit(&c->has_left, true, memory_order_release);
    return NULL;
}

/* NCCL's last call, after which the handle is nothing any more: whoever asks is given an error. */
static int begin_leaving(struct nccl_comm *c, const char *call,
                         int (*fn)(struct nccl_library_comm *), struct err *e)
{
    struct err ended;
    c->leave = fn;
    begin_call(c, call, 0, c->call.deadline_ns);
    const int no = thread_start(&c->leaver, "nccl-end", leave, c);
    if (no != 0) {
        err_set(e, ERR_ENV, "NCCL (%s): %s: no thread for it: %s", c->cfg.purpose, call,
                strerror(no));
        return blame(c, e);
    }
    c->state = LEAVING;
    err_set(&ended, ERR_ENV, "NCCL (%s): ended by %s", c->cfg.purpose, call);
    blame(c, &ended);
    return 0;
}

void nccl_comm_finish(struct nccl_comm *c, int64_t deadline_ns)
{
    struct err ignored; // it stays
    CHECK(c->state == READY && c->n_done == c->n_posted);
    c->state = FINALIZING;
    begin_call(c, "ncclCommFinalize", 0, deadline_ns);
    const int result = c->cfg.library->finalize(c->handle);
    if (!is_accepted(result)) {
        failed(c, &c->call, result, &ignored);
    }
}

void nccl_comm_abort(struct nccl_comm *c, int64_t deadline_ns)
{
    struct err e;
    c->call.deadline_ns = deadline_ns;
    if (c->state != LEAVING && c->state != ENDED) {
        begin_leaving(c, "ncclCommAbort", c->cfg.library->abort, &e);
    }
}

/* What the last call answers matters only where it was in order. */
static int left(struct nccl_comm *c, struct err *e)
{
    if (!atomic_load_explicit(&c->has_left, memory_order_acquire)) {
        return is_late(&c->call) ? late(c, &c->call, e) : 0;
    }
    pthread_join(c->leaver, NULL);
    c->state = ENDED;
    const bool is_fine = is_accepted(c->left_with) || c->leave == c->cfg.library->abort;
    return is_fine ? 1 : failed(c, &c->call, c->left_with, e);
}

int nccl_comm_ended(struct nccl_comm *c, struct err *e)
{
    if (c->state == ENDED) {
        return 1;
    }
    if (c->state == LEAVING) {
        return left(c, e);
    }
    const int done = look(c, e);
    if (done < 0) {
        return -1;
    }
    CHECK(c->state == FINALIZING);
    if (done == 0) {
        return is_late(&c->call) ? late(c, &c->call, e) : 0;
    }
    return begin_leaving(c, "ncclCommDestroy", c->cfg.library->destroy, e);
}

bool nccl_comm_close(struct nccl_comm *c)
{
    if (!c) {
        return true;
    }
    if (c->state == LEAVING) {
        pthread_detach(c->leaver); // what it uses stays
        return false;
    }
    const bool has_ended = c->state == ENDED;
    if (has_ended) {
        cudaSetDevice(c->device);
        forget(c);
    }
    return has_ended;
}

/* 1: it has ended; else it has not by then. */
static int wait_ended(struct nccl_comm *c, int64_t deadline_ns)
{
    struct err ignored = {0};
    int rc;
    while ((rc = nccl_comm_ended(c, &ignored)) == 0 && clock_local_ns() < deadline_ns) {
        clock_sleep_until_ns(clock_local_ns() + NS_PER_MS);
    }
    return rc;
}

void nccl_comm_end(struct nccl_comm *c, int64_t limit_ns)
{
    int64_t deadline_ns = clock_local_ns() + limit_ns;
    bool has_ended = false;
    if (!c) {
        return;
    }
    struct gpu *gpu = c->cfg.gpu;
    if (c->state == READY && c->error.code == ERR_NONE && nccl_comm_is_quiet(c)) {
        nccl_comm_finish(c, deadline_ns);
        has_ended = wait_ended(c, deadline_ns) == 1;
    }
    if (!has_ended) {
        deadline_ns = clock_local_ns() + limit_ns;
        nccl_comm_abort(c, deadline_ns);
        wait_ended(c, deadline_ns);
    }
    if (!nccl_comm_close(c)) {
        gpu_leave_all(gpu);
    }
}

/* --- messages ------------------------------------------------------------------------------------- */

bool nccl_comm_has_room(const struct nccl_comm *c)
{
    return c->n_posted - c->n_done < NCCL_COMM_DEPTH;
}

bool nccl_comm_is_quiet(const struct nccl_comm *c)
{
    return c->n_done == c->n_posted;
}

static int queue_part(const struct nccl_comm *c, const struct nccl_comm_part *p)
{
    const struct nccl_library *lib = c->cfg.library;
    return p->is_send
               ? lib->send(p->buffer, p->n_bytes, NCCL_LIBRARY_BYTES, p->peer, c->handle, c->stream)
               : lib->recv(p->buffer, p->n_bytes, NCCL_LIBRARY_BYTES, p->peer, c->handle,
                           c->stream);
}

/* A group that was started is ended, whatever came between. */
static int queue_message(struct nccl_comm *c, struct message *m, struct err *e)
{
    const struct nccl_library *lib = c->cfg.library;
    if (gpu_use(c->cfg.gpu, e)) {
        return keep(c, e);
    }
    int result = lib->group_start();
    if (result != NCCL_LIBRARY_DONE) {
        return failed(c, &m->work, result, e);
    }
    for (int i = 0; i < m->n_parts && is_accepted(result); i++) {
        result = queue_part(c, &m->parts[i]);
    }
    const int ended = lib->group_end();
    result = is_accepted(result) ? ended : result;
    if (!is_accepted(result)) {
        return failed(c, &m->work, result, e);
    }
    c->is_queueing = true;
    return 0;
}

/* Give NCCL the next message when it is done with the last one: it takes one at a time. */
static int advance(struct nccl_comm *c, struct err *e)
{
    const int done = look(c, e);
    if (done <= 0) {
        return done;
    }
    struct message *m = &c->messages[c->n_queued % NCCL_COMM_DEPTH];
    if (c->is_queueing) {
        const cudaError_t code = cudaEventRecord(m->done, c->stream);
        if (code != cudaSuccess) {
            return failed_cuda(c, "cudaEventRecord", code, e);
        }
        c->is_queueing = false;
        c->n_queued++;
        m = &c->messages[c->n_queued % NCCL_COMM_DEPTH];
    }
    return c->n_queued < c->n_posted ? queue_message(c, m, e) : 0;
}

int nccl_comm_post(struct nccl_comm *c, const struct nccl_comm_part *parts, int n,
                   int64_t deadline_ns, struct err *e)
{
    CHECK(c->state == READY && nccl_comm_has_room(c) && n >= 1 && n <= NCCL_COMM_PARTS);
    struct message *m = &c->messages[c->n_posted % NCCL_COMM_DEPTH];
    for (int i = 0; i < n; i++) {
        const struct nccl_comm_part *p = &parts[i];
        CHECK(p->n_bytes > 0 && p->peer >= 0 && p->peer < c->cfg.size);
        m->parts[i] = *p;
    }
    m->n_parts = n;
    m->work = (struct work){
        .call = parts[0].is_send ? "ncclSend" : "ncclRecv",
        .n_bytes = parts[0].n_bytes,
        .peer = parts[0].peer,
        .n_more = n - 1,
        .begun_ns = clock_local_ns(),
        .deadline_ns = deadline_ns,
    };
    c->n_posted++;
    return advance(c, e);
}

int nccl_comm_after_gpu(struct nccl_comm *c, struct err *e)
{
    if (gpu_use(c->cfg.gpu, e)) {
        return keep(c, e);
    }
    const char *call = "cudaEventRecord";
    cudaError_t code = cudaEventRecord(c->computed, gpu_stream(c->cfg.gpu));
    if (code == cudaSuccess) {
        call = "cudaStreamWaitEvent";
        code = cudaStreamWaitEvent(c->stream, c->computed, 0);
    }
    return code == cudaSuccess ? 0 : failed_cuda(c, call, code, e);
}

int nccl_comm_turn(struct nccl_comm *c, struct err *e)
{
    if (advance(c, e)) {
        return -1;
    }
    if (c->n_done == c->n_posted) {
        return 0;
    }
    struct message *m = &c->messages[c->n_done % NCCL_COMM_DEPTH];
    if (c->n_done < c->n_queued) {
        const cudaError_t code = cudaEventQuery(m->done);
        if (code == cudaSuccess) {
            c->n_done++;
            return 1;
        }
        if (code != cudaErrorNotReady) {
            return failed_cuda(c, "cudaEventQuery", code, e);
        }
        cudaGetLastError(); // or it would be the next launch's
    }
    return is_late(&m->work) ? late(c, &m->work, e) : 0;
}

/* --- sums ----------------------------------------------------------------------------------------- */

/* Between two looks. */
static void pause_since(int64_t begun_ns)
{
    const int64_t now_ns = clock_local_ns();
    if (now_ns - begun_ns < WAIT_SPIN_NS) {
        sched_yield();
    } else {
        clock_sleep_until_ns(now_ns + WAIT_NAP_NS);
    }
}

/* Until NCCL has queued what it was asked. */
static int wait_queued(struct nccl_comm *c, struct err *e)
{
    int done;
    while ((done = look(c, e)) == 0) {
        if (is_late(&c->call)) {
            return late(c, &c->call, e);
        }
        pause_since(c->call.begun_ns);
    }
    return done < 0 ? -1 : 0;
}

/* An earlier error, or one that NCCL has found since. */
static int check_usable(struct nccl_comm *c, struct err *e)
{
    CHECK(c->state == READY && c->n_done == c->n_posted);
    return look(c, e) < 0 || gpu_use(c->cfg.gpu, e) ? -1 : 0;
}

static int queued(struct nccl_comm *c, int result, struct err *e)
{
    return is_accepted(result) ? wait_queued(c, e) : failed(c, &c->call, result, e);
}

int nccl_comm_sum(struct nccl_comm *c, void *x, size_t n, enum arch_dtype dtype,
                  int64_t deadline_ns, struct err *e)
{
    CHECK(n > 0 && (dtype == ARCH_F32 || dtype == ARCH_BF16));
    if (check_usable(c, e)) {
        return -1;
    }
    const bool is_wide = dtype == ARCH_F32;
    begin_call(c, "ncclAllReduce", n * (is_wide ? 4 : 2), deadline_ns);
    return queued(c,
                  c->cfg.library->all_reduce(x, x, n,
                                             is_wide ? NCCL_LIBRARY_FLOAT32 : NCCL_LIBRARY_BFLOAT16,
                                             NCCL_LIBRARY_SUM, c->handle, gpu_stream(c->cfg.gpu)),
                  e);
}

int nccl_comm_gather(struct nccl_comm *c, const void *mine, size_t n_bytes, void *all,
                     int64_t deadline_ns, struct err *e)
{
    CHECK(n_bytes > 0);
    if (check_usable(c, e)) {
        return -1;
    }
    begin_call(c, "ncclAllGather", n_bytes, deadline_ns);
    return queued(c,
                  c->cfg.library->all_gather(mine, all, n_bytes, NCCL_LIBRARY_BYTES, c->handle,
                                             gpu_stream(c->cfg.gpu)),
                  e);
}

int nccl_comm_watch(struct nccl_comm *c, int64_t deadline_ns, struct err *e)
{
    if (look(c, e) < 0) {
        return -1;
    }
    const int done = gpu_poll(c->cfg.gpu, e);
    if (done == 0 && clock_local_ns() > deadline_ns) {
        char what[160];
        describe(c, &c->call, what, sizeof what);
        err_set(e, ERR_ENV, "NCCL (%s): not done at its deadline; queued last with it: %s",
                c->cfg.purpose, what);
        return blame(c, e);
    }
    return done;
}

int nccl_comm_wait(struct nccl_comm *c, int64_t deadline_ns, struct err *e)
{
    const int64_t begun_ns = clock_local_ns();
    int done;
    while ((done = nccl_comm_watch(c, deadline_ns, e)) == 0) {
        pause_since(begun_ns);
    }
    return done < 0 ? -1 : 0;
}
