/*
 * NCCL as one rank uses it: the library is found or it is said why not, a communicator of size 1 is created, used,
 * ended and aborted, and what fails says so in one line, in time. With the stand-in of NCCL on the stand-in of a
 * GPU, whose failures are scripted; with NCCL itself on a GPU. Several ranks: test_nccl_ranks.cpp.
 */
#include "tests/cuda/device_test.h"

#include <pthread.h>
#include <unistd.h>

extern "C" {
#include "core/clock.h"
#include "workers/cuda/gpu.h"
#include "workers/cuda/nccl_comm.h"
}

enum { RANK = 3, MANY = 100003 };

static struct nccl_library library;
static const int ranks[2] = {RANK, RANK + 1};

static int64_t in_ms(int64_t ms)
{
    return clock_local_ns() + ms * NS_PER_MS;
}

static void must(int rc, const struct err *e)
{
    if (rc < 0) {
        fail_msg("%s", e->msg);
    }
}

static void expect_says(const struct err *e, enum err_code code, const char *what)
{
    if (strstr(e->msg, what) == nullptr || strchr(e->msg, '\n') != nullptr) {
        fail_msg("said: %s", e->msg);
    }
    assert_int_equal(e->code, code);
}

/* --- a communicator ------------------------------------------------------------------------------- */

struct one {
    struct gpu *gpu;
    struct nccl_comm *comm;
    struct err e;
};

/* Of `size` ranks, of which this is the first and, here, the only one. */
static void start(struct one *o, int size, int64_t deadline_ns)
{
    *o = {};
    must(gpu_open(&o->gpu, 0, RANK, &o->e), &o->e);
    struct nccl_comm_config cfg = {};
    cfg.library = &library;
    cfg.gpu = o->gpu;
    cfg.purpose = "a test";
    cfg.ranks = ranks;
    cfg.size = size;
    must(nccl_comm_make_id(&library, RANK, &cfg.id, &o->e), &o->e);
    must(nccl_comm_start(&o->comm, &cfg, deadline_ns, &o->e), &o->e);
}

/* 1 or -1 of a function that is asked again and again; it must not take longer than a minute. */
static int until(struct one *o, int (*ask)(struct nccl_comm *, struct err *))
{
    int rc;
    const int64_t limit_ns = in_ms(60000);
    while ((rc = ask(o->comm, &o->e)) == 0) {
        assert_true(clock_local_ns() < limit_ns);
        clock_sleep_until_ns(in_ms(1));
    }
    return rc;
}

static int watch(struct one *o, int64_t ms)
{
    int done;
    const int64_t deadline_ns = in_ms(ms);
    while ((done = nccl_comm_watch(o->comm, deadline_ns, &o->e)) == 0) {
        usleep(100);
    }
    return done;
}

static void open_one(struct one *o)
{
    start(o, 1, in_ms(60000));
    must(until(o, nccl_comm_ready), &o->e);
}

static void expect_gone(struct one *o)
{
    must(until(o, nccl_comm_ended), &o->e);
    assert_int_equal(nccl_comm_ended(o->comm, &o->e), 1);
    assert_true(nccl_comm_close(o->comm));
    gpu_close(o->gpu);
}

static void finish(struct one *o)
{
    nccl_comm_finish(o->comm, in_ms(60000));
    expect_gone(o);
}

static void abort_it(struct one *o)
{
    nccl_comm_abort(o->comm, in_ms(60000));
    expect_gone(o);
}

/* --- the library ---------------------------------------------------------------------------------- */

static void the_library(void **state)
{
    (void)state;
    assert_true(library.version >= 21400 && strlen(library.numbers) >= 5);
    char numbers[32];
    snprintf(numbers, sizeof numbers, "%d.%d.%d", library.version / 10000, library.version / 100 % 100,
             library.version % 100);
    assert_string_equal(library.numbers, numbers);
    assert_non_null(strstr(library.path, "nccl"));
}

