/*
 * NCCL between processes: 1, 2 and 3 ranks, each a process with a GPU of its own. On the stand-ins of both; with
 * NCCL itself as many ranks as there are GPUs. What goes wrong at one rank, and what the others see of it, is for
 * the stand-in alone.
 */
#include <cuda_runtime.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

extern "C" {
#include <cmocka.h>

#include "core/clock.h"
#include "workers/cuda/gpu.h"
#include "workers/cuda/nccl_comm.h"
}

enum { MOST = 3, LARGEST = 8 << 20, LIMIT_S = 120, N_SUMMED = 70001, TOGETHER = 20 };

/* What the processes share. */
struct board {
    volatile int has_id, failed, n_at_end;
    struct nccl_library_id id;
    uint64_t hash[MOST];
    int64_t took_ns[MOST];
    char said[MOST][512]; // the last error of a rank
};

static struct board *board;

/* One rank, in its process. */
struct rank {
    int size, index;
    struct nccl_library library;
    struct gpu *gpu;
    struct nccl_comm *comm;
    struct err e;
};

static int64_t in_ms(int64_t ms)
{
    return clock_local_ns() + ms * NS_PER_MS;
}

/* Ends the rank. */
[[noreturn]] static void die(const struct rank *r, const char *what)
{
    fprintf(stderr, "rank %d: %s\n", r->index, what);
    _exit(1);
}

