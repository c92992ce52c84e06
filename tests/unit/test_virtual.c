/* The replica on a virtual clock, against formulas that it must meet. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/clock.h"
#include "core/mem.h"
#include "core/rng.h"
#include "workers/sim/virtual.h"

static struct arch arch_of(int n_layers)
{
    return (struct arch){.n_layers = n_layers,
                         .hidden = 1024,
                         .vocab = 100,
                         .max_context = 4096,
                         .dtype = ARCH_BF16};
}

static struct virtual_config config_of(const struct arch *a, const struct costs *c, int n_stages,
                                       const int *first)
{
    return (struct virtual_config){
        .sched = {.lanes = (uint32_t)n_stages,
                  .max_running = 64,
                  .max_waiting = 1 << 17,
                  .max_batch_tokens = 256,
                  .max_context = 256,
                  .n_kv_blocks = 64 * 16,
                  .vocab = 100},
        .arch = a,
        .costs = c,
        .n_stages = n_stages,
        .first = first,
    };
}

static void play(const struct virtual_config *cfg, struct virtual_request *q, size_t n,
                 struct virtual_result *out)
{
    struct err e = {0};
    if (virtual_run(cfg, q, n, out, &e)) {
        fail_msg("%s", e.msg);
    }
}

static bool within(double a, double b, double share)
{
    return fabs(a - b) <= share * fabs(b);
}

/* One server, fixed service time D, Poisson arrivals: mean wait = rho D / (2 (1 - rho)). */
static void a_stage_is_an_md1_queue(void **state)
{
    (void)state;
    enum {
        N = 100000
    };
    static struct arch a;
    a = arch_of(1);
    const struct costs costs = {.kinds[COSTS_DENSE] = {.fixed_ns = 1e6}};
    const int first[] = {0, 1};
    struct virtual_config cfg = config_of(&a, &costs, 1, first);
    cfg.sched.max_batch_tokens = 1; // a batch serves one request
    struct virtual_request *q = xcalloc(N, sizeof *q);
    for (int rho10 = 3; rho10 <= 9; rho10 += 3) {
        double rho = rho10 / 10.0, t = 0, sum = 0;
        for (int i = 0; i < N; i++) {
            t -= log(rng_uniform(1, RNG_ARRIVAL, (uint64_t)i, 0)) * 1e6 / rho;
            q[i] = (struct virtual_request){.t_due_ns = (int64_t)t, .n_in = 1, .n_out = 1};
        }
        struct virtual_result r;
        play(&cfg, q, N, &r);
        for (int i = 0; i < N; i++) {
            // Lindley's recursion, to the nanosecond
            int64_t free_ns = i > 0 ? q[i - 1].t_last_ns : 0;
            assert_int_equal(q[i].t_begin_ns, free_ns > q[i].t_due_ns ? free_ns : q[i].t_due_ns);
            assert_int_equal(q[i].t_last_ns, q[i].t_begin_ns + 1000000);
            sum += (double)(q[i].t_begin_ns - q[i].t_due_ns);
        }
        double wait_ns = sum / N, want_ns = rho * 1e6 / (2 * (1 - rho));
        if (!within(wait_ns, want_ns, rho < 0.8 ? 0.03 : 0.1)) { // a draw's own error
            fail_msg("rho %.1f: mean wait %.0f ns, M/D/1 says %.0f", rho, wait_ns, want_ns);
        }
        assert_true(within(r.stages[0].busy_ns, rho * (double)r.t_end_ns, 0.02));
    }
    free(q);
}

/* As many users as lanes or more: throughput is one over the slowest stage. */
static void a_full_pipeline_is_as_fast_as_its_slowest_stage(void **state)
{
    (void)state;
    enum {
        N = 12 * 32,
        OUT = 100,
        USERS = 32
    };
    static struct arch a;
    a = arch_of(10);
    const struct costs costs = {.kinds[COSTS_DENSE] = {.fixed_ns = 1e6}, .head = {.fixed_ns = 3e6}};
    const int equal[] = {0, 2, 5, 8, 10}, fair[] = {0, 3, 6, 9, 10};
    const int *const splits[] = {equal, fair};
    const double slowest_ns[] = {5e6, 4e6};
    struct virtual_request *q = xcalloc(N, sizeof *q);
    for (int k = 0; k < 2; k++) {
        struct virtual_config cfg = config_of(&a, &costs, 4, splits[k]);
        cfg.users = USERS;
        for (int i = 0; i < N; i++) {
            q[i] = (struct virtual_request){.n_in = 1, .n_out = OUT};
        }
        struct virtual_result r;
        play(&cfg, q, N, &r);
        assert_int_equal(r.n_tokens_out, N * OUT);
        assert_int_equal(r.n_tokens_in, N);
        double per_token_ns = (double)r.t_end_ns / (N * OUT) * (USERS / 4.0);
        if (!within(per_token_ns, slowest_ns[k], 0.02)) {
            fail_msg("split %d: a batch every %.0f ns, the slowest stage takes %.0f", k,
                     per_token_ns, slowest_ns[k]);
        }
        for (int s = 0; s < 4; s++) { // busy share of a stage: its time over the slowest one's
            double want =
                (splits[k][s + 1] - splits[k][s] + (s == 3 ? 3 : 0)) * 1e6 / slowest_ns[k];
            assert_true(within(r.stages[s].busy_ns / (double)r.t_end_ns, want, 0.02));
        }
    }
    free(q);
}