static void another_library(void **state)
{
    (void)state;
    char kept[256];
    struct nccl_library other;
    struct err e = {};
    const char *told = getenv("TIDEMARK_NCCL");
    snprintf(kept, sizeof kept, "%s", told ? told : "");
    setenv("TIDEMARK_NCCL", "libm.so.6", 1);
    assert_int_equal(nccl_library_open(&other, &e), -1);
    expect_says(&e, ERR_INPUT, "NCCL: libm.so.6 has no ncclGetVersion, as NCCL has from 2.14 on");
    setenv("TIDEMARK_NCCL", "/nowhere/libnccl.so", 1);
    assert_int_equal(nccl_library_open(&other, &e), -1);
    expect_says(&e, ERR_INPUT, "NCCL: /nowhere/libnccl.so: cannot open shared object file");
    setenv("TIDEMARK_NCCL", "/proc/self/exe", 1); // a file, but no library
    assert_int_equal(nccl_library_open(&other, &e), -1);
    expect_says(&e, ERR_INPUT, "NCCL: /proc/self/exe");
    if (kept[0]) {
        setenv("TIDEMARK_NCCL", kept, 1);
    } else {
        unsetenv("TIDEMARK_NCCL");
    }
}

static void two_ranks_on_one_gpu(void **state)
{
    (void)state;
    struct nccl_library old = library, newer = library;
    struct nccl_comm_place places[] = {
        {4, "a", "0000:17:00"}, {5, "a", "0000:65:00"}, {6, "b", "0000:17:00"}, {7, "a", "0000:65:00"}};
    struct err e = {};
    old.version = 22809;
    snprintf(old.numbers, sizeof old.numbers, "2.28.9");
    newer.version = 23000;
    must(nccl_comm_check(&old, places, 3, &e), &e);
    assert_int_equal(nccl_comm_check(&old, places, 4, &e), -1);
    expect_says(&e, ERR_INPUT,
                "NCCL 2.28.9 takes no two ranks on one GPU: 5 and 7 are on 0000:65:00 of host a; CUDA IPC and "
                "host memory do");
    assert_int_equal(nccl_comm_check(&newer, places, 4, &e), -1);
    setenv("NCCL_MULTI_RANK_GPU_ENABLE", "1", 1);
    must(nccl_comm_check(&newer, places, 4, &e), &e);
    assert_int_equal(nccl_comm_check(&old, places, 4, &e), -1);
    unsetenv("NCCL_MULTI_RANK_GPU_ENABLE");
}

/* --- one rank ------------------------------------------------------------------------------------- */

static void created_and_ended(void **state)
{
    (void)state;
    struct one o;
    open_one(&o);
    assert_int_equal(nccl_comm_ready(o.comm, &o.e), 1);
    assert_int_equal(nccl_comm_turn(o.comm, &o.e), 0);
    assert_true(nccl_comm_is_quiet(o.comm) && nccl_comm_has_room(o.comm));
    finish(&o);
    open_one(&o);
    abort_it(&o);
    start(&o, 1, in_ms(60000)); // also when it was never looked at
    nccl_comm_abort(o.comm, in_ms(60000));
    assert_int_equal(nccl_comm_ready(o.comm, &o.e), -1);
    assert_int_equal(nccl_comm_turn(o.comm, &o.e), -1);
    expect_says(&o.e, ERR_ENV, "): NCCL (a test): ended by ncclCommAbort");
    expect_gone(&o);
    assert_true(nccl_comm_close(nullptr));
}

/* A sum of one rank is what it was; bits and all. */
static void sums(void **state)
{
    (void)state;
    struct one o;
    open_one(&o);
    for (enum arch_dtype dtype : {ARCH_F32, ARCH_BF16}) {
        const size_t n_bytes = MANY * (dtype == ARCH_F32 ? 4 : 2);
        void *device, *all, *host, *back;
        must(gpu_take(o.gpu, n_bytes, "a test", &device, &o.e), &o.e);
        must(gpu_take(o.gpu, n_bytes, "a test", &all, &o.e), &o.e);
        must(gpu_take_host(o.gpu, n_bytes, "a test", &host, &o.e), &o.e);
        must(gpu_take_host(o.gpu, n_bytes, "a test", &back, &o.e), &o.e);
        for (int i = 0; i < MANY; i++) {
            const float v = (float)(i % 1000) * 0.125f - 40;
            if (dtype == ARCH_F32) {
                ((float *)host)[i] = v;
            } else {
                ((uint16_t *)host)[i] = bits_of_float(v);
            }
        }
        must(gpu_copy_in(o.gpu, device, host, n_bytes, &o.e), &o.e);
        must(nccl_comm_sum(o.comm, device, MANY, dtype, in_ms(60000), &o.e), &o.e);
        must(nccl_comm_gather(o.comm, device, n_bytes, all, in_ms(60000), &o.e), &o.e);
        must(gpu_copy_out(o.gpu, back, all, n_bytes, &o.e), &o.e);
        must(watch(&o, 60000), &o.e);
        assert_memory_equal(back, host, n_bytes);
    }
    finish(&o);
}

