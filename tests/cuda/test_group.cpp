/*
 * Sums and gathers of a tensor-parallel group, between processes: bits as the plain sum in the order of the ranks
 * has them, on all ranks, whatever the way; again and again, from recordings too; and ranks that do not come.
 */
#include "tests/cuda/several_memory.h"

extern "C" {
#include "workers/cuda/group.h"
}

enum { GUARD = 64 }; // values behind a buffer that nobody may touch

/* A rank of a group, and where it is told what the others have. */
struct member {
    several &s;
    struct group *group = nullptr;
    float *x;         // (max_n + GUARD) on the device
    std::vector<float> host;

    member(several &s_, size_t max_n, int64_t n_at_once, int64_t limit_ns = 20 * NS_PER_S)
        : s(s_), host(max_n + GUARD)
    {
        struct gpu_ipc_handle mine = {}, all[SEVERAL_MOST] = {};
        struct err e = {};
        const struct group_config cfg = {s.size, s.index, max_n * sizeof(float), limit_ns, n_at_once};
        expect_ok(s, group_create(&group, s.gpu, &cfg, &mine, &e), e);
        several_tell(s, mine);
        several_meet(s);
        for (int i = 0; i < s.size; i++) {
            all[i] = several_told<struct gpu_ipc_handle>(s, i);
        }
        expect_ok(s, group_join(group, all, &e), e);
        void *p;
        expect_ok(s, gpu_take(s.gpu, host.size() * sizeof(float), "a test", &p, &e), e);
        x = (float *)p;
        several_meet(s);
    }
    member(const member &) = delete;

    /* In order, as all do. */
    void leave()
    {
        struct err e = {};
        several_wait(s);
        expect_ok(s, group_check(group, &e), e);
        group_leave(group);
        several_meet(s);
        group_destroy(group);
    }
};

/* What rank r brings to sum number i. */
static std::vector<float> brought(const several &s, size_t n, int r, uint64_t i)
{
    std::mt19937_64 random(s.seed + 1000003 * i + (uint64_t)r);
    std::uniform_real_distribution<float> d(-1, 1);
    std::vector<float> out(n);
    for (float &v : out) {
        v = d(random) * (random() % 16 == 0 ? 1e4f : 1.0f); // so that another order gives other bits
    }
    return out;
}

static std::vector<float> plain_sum(const several &s, size_t n, uint64_t i)
{
    std::vector<float> sum = brought(s, n, 0, i);
    for (int r = 1; r < s.size; r++) {
        const auto v = brought(s, n, r, i);
        for (size_t k = 0; k < n; k++) {
            sum[k] = sum[k] + v[k];
        }
    }
    return sum;
}

static bool same_bits(const float *a, const float *b, size_t n)
{
    return memcmp(a, b, n * sizeof *a) == 0;
}

/* The values of sum i to the device, NaN behind them. */
static void put(member &m, size_t n, uint64_t i)
{
    const auto mine = brought(m.s, n, m.s.index, i);
    std::fill(m.host.begin(), m.host.end(), NAN);
    std::copy(mine.begin(), mine.end(), m.host.begin());
    several_put(m.s, m.x, m.host.data(), m.host.size() * sizeof(float));
}

static void expect_sum(member &m, size_t n, uint64_t i)
{
    struct err e = {};
    const auto want = plain_sum(m.s, n, i);
    several_wait(m.s);
    expect_ok(m.s, group_check(m.group, &e), e);
    several_get(m.s, m.host.data(), m.x, m.host.size() * sizeof(float));
    expect(m.s, same_bits(m.host.data(), want.data(), n));
    for (size_t k = n; k < m.host.size(); k++) {
        expect(m.s, isnan(m.host[k]));
    }
}

static void sum_of(member &m, size_t n, uint64_t i)
{
    struct err e = {};
    put(m, n, i);
    group_sum(m.group, m.x, n);
    expect_ok(m.s, gpu_launched(m.s.gpu, "a sum", &e), e);
    expect_sum(m, n, i);
}

static const size_t sizes[] = {1, 2, 3, 4, 5, 31, 127, 128, 129, 1000, 4096, 8191, 32 * 256 * 4 + 1, 100003};