/* Fewer requests than stages: each token takes the way through all of them, and the hops. */
static void a_lone_request_pays_for_the_whole_way(void **state)
{
    (void)state;
    static struct arch a;
    a = arch_of(8);
    const struct costs costs = {
        .kinds[COSTS_DENSE] = {.fixed_ns = 1e6}, .hop_ns = 50000, .hop_byte_ns = 0.5};
    const int first[] = {0, 2, 4, 6, 8};
    struct virtual_config cfg = config_of(&a, &costs, 4, first);
    struct virtual_request q = {.n_in = 10, .n_out = 21};
    struct virtual_result r;
    play(&cfg, &q, 1, &r);
    // 8 layers, 3 hops of hidden states (1,024 values of 2 bytes) and one of an id.
    double tpot_ns = 8e6 + 4 * 50000 + 3 * 1024 + 2;
    assert_true(within((double)(q.t_last_ns - q.t_first_ns) / 20, tpot_ns, 1e-6));
    assert_true(within((double)q.t_first_ns, 8e6 + 4 * 50000 + 3 * 10240 + 2, 1e-6));
    assert_true(within(r.stages[1].busy_ns / (double)r.t_end_ns, 2e6 / tpot_ns, 0.01)); // k / p
}

/* m batches through p equal stages: m + p - 1 stage times. */
static void filling_and_draining(void **state)
{
    (void)state;
    static struct arch a;
    a = arch_of(4);
    const struct costs costs = {.kinds[COSTS_DENSE] = {.fixed_ns = 1e6}};
    const int first[] = {0, 1, 2, 3, 4};
    for (int m = 1; m <= 9; m++) {
        struct virtual_config cfg = config_of(&a, &costs, 4, first);
        struct virtual_request q[9];
        for (int i = 0; i < m; i++) { // a prompt fills a batch, its only token ends it
            q[i] = (struct virtual_request){.n_in = 255, .n_out = 1};
        }
        cfg.sched.max_batch_tokens = 255;
        struct virtual_result r;
        play(&cfg, q, (size_t)m, &r);
        assert_int_equal(r.t_end_ns, (m + 3) * 1000000);
        assert_true(r.stages[0].busy_ns == m * 1e6);
    }
}

static void the_same_calls_give_the_same_times(void **state)
{
    (void)state;
    enum {
        N = 2000
    };
    static struct arch a;
    a = arch_of(6);
    const struct costs costs = {
        .kinds[COSTS_DENSE] = {.fixed_ns = 1e5, .token_ns = 3e4, .kv_ns = 100}, .hop_ns = 2e4};
    const int first[] = {0, 2, 4, 6};
    struct virtual_config cfg = config_of(&a, &costs, 3, first);
    struct virtual_request *q[2];
    struct virtual_result r[2];
    int64_t begin_ns = clock_local_ns();
    for (int k = 0; k < 2; k++) {
        q[k] = xcalloc(N, sizeof *q[k]);
        for (uint64_t i = 0; i < N; i++) {
            q[k][i] = (struct virtual_request){
                .t_due_ns = (int64_t)i * 30000000,
                .n_in = 1 + (uint32_t)rng_below(200, 1, RNG_INPUT_LENGTH, i, 0),
                .n_out = 1 + (uint32_t)rng_below(50, 1, RNG_OUTPUT_LENGTH, i, 0),
            };
        }
        play(&cfg, q[k], N, &r[k]);
    }
    double speed = (double)(r[0].t_end_ns + r[1].t_end_ns) / (double)(clock_local_ns() - begin_ns);
    print_message("%.0f times as fast as the clock\n", speed);
    assert_memory_equal(q[0], q[1], N * sizeof *q[0]);
    assert_memory_equal(&r[0], &r[1], sizeof r[0]);
    for (int i = 0; i < N; i++) {
        assert_true(q[0][i].t_begin_ns >= q[0][i].t_due_ns && !q[0][i].rejected);
        assert_true(q[0][i].t_first_ns > q[0][i].t_begin_ns);
        assert_true(q[0][i].t_last_ns >= q[0][i].t_first_ns);
    }
    assert_true(r[0].most_kv > 0 && r[0].most_kv <= 1 && r[0].most_running <= 64);
    free(q[0]);
    free(q[1]);
}

static void what_does_not_fit_is_rejected(void **state)
{
    (void)state;
    static struct arch a;
    a = arch_of(1);
    const struct costs costs = {.kinds[COSTS_DENSE] = {.fixed_ns = 1e6}};
    const int first[] = {0, 1};
    struct virtual_config cfg = config_of(&a, &costs, 1, first);
    struct virtual_request q[] = {{.n_in = 300, .n_out = 1},
                                  {.n_in = 3, .n_out = 2},
                                  {.n_in = 200, .n_out = 57},
                                  {.t_due_ns = 4000000, .n_in = 1, .n_out = 9}};
    struct virtual_result r;
    play(&cfg, q, 4, &r);
    assert_true(q[0].rejected && !q[1].rejected && q[2].rejected && !q[3].rejected);
    assert_int_equal(q[0].t_first_ns, VIRTUAL_NEVER);
    assert_int_equal(q[1].t_last_ns, 2000000);
    assert_int_equal(q[3].t_last_ns, 13000000);
    assert_true(r.held_ns == 11e6); // idle from 2 to 4 ms
    cfg.t_until_ns = 8500000;       // what is not done by then
    play(&cfg, q, 4, &r);
    assert_int_equal(q[3].t_first_ns, 5000000);
    assert_int_equal(q[3].t_last_ns, VIRTUAL_NEVER);
    assert_int_equal(q[3].t_latest_ns, 8000000);
    assert_int_equal(q[3].n_done, 4);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_stage_is_an_md1_queue),
        cmocka_unit_test(a_full_pipeline_is_as_fast_as_its_slowest_stage),
        cmocka_unit_test(a_lone_request_pays_for_the_whole_way),
        cmocka_unit_test(filling_and_draining),
        cmocka_unit_test(the_same_calls_give_the_same_times),
        cmocka_unit_test(what_does_not_fit_is_rejected),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
