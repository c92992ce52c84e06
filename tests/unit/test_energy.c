/*
 * What GPUs took in a window, from samples written down by hand.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "analysis/energy.h"
#include "analysis/gpu_report.h"
#include "core/clock.h"
#include "core/mem.h"

#include <jansson.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define WARM_S 2.0
#define END_S  12.0
#define MOST   4000

struct rig {
    struct step_data d;
    struct measure m;
    struct gpus_sample samples[MOST];
    struct energy x;
};

static void near(double got, double want, double within)
{
    if (!(fabs(got - want) <= within)) {
        fail_msg("%.17g is not within %g of %.17g", got, within, want);
    }
}

static int64_t ns(double s)
{
    return llround(s * (double)NS_PER_S);
}

/* 10 s of window with `per_bin` output tokens in each of its bins, and twice the input tokens. */
static void begin(struct rig *r, double per_bin)
{
    memset(r, 0, sizeof *r);
    r->d.info.t_warm_ns = ns(WARM_S);
    r->d.info.t_end_ns = ns(END_S);
    r->d.gpus = r->samples;
    r->m.window_s = END_S - WARM_S;
    for (int i = 0; i < MEASURE_BINS; i++) {
        r->m.served_out[i] = per_bin;
        r->m.served_in[i] = 2 * per_bin;
    }
}

static struct gpus_sample blank(double t_s, uint16_t device)
{
    struct gpus_sample s = gpus_blank(ns(t_s));
    s.device = device;
    return s;
}

static struct gpus_sample *add(struct rig *r, double t_s, uint16_t device)
{
    assert_true(r->d.n_gpus < MOST);
    r->samples[r->d.n_gpus] = blank(t_s, device);
    return &r->samples[r->d.n_gpus++];
}

static void measure(struct rig *r, size_t n_devices)
{
    energy_free(&r->x);
    energy_measure(&r->m, &r->d, n_devices, &r->x);
}

static void counters_are_differences(void **state)
{
    (void)state;
    struct rig *r = xmalloc(sizeof *r);
    begin(r, 10);
    for (double t = 0.03; t < 14; t += 0.1) { // 1000 J/s, and what the power says is not asked
        struct gpus_sample *s = add(r, t, 0);
        s->energy_j = 5e6 + 1000 * t;
        s->power_w = 77;
    }
    measure(r, 1);
    near(r->x.all.energy_j, 10000, 1e-3);
    near(r->x.power_w.value, 1000, 1e-4);
    near(r->x.power_w.lo, 1000, 0.01);
    near(r->x.power_w.hi, 1000, 0.01);
    near(r->x.j_per_output_token.value, 10000.0 / 600, 1e-5);
    near(r->x.j_per_output_token.hi, 10000.0 / 600, 1e-3);
    near(r->x.j_per_token.value, 10000.0 / 1800, 1e-5);
    assert_true(r->x.all.from_counter && !r->x.all.from_power);
    energy_free(&r->x);
    free(r);
}

static void power_is_integrated_where_there_is_no_counter(void **state)
{
    (void)state;
    struct rig *r = xmalloc(sizeof *r);
    begin(r, 10);
    for (double t = 1.95; t < 12.2; t += 0.1) { // 100 W to 200 W over the window, in a line
        add(r, t, 0)->power_w = (float)(100 + 10 * (t - WARM_S));
        add(r, t + 0.01, 1)->power_w = 50;
    }
    measure(r, 2);
    near(r->x.devices[0].energy_j, 1500, 1e-2);
    near(r->x.devices[1].energy_j, 500, 1e-2);
    near(r->x.all.energy_j, 2000, 1e-2);
    near(r->x.all.power_w, 200, 1e-3);
    assert_true(r->x.all.from_power && !r->x.all.from_counter);
    // tenths of the window: means 155, 165 .. 245, so that their error is 9.574
    near(r->x.power_w.hi - r->x.power_w.value, 2.262157 * 9.574271, 1e-2);
    energy_free(&r->x);
    free(r);
}

