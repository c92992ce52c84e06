/* Edges: who measures when, how many messages fit, what follows from the times. */
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
#include "workers/edges.h"

/* --- rounds ----------------------------------------------------------------------------------- */

/* Everybody meets everybody once, nobody is at two places at once, in as few rounds as there can be. */
static void all_pairs_meet_once(void **state)
{
    (void)state;
    for (int n = 2; n <= EDGES_PLAN_MAX_RANKS; n++) {
        int met[EDGES_PLAN_MAX_RANKS][EDGES_PLAN_MAX_RANKS] = {{0}};
        const int n_rounds = edges_plan_rounds(n);
        assert_int_equal(n_rounds, n % 2 == 0 ? n - 1 : n);
        for (int round = 0; round < n_rounds; round++) {
            int n_idle = 0;
            for (int r = 0; r < n; r++) {
                const int p = edges_plan_partner(n, round, r);
                assert_true(p >= -1 && p < n && p != r);
                n_idle += p < 0;
                if (p >= 0) {
                    assert_int_equal(edges_plan_partner(n, round, p), r);
                    met[r][p]++;
                }
            }
            assert_int_equal(n_idle, n % 2);
        }
        for (int a = 0; a < n; a++) {
            for (int b = 0; b < n; b++) {
                assert_int_equal(met[a][b], a != b);
            }
        }
    }
}

static void sizes_grow_up_to_the_largest(void **state)
{
    (void)state;
    size_t sizes[EDGES_PLAN_MAX_SIZES];
    const int n = edges_plan_sizes((size_t)64 << 20, sizes);
    assert_int_equal(n, 13);
    assert_int_equal(sizes[0], 8);
    assert_int_equal(sizes[1], 32);
    assert_int_equal(sizes[11], 32 << 20);
    assert_int_equal(sizes[12], 64 << 20);
    assert_int_equal(edges_plan_sizes(8, sizes), 1);
    assert_int_equal(edges_plan_sizes(1000, sizes), 5);
    assert_int_equal(sizes[4], 1000);
    assert_true(edges_plan_sizes((size_t)1 << 40, sizes) <= EDGES_PLAN_MAX_SIZES);
}

static void messages_fit_their_share(void **state)
{
    (void)state;
    // 10 us each, 19 ms for this size and nine larger ones: 1 ms.
    assert_int_equal(edges_plan_messages(10e3, 19 * NS_PER_MS, 10, false), 100);
    assert_int_equal(edges_plan_messages(10e3, 3 * NS_PER_MS, 1, false), 300);
    // Never more than a figure needs, nor longer.
    assert_int_equal(edges_plan_messages(100, 60 * NS_PER_S, 1, false), 1000);
    assert_int_equal(edges_plan_messages(10e6, 60 * NS_PER_S, 1, false), 20);
    // A few of the large ones may take what the others had.
    assert_int_equal(edges_plan_messages(3e6, 10 * NS_PER_MS, 10, false), 3);
    assert_int_equal(edges_plan_messages(4e6, 10 * NS_PER_MS, 10, false), 0);
    assert_int_equal(edges_plan_messages(4e6, 0, 10, true), 3);
    assert_int_equal(edges_plan_messages(4e6, -NS_PER_S, 10, false), 0);
    assert_int_equal(edges_plan_turn_ns(60 * NS_PER_S, 30), NS_PER_S);
    assert_int_equal(edges_plan_turn_ns(-5, 30), 0);
}

/* --- a budget --------------------------------------------------------------------------------- */

/* One direction of a pair as edges_measure.c goes about it, on a clock of its own: an edge that takes
 * latency + bytes x byte_ns there, and an answer back. */
