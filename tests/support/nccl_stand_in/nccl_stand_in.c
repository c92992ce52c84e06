/*
 * A stand-in for NCCL between processes of one host, as a shared object that TIDEMARK_NCCL can name: the calls that
 * workers/cuda/nccl_library.h lists, on streams and memory of the GPU stand-in. Bytes really move, through memory that
 * the id's maker shares, when the stream comes to it: so also each time that a graph is launched. No call waits, as in
 * a communicator of NCCL's that does not block. It is stricter: a call before the last one is known to be queued
 * is refused, and so is a receive of another size than was sent.
 *
 * What goes wrong is scripted by NCCL_STAND_IN, words of the form key=value that spaces part:
 *
 *   version=22809  what it says that it is
 *   polls=3        every call is in progress for so many looks at least (0)
 *   rank=1         only this rank does what follows (all)
 *   refuse=2       the second call is refused; calls are counted per communicator, and its creation is 0
 *   error=2        the second call is accepted, and then fails
 *   hang=2         the second call is never done
 *   hang_in=abort  ncclCommAbort does not return; or destroy
 */
#include "workers/cuda/nccl_library.h"

#include <cuda_runtime.h>

#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define MOST_RANKS     8
#define MOST_TRANSFERS 32
#define PIPE_BYTES     (1u << 16)
#define NAP_NS         20000

/* Bytes from one rank to another, in order. */
struct pipe {
    _Alignas(64) atomic_size_t written;
    _Alignas(64) atomic_size_t read;
    char bytes[PIPE_BYTES];
};

struct shared {
    atomic_int n_arrived, n_finalized;
    struct pipe pipes[MOST_RANKS][MOST_RANKS]; // from, to
};

/* A message is its size and its bytes. */
struct transfer {
    bool is_send;
    int peer;
    char *bytes; // (n)
    size_t n, moved, size, size_moved;
};

enum kind {
    MESSAGES,
    SUM,
    GATHER,
    CREATION,
    FINALIZATION,
};

/* What a stream does, once or, from a graph, again and again; or what a communicator does by itself. */
struct call {
    struct nccl_library_comm *comm;
    struct call *next; // of all there have been: graphs may come back to any
    enum kind kind;
    bool fails, hangs;
    int n;
    struct transfer transfers[MOST_TRANSFERS];
    // of a sum, or a gather
    const void *in;
    void *out;
    size_t n_values;
    int type;
    // while it is done
    bool is_running;
    atomic_bool is_over;
    pthread_t thread;
};

struct nccl_library_comm {
    int size, index, n_calls;
    struct nccl_library_id id;
    struct shared *shared;
    atomic_int state, looks; // looks: for which it is in progress in any case
    atomic_bool is_known;    // that the last call is done, by a look
    atomic_bool aborted;
};

#define EXPORTED __attribute__((visibility("default")))

static char last_error[256];
static struct call *calls;

static __thread int depth; // of groups
static __thread struct call group;
static __thread struct CUstream_st *grouped_on;

/* --- the script ----------------------------------------------------------------------------------- */

static const char *value_of(const char *key)
{
    const char *script = getenv("NCCL_STAND_IN");
    size_t n = strlen(key);
    for (const char *at = script; at && *at; at = strchr(at, ' ') ? strchr(at, ' ') + 1 : NULL) {
        if (strncmp(at, key, n) == 0 && at[n] == '=') {
            return at + n + 1;
        }
    }
    return NULL;
}

static int number_of(const char *key, int otherwise)
{
    const char *v = value_of(key);
    return v ? atoi(v) : otherwise;
}

static bool is_told(const struct nccl_library_comm *c, const char *key)
{
    return number_of("rank", c->index) == c->index && number_of(key, -1) == c->n_calls;
}

static int refuse(int result, const char *why)
{
    snprintf(last_error, sizeof last_error, "%s", why);
    return result;
}

static void nap(void)
{
    nanosleep(&(struct timespec){.tv_nsec = NAP_NS}, NULL);
}

static bool hangs_in(const struct nccl_library_comm *c, const char *call)
{
    const char *told = value_of("hang_in");
    return told && strncmp(told, call, strlen(call)) == 0 &&
           number_of("rank", c->index) == c->index;
}

/* --- bytes ---------------------------------------------------------------------------------------- */