/* To itself: more messages than there is room for at a time, each done once. */
static void messages(void **state)
{
    (void)state;
    struct one o;
    void *from, *to, *host;
    open_one(&o);
    must(gpu_take(o.gpu, MANY, "a test", &from, &o.e), &o.e);
    must(gpu_take(o.gpu, MANY, "a test", &to, &o.e), &o.e);
    must(gpu_take_host(o.gpu, MANY, "a test", &host, &o.e), &o.e);
    for (int i = 0; i < MANY; i++) {
        ((char *)host)[i] = (char)(i * 13 + i / 256);
    }
    must(gpu_copy_in(o.gpu, from, host, MANY, &o.e), &o.e);
    must(gpu_clear(o.gpu, to, MANY, &o.e), &o.e);
    must(gpu_wait(o.gpu, in_ms(60000), &o.e), &o.e);
    size_t at = 0;
    int n_done = 0, n_posted = 0;
    for (size_t n = 1; at < MANY || n_done < n_posted;) {
        const int done = nccl_comm_turn(o.comm, &o.e);
        must(done, &o.e);
        n_done += done;
        assert_true(n_done <= n_posted);
        assert_int_equal(nccl_comm_is_quiet(o.comm), n_done == n_posted);
        assert_int_equal(nccl_comm_has_room(o.comm), n_posted - n_done < NCCL_COMM_DEPTH);
        if (at < MANY && nccl_comm_has_room(o.comm)) {
            const size_t k = n < MANY - at ? n : MANY - at;
            const struct nccl_comm_part parts[] = {{true, 0, (char *)from + at, k}, {false, 0, (char *)to + at, k}};
            must(nccl_comm_post(o.comm, parts, 2, in_ms(60000), &o.e), &o.e);
            n_posted++;
            at += k;
            n = 2 * n - n / 3;
        }
    }
    assert_true(n_posted > NCCL_COMM_DEPTH);
    memset(host, 0, MANY);
    must(gpu_copy_out(o.gpu, host, to, MANY, &o.e), &o.e);
    must(gpu_wait(o.gpu, in_ms(60000), &o.e), &o.e);
    for (int i = 0; i < MANY; i++) {
        assert_int_equal(((char *)host)[i], (char)(i * 13 + i / 256));
    }
    finish(&o);
}

/* --- what fails ----------------------------------------------------------------------------------- */

static void a_rank_that_never_comes(void **state)
{
    (void)state;
    struct one o;
    start(&o, 2, in_ms(500));
    assert_int_equal(until(&o, nccl_comm_ready), -1);
    expect_says(&o.e, ERR_ENV, "rank 3, GPU 0 (");
    expect_says(&o.e, ERR_ENV, "): NCCL (a test): ncclCommInitRankConfig among 2 ranks: not done after ");
    o.e = {};
    assert_int_equal(nccl_comm_ready(o.comm, &o.e), -1); // it stays
    expect_says(&o.e, ERR_ENV, "at its deadline");
    abort_it(&o);
}