static int64_t play_turn(int64_t turn_ns, double latency_ns, double byte_ns, int *n_measured)
{
    size_t sizes[EDGES_PLAN_MAX_SIZES];
    const int n_sizes = edges_plan_sizes((size_t)64 << 20, sizes);
    double now_ns = 0, one_ns = 1e6;
    *n_measured = 0;
    for (int i = 0; i < n_sizes; i++) {
        const double message_ns = 2 * latency_ns + (double)sizes[i] * byte_ns;
        const double grown = i > 0 ? (double)sizes[i] / (double)sizes[i - 1] : 1;
        const int n_probe = sizes[i] < EDGES_LARGE_BYTES ? 3 : 1;
        if (edges_plan_messages(one_ns * grown, turn_ns - (int64_t)now_ns, n_sizes - i, i == 0) ==
            0) {
            break;
        }
        now_ns += n_probe * message_ns;
        one_ns = message_ns;
        const int n = edges_plan_messages(one_ns, turn_ns - (int64_t)now_ns, n_sizes - i, i == 0);
        if (n == 0) {
            break;
        }
        now_ns += n * message_ns;
        ++*n_measured;
    }
    return (int64_t)now_ns;
}

/* All rounds of n ranks, each as long as its slower direction pair; what they take. */
static double play(int n_ranks, double latency_ns, double byte_ns, int *fewest)
{
    const int64_t budget_ns = 60 * NS_PER_S, between_ns = 20 * NS_PER_MS;
    const int n_rounds = edges_plan_rounds(n_ranks);
    int64_t now_ns = 6 * NS_PER_S; // copies
    *fewest = EDGES_PLAN_MAX_SIZES;
    for (int round = 0; round < n_rounds; round++) {
        int n_measured;
        const int64_t turn_ns = edges_plan_turn_ns(budget_ns * 95 / 100 - now_ns, n_rounds - round);
        now_ns += between_ns + 2 * play_turn(turn_ns, latency_ns, byte_ns, &n_measured);
        *fewest = n_measured < *fewest ? n_measured : *fewest;
    }
    return (double)now_ns / 1e9;
}

/* Fast edges, a network's, and such as 64 ranks on two cores have. */
static void ranks_of_64_end_within_60_s(void **state)
{
    (void)state;
    static const struct {
        double latency_ns, byte_ns;
        int n_sizes; // at least, of 13
    } edges[] = {{300, 0.1, 13}, {2e3, 0.04, 13}, {20e3, 1, 12}, {100e3, 20, 9}, {2e6, 1000, 6}};
    for (size_t i = 0; i < sizeof edges / sizeof edges[0]; i++) {
        int fewest;
        for (int n = 2; n <= 64; n += 31) {
            const double took_s = play(n, edges[i].latency_ns, edges[i].byte_ns, &fewest);
            assert_true(took_s < 60);
        }
        assert_true(fewest >= edges[i].n_sizes);
    }
}

/* --- statistics ------------------------------------------------------------------------------- */

static void quantiles_of_times(void **state)
{
    (void)state;
    double ns[101];
    for (int i = 0; i <= 100; i++) {
        ns[i] = (i * 37 % 101) + 1; // 1 .. 101, in disorder
    }
    const struct edges_times t = edges_times_of(ns, 101);
    assert_true(t.min_ns == 1 && t.median_ns == 51 && t.p99_ns == 100 && t.n == 101);
    double few[] = {4, 2};
    assert_true(edges_times_of(few, 2).median_ns == 3);
    assert_int_equal(edges_times_of(few, 0).n, 0);
}

static void a_line_is_found_again(void **state)
{
    (void)state;
    double bytes[13], ns[13];
    size_t sizes[EDGES_PLAN_MAX_SIZES];
    const int n = edges_plan_sizes((size_t)64 << 20, sizes);
    for (int i = 0; i < n; i++) {
        bytes[i] = (double)sizes[i];
        ns[i] = 1500 + 0.125 * bytes[i];
    }
    struct edges_fit f = edges_fit_line(bytes, ns, n);
    assert_true(fabs(f.latency_ns - 1500) < 1e-6 && fabs(f.byte_ns - 0.125) < 1e-9);
    assert_true(f.error < 1e-9);
    // Noise of a few per cent, and two sizes that are far off, do not bend it.
    for (int i = 0; i < n; i++) {
        ns[i] *= 1 + 0.02 * (i % 3 - 1);
    }
    ns[4] *= 40;
    ns[9] *= 3;
    f = edges_fit_line(bytes, ns, n);
    assert_true(fabs(f.latency_ns / 1500 - 1) < 0.05 && fabs(f.byte_ns / 0.125 - 1) < 0.05);
    assert_true(f.error < 0.05);
    // One point, and times that fall: never a negative coefficient.
    f = edges_fit_line(bytes, ns, 1);
    assert_true(f.latency_ns == ns[0] && f.byte_ns == 0);
    for (int i = 0; i < n; i++) {
        ns[i] = 1e6 - 1e4 * i;
    }
    f = edges_fit_line(bytes, ns, n);
    assert_true(f.latency_ns > 0 && f.byte_ns >= 0);
}