/* As many as fit: how many have moved. */
static size_t write_some(struct pipe *p, const char *from, size_t n)
{
    const size_t at = atomic_load_explicit(&p->written, memory_order_relaxed);
    const size_t room = PIPE_BYTES - (at - atomic_load_explicit(&p->read, memory_order_acquire));
    size_t most = PIPE_BYTES - at % PIPE_BYTES;
    most = most < room ? most : room;
    most = most < n ? most : n;
    memcpy(p->bytes + at % PIPE_BYTES, from, most);
    atomic_store_explicit(&p->written, at + most, memory_order_release);
    return most;
}

static size_t read_some(struct pipe *p, char *to, size_t n)
{
    const size_t at = atomic_load_explicit(&p->read, memory_order_relaxed);
    const size_t there = atomic_load_explicit(&p->written, memory_order_acquire) - at;
    size_t most = PIPE_BYTES - at % PIPE_BYTES;
    most = most < there ? most : there;
    most = most < n ? most : n;
    memcpy(to, p->bytes + at % PIPE_BYTES, most);
    atomic_store_explicit(&p->read, at + most, memory_order_release);
    return most;
}

static size_t move_some(struct nccl_library_comm *c, struct transfer *t, char *bytes, size_t n)
{
    return t->is_send ? write_some(&c->shared->pipes[c->index][t->peer], bytes, n)
                      : read_some(&c->shared->pipes[t->peer][c->index], bytes, n);
}

static void fail(struct nccl_library_comm *c, int result, const char *why)
{
    atomic_store(&c->state, refuse(result, why));
}

/* First the size; the bytes when it is known to fit. */
static size_t progress(struct nccl_library_comm *c, struct transfer *t)
{
    if (t->size_moved < sizeof t->size) {
        char *size = (char *)&t->size;
        const size_t k = move_some(c, t, size + t->size_moved, sizeof t->size - t->size_moved);
        t->size_moved += k;
        return k;
    }
    if (t->size != t->n) {
        fail(c, NCCL_LIBRARY_INVALID_USAGE, "a receive of another size than was sent");
        return 0;
    }
    const size_t k = move_some(c, t, t->bytes + t->moved, t->n - t->moved);
    t->moved += k;
    return k;
}

static bool has_moved(const struct transfer *t)
{
    return t->size_moved == sizeof t->size && t->moved == t->n;
}

/* Between the same two the first comes first. */
static bool is_turn(const struct call *call, int i)
{
    const struct transfer *t = &call->transfers[i];
    for (int k = 0; k < i; k++) {
        const struct transfer *other = &call->transfers[k];
        if (other->peer == t->peer && other->is_send == t->is_send && !has_moved(other)) {
            return false;
        }
    }
    return true;
}

static bool is_over(const struct nccl_library_comm *c)
{
    const int state = atomic_load(&c->state);
    return atomic_load(&c->aborted) ||
           (state != NCCL_LIBRARY_IN_PROGRESS && state != NCCL_LIBRARY_DONE);
}

/* Whether all have moved. */
static bool move_all(struct call *call)
{
    for (int i = 0; i < call->n; i++) {
        struct transfer *t = &call->transfers[i];
        t->moved = t->size_moved = 0;
        t->size = t->is_send ? t->n : 0;
    }
    bool is_done = false;
    while (!is_done && !is_over(call->comm)) {
        size_t moved = 0;
        is_done = true;
        for (int i = 0; i < call->n; i++) {
            moved += is_turn(call, i) ? progress(call->comm, &call->transfers[i]) : 0;
            is_done = is_done && has_moved(&call->transfers[i]);
        }
        if (moved == 0 && !is_done) {
            nap();
        }
    }
    return is_done;
}

/* --- sums ----------------------------------------------------------------------------------------- */

static float float_of(const char *values, size_t i, int type)
{
    uint32_t bits;
    uint16_t half;
    float v;
    if (type == NCCL_LIBRARY_FLOAT32) {
        memcpy(&v, values + 4 * i, 4);
        return v;
    }
    memcpy(&half, values + 2 * i, 2);
    bits = (uint32_t)half << 16;
    memcpy(&v, &bits, 4);
    return v;
}

