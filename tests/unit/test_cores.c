#include "core/cores.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>

#include "core/quota.h"

/* Two nodes of two cores of two threads, numbered as Linux does: second threads behind all first. */
static void whole_cores_and_near_ones_come_first(void **state)
{
    (void)state;
    struct cores_cpu cpus[8];
    for (int i = 0; i < 8; i++) {
        const int core = (i * 3) % 4; // in no order
        cpus[i] = (struct cores_cpu){
            .os = core + 4 * (i / 4), .node = core / 2, .core = core, .thread = i / 4};
    }
    cores_order(cpus, 8);
    for (int i = 0; i < 8; i++) {
        assert_int_equal(cpus[i].os, i);
    }
    // Numbered the other way: neighbours are the threads of one core.
    for (int i = 0; i < 8; i++) {
        cpus[i] = (struct cores_cpu){.os = i, .node = i / 4, .core = i / 2, .thread = i % 2};
    }
    cores_order(cpus, 8);
    const int want[] = {0, 2, 4, 6, 1, 3, 5, 7};
    for (int i = 0; i < 8; i++) {
        assert_int_equal(cpus[i].os, want[i]);
    }
}

static void every_thread_of_this_host_gets_its_own(void **state)
{
    (void)state;
    struct err e = {0};
    cpu_set_t mine, planned;
    assert_int_equal(sched_getaffinity(0, sizeof mine, &mine), 0);
    const int total = CPU_COUNT(&mine);
    CPU_ZERO(&planned);
    bool pinned;
    for (int i = 0; i < total; i++) { // ranks of one thread each
        int cpu;
        assert_int_equal(cores_plan(&cpu, i, 1, total, &pinned, &e), 0);
        assert_true(pinned && CPU_ISSET(cpu, &mine) && !CPU_ISSET(cpu, &planned));
        CPU_SET(cpu, &planned);
    }
    assert_true(CPU_EQUAL(&mine, &planned));
}

static void more_threads_than_cores_are_not_pinned(void **state)
{
    (void)state;
    struct err e = {0};
    int cpus[2];
    bool pinned;
    assert_int_equal(cores_plan(cpus, 0, 2, CPU_SETSIZE + 1, &pinned, &e), 0);
    assert_true(!pinned && cpus[0] == -1 && cpus[1] == -1);
}

/* Of a big host that there is none of here: hwloc makes one up, whose CPUs it numbers core by core. */
static void ranks_of_a_big_host_keep_to_nodes(void **state)
{
    (void)state;
    struct err e = {0};
    int cpus[8];
    bool pinned;
    assert_int_equal(setenv("HWLOC_SYNTHETIC", "numa:2 core:8 pu:2", 1), 0);
    for (int rank = 0; rank < 4; rank++) { // of 4 threads: one a core, and 8 cores to a node
        assert_int_equal(cores_plan(cpus, 4 * rank, 4, 16, &pinned, &e), 0);
        assert_true(pinned);
        for (int i = 0; i < 4; i++) {
            assert_int_equal(cpus[i], 2 * (4 * rank + i));
        }
    }
    for (int rank = 0; rank < 4; rank++) { // of 8: second threads of the cores as well
        assert_int_equal(cores_plan(cpus, 8 * rank, 8, 32, &pinned, &e), 0);
        assert_true(pinned);
        for (int i = 0; i < 8; i++) {
            assert_int_equal(cpus[i], 2 * (8 * (rank % 2) + i) + rank / 2);
            assert_int_equal(cpus[i] / 16, rank % 2); // one node
        }
    }
    assert_int_equal(cores_plan(cpus, 32, 1, 33, &pinned, &e), 0);
    assert_false(pinned);
    assert_int_equal(unsetenv("HWLOC_SYNTHETIC"), 0);
}

/* --- several ranks --------------------------------------------------------------------------------- */

/* n_keep ranks that keep time, then n_compute others, all on CPUs 0 .. n_cpus - 1. */
static int make_host(struct cores_rank *ranks, int n_keep, int n_compute, int n_cpus)
{
    const int n = n_keep + n_compute;
    for (int i = 0; i < n; i++) {
        ranks[i] = (struct cores_rank){.n_cpus = n_cpus, .computes = i >= n_keep};
        for (int cpu = 0; cpu < n_cpus; cpu++) {
            ranks[i].set.words[cpu / 64] |= 1ULL << cpu % 64;
        }
    }
    return n;
}

struct divided {
    int n_keep, n_compute, n_cpus, n_threads; // asked for
    int threads, total;                       // wanted
    enum cores_placement placement;
};

static void cpus_are_divided(void **state)
{
    (void)state;
    static const struct divided cases[] = {
        {1, 1, 2, 0, 2, 2, CORES_CROWDED},     {1, 2, 2, 0, 1, 2, CORES_CROWDED},
        {1, 4, 2, 0, 1, 4, CORES_CROWDED},     {1, 1, 4, 0, 3, 3, CORES_PINNED},
        {2, 2, 4, 0, 2, 4, CORES_CROWDED},     {1, 4, 64, 0, 15, 60, CORES_PINNED},
        {16, 4, 64, 0, 12, 48, CORES_PINNED},  {17, 4, 64, 0, 16, 64, CORES_CROWDED},
        {1, 2, 200, 0, 99, 198, CORES_PINNED}, {1, 2, 8, 4, 4, 8, CORES_CROWDED},
        {1, 1, 2, 1, 1, 1, CORES_PINNED},      {1, 2, 8, 5, 5, 10, CORES_CROWDED},
        {0, 1, 1, 0, 1, 1, CORES_PINNED},      {1, 1, 1, 0, 1, 1, CORES_CROWDED},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const struct divided *c = &cases[i];
        struct cores_rank ranks[32];
        const int n = make_host(ranks, c->n_keep, c->n_compute, c->n_cpus);
        for (int k = 0; k < c->n_compute; k++) {
            const struct cores_part p = cores_divide(ranks, n, c->n_keep + k, c->n_threads);
            assert_int_equal(p.n_threads, c->threads);
            assert_int_equal(p.total, c->total);
            assert_int_equal(p.first, k * c->threads);
            assert_int_equal(p.placement, c->placement);
        }
    }
}