/* It began anew, stands still, or was there for a moment only. */
static void a_bad_counter_is_not_used(void **state)
{
    (void)state;
    for (int kind = 0; kind < 3; kind++) {
        struct rig *r = xmalloc(sizeof *r);
        begin(r, 1);
        for (int i = 0; i < 140; i++) {
            struct gpus_sample *s = add(r, 0.1 * i, 0);
            s->power_w = 30;
            s->energy_j = kind == 0   ? (i < 60 ? 1e6 + i : i)
                          : kind == 1 ? 1e6
                          : i == 50   ? 1e6
                                      : (double)NAN;
        }
        measure(r, 1);
        near(r->x.all.energy_j, 300, 1e-6);
        assert_true(r->x.all.from_power && !r->x.all.from_counter);
        energy_free(&r->x);
        free(r);
    }
}

static void ends_may_be_a_little_off(void **state)
{
    (void)state;
    static const struct {
        double from_s, to_s, skip_from_s, skip_to_s;
        bool counter, known;
    } cases[] = {
        {2.4, 11.6, 0, 0, true, true},    {2.4, 11.6, 0, 0, false, true},
        {2.6, 12.0, 0, 0, true, false},   {2.0, 11.4, 0, 0, true, false},
        {1.0, 13.0, 5, 5.8, false, true}, {1.0, 13.0, 5, 6.3, false, false},
        {1.0, 13.0, 5, 7.3, true, true}, // a counter counts on
    };
    for (size_t k = 0; k < sizeof cases / sizeof cases[0]; k++) {
        struct rig *r = xmalloc(sizeof *r);
        begin(r, 1);
        for (double t = cases[k].from_s; t <= cases[k].to_s + 1e-9; t += 0.1) {
            if (t < cases[k].skip_from_s || t > cases[k].skip_to_s) {
                struct gpus_sample *s = add(r, t, 0);
                s->power_w = 30;
                s->energy_j = cases[k].counter ? 30 * t : (double)NAN;
            }
        }
        measure(r, 1);
        if (cases[k].known) {
            near(r->x.all.energy_j, 300, 1e-3);
        } else {
            assert_true(isnan(r->x.all.energy_j) && isnan(r->x.power_w.value));
            assert_true(isnan(r->x.j_per_token.value) && !r->x.all.from_counter);
        }
        energy_free(&r->x);
        free(r);
    }
}

/* Without one device's energy there is none of all; with no sample at all there is nothing. */
static void what_is_missing_stays_so(void **state)
{
    (void)state;
    struct rig *r = xmalloc(sizeof *r);
    begin(r, 1);
    for (double t = 1; t < 13; t += 0.1) {
        add(r, t, 0)->power_w = 30;
        add(r, t, 1)->gpu_util = 0.5f;
    }
    measure(r, 2);
    near(r->x.devices[0].energy_j, 300, 1e-3);
    assert_true(isnan(r->x.devices[1].energy_j) && isnan(r->x.all.energy_j));
    assert_true(isnan(r->x.all.throttled) && isnan(r->x.all.sm_mhz));
    near(r->x.all.gpu_util, 0.5, 0);
    r->d.n_gpus = 0;
    measure(r, 2);
    assert_true(isnan(r->x.all.energy_j) && isnan(r->x.all.gpu_util));
    r->m.window_s = 0;
    r->d.info.t_end_ns = r->d.info.t_warm_ns;
    measure(r, 0);
    assert_true(isnan(r->x.all.power_w) && isnan(r->x.power_w.value));
    energy_free(&r->x);
    free(r);
}