static void store(char *values, size_t i, int type, float v)
{
    uint32_t bits;
    memcpy(&bits, &v, 4);
    if (type == NCCL_LIBRARY_FLOAT32) {
        memcpy(values + 4 * i, &v, 4);
        return;
    }
    const uint16_t half = (uint16_t)((bits + 0x7fffu + (bits >> 16 & 1)) >> 16);
    memcpy(values + 2 * i, &half, 2);
}

static size_t size_of(int type)
{
    return type == NCCL_LIBRARY_FLOAT32 ? 4 : type == NCCL_LIBRARY_BFLOAT16 ? 2 : 1;
}

/* All ranks' bytes (n of each) to `all`, in the order of the ranks. */
static bool gather(struct call *call, char *all, size_t n)
{
    const struct nccl_library_comm *c = call->comm;
    memmove(all + (size_t)c->index * n, call->in, n);
    call->n = 0;
    for (int i = 0; i < c->size; i++) {
        if (i != c->index) {
            call->transfers[call->n++] = (struct transfer){
                .is_send = true, .peer = i, .bytes = all + (size_t)c->index * n, .n = n};
            call->transfers[call->n++] =
                (struct transfer){.peer = i, .bytes = all + (size_t)i * n, .n = n};
        }
    }
    return move_all(call);
}

/* In the order of the ranks, each sum rounded once. */
static bool add_up(struct call *call)
{
    const size_t n_bytes = call->n_values * size_of(call->type);
    char *all = malloc((size_t)call->comm->size * n_bytes);
    const bool is_done = gather(call, all, n_bytes);
    for (size_t i = 0; is_done && i < call->n_values; i++) {
        float sum = 0;
        for (size_t r = 0; r < (size_t)call->comm->size; r++) {
            sum += float_of(all + r * n_bytes, i, call->type);
        }
        store(call->out, i, call->type, sum);
    }
    free(all);
    return is_done;
}

/* --- calls ---------------------------------------------------------------------------------------- */

static bool wait_for_all(const struct nccl_library_comm *c, atomic_int *n)
{
    atomic_fetch_add(n, 1);
    while (atomic_load(n) < c->size && !is_over(c)) {
        nap();
    }
    return atomic_load(n) >= c->size;
}