static void ranks_that_are_bound_divide_what_they_share(void **state)
{
    (void)state;
    struct cores_rank ranks[4];
    make_host(ranks, 0, 4, 16);
    for (int i = 0; i < 4; i++) { // two to a half: by the launcher's binding
        ranks[i].set.words[0] = i < 2 ? 0xff : 0xff00;
        ranks[i].n_cpus = 8;
    }
    for (int i = 0; i < 4; i++) {
        const struct cores_part p = cores_divide(ranks, 4, i, 0);
        assert_int_equal(p.n_threads, 4);
        assert_int_equal(p.total, 8);
        assert_int_equal(p.first, 4 * (i % 2));
        assert_int_equal(p.placement, CORES_PINNED);
    }
    ranks[3].set.words[0] = 0xfff0; // partly what ranks 0 and 1 have
    assert_int_equal(cores_divide(ranks, 4, 0, 0).placement, CORES_OVERLAP);
    assert_int_equal(cores_divide(ranks, 4, 3, 0).placement, CORES_OVERLAP);
    ranks[3].set.words[0] = 0xff00;
    ranks[0].n_cpus = ranks[1].n_cpus = 3; // time of 3 on 8 CPUs that others use as well
    const struct cores_part p = cores_divide(ranks, 4, 1, 0);
    assert_int_equal(p.n_threads, 1);
    assert_int_equal(p.placement, CORES_QUOTA);
}

static void quotas_are_read(void **state)
{
    (void)state;
    assert_true(isinf(quota_parse("max 100000")));
    assert_true(isinf(quota_parse("-1 100000")));
    assert_true(quota_parse("250000 100000") == 2.5);
    assert_true(quota_parse("50000 100000\n") == 0.5);
    static const char *const bad[] = {"", "x", "100000", "1 0", "1 -5", "maximum 1", "nan 1"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_true(isnan(quota_parse(bad[i])));
    }
    assert_true(quota_cpus() > 0);
    const struct cores_rank self = cores_self(true);
    assert_true(self.n_cpus >= 1 && self.n_cpus <= cores_count(&self.set) && self.computes);
}

static void cpus_as_text(void **state)
{
    (void)state;
    char text[24];
    const int some[] = {3, 0, 1, 2, 8, 10, 12, 14, 20}, two[] = {4, 9}, pair[] = {6, 5};
    assert_string_equal(cores_text(some, 9, text, sizeof text), "0-3,8-14:2,20");
    assert_string_equal(cores_text(two, 2, text, sizeof text), "4,9");
    assert_string_equal(cores_text(pair, 2, text, sizeof text), "5-6");
    assert_string_equal(cores_text(two, 0, text, sizeof text), "");
    int apart[20];
    for (int i = 0; i < 20; i++) {
        apart[i] = 100 + i * i;
    }
    cores_text(apart, 20, text, sizeof text);
    assert_true(strlen(text) < sizeof text);
    assert_string_equal(text + strlen(text) - 3, "...");
}

static void cpus_from_text(void **state)
{
    (void)state;
    struct cores_set s;
    const int cpus[] = {0, 1, 2, 3, 8, 10, 12, 14, 200};
    char text[64];
    assert_true(cores_read(cores_text(cpus, 9, text, sizeof text), &s));
    assert_int_equal(cores_count(&s), 9);
    for (int i = 0; i < 9; i++) {
        assert_true(s.words[cpus[i] / 64] >> cpus[i] % 64 & 1);
    }
    assert_true(cores_read("5\n", &s));
    assert_int_equal(cores_count(&s), 1);
    assert_true(cores_read("", &s));
    assert_int_equal(cores_count(&s), 0);
    const char *const bad[] = {"0-3,...", "x", "-1", "1;2", "0-8:0", "3 4"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_false(cores_read(bad[i], &s));
    }
    assert_true(cores_read("0-99999", &s));
    assert_int_equal(cores_count(&s), CORES_MAX_CPUS);
}

static void a_node_is_one_or_none(void **state)
{
    (void)state;
    char own[256];
    int node = cores_node(cores_text_self(own, sizeof own));
    assert_in_range(node + 1, 0, 64);
    assert_int_equal(cores_node("1023"), -1); // no such CPU here
    assert_int_equal(cores_node("..."), -1);
    assert_int_equal(cores_node(""), -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(whole_cores_and_near_ones_come_first),
        cmocka_unit_test(every_thread_of_this_host_gets_its_own),
        cmocka_unit_test(more_threads_than_cores_are_not_pinned),
        cmocka_unit_test(ranks_of_a_big_host_keep_to_nodes),
        cmocka_unit_test(cpus_are_divided),
        cmocka_unit_test(ranks_that_are_bound_divide_what_they_share),
        cmocka_unit_test(quotas_are_read),
        cmocka_unit_test(cpus_as_text),
        cmocka_unit_test(cpus_from_text),
        cmocka_unit_test(a_node_is_one_or_none),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