/* NCCL finds a message from itself that it never sends; the stand-in waits for it until the deadline. */
static void a_message_that_never_comes(void **state)
{
    (void)state;
    struct one o;
    void *to;
    open_one(&o);
    must(gpu_take(o.gpu, 64, "a test", &to, &o.e), &o.e);
    const struct nccl_comm_part part = {false, 0, to, 64};
    int rc = nccl_comm_post(o.comm, &part, 1, in_ms(1000), &o.e);
    rc = rc == 0 ? until(&o, nccl_comm_turn) : rc;
    assert_int_equal(rc, -1);
    expect_says(&o.e, ERR_ENV, "): NCCL (a test): ncclRecv of 64 bytes from rank 3: ");
    const struct err first = o.e;
    o.e = {};
    assert_int_equal(nccl_comm_turn(o.comm, &o.e), -1);
    assert_string_equal(o.e.msg, first.msg);
    assert_int_equal(nccl_comm_watch(o.comm, in_ms(1000), &o.e), -1);
    assert_string_equal(o.e.msg, first.msg);
    assert_false(nccl_comm_is_quiet(o.comm));
    assert_false(nccl_comm_close(o.comm)); // not before it has ended
    abort_it(&o);
}

static void *give_up_soon(void *comm)
{
    usleep(50000);
    nccl_comm_give_up((struct nccl_comm *)comm);
    return nullptr;
}

/* Another thread sees that the run is over. */
static void given_up(void **state)
{
    (void)state;
    struct one o;
    pthread_t t;
    start(&o, 2, in_ms(60000));
    assert_int_equal(pthread_create(&t, nullptr, give_up_soon, o.comm), 0);
    const int64_t begin_ns = clock_local_ns();
    assert_int_equal(until(&o, nccl_comm_ready), -1);
    assert_true(clock_local_ns() - begin_ns < 30 * NS_PER_S);
    expect_says(&o.e, ERR_ENV, "): NCCL (a test): given up");
    pthread_join(t, nullptr);
    abort_it(&o);
}

#ifdef GPU_ON_CPU
static void script(const char *words)
{
    setenv("NCCL_STAND_IN", words, 1);
}

/* NCCL takes its time: nothing is asked of it before it is ready. */
static void slow_calls(void **state)
{
    script("polls=7");
    sums(state);
    messages(state);
    script("");
}

static void an_old_library(void **state)
{
    (void)state;
    struct nccl_library other;
    struct err e = {};
    script("version=2804");
    assert_int_equal(nccl_library_open(&other, &e), -1);
    expect_says(&e, ERR_INPUT, " does not say a version that is known here (2804)");
    script("");
}

/* In each call there is, refused at once or failing later: one line that names it, and NCCL's words. */
static void calls_that_fail(void **state)
{
    (void)state;
    static const struct {
        const char *words, *says;
    } cases[] = {
        {"refuse=0", "ncclCommInitRankConfig among 1 rank: system error; as the script wants it"},
        {"error=0", "ncclCommInitRankConfig among 1 rank: remote error; as the script wants it"},
        {"refuse=1", "ncclAllReduce of 16 bytes among 1 rank: system error; as the script wants it"},
        {"error=1", "ncclAllReduce of 16 bytes among 1 rank: remote error; as the script wants it"},
        {"hang=1", "not done at its deadline; queued last with it: ncclAllReduce of 16 bytes among 1 rank"},
        {"refuse=2", "ncclAllGather of 4 bytes among 1 rank: system error; as the script wants it"},
        {"hang=2", "not done at its deadline; queued last with it: ncclAllGather of 4 bytes among 1 rank"},
        {"refuse=3", "ncclSend of 4 bytes to rank 3 and 1 more: system error; as the script wants it"},
        {"error=3", "ncclSend of 4 bytes to rank 3 and 1 more: remote error; as the script wants it"},
        {"hang=3", "ncclSend of 4 bytes to rank 3 and 1 more: not done after 0."},
        {"refuse=4", "ncclCommFinalize among 1 rank: system error; as the script wants it"},
        {"hang=4", "ncclCommFinalize among 1 rank: not done after 0."},
    };
    for (const auto &c : cases) {
        struct one o;
        void *x;
        script(c.words);
        start(&o, 1, in_ms(60000));
        must(gpu_take(o.gpu, 16, "a test", &x, &o.e), &o.e);
        const struct nccl_comm_part parts[] = {{true, 0, x, 4}, {false, 0, (char *)x + 4, 4}};
        int rc = until(&o, nccl_comm_ready);
        rc = rc < 0 ? rc : nccl_comm_sum(o.comm, x, 4, ARCH_F32, in_ms(300), &o.e);
        rc = rc < 0 ? rc : watch(&o, 300);
        rc = rc < 0 ? rc : nccl_comm_gather(o.comm, x, 4, (char *)x + 8, in_ms(300), &o.e);
        rc = rc < 0 ? rc : watch(&o, 300);
        rc = rc < 0 ? rc : nccl_comm_post(o.comm, parts, 2, in_ms(300), &o.e);
        rc = rc < 0 ? rc : until(&o, nccl_comm_turn);
        if (rc > 0) {
            nccl_comm_finish(o.comm, in_ms(300));
            rc = until(&o, nccl_comm_ended);
        }
        assert_int_equal(rc, -1);
        expect_says(&o.e, ERR_ENV, c.says);
        expect_says(&o.e, ERR_ENV, "rank 3, GPU 0 (GPU on CPU): NCCL (a test): ");
        script("");
        abort_it(&o);
    }
}