static void idle_and_chosen_clocks_are_no_throttling(void **state)
{
    (void)state;
    struct rig *r = xmalloc(sizeof *r);
    begin(r, 1);
    for (int i = 0; i < 100; i++) { // one a tenth of a second, all in the window but the last
        struct gpus_sample *s = add(r, WARM_S + 0.1 * i + 0.05, 0);
        s->throttle = i < 20   ? 1U << GPUS_IDLE
                      : i < 30 ? 1U << GPUS_POWER_CAP | 1U << GPUS_HW_THERMAL
                      : i < 45 ? 1U << GPUS_POWER_CAP
                      : i < 60 ? 1U << GPUS_APPLICATION_CLOCKS
                               : 0;
        s->temperature_c = (float)(40 + i % 50);
        s->memory_used_bytes = 1e9 * (i % 7);
        s->sm_mhz = i % 2 ? 1000 : 2000;
    }
    add(r, END_S, 0)->throttle = 1U << GPUS_SW_THERMAL;
    add(r, WARM_S - 0.01, 0)->temperature_c = 99;
    measure(r, 1);
    near(r->x.all.throttled, 0.25, 1e-12);
    near(r->x.all.reasons[GPUS_IDLE], 0.20, 1e-12);
    near(r->x.all.reasons[GPUS_POWER_CAP], 0.25, 1e-12);
    near(r->x.all.reasons[GPUS_HW_THERMAL], 0.10, 1e-12);
    near(r->x.all.reasons[GPUS_APPLICATION_CLOCKS], 0.15, 1e-12);
    near(r->x.all.reasons[GPUS_SW_THERMAL], 0, 0);
    near(r->x.all.temperature_c, 89, 0);
    near(r->x.all.memory_used_bytes, 6e9, 0);
    near(r->x.all.sm_mhz, 1500, 1e-9);
    energy_free(&r->x);
    free(r);
}

/* Tokens that come in bursts leave tenths of the window without any: their energy counts. */
static void energy_between_bursts_counts(void **state)
{
    (void)state;
    struct rig *r = xmalloc(sizeof *r);
    begin(r, 0);
    r->m.served_out[0] = 300;
    r->m.served_out[30] = 100;
    for (double t = 1; t < 13; t += 0.1) {
        add(r, t, 0)->energy_j = 40 * t;
    }
    measure(r, 1);
    near(r->x.j_per_output_token.value, 1, 1e-6);
    assert_true(r->x.j_per_output_token.hi > 1.2); // little is known
    energy_free(&r->x);
    begin(r, 0); // no token at all
    for (double t = 1; t < 13; t += 0.1) {
        add(r, t, 0)->energy_j = 40 * t;
    }
    measure(r, 1);
    near(r->x.power_w.value, 40, 1e-6);
    assert_true(isnan(r->x.j_per_token.value));
    energy_free(&r->x);
    free(r);
}

static void a_step_says_it_in_a_line(void **state)
{
    (void)state;
    struct rig *r = xmalloc(sizeof *r);
    struct gpus_device devices[2] = {{.name = "a"}, {.name = "b"}};
    struct store_meta meta = {.gpus = devices, .n_gpus = 2};
    struct str line = {0};
    begin(r, 10);
    json_t *o = gpu_report_step(&r->m, &r->d, &meta); // nobody looked
    assert_true(json_is_null(o));
    gpu_report_line(o, &line);
    assert_int_equal(line.len, 0);
    json_decref(o);
    for (int i = 0; i < 140; i++) {
        add(r, 0.1 * i, 0)->energy_j = 30 * (0.1 * i);
        struct gpus_sample *s = add(r, 0.1 * i, 1);
        s->power_w = 90;
        s->throttle = i % 2 ? 1U << GPUS_SW_THERMAL : 0;
    }
    o = gpu_report_step(&r->m, &r->d, &meta);
    assert_string_equal(json_string_value(json_object_get(o, "energy_from")), "both");
    assert_int_equal(json_array_size(json_object_get(o, "devices")), 2);
    gpu_report_line(o, &line);
    assert_string_equal(
        line.data,
        "2 GPUs took 120 [120, 120] W: 2 [2, 2] J per output token, 0.667 [0.667, 0.667] "
        "per token in and out; throttled 50 % of the time: sw_thermal 50 %");
    str_free(&line);
    json_decref(o);
    free(r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(counters_are_differences),
        cmocka_unit_test(power_is_integrated_where_there_is_no_counter),
        cmocka_unit_test(a_bad_counter_is_not_used),
        cmocka_unit_test(ends_may_be_a_little_off),
        cmocka_unit_test(what_is_missing_stays_so),
        cmocka_unit_test(idle_and_chosen_clocks_are_no_throttling),
        cmocka_unit_test(energy_between_bursts_counts),
        cmocka_unit_test(a_step_says_it_in_a_line),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
