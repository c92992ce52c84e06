/*
 * The sampling thread and the way to rank 0, in one process: rank 0 posts to itself and reads back what
 * the scripted library's GPUs did (tests/support/fake_nvml.c).
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/clock.h"
#include "model/wire.h"
#include "workers/telemetry.h"

enum {
    STEP = 5,
    MOST = 4096,
};

struct rig {
    struct comm *comm;
    struct nvml *nvml;
    struct telemetry *telemetry;
    struct gpus_sample got[MOST]; // (n)
    size_t n, n_messages;
};

static int setup_with(void **state, const char *script)
{
    struct err e;
    char why[200];
    struct rig *r = calloc(1, sizeof *r);
    setenv("FAKE_NVML", script, 1);
    assert_int_equal(comm_open(&r->comm, &e), 0);
    assert_int_equal(comm_start(r->comm, telemetry_max_message_bytes(), &e), 0);
    r->nvml = nvml_open(why, sizeof why);
    assert_non_null(r->nvml);
    const struct telemetry_device devices[] = {{.index = 2, .number = 7},
                                               {.index = 0, .number = 9}};
    assert_int_equal(telemetry_start(&r->telemetry, r->nvml, devices, 2, &e), 0);
    *state = r;
    return 0;
}

static int setup(void **state)
{
    return setup_with(state, "devices=3 power=200");
}

static int setup_hanging(void **state)
{
    return setup_with(state, "devices=3 hang=4");
}

static int teardown(void **state)
{
    struct rig *r = *state;
    assert_true(telemetry_stop(r->telemetry));
    nvml_close(r->nvml);
    comm_close(r->comm);
    free(r);
    return 0;
}

static void receive(struct rig *r)
{
    struct err e;
    struct comm_msg m;
    while (comm_poll(r->comm, &m, &e) == 1) {
        const struct wire_journal *j = m.data;
        size_t n_bytes = m.n_bytes - sizeof *j;
        assert_int_equal(m.tag, WIRE_JOURNAL);
        assert_int_equal(j->kind, WIRE_JOURNAL_GPUS);
        assert_int_equal(j->step, STEP);
        assert_int_equal(n_bytes % sizeof r->got[0], 0);
        assert_true(n_bytes > 0 && r->n + n_bytes / sizeof r->got[0] <= MOST);
        memcpy(r->got + r->n, j->bytes, n_bytes);
        r->n += n_bytes / sizeof r->got[0];
        r->n_messages++;
    }
}

static void sleep_ms(int64_t ms)
{
    clock_sleep_until_ns(clock_local_ns() + ms * NS_PER_MS);
}

static void ten_a_second_of_each(void **state)
{
    struct rig *r = *state;
    struct err e;
    int64_t begin_ns = clock_now_ns();
    telemetry_begin_step(r->telemetry, r->comm, STEP, begin_ns);
    while (clock_now_ns() < begin_ns + 1050 * NS_PER_MS) {
        assert_int_equal(telemetry_tick(r->telemetry, clock_now_ns(), &e), 0);
        sleep_ms(1);
    }
    assert_int_equal(telemetry_end_step(r->telemetry, &e), 0);
    receive(r);
    assert_in_range(r->n, 2 * 8, 2 * 12); // of 2 devices in 1.05 s, on a machine that may be busy
    assert_in_range(r->n_messages, 4, 6); // every 250 ms, and the end
    size_t n_of_7 = 0;
    for (size_t i = 0; i < r->n; i++) {
        const struct gpus_sample *s = &r->got[i];
        assert_true(s->device == 7 || s->device == 9);
        assert_true(fabs((double)s->power_w - (s->device == 7 ? 220 : 200)) < 1e-3);
        assert_true(s->t_ns >= begin_ns && (i == 0 || s->t_ns >= r->got[i - 1].t_ns));
        n_of_7 += s->device == 7;
    }
    assert_in_range(n_of_7, r->n / 2, r->n / 2 + 1);
}

static void nothing_of_before_a_step_or_after_it(void **state)
{
    struct rig *r = *state;
    struct err e;
    sleep_ms(250); // nobody takes these
    int64_t begin_ns = clock_now_ns();
    telemetry_begin_step(r->telemetry, r->comm, STEP, begin_ns);
    sleep_ms(150);
    assert_int_equal(telemetry_tick(r->telemetry, begin_ns, &e), 0); // not due
    receive(r);
    assert_int_equal(r->n, 0);
    assert_int_equal(telemetry_end_step(r->telemetry, &e), 0);
    receive(r);
    assert_in_range(r->n, 2, 6);
    for (size_t i = 0; i < r->n; i++) {
        assert_true(r->got[i].t_ns >= begin_ns);
    }
    size_t n = r->n;
    sleep_ms(150);
    assert_int_equal(telemetry_tick(r->telemetry, clock_now_ns() + NS_PER_S, &e), 0);
    assert_int_equal(telemetry_end_step(r->telemetry, &e), 0);
    receive(r);
    assert_int_equal(r->n, n);
}

static void a_rank_without_any_does_nothing(void **state)
{
    struct rig *r = *state;
    struct err e;
    telemetry_begin_step(NULL, r->comm, STEP, 0);
    assert_int_equal(telemetry_tick(NULL, 0, &e), 0);
    assert_int_equal(telemetry_end_step(NULL, &e), 0);
    assert_true(telemetry_stop(NULL));
    receive(r);
    assert_int_equal(r->n, 0);
}

/* Nobody but its own thread waits for it, and at the end not for long. */
static void a_device_that_hangs_is_left(void **state)
{
    struct rig *r = *state;
    struct err e;
    sleep_ms(100);
    int64_t begin_ns = clock_local_ns();
    telemetry_begin_step(r->telemetry, r->comm, STEP, clock_now_ns());
    assert_int_equal(telemetry_tick(r->telemetry, clock_now_ns() + NS_PER_S, &e), 0);
    assert_int_equal(telemetry_end_step(r->telemetry, &e), 0);
    assert_true(clock_local_ns() - begin_ns < 500 * NS_PER_MS);
    assert_false(telemetry_stop(r->telemetry));
    assert_true(clock_local_ns() - begin_ns < 3900 * NS_PER_MS);
    sleep_ms(2500); // it has answered: it can be stopped
    receive(r);
    assert_int_equal(r->n, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(ten_a_second_of_each, setup, teardown),
        cmocka_unit_test_setup_teardown(nothing_of_before_a_step_or_after_it, setup, teardown),
        cmocka_unit_test_setup_teardown(a_device_that_hangs_is_left, setup_hanging, teardown),
        cmocka_unit_test_setup_teardown(a_rank_without_any_does_nothing, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