/* Errors of CUDA's calls; what has been taken is given back. */
static void cuda_that_fails(void **state)
{
    (void)state;
    struct one o;
    struct nccl_comm_config cfg = {};
    cfg.library = &library;
    cfg.purpose = "a test";
    cfg.ranks = ranks;
    cfg.size = 1;
    for (const char *call : {"cudaStreamCreateWithFlags", "cudaEventCreateWithFlags", "cudaSetDevice"}) {
        o = {};
        must(gpu_open(&o.gpu, 0, RANK, &o.e), &o.e);
        cfg.gpu = o.gpu;
        must(nccl_comm_make_id(&library, RANK, &cfg.id, &o.e), &o.e);
        gpu_on_cpu_fail(call, 0, cudaErrorInvalidValue);
        assert_int_equal(nccl_comm_start(&o.comm, &cfg, in_ms(60000), &o.e), -1);
        expect_says(&o.e, ERR_ENV, "rank 3, GPU 0 (GPU on CPU): ");
        expect_says(&o.e, ERR_ENV, ": some error");
        assert_null(o.comm);
        gpu_close(o.gpu);
    }
    for (const char *call : {"cudaEventRecord", "cudaEventQuery", "cudaSetDevice"}) {
        void *x;
        open_one(&o);
        must(gpu_take(o.gpu, 8, "a test", &x, &o.e), &o.e);
        const struct nccl_comm_part parts[] = {{true, 0, x, 4}, {false, 0, (char *)x + 4, 4}};
        gpu_on_cpu_fail(call, 0, cudaErrorInvalidValue);
        int rc = nccl_comm_post(o.comm, parts, 2, in_ms(60000), &o.e);
        rc = rc < 0 ? rc : until(&o, nccl_comm_turn);
        assert_int_equal(rc, -1);
        expect_says(&o.e, ERR_ENV, ": some error");
        assert_int_equal(nccl_comm_turn(o.comm, &o.e), -1);
        abort_it(&o);
    }
    assert_int_equal(gpu_on_cpu_allocated(), 0);
}

/* What NCCL has queued is not what has happened: streams are late. */
static void late_streams(void **state)
{
    (void)state;
    struct one o;
    void *x;
    open_one(&o);
    must(gpu_take(o.gpu, 8, "a test", &x, &o.e), &o.e);
    gpu_on_cpu_defer(1);
    const struct nccl_comm_part parts[] = {{true, 0, x, 4}, {false, 0, (char *)x + 4, 4}};
    must(nccl_comm_post(o.comm, parts, 2, in_ms(60000), &o.e), &o.e);
    gpu_on_cpu_fail("cudaEventQuery", 0, cudaErrorNotReady);
    must(until(&o, nccl_comm_turn), &o.e);
    assert_true(nccl_comm_is_quiet(o.comm));
    must(gpu_clear(o.gpu, x, 8, &o.e), &o.e);
    must(gpu_clear(o.gpu, x, 8, &o.e), &o.e);
    assert_int_equal(nccl_comm_watch(o.comm, in_ms(60000), &o.e), 0);
    assert_int_equal(nccl_comm_watch(o.comm, in_ms(60000), &o.e), 1);
    must(gpu_clear(o.gpu, x, 8, &o.e), &o.e);
    must(gpu_clear(o.gpu, x, 8, &o.e), &o.e);
    assert_int_equal(nccl_comm_watch(o.comm, in_ms(-1), &o.e), -1);
    expect_says(&o.e, ERR_ENV, "NCCL (a test): not done at its deadline; queued last with it: ");
    gpu_on_cpu_defer(0);
    abort_it(&o);
}