/* n_at_once 1: all but one value in two steps. */
static void every_size(int size, int64_t n_at_once)
{
    several_must(size, [n_at_once](several &s) {
        member m(s, 100003, n_at_once);
        uint64_t i = 0;
        for (size_t n : sizes) {
            sum_of(m, n, i++);
        }
        sum_of(m, 3 + s.seed % 5000, i++);
        m.leave();
    });
}

static void sums_at_once(void **state)
{
    (void)state;
    for (int size = 1; size <= 4; size++) {
        every_size(size, INT64_MAX);
    }
}

static void sums_in_two_steps(void **state)
{
    (void)state;
    for (int size = 1; size <= 4; size++) {
        every_size(size, 1);
    }
}

static void eight_ranks(void **state)
{
    (void)state;
    several_must(8, [](several &s) {
        member m(s, 5000, 1000);
        sum_of(m, 999, 1);
        sum_of(m, 4999, 2);
        m.leave();
    });
}

/* Which way is taken by itself is not seen in the bits. */
static void the_usual_way(void **state)
{
    (void)state;
    assert_int_equal(group_sum_at_once(2), INT64_MAX);
    assert_true(group_sum_at_once(8) <= group_sum_at_once(4) && group_sum_at_once(3) < INT64_MAX);
    several_must(3, [](several &s) {
        const size_t most = (size_t)group_sum_at_once(3);
        member m(s, most + 1, 0);
        sum_of(m, most, 0);
        sum_of(m, most + 1, 1);
        m.leave();
    });
}

/* Nothing between them but the stream: the sum is summed again, and lengths and ways change all the time. */
static void in_a_row(int size, int n_sums)
{
    several_must(size, [n_sums](several &s) {
        enum { N = 3000 };
        struct err e = {};
        member m(s, N, 1300);
        put(m, N, 0);
        std::vector<std::vector<float>> x;
        for (int r = 0; r < s.size; r++) {
            x.push_back(brought(s, N, r, 0));
        }
        for (int i = 0; i < n_sums; i++) {
            // the first n become sums; divided by nothing, they grow, and become infinite together
            const size_t n = 1 + (s.seed / 7 + (uint64_t)i * 7919) % N;
            group_sum(m.group, m.x, n);
            for (size_t k = 0; k < n; k++) {
                float sum = x[0][k];
                for (int r = 1; r < s.size; r++) {
                    sum += x[(size_t)r][k];
                }
                for (auto &v : x) {
                    v[k] = sum;
                }
            }
            if (i % 40 == 39) { // anew, before they are infinite
                several_wait(s);
                several_get(s, m.host.data(), m.x, N * sizeof(float));
                expect(s, same_bits(m.host.data(), x[(size_t)s.index].data(), N));
                put(m, N, (uint64_t)i);
                for (int r = 0; r < s.size; r++) {
                    x[(size_t)r] = brought(s, N, r, (uint64_t)i);
                }
            }
        }
        expect_ok(s, gpu_launched(s.gpu, "sums", &e), e);
        several_wait(s);
        several_get(s, m.host.data(), m.x, N * sizeof(float));
        expect(s, same_bits(m.host.data(), x[(size_t)s.index].data(), N));
        m.leave();
    });
}

static void many_in_a_row(void **state)
{
    (void)state;
    in_a_row(2, 1000);
    in_a_row(4, 300);
}

/* --- gathers -------------------------------------------------------------------------------------- */