/* --- a fabric ----------------------------------------------------------------------------------- */

enum {
    RANKS = 6, // on two hosts
    SIZES = 13,
};

static struct edges_times around(double ns, double spread)
{
    return (struct edges_times){ns * (1 - spread / 2), ns, ns * (1 + spread), 100};
}

/* 1 us + 0.1 ns a byte within a host, 10 us + 1 ns between hosts, all within `spread`. */
static void make_edges(struct edges *e, double spread)
{
    memset(e, 0, sizeof *e);
    e->n_ranks = RANKS;
    e->n_transports = 1;
    e->n_sizes = edges_plan_sizes((size_t)64 << 20, e->sizes);
    struct edges_transport *t = &e->transports[0];
    t->name = "mpi";
    t->carries_hidden = true;
    t->n_sizes = edges_plan_sizes((size_t)64 << 20, t->sizes);
    t->links = xcalloc(RANKS * RANKS, sizeof *t->links);
    for (int r = 0; r < RANKS; r++) {
        strcpy(e->ranks[r].host, r < 3 ? "left" : "right");
        for (int i = 0; i < e->n_sizes; i++) {
            e->ranks[r].copy_ns[i] = (r == 4 ? 0.05 : 0.08) * (double)e->sizes[i];
        }
    }
    for (int i = 0; i < RANKS * RANKS; i++) {
        const bool same = edges_same_host(e, i / RANKS, i % RANKS);
        for (int s = 0; i / RANKS != i % RANKS && s < SIZES; s++) {
            const double ns = same ? 1e3 + 0.1 * (double)t->sizes[s] : 1e4 + (double)t->sizes[s];
            t->links[i].times[s] = around(ns * (1 + 0.01 * (i % 5)), spread);
        }
    }
}

static int count_outliers(const struct edges *e)
{
    int n = 0;
    for (int i = 0; i < RANKS * RANKS; i++) {
        const struct edges_link *l = &e->transports[0].links[i];
        n += (l->slow_by > 0) + (l->thin_by > 0);
    }
    return n;
}

static void scale(struct edges_link *l, int size, double by)
{
    l->times[size].min_ns *= by;
    l->times[size].median_ns *= by;
    l->times[size].p99_ns *= by;
}

static void what_follows_from_the_times(void **state)
{
    (void)state;
    struct edges e;
    make_edges(&e, 0.1);
    edges_judge(&e);
    const struct edges_transport *t = &e.transports[0];
    const struct edges_link *l = edges_link(t, RANKS, 0, 3), *own = edges_link(t, RANKS, 2, 2);
    assert_true(fabs(l->bytes_per_s / 1e9 - 1 / 1.03) < 0.01);
    assert_int_equal(t->sizes[l->best], 64 << 20);
    assert_true(fabs(l->fit.latency_ns / 10300 - 1) < 0.01);
    assert_int_equal(own->best, -1);
    // 12.5 GB/s are the better copies of those two.
    assert_true(fabs(l->copy_share - 0.08 / 1.03) < 1e-3);
    assert_true(fabs(edges_link(t, RANKS, 1, 4)->copy_share - 0.05 / 1.0) < 0.01);
    assert_int_equal(edges_beside(&e), 2);
    assert_true(fabs(edges_median(&e, t, true, edges_median_ns, 0) / 1e3 - 1.01) < 0.02);
    assert_true(fabs(edges_median(&e, t, false, edges_median_ns, 0) / 1e4 - 1.02) < 0.02);
    assert_int_equal(count_outliers(&e),
                     0); // edges between hosts are no outliers of those within one
    assert_int_equal(t->n_left_out, 0);
    edges_free(&e);
}