static bool create(struct nccl_library_comm *c)
{
    const int fd = open(c->id.bytes, O_RDWR | O_CLOEXEC);
    void *p = fd < 0 ? MAP_FAILED
                     : mmap(NULL, sizeof *c->shared, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (fd >= 0) {
        close(fd);
    }
    if (p == MAP_FAILED) {
        fail(c, NCCL_LIBRARY_SYSTEM_ERROR, "the rank that made the id cannot be reached");
        return false;
    }
    c->shared = p;
    return wait_for_all(c, &c->shared->n_arrived);
}

static bool is_done_now(struct call *call)
{
    struct nccl_library_comm *c = call->comm;
    if (call->fails) {
        fail(c, NCCL_LIBRARY_REMOTE_ERROR, "as the script wants it");
    }
    if (call->fails || call->hangs) {
        return false;
    }
    switch (call->kind) {
    case CREATION:
        return create(c);
    case FINALIZATION:
        return wait_for_all(c, &c->shared->n_finalized);
    case SUM:
        return add_up(call);
    case GATHER:
        return gather(call, call->out, call->n_values * size_of(call->type));
    case MESSAGES:
    default:
        return move_all(call);
    }
}

/* What is not done, for whatever reason, ends by an abort alone. */
static void *run(void *arg)
{
    struct call *call = arg;
    const bool is_done = is_done_now(call);
    while (!is_done && !atomic_load(&call->comm->aborted)) {
        nap();
    }
    int in_progress = NCCL_LIBRARY_IN_PROGRESS;
    atomic_compare_exchange_strong(&call->comm->state, &in_progress, NCCL_LIBRARY_DONE);
    atomic_store(&call->is_over, true);
    return NULL;
}

/* 1: it is done; else it goes on, or begins. */
static int ask(void *arg)
{
    struct call *call = arg;
    if (!call->is_running) {
        atomic_store(&call->is_over, false);
        call->is_running = pthread_create(&call->thread, NULL, run, call) == 0;
    }
    if (!atomic_load(&call->is_over)) {
        return 0;
    }
    pthread_join(call->thread, NULL);
    call->is_running = false;
    return 1;
}

static struct call *keep(struct nccl_library_comm *c, const struct call *call)
{
    struct call *kept = malloc(sizeof *kept);
    *kept = *call;
    kept->comm = c;
    kept->next = calls;
    kept->fails = is_told(c, "error");
    kept->hangs = is_told(c, "hang");
    calls = kept;
    return kept;
}

/* Whatever it was told to do; on a stream, or by itself. */
static int begin(struct nccl_library_comm *c, const struct call *what, struct CUstream_st *s)
{
    if (!atomic_load(&c->is_known) || is_over(c)) {
        return refuse(NCCL_LIBRARY_INVALID_ARGUMENT, "a call before the last one is done");
    }
    const bool is_refused = is_told(c, "refuse");
    struct call *call = keep(c, what);
    c->n_calls++;
    atomic_store(&c->is_known, false);
    atomic_store(&c->looks, number_of("polls", 0));
    if (is_refused) {
        fail(c, NCCL_LIBRARY_SYSTEM_ERROR, "as the script wants it");
        return NCCL_LIBRARY_SYSTEM_ERROR;
    }
    if (s) {
        ((struct gpu_on_cpu_stream *)(void *)s)->queue(s, ask, call);
    } else {
        atomic_store(&c->state, NCCL_LIBRARY_IN_PROGRESS);
        ask(call);
    }
    return NCCL_LIBRARY_IN_PROGRESS;
}

static int end(struct nccl_library_comm *c)
{
    atomic_store(&c->aborted, true);
    for (struct call *call = calls; call; call = call->next) {
        const bool is_own = call->comm == c && call->is_running;
        while (is_own && !atomic_load(&call->is_over)) {
            nap();
        }
        if (is_own && (call->kind == CREATION || call->kind == FINALIZATION)) {
            ask(call);
        }
    }
    return NCCL_LIBRARY_DONE;
}

/* --- what it exports ------------------------------------------------------------------------------ */

EXPORTED int ncclGetVersion(int *version);
EXPORTED const char *ncclGetErrorString(int result);
EXPORTED const char *ncclGetLastError(struct nccl_library_comm *c);
EXPORTED int ncclGetUniqueId(struct nccl_library_id *id);
EXPORTED int ncclCommInitRankConfig(struct nccl_library_comm **out, int size,
                                    struct nccl_library_id id, int index,
                                    struct nccl_library_settings *settings);
EXPORTED int ncclCommGetAsyncError(struct nccl_library_comm *c, int *result);
EXPORTED int ncclCommFinalize(struct nccl_library_comm *c);
EXPORTED int ncclCommDestroy(struct nccl_library_comm *c);
EXPORTED int ncclCommAbort(struct nccl_library_comm *c);
EXPORTED int ncclGroupStart(void);
EXPORTED int ncclGroupEnd(void);
EXPORTED int ncclSend(const void *from, size_t n, int type, int peer, struct nccl_library_comm *c,
                      struct CUstream_st *s);
EXPORTED int ncclRecv(void *to, size_t n, int type, int peer, struct nccl_library_comm *c,
                      struct CUstream_st *s);
EXPORTED int ncclAllReduce(const void *in, void *out, size_t n, int type, int op,
                           struct nccl_library_comm *c, struct CUstream_st *s);
EXPORTED int ncclAllGather(const void *mine, void *all, size_t n, int type,
                           struct nccl_library_comm *c, struct CUstream_st *s);

int ncclGetVersion(int *version)
{
    *version = number_of("version", 22809);
    return NCCL_LIBRARY_DONE;
}

const char *ncclGetErrorString(int result)
{
    static const char *const names[] = {"no error",       "unhandled cuda error", "system error",
                                        "internal error", "invalid argument",     "invalid usage",
                                        "remote error",   "in progress"};
    return result >= 0 && result < 8 ? names[result] : "unknown result code";
}

const char *ncclGetLastError(struct nccl_library_comm *c)
{
    (void)c;
    return last_error;
}

/* Memory without a name: gone with its last user, however that ends. */
int ncclGetUniqueId(struct nccl_library_id *id)
{
    const int fd = memfd_create("nccl-stand-in", MFD_CLOEXEC);
    memset(id, 0, sizeof *id);
    snprintf(id->bytes, sizeof id->bytes, "/proc/%d/fd/%d", (int)getpid(), fd);
    return fd >= 0 && ftruncate(fd, sizeof(struct shared)) == 0 ? NCCL_LIBRARY_DONE
                                                                : NCCL_LIBRARY_SYSTEM_ERROR;
}

int ncclCommInitRankConfig(struct nccl_library_comm **out, int size, struct nccl_library_id id,
                           int index, struct nccl_library_settings *settings)
{
    const bool is_fine = settings->mark == NCCL_LIBRARY_MARK && settings->blocking == 0 &&
                         settings->n_bytes == sizeof *settings;
    *out = NULL;
    if (!is_fine || size < 1 || size > MOST_RANKS || index < 0 || index >= size) {
        return refuse(NCCL_LIBRARY_INVALID_ARGUMENT, "settings or ranks that it does not take");
    }
    struct nccl_library_comm *c = calloc(1, sizeof *c); // graphs may come back to it
    *out = c;
    c->size = size;
    c->index = index;
    c->id = id;
    atomic_store(&c->is_known, true);
    return begin(c, &(struct call){.kind = CREATION}, NULL);
}

int ncclCommGetAsyncError(struct nccl_library_comm *c, int *result)
{
    *result = atomic_load(&c->state);
    if (atomic_load(&c->looks) > 0) {
        atomic_fetch_sub(&c->looks, 1);
        *result = NCCL_LIBRARY_IN_PROGRESS;
    }
    atomic_store(&c->is_known, *result == NCCL_LIBRARY_DONE);
    return NCCL_LIBRARY_DONE;
}

int ncclCommFinalize(struct nccl_library_comm *c)
{
    return begin(c, &(struct call){.kind = FINALIZATION}, NULL);
}

int ncclCommDestroy(struct nccl_library_comm *c)
{
    while (hangs_in(c, "destroy")) {
        nap();
    }
    return end(c);
}

int ncclCommAbort(struct nccl_library_comm *c)
{
    while (hangs_in(c, "abort")) {
        nap();
    }
    return end(c);
}

int ncclGroupStart(void)
{
    depth++;
    return NCCL_LIBRARY_DONE;
}

int ncclGroupEnd(void)
{
    const struct call call = group;
    struct CUstream_st *s = grouped_on;
    if (--depth > 0 || !call.comm) {
        return NCCL_LIBRARY_DONE;
    }
    group = (struct call){.kind = MESSAGES};
    return begin(call.comm, &call, s);
}

static int add(struct nccl_library_comm *c, struct CUstream_st *s, const struct transfer *t)
{
    if (t->peer < 0 || t->peer >= c->size || group.n == MOST_TRANSFERS ||
        (group.comm && (group.comm != c || grouped_on != s))) {
        return refuse(NCCL_LIBRARY_INVALID_ARGUMENT, "a message that it does not take");
    }
    ncclGroupStart();
    group.comm = c;
    grouped_on = s;
    group.transfers[group.n++] = *t;
    return ncclGroupEnd();
}

int ncclSend(const void *from, size_t n, int type, int peer, struct nccl_library_comm *c,
             struct CUstream_st *s)
{
    return add(c, s,
               &(struct transfer){.is_send = true,
                                  .peer = peer,
                                  .bytes = (char *)(uintptr_t)from,
                                  .n = n * size_of(type)});
}

int ncclRecv(void *to, size_t n, int type, int peer, struct nccl_library_comm *c,
             struct CUstream_st *s)
{
    return add(c, s, &(struct transfer){.peer = peer, .bytes = to, .n = n * size_of(type)});
}

int ncclAllReduce(const void *in, void *out, size_t n, int type, int op,
                  struct nccl_library_comm *c, struct CUstream_st *s)
{
    if (op != NCCL_LIBRARY_SUM || type == NCCL_LIBRARY_BYTES) {
        return refuse(NCCL_LIBRARY_INVALID_ARGUMENT, "what it cannot add up");
    }
    return begin(c, &(struct call){.kind = SUM, .in = in, .out = out, .n_values = n, .type = type},
                 s);
}

int ncclAllGather(const void *mine, void *all, size_t n, int type, struct nccl_library_comm *c,
                  struct CUstream_st *s)
{
    return begin(
        c, &(struct call){.kind = GATHER, .in = mine, .out = all, .n_values = n, .type = type}, s);
}