static void gathers(int size)
{
    several_must(size, [](several &s) {
        enum { MOST = 50000 };
        struct err e = {};
        member m(s, MOST, 0);
        void *mine, *all;
        const size_t n_all = (size_t)s.size * MOST + GUARD;
        expect_ok(s, gpu_take(s.gpu, MOST, "a test", &mine, &e), e);
        expect_ok(s, gpu_take(s.gpu, n_all, "a test", &all, &e), e);
        uint64_t i = 0;
        for (int n_bytes : {1, 3, 4, 12, 16, 160, 4097, 8192, (int)MOST}) {
            const size_t n = (size_t)n_bytes;
            i++;
            const auto my = several_bytes(s, n, 100 * i + (uint64_t)s.index);
            std::vector<unsigned char> got(n_all, 0xcd);
            several_put(s, mine, my.data(), n);
            several_put(s, all, got.data(), n_all);
            group_gather(m.group, mine, n, all);
            group_sum(m.group, m.x, 5); // the two take turns
            several_get(s, got.data(), all, n_all);
            for (int r = 0; r < s.size; r++) {
                const auto want = several_bytes(s, n, 100 * i + (uint64_t)r);
                expect(s, memcmp(got.data() + (size_t)r * n, want.data(), n) == 0);
            }
            for (size_t k = (size_t)s.size * n; k < n_all; k++) {
                expect(s, got[k] == 0xcd);
            }
        }
        m.leave();
    });
}

/* Columns of rows, as many of each rank as it happens, side by side. */
static void columns(int size)
{
    several_must(size, [](several &s) {
        enum { ROWS = 37, LD = 613 };
        member m(s, ROWS * LD, 0);
        void *all;
        struct err e = {};
        expect_ok(s, gpu_take(s.gpu, (ROWS * LD + GUARD) * sizeof(float), "a test", &all, &e), e);
        for (int n_rows : {1, 2, (int)ROWS}) {
            const int parts = 600 + n_rows % 13; // 13 - n_rows % 13 columns of a row are nobody's
            int first[SEVERAL_MOST], n[SEVERAL_MOST];
            for (int r = 0; r < s.size; r++) {
                first[r] = parts * r / s.size;
                n[r] = parts * (r + 1) / s.size - first[r];
            }
            const size_t n_mine = (size_t)n_rows * (size_t)n[s.index];
            std::vector<float> want(ROWS * LD + GUARD, 7.0f), got(want.size());
            several_put(s, all, want.data(), want.size() * sizeof(float));
            for (int r = 0; r < s.size; r++) {
                const auto v = brought(s, (size_t)n_rows * (size_t)n[r], r, (uint64_t)n_rows);
                for (int i = 0; i < n_rows; i++) {
                    std::copy(v.begin() + i * n[r], v.begin() + (i + 1) * n[r], want.begin() + i * LD + first[r]);
                }
            }
            put(m, n_mine, (uint64_t)n_rows);
            group_columns(m.group, m.x, n_rows, first, n, (float *)all, LD);
            several_get(s, got.data(), all, got.size() * sizeof(float));
            expect(s, same_bits(got.data(), want.data(), got.size()));
        }
        m.leave();
    });
}

static void columns_side_by_side(void **state)
{
    (void)state;
    for (int size = 1; size <= 4; size++) {
        columns(size);
    }
}

static void gathers_of_all_sizes(void **state)
{
    (void)state;
    for (int size = 1; size <= 4; size++) {
        gathers(size);
    }
}

/* --- recordings ------------------------------------------------------------------------------------- */

/* Played again and again, mixed with calls that are not recorded, with new values each time. */
static void recorded(int size)
{
    several_must(size, [](several &s) {
        enum { N = 1001, MORE = 3000 };
        struct err e = {};
        struct gpu_graph *graphs[2] = {};
        member m(s, MORE, 2000);
        for (size_t n : {(size_t)N, (size_t)MORE}) {
            put(m, n, 0);
            expect_ok(s, gpu_graph_record(s.gpu, &e), e);
            group_sum(m.group, m.x, n);
            group_sum(m.group, m.x + 8, 4); // of what has been summed
            expect_ok(s, gpu_graph_recorded(s.gpu, "sums", &graphs[n == MORE], &e), e);
        }
        for (uint64_t i = 1; i < 16; i++) {
            const size_t n = i % 3 == 0 ? MORE : N;
            put(m, n, i);
            if (i % 5 == 0) {
                group_sum(m.group, m.x, n);
                group_sum(m.group, m.x + 8, 4);
            } else {
                expect_ok(s, gpu_graph_queue(s.gpu, graphs[n == MORE], &e), e);
            }
            auto want = plain_sum(s, n, i);
            for (size_t k = 8; k < 12; k++) {
                const float one = want[k];
                for (int r = 1; r < s.size; r++) {
                    want[k] += one;
                }
            }
            several_wait(s);
            several_get(s, m.host.data(), m.x, n * sizeof(float));
            expect(s, same_bits(m.host.data(), want.data(), n));
        }
        gpu_graph_free(graphs[0]);
        gpu_graph_free(graphs[1]);
        m.leave();
    });
}