static void outliers_are_named_by_kind(void **state)
{
    (void)state;
    struct edges e;
    make_edges(&e, 0.1);
    scale(edges_link(&e.transports[0], RANKS, 0, 3), 0, 2); // 20 us instead of 10, both ways
    scale(edges_link(&e.transports[0], RANKS, 3, 0), 0, 2);
    scale(edges_link(&e.transports[0], RANKS, 2, 4), 0, 2); // one way only
    scale(edges_link(&e.transports[0], RANKS, 4, 5), SIZES - 1, 3);
    scale(edges_link(&e.transports[0], RANKS, 1, 2), 0, 1.4); // not by that much
    edges_judge(&e);
    assert_int_equal(count_outliers(&e), 3);
    assert_true(fabs(edges_link(&e.transports[0], RANKS, 0, 3)->slow_by - 2) < 0.1);
    assert_true(fabs(edges_link(&e.transports[0], RANKS, 3, 0)->slow_by - 2) < 0.1);
    assert_true(fabs(edges_link(&e.transports[0], RANKS, 4, 5)->thin_by - 3) < 0.1);
    edges_free(&e);
}

static void spreads_are_no_outliers(void **state)
{
    (void)state;
    struct edges e;
    // Messages take up to four times as long as the median everywhere: twice is within that.
    make_edges(&e, 3);
    scale(edges_link(&e.transports[0], RANKS, 0, 3), 0, 2);
    edges_judge(&e);
    assert_int_equal(count_outliers(&e), 0);
    edges_free(&e);
    // Edges that differ that much from each other: three times the median is one of them.
    make_edges(&e, 0.1);
    for (int i = 0; i < RANKS * RANKS; i++) {
        scale(&e.transports[0].links[i], 0, 1 + (i * 7 % 10) / 5.0);
    }
    edges_judge(&e);
    assert_int_equal(count_outliers(&e), 0);
    edges_free(&e);
    // Slow most of the time, but as fast as the others when it is: somebody took its core.
    make_edges(&e, 0.1);
    struct edges_link *l = edges_link(&e.transports[0], RANKS, 0, 1);
    scale(l, 0, 5);
    l->times[0].min_ns = 1000;
    edges_judge(&e);
    assert_int_equal(count_outliers(&e), 0);
    edges_free(&e);
}

static void sizes_that_some_left_out(void **state)
{
    (void)state;
    struct edges e;
    make_edges(&e, 0.1);
    struct edges_link *l = edges_link(&e.transports[0], RANKS, 3, 4);
    for (int s = 10; s < SIZES; s++) {
        l->times[s] = (struct edges_times){0};
    }
    scale(l, 9, 2); // 2 MiB
    edges_judge(&e);
    assert_int_equal(e.transports[0].n_left_out, 3);
    assert_int_equal(l->best, 9);
    assert_true(fabs(l->thin_by - 2) < 0.1); // compared at the largest size that all have
    assert_int_equal(count_outliers(&e), 1);
    // Nothing but small sizes: bandwidth is that of the largest.
    for (int s = 5; s < SIZES; s++) {
        l->times[s] = (struct edges_times){0};
    }
    edges_judge(&e);
    assert_int_equal(l->best, 4);
    edges_free(&e);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_pairs_meet_once),
        cmocka_unit_test(sizes_grow_up_to_the_largest),
        cmocka_unit_test(messages_fit_their_share),
        cmocka_unit_test(ranks_of_64_end_within_60_s),
        cmocka_unit_test(quantiles_of_times),
        cmocka_unit_test(a_line_is_found_again),
        cmocka_unit_test(what_follows_from_the_times),
        cmocka_unit_test(outliers_are_named_by_kind),
        cmocka_unit_test(spreads_are_no_outliers),
        cmocka_unit_test(sizes_that_some_left_out),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