/* Its last call does not return: that is said in time, and the caller can leave. */
static void an_end_that_hangs(void **state)
{
    (void)state;
    for (const char *call : {"abort", "destroy"}) {
        struct one o;
        char words[32], says[96];
        const bool is_abort = strcmp(call, "abort") == 0;
        snprintf(words, sizeof words, "hang_in=%s", call);
        snprintf(says, sizeof says, "NCCL (a test): %s among 1 rank: not done after 0.",
                 is_abort ? "ncclCommAbort" : "ncclCommDestroy");
        script(words);
        open_one(&o);
        if (is_abort) {
            nccl_comm_abort(o.comm, in_ms(300));
        } else {
            nccl_comm_finish(o.comm, in_ms(300));
        }
        assert_int_equal(until(&o, nccl_comm_ended), -1);
        expect_says(&o.e, ERR_ENV, says);
        nccl_comm_abort(o.comm, in_ms(100)); // there is nothing else to call
        assert_int_equal(until(&o, nccl_comm_ended), -1);
        script("");
        nccl_comm_abort(o.comm, in_ms(60000));
        must(until(&o, nccl_comm_ended), &o.e); // later it may return all the same
        assert_true(nccl_comm_close(o.comm));
        gpu_close(o.gpu);
    }
}

/* Where it is ended at one go, what it may be at work on stays. */
static void an_end_that_hangs_leaves_memory(void **state)
{
    (void)state;
    static struct one o; // what it leaves is not lost
    void *kept, *given;
    script("hang_in=destroy");
    open_one(&o);
    must(gpu_take(o.gpu, 4096, "a test", &kept, &o.e), &o.e);
    must(gpu_take(o.gpu, 4096, "a test", &given, &o.e), &o.e);
    const auto allocated = gpu_on_cpu_allocated();
    assert_false(gpu_is_left(o.gpu));
    nccl_comm_end(o.comm, 100 * NS_PER_MS);
    assert_true(gpu_is_left(o.gpu));
    gpu_give(o.gpu, given);
    gpu_close(o.gpu);
    assert_int_equal(gpu_on_cpu_allocated(), allocated);
    script("");
    nccl_comm_end(nullptr, 0);
}
#endif

int main()
{
    struct err e = {};
    if (nccl_library_open(&library, &e) != 0) {
#ifdef GPU_ON_CPU
        printf("%s\n", e.msg);
        return 1;
#else
        printf("skipped: %s\n", e.msg);
        return 77;
#endif
    }
    printf("NCCL %s\n", library.numbers);
    const CMUnitTest tests[] = {
        cmocka_unit_test(the_library),
        cmocka_unit_test(another_library),
        cmocka_unit_test(two_ranks_on_one_gpu),
        cmocka_unit_test(created_and_ended),
        cmocka_unit_test(sums),
        cmocka_unit_test(messages),
        cmocka_unit_test(a_rank_that_never_comes),
        cmocka_unit_test(a_message_that_never_comes),
        cmocka_unit_test(given_up),
#ifdef GPU_ON_CPU
        cmocka_unit_test(slow_calls),
        cmocka_unit_test(an_old_library),
        cmocka_unit_test(calls_that_fail),
        cmocka_unit_test(cuda_that_fails),
        cmocka_unit_test(late_streams),
        cmocka_unit_test(an_end_that_hangs),
        cmocka_unit_test(an_end_that_hangs_leaves_memory),
#endif
    };
    return device_test_run(tests, nullptr, nullptr);
}