static void recordings(void **state)
{
    (void)state;
    for (int size = 1; size <= 4; size++) {
        recorded(size);
    }
}

/* What runs before the group is complete does nothing; what is recorded then, and played later, does it all. */
static void before_the_others_are_known(void **state)
{
    (void)state;
    several_must(2, [](several &s) {
        enum { N = 100 };
        struct gpu_ipc_handle mine = {}, all[2] = {};
        struct gpu_graph *graph = nullptr;
        struct group *group = nullptr;
        struct err e = {};
        void *x;
        const struct group_config cfg = {2, s.index, N * sizeof(float), 20 * NS_PER_S, 50};
        expect_ok(s, group_create(&group, s.gpu, &cfg, &mine, &e), e);
        expect_ok(s, gpu_take(s.gpu, N * sizeof(float), "a test", &x, &e), e);
        const auto own = brought(s, N, s.index, 5);
        std::vector<float> got(N);
        several_put(s, x, own.data(), N * sizeof(float));
        expect_ok(s, gpu_graph_record(s.gpu, &e), e);
        group_sum(group, (float *)x, N);
        expect_ok(s, gpu_graph_recorded(s.gpu, "a sum", &graph, &e), e);
        group_sum(group, (float *)x, 10);
        for (int i = 0; i <= s.index; i++) { // not even as often
            expect_ok(s, gpu_graph_queue(s.gpu, graph, &e), e);
        }
        several_get(s, got.data(), x, N * sizeof(float));
        expect(s, same_bits(got.data(), own.data(), N));
        several_tell(s, mine);
        several_meet(s);
        all[0] = several_told<struct gpu_ipc_handle>(s, 0);
        all[1] = several_told<struct gpu_ipc_handle>(s, 1);
        expect_ok(s, group_join(group, all, &e), e);
        expect_ok(s, gpu_graph_queue(s.gpu, graph, &e), e);
        several_get(s, got.data(), x, N * sizeof(float));
        expect(s, same_bits(got.data(), plain_sum(s, N, 5).data(), N));
        expect_ok(s, group_check(group, &e), e);
        gpu_graph_free(graph);
        group_leave(group);
        several_meet(s);
        group_destroy(group);
    });
}

/* --- ranks that do not come --------------------------------------------------------------------------- */

static bool says(const struct err &e, const char *what)
{
    const bool yes = strstr(e.msg, what) != nullptr && strchr(e.msg, '\n') == nullptr && e.code == ERR_ENV;
    if (!yes) {
        fprintf(stderr, "said: %s\n", e.msg);
    }
    return yes;
}

/* The first one dies, or is silent; the others say so in time, and what they queue afterwards ends at once. */
static void without_the_first(bool dies)
{
    several_must(
        3,
        [dies](several &s) {
            const int64_t limit_ns = NS_PER_S / 2;
            struct err e = {};
            member m(s, 1000, 100, limit_ns);
            sum_of(m, 77, 1);
            sum_of(m, 770, 2);
            several_meet(s);
            if (s.index == 0 && dies) {
                kill(getpid(), SIGKILL);
            }
            if (s.index == 0) {
                several_meet(s); // until they have said it
                group_leave(m.group);
                several_meet(s);
                group_destroy(m.group);
                return;
            }
            const int64_t begin_ns = clock_local_ns();
            for (int i = 0; i < 20; i++) {
                group_sum(m.group, m.x, i % 2 ? 50 : 500);
            }
            several_wait(s);
            // on the stand-in a clock that is shared with everybody else; on a GPU slices of time
            expect(s, clock_local_ns() - begin_ns < limit_ns + 5 * NS_PER_S);
            expect(s, clock_local_ns() - begin_ns > limit_ns / 2);
            expect(s, group_check(m.group, &e) == -1);
            char who[32];
            snprintf(who, sizeof who, "rank %d, GPU ", 10 + s.index);
            expect(s, says(e, who) && says(e, "sums of the tensor-parallel group: rank 1"));
            expect(s, strstr(e.msg, who) == e.msg && says(e, "did not come within 0.5 s"));
            several_meet(s, dies ? 2 : 3);
            group_leave(m.group);
            several_meet(s, dies ? 2 : 3);
            group_destroy(m.group);
        },
        dies);
}