#define EXPECT(cond)                                                                               \
    do {                                                                                           \
        if (!(cond)) {                                                                             \
            die(r, #cond);                                                                        \
        }                                                                                          \
    } while (0)

static void must(const struct rank *r, int rc)
{
    if (rc < 0) {
        die(r, r->e.msg);
    }
}

static int until(struct rank *r, int (*ask)(struct nccl_comm *, struct err *))
{
    int rc;
    while ((rc = ask(r->comm, &r->e)) == 0) {
        usleep(100); // the test's alarm is its limit
    }
    return rc;
}

/* --- a rank's life -------------------------------------------------------------------------------- */

static void begin(struct rank *r, int64_t deadline_ns)
{
    static const int ranks[MOST] = {10, 11, 12};
    must(r, nccl_library_open(&r->library, &r->e));
    must(r, gpu_open(&r->gpu, r->index, ranks[r->index], &r->e));
    if (r->index == 0) {
        must(r, nccl_comm_make_id(&r->library, ranks[0], &board->id, &r->e));
        __atomic_store_n(&board->has_id, 1, __ATOMIC_RELEASE);
    }
    while (!__atomic_load_n(&board->has_id, __ATOMIC_ACQUIRE)) {
        usleep(100);
    }
    struct nccl_comm_config cfg = {};
    cfg.library = &r->library;
    cfg.gpu = r->gpu;
    cfg.purpose = "hidden states";
    cfg.ranks = ranks;
    cfg.size = r->size;
    cfg.index = r->index;
    cfg.id = board->id;
    must(r, nccl_comm_start(&r->comm, &cfg, deadline_ns, &r->e));
}

static void open_it(struct rank *r)
{
    begin(r, in_ms(60000));
    must(r, until(r, nccl_comm_ready));
}

static void close_it(struct rank *r)
{
    must(r, until(r, nccl_comm_ended));
    EXPECT(nccl_comm_close(r->comm));
    gpu_close(r->gpu);
}

static void finish(struct rank *r)
{
    nccl_comm_finish(r->comm, in_ms(60000));
    close_it(r);
}

/* A failed rank tells the others what NCCL does not, and aborts. */
static void abort_with(struct rank *r)
{
    const int64_t begin_ns = clock_local_ns();
    memcpy(board->said[r->index], r->e.msg, sizeof board->said[0]);
    __atomic_store_n(&board->failed, 1, __ATOMIC_RELEASE);
    nccl_comm_abort(r->comm, in_ms(60000));
    close_it(r);
    board->took_ns[r->index] = clock_local_ns() - begin_ns;
}

/* --- the world of a test -------------------------------------------------------------------------- */

static const char *script = "";

static pid_t begin_rank(int size, int index, void (*body)(struct rank *))
{
    fflush(nullptr);
    const pid_t pid = fork();
    if (pid != 0) {
        return pid;
    }
    alarm(LIMIT_S); // a hang ends there
    setenv("NCCL_STAND_IN", script, 1);
    setenv("GPU_ON_CPU_DEVICES", "3", 1);
    struct rank r = {};
    r.size = size;
    r.index = index;
    body(&r);
    _exit(0);
}

/* How rank `index` ended is status[index], as waitpid has it. */
static void run_all(int size, void (*body)(struct rank *), int *status)
{
    pid_t pid[MOST];
    memset(board, 0, sizeof *board);
    for (int i = 0; i < size; i++) {
        pid[i] = begin_rank(size, i, body);
        assert_true(pid[i] > 0);
    }
    for (int i = 0; i < size; i++) {
        assert_int_equal(waitpid(pid[i], &status[i], 0), pid[i]);
    }
}

static void run(int size, void (*body)(struct rank *))
{
    int status[MOST];
    run_all(size, body, status);
    for (int i = 0; i < size; i++) {
        assert_int_equal(status[i], 0);
    }
}

static void count(struct rank *r)
{
    r->size = gpu_count();
    _exit(r->size < MOST ? r->size : MOST);
}

/* Of GPUs, asked by a process of its own: whoever has asked cannot fork any more. */
static int n_gpus()
{
    int status = 0;
    const pid_t pid = begin_rank(1, 0, count);
    return waitpid(pid, &status, 0) == pid && WIFEXITED(status) ? WEXITSTATUS(status) : 0;
}

static int most;

static void run_each(void (*body)(struct rank *))
{
    for (int size = 1; size <= most; size++) {
        run(size, body);
    }
}

/* --- what works ----------------------------------------------------------------------------------- */

static void create_only(struct rank *r)
{
    open_it(r);
    finish(r);
}

static void created(void **state)
{
    (void)state;
    run_each(create_only);
    script = "polls=9";
    run_each(create_only);
    script = "";
}

static uint8_t byte_of(int rank, size_t i)
{
    return (uint8_t)(i * 7 + i / 251 + (size_t)rank * 31 + 1);
}

/* A device's memory and what the host sees of it. */
struct buffer {
    size_t n;
    void *device;
    uint8_t *host;
};

static struct buffer take(struct rank *r, size_t n)
{
    struct buffer b = {};
    void *host;
    b.n = n;
    must(r, gpu_take(r->gpu, n, "a test", &b.device, &r->e));
    must(r, gpu_take_host(r->gpu, n, "a test", &host, &r->e));
    b.host = (uint8_t *)host;
    return b;
}

static void to_device(struct rank *r, const struct buffer *b)
{
    must(r, gpu_copy_in(r->gpu, b->device, b->host, b->n, &r->e));
    must(r, gpu_wait(r->gpu, in_ms(60000), &r->e));
}

static void to_host(struct rank *r, const struct buffer *b)
{
    must(r, gpu_copy_out(r->gpu, b->host, b->device, b->n, &r->e));
    must(r, gpu_wait(r->gpu, in_ms(60000), &r->e));
}

/* All send to the next and receive from the one before, in one message. */
static void ring(struct rank *r)
{
    static const size_t sizes[] = {1, 2, 3, 1000, 4099, 65528, 65536, 65537, 1 << 20, LARGEST - 3, LARGEST};
    open_it(r);
    const struct buffer from = take(r, LARGEST), to = take(r, LARGEST);
    const int next = (r->index + 1) % r->size, before = (r->index + r->size - 1) % r->size;
    for (size_t n : sizes) {
        for (size_t i = 0; i < LARGEST; i++) {
            from.host[i] = byte_of(r->index, i + n);
        }
        to_device(r, &from);
        memset(to.host, 0xee, LARGEST);
        to_device(r, &to);
        const struct nccl_comm_part parts[] = {{true, next, from.device, n}, {false, before, to.device, n}};
        must(r, nccl_comm_post(r->comm, parts, 2, in_ms(60000), &r->e));
        must(r, until(r, nccl_comm_turn));
        to_host(r, &to);
        for (size_t i = 0; i < LARGEST; i++) {
            EXPECT(to.host[i] == (i < n ? byte_of(before, i + n) : 0xee));
        }
    }
    finish(r);
}

static void ring_of_ranks(void **state)
{
    (void)state;
    run_each(ring);
}

/* As of a pipeline's edge: receives are posted before anything is sent, and messages come in order. */
static void edge(struct rank *r)
{
    open_it(r);
    const struct buffer b = take(r, TOGETHER * 1000);
    const bool is_sender = r->index == 0;
    for (size_t i = 0; i < b.n; i++) {
        b.host[i] = is_sender ? byte_of(0, i) : 0;
    }
    to_device(r, &b);
    if (is_sender) {
        usleep(50000);
    }
    int n_posted = 0, n_done = 0;
    while (n_done < TOGETHER) {
        if (n_posted < TOGETHER && nccl_comm_has_room(r->comm)) {
            const struct nccl_comm_part part = {is_sender, 1 - r->index,
                                                (uint8_t *)b.device + 1000 * n_posted,
                                                (size_t)(1000 - 7 * n_posted)};
            must(r, nccl_comm_post(r->comm, &part, 1, in_ms(60000), &r->e));
            n_posted++;
            continue;
        }
        const int done = nccl_comm_turn(r->comm, &r->e);
        must(r, done);
        n_done += done;
    }
    to_host(r, &b);
    for (size_t i = 0; i < b.n; i++) {
        const bool has_come = i % 1000 < 1000 - 7 * (i / 1000);
        EXPECT(b.host[i] == (is_sender || has_come ? byte_of(0, i) : 0));
    }
    finish(r);
}

static void an_edge(void **state)
{
    (void)state;
    if (most < 2) {
        skip();
    }
    run(2, edge);
    script = "polls=3";
    run(2, edge);
    script = "";
}

static float value_of(int rank, int i)
{
    return (float)((i * 37 + rank * 101) % 2001 - 1000) * 0.0078125f;
}

static uint16_t narrow(float v)
{
    uint32_t bits;
    memcpy(&bits, &v, sizeof bits);
    return (uint16_t)((bits + 0x7fffu + (bits >> 16 & 1)) >> 16);
}

static float widen(uint16_t half)
{
    const uint32_t bits = (uint32_t)half << 16;
    float v;
    memcpy(&v, &bits, sizeof v);
    return v;
}

static uint64_t hash_of(const struct buffer *b)
{
    uint64_t h = 14695981039346656037u;
    for (size_t i = 0; i < b->n; i++) {
        h = (h ^ b->host[i]) * 1099511628211u;
    }
    return h;
}

static void sum_wide(struct rank *r)
{
    open_it(r);
    const struct buffer b = take(r, N_SUMMED * sizeof(float));
    float *x = (float *)(void *)b.host;
    for (int i = 0; i < N_SUMMED; i++) {
        x[i] = value_of(r->index, i);
    }
    must(r, gpu_copy_in(r->gpu, b.device, b.host, b.n, &r->e));
    must(r, nccl_comm_sum(r->comm, b.device, N_SUMMED, ARCH_F32, in_ms(60000), &r->e));
    to_host(r, &b);
    for (int i = 0; i < N_SUMMED; i++) {
        float want = 0;
        for (int k = 0; k < r->size; k++) {
            want += value_of(k, i);
        }
        EXPECT(x[i] == want); // multiples of 1/128: exact in any order
    }
    board->hash[r->index] = hash_of(&b);
    finish(r);
}

static void sum_narrow(struct rank *r)
{
    open_it(r);
    const struct buffer b = take(r, N_SUMMED * sizeof(uint16_t));
    uint16_t *x = (uint16_t *)(void *)b.host;
    for (int i = 0; i < N_SUMMED; i++) {
        x[i] = narrow(value_of(r->index, i));
    }
    must(r, gpu_copy_in(r->gpu, b.device, b.host, b.n, &r->e));
    must(r, nccl_comm_sum(r->comm, b.device, N_SUMMED, ARCH_BF16, in_ms(60000), &r->e));
    to_host(r, &b);
    for (int i = 0; i < N_SUMMED; i++) {
        float want = 0, most_off = 0.01f;
        for (int k = 0; k < r->size; k++) {
            const float v = widen(narrow(value_of(k, i)));
            want += v;
            most_off += (v < 0 ? -v : v) / 128;
        }
        const float off = widen(x[i]) - want;
        EXPECT(off <= most_off && off >= -most_off);
    }
    board->hash[r->index] = hash_of(&b);
    finish(r);
}

static void sums_are_the_same(void **state)
{
    (void)state;
    for (int size = 1; size <= most; size++) {
        for (auto body : {sum_wide, sum_narrow}) {
            run(size, body);
            for (int i = 1; i < size; i++) {
                assert_int_equal(board->hash[i], board->hash[0]);
            }
        }
    }
}

static void gather(struct rank *r)
{
    const size_t n = 4099;
    open_it(r);
    const struct buffer b = take(r, n * (size_t)r->size);
    uint8_t *own = (uint8_t *)b.device + n * (size_t)r->index;
    for (size_t i = 0; i < b.n; i++) {
        b.host[i] = i / n == (size_t)r->index ? byte_of(r->index, i) : 0;
    }
    must(r, gpu_copy_in(r->gpu, b.device, b.host, b.n, &r->e));
    must(r, nccl_comm_gather(r->comm, own, n, b.device, in_ms(60000), &r->e));
    must(r, gpu_copy_out(r->gpu, b.host, b.device, b.n, &r->e));
    int done;
    while ((done = nccl_comm_watch(r->comm, in_ms(60000), &r->e)) == 0) {
        usleep(100);
    }
    must(r, done);
    for (size_t i = 0; i < b.n; i++) {
        EXPECT(b.host[i] == byte_of((int)(i / n), i));
    }
    finish(r);
}

static void gathered(void **state)
{
    (void)state;
    run_each(gather);
}

/* Sums of a graph happen each time that it is queued: x becomes size^2 times, and size^3 times what it was. */
static void sum_in_a_graph(struct rank *r)
{
    struct gpu_graph *graph;
    open_it(r);
    const struct buffer b = take(r, N_SUMMED * sizeof(float));
    float *x = (float *)(void *)b.host;
    for (int i = 0; i < N_SUMMED; i++) {
        x[i] = (float)(i % 100);
    }
    must(r, gpu_copy_in(r->gpu, b.device, b.host, b.n, &r->e));
    must(r, nccl_comm_sum(r->comm, b.device, N_SUMMED, ARCH_F32, in_ms(60000), &r->e));
    must(r, gpu_wait(r->gpu, in_ms(60000), &r->e));
    must(r, gpu_graph_record(r->gpu, &r->e));
    must(r, nccl_comm_sum(r->comm, b.device, N_SUMMED, ARCH_F32, in_ms(60000), &r->e));
    must(r, gpu_graph_recorded(r->gpu, "a test", &graph, &r->e));
    for (int k = 0; k < 2; k++) {
        must(r, gpu_graph_queue(r->gpu, graph, &r->e));
    }
    to_host(r, &b);
    for (int i = 0; i < N_SUMMED; i++) {
        EXPECT(x[i] == (float)(i % 100 * r->size * r->size * r->size));
    }
    gpu_graph_free(graph);
    finish(r);
}

static void graphs(void **state)
{
    (void)state;
    run_each(sum_in_a_graph);
}

/* Messages that come after what computes: here, late copies into what is sent. */
static void send_after(struct rank *r)
{
    open_it(r);
    const struct buffer from = take(r, 1 << 20), to = take(r, 1 << 20);
    const int next = (r->index + 1) % r->size, before = (r->index + r->size - 1) % r->size;
#ifdef GPU_ON_CPU
    gpu_on_cpu_defer(1);
#endif
    for (int round = 1; round <= 3; round++) {
        for (size_t i = 0; i < from.n; i++) {
            from.host[i] = byte_of(r->index, i * (size_t)round);
        }
        must(r, gpu_copy_in(r->gpu, from.device, from.host, from.n, &r->e));
        must(r, nccl_comm_after_gpu(r->comm, &r->e));
        const struct nccl_comm_part parts[] = {{true, next, from.device, from.n}, {false, before, to.device, to.n}};
        must(r, nccl_comm_post(r->comm, parts, 2, in_ms(60000), &r->e));
        must(r, until(r, nccl_comm_turn));
        to_host(r, &to);
        for (size_t i = 0; i < to.n; i++) {
            EXPECT(to.host[i] == byte_of(before, i * (size_t)round));
        }
    }
#ifdef GPU_ON_CPU
    gpu_on_cpu_defer(0);
#endif
    finish(r);
}

static void after_what_computes(void **state)
{
    (void)state;
    run_each(send_after);
}

/* --- what fails ----------------------------------------------------------------------------------- */

#ifdef GPU_ON_CPU
/* Messages round the ring until one fails, here or elsewhere; then all abort. */
static void ring_until(struct rank *r, int64_t create_ms, int64_t deadline_ms)
{
    begin(r, in_ms(create_ms));
    int rc = until(r, nccl_comm_ready);
    const struct buffer from = take(r, 1000), to = take(r, 1000);
    while (rc > 0) {
        const struct nccl_comm_part parts[] = {
            {true, (r->index + 1) % r->size, from.device, from.n},
            {false, (r->index + r->size - 1) % r->size, to.device, to.n}};
        rc = nccl_comm_post(r->comm, parts, 2, in_ms(deadline_ms), &r->e);
        while (rc == 0 && !__atomic_load_n(&board->failed, __ATOMIC_ACQUIRE)) {
            rc = nccl_comm_turn(r->comm, &r->e);
        }
    }
    abort_with(r);
}

static void ring_long(struct rank *r)
{
    ring_until(r, 60000, 60000);
}

static void ring_short(struct rank *r)
{
    ring_until(r, 60000, 700);
}

static void create_short(struct rank *r)
{
    ring_until(r, 700, 60000);
}

static void expect_said(int index, const char *what)
{
    if (strstr(board->said[index], what) == nullptr || strchr(board->said[index], '\n') != nullptr) {
        fail_msg("rank %d said: %s", index, board->said[index]);
    }
}

/* What fails at one rank ends all, well before their own deadlines. */
static void one_fails(void **state)
{
    (void)state;
    for (int size = 1; size <= MOST; size++) {
        char words[32], says[192];
        snprintf(words, sizeof words, "rank=%d error=5", size - 1);
        snprintf(says, sizeof says,
                 "rank %d, GPU %d (GPU on CPU): NCCL (hidden states): ncclSend of 1000 bytes to rank 10 and 1 more: "
                 "remote error; as the script wants it",
                 9 + size, size - 1);
        script = words;
        const int64_t begin_ns = clock_local_ns();
        run(size, ring_long);
        assert_true(clock_local_ns() - begin_ns < 30 * NS_PER_S);
        expect_said(size - 1, says);
        for (int i = 0; i + 1 < size; i++) {
            assert_string_equal(board->said[i], ""); // they have been told
            assert_true(board->took_ns[i] < 10 * NS_PER_S);
        }
    }
    script = "";
}

/* Nobody says anything: deadlines do. */
static void one_hangs(void **state)
{
    (void)state;
    for (int at = 0; at < 5; at += 4) {
        char words[32];
        snprintf(words, sizeof words, "rank=1 hang=%d", at);
        script = words;
        run(3, at == 0 ? create_short : ring_short);
        int n_said = 0;
        for (int i = 0; i < 3; i++) {
            if (board->said[i][0] != '\0') {
                expect_said(i, at == 0 ? "NCCL (hidden states): ncclCommInitRankConfig among 3 ranks: not done after "
                                       : "NCCL (hidden states): ncclSend of 1000 bytes to rank 1");
                expect_said(i, " s, at its deadline");
                n_said++;
            }
        }
        assert_true(n_said >= 1);
    }
    script = "";
}

static void ring_with_a_death(struct rank *r)
{
    if (r->index != 1) {
        ring_short(r);
        return;
    }
    open_it(r);
    raise(SIGKILL);
}

static void one_dies(void **state)
{
    (void)state;
    int status[MOST];
    run_all(3, ring_with_a_death, status);
    assert_true(WIFSIGNALED(status[1]) && status[0] == 0 && status[2] == 0);
    assert_true(board->said[0][0] != '\0' || board->said[2][0] != '\0');
}

/* An abort that hangs: the rank says so, and leaves without it. */
static void leave_without(struct rank *r)
{
    open_it(r);
    nccl_comm_abort(r->comm, in_ms(300));
    if (r->index == 1) {
        EXPECT(until(r, nccl_comm_ended) == -1);
        memcpy(board->said[1], r->e.msg, sizeof board->said[1]);
        EXPECT(!nccl_comm_close(r->comm));
        _exit(0);
    }
    nccl_comm_abort(r->comm, in_ms(60000));
    close_it(r);
}

static void an_abort_hangs(void **state)
{
    (void)state;
    script = "rank=1 hang_in=abort";
    run(2, leave_without);
    expect_said(1, "rank 11, GPU 1 (GPU on CPU): NCCL (hidden states): ncclCommAbort among 2 ranks: not done after ");
    script = "";
}

/* Real NCCL would wait for ever, or worse. */
static void say_different_sizes(struct rank *r)
{
    open_it(r);
    const struct buffer b = take(r, 1000);
    const struct nccl_comm_part part = {r->index == 0, 1 - r->index, b.device, (size_t)(r->index == 0 ? 1000 : 999)};
    int rc = nccl_comm_post(r->comm, &part, 1, in_ms(60000), &r->e);
    rc = rc == 0 ? until(r, nccl_comm_turn) : rc;
    EXPECT(rc == (r->index == 0 ? 1 : -1));
    abort_with(r);
}

static void sizes_differ(void **state)
{
    (void)state;
    run(2, say_different_sizes);
    expect_said(1, "ncclRecv of 999 bytes from rank 10: invalid usage; a receive of another size than was sent");
}

/* One rank ends in order, the other does not come: its deadline says so. */
static void end_alone(struct rank *r)
{
    open_it(r);
    if (r->index == 0) {
        nccl_comm_finish(r->comm, in_ms(500));
        EXPECT(until(r, nccl_comm_ended) == -1);
    } else {
        while (!__atomic_load_n(&board->failed, __ATOMIC_ACQUIRE)) {
            usleep(100);
        }
    }
    abort_with(r);
}

static void one_ends_alone(void **state)
{
    (void)state;
    run(2, end_alone);
    expect_said(0, "NCCL (hidden states): ncclCommFinalize among 2 ranks: not done after ");
}
#endif

static int look_at_library()
{
    struct nccl_library library;
    struct err e = {};
    if (nccl_library_open(&library, &e) == 0) {
        return 0;
    }
    printf("skipped: %s\n", e.msg);
    return 77;
}

int main()
{
    const CMUnitTest tests[] = {
        cmocka_unit_test(created),
        cmocka_unit_test(ring_of_ranks),
        cmocka_unit_test(an_edge),
        cmocka_unit_test(sums_are_the_same),
        cmocka_unit_test(gathered),
        cmocka_unit_test(graphs),
        cmocka_unit_test(after_what_computes),
#ifdef GPU_ON_CPU
        cmocka_unit_test(one_fails),
        cmocka_unit_test(one_hangs),
        cmocka_unit_test(one_dies),
        cmocka_unit_test(an_abort_hangs),
        cmocka_unit_test(sizes_differ),
        cmocka_unit_test(one_ends_alone),
#endif
    };
    void *p = mmap(nullptr, sizeof *board, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    board = (struct board *)p;
    most = n_gpus();
    if (most == 0) {
        printf("skipped: no GPU\n");
        return 77;
    }
    printf("up to %d ranks\n", most);
    const int skipped = look_at_library();
    return skipped ? skipped : cmocka_run_group_tests(tests, nullptr, nullptr);
}
