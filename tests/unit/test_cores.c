#include "core/cores.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <sched.h>

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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(whole_cores_and_near_ones_come_first),
        cmocka_unit_test(every_thread_of_this_host_gets_its_own),
        cmocka_unit_test(more_threads_than_cores_are_not_pinned),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