static void a_rank_dies(void **state)
{
    (void)state;
    without_the_first(true);
}

static void a_rank_is_silent(void **state)
{
    (void)state;
    without_the_first(false);
}

#ifdef GPU_ON_CPU
static void calls_that_fail(void **state)
{
    (void)state;
    several_must(2, [](several &s) {
        struct gpu_ipc_handle mine = {}, all[2] = {};
        struct err e = {};
        struct group *g = nullptr;
        const struct group_config cfg = {2, s.index, 4000, NS_PER_S, 0};
        for (const char *call : {"cudaMalloc", "cudaIpcGetMemHandle", "cudaHostAlloc", "cudaMemsetAsync"}) {
            gpu_on_cpu_fail(call, 0, cudaErrorInvalidValue);
            expect(s, group_create(&g, s.gpu, &cfg, &mine, &e) == -1 && g == nullptr && says(e, call));
            expect(s, gpu_on_cpu_allocated() == 0 && gpu_on_cpu_pinned() == 0);
        }
        expect_ok(s, group_create(&g, s.gpu, &cfg, &mine, &e), e);
        several_tell(s, mine);
        several_meet(s);
        all[0] = several_told<struct gpu_ipc_handle>(s, 0);
        all[1] = several_told<struct gpu_ipc_handle>(s, 1);
        gpu_on_cpu_fail("cudaIpcOpenMemHandle", 0, cudaErrorInvalidValue);
        expect(s, group_join(g, all, &e) == -1 && says(e, "cudaIpcOpenMemHandle of "));
        expect(s, says(e, " for sums of the tensor-parallel group, which rank 1"));
        expect_ok(s, group_join(g, all, &e), e);
        group_leave(g);
        several_meet(s);
        group_destroy(g);
        group_destroy(nullptr);
    });
}

/* A stream that is late changes nothing. */
static void late_work(void **state)
{
    (void)state;
    several_must(3, [](several &s) {
        gpu_on_cpu_defer(1);
        member m(s, 4000, 1000);
        for (uint64_t i = 0; i < 10; i++) {
            sum_of(m, 1 + (s.seed + i * 997) % 4000, i);
        }
        m.leave();
        gpu_on_cpu_defer(0);
    });
}

static void gpus_of_their_own(void **state)
{
    (void)state;
    setenv("GPU_ON_CPU_DEVICES", "2", 1);
    several_must(4, [](several &s) {
        expect(s, gpu_info(s.gpu)->device == s.index % 2);
        member m(s, 1000, 100);
        sum_of(m, 1000, 1);
        m.leave();
    });
    unsetenv("GPU_ON_CPU_DEVICES");
}
#endif

int main()
{
    const CMUnitTest tests[] = {
        cmocka_unit_test(sums_at_once),
        cmocka_unit_test(sums_in_two_steps),
        cmocka_unit_test(eight_ranks),
        cmocka_unit_test(the_usual_way),
        cmocka_unit_test(many_in_a_row),
        cmocka_unit_test(gathers_of_all_sizes),
        cmocka_unit_test(columns_side_by_side),
        cmocka_unit_test(before_the_others_are_known),
        cmocka_unit_test(recordings),
        cmocka_unit_test(a_rank_dies),
        cmocka_unit_test(a_rank_is_silent),
#ifdef GPU_ON_CPU
        cmocka_unit_test(calls_that_fail),
        cmocka_unit_test(late_work),
        cmocka_unit_test(gpus_of_their_own),
#endif
    };
    return several_test_run(tests);
}
