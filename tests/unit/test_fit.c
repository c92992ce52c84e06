/*
 * The broken stick and its interval on a server with known capacity (tests/support/batch_server.h):
 * ten rates from 0.2 to 1.25 of capacity, windows of 120 s after a quarter of warm-up. With
 * TIDEMARK_SOAK=1 the sweeps are ten times as many.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "analysis/fit.h"
#include "analysis/saturation.h"
#include "core/rng.h"
#include "tests/support/batch_server.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define MAX_RATES 16

static void near(double got, double want, double within)
{
    if (!(fabs(got - want) <= within)) {
        fail_msg("%.17g is not within %g of %.17g", got, within, want);
    }
}

/* --- the stick ---------------------------------------------------------------------------------- */

static void exact_points_give_the_exact_stick(void **state)
{
    (void)state;
    struct fit_point p[] = {{1, 0.9, 1}, {2, 1.8, 1}, {3, 2.7, 1}, {4, 3.15, 1}, {6, 3.15, 1}};
    struct fit_stick s;
    fit_stick(p, 5, &s);
    near(s.slope, 0.9, 1e-12);
    near(s.plateau, 3.15, 1e-12);
    near(s.squares, 0, 1e-20);
}

static void a_straight_line_has_no_plateau(void **state)
{
    (void)state;
    struct fit_point p[] = {{1, 1, 1}, {2, 2, 1}, {4, 4, 1}};
    struct fit_stick s;
    fit_stick(p, 3, &s);
    near(s.slope, 1, 1e-12);
    near(s.squares, 0, 1e-20);
    assert_true(s.plateau >= 4);
    fit_stick(p, 1, &s);
    near(s.slope, 1, 1e-12);
    assert_true(isinf(s.plateau));
    struct fit_point zero[] = {{0, 0, 1}};
    fit_stick(zero, 1, &s);
    assert_true(isnan(s.slope));
}

/* No stick on a fine grid of slopes and plateaus is better. */
static void nothing_beats_the_fit(void **state)
{
    (void)state;
    for (uint64_t k = 0; k < 50; k++) {
        struct fit_point p[7];
        for (uint64_t i = 0; i < 7; i++) {
            double x = 1 + (double)i;
            double noise = 0.8 * (rng_uniform(1, RNG_SHUFFLE, k, i) - 0.5);
            p[i] = (struct fit_point){x, fmin(x, 4.2) + noise, 1};
        }
        struct fit_stick s;
        fit_stick(p, 7, &s);
        for (double a = 0.7; a < 1.3; a += 0.01) {
            for (double c = 2; c < 8; c += 0.02) {
                double squares = 0;
                for (int i = 0; i < 7; i++) {
                    squares += pow(p[i].y - fmin(a * p[i].x, c), 2);
                }
                assert_true(squares >= s.squares - 1e-12);
            }
        }
    }
}

/* --- sweeps of the simulated server --------------------------------------------------------------- */

struct sweep {
    double rates[MAX_RATES]; // of capacity
    size_t n;
    double window_s, drain_s, scale;
};

static void measure_step(const struct sweep *s, size_t i, uint64_t seed, struct measure *m)
{
    struct slo_config slo = {.quantile = 0.5};
    struct batch_server_run run;
    batch_server_run(
        &(struct batch_server_step){
            .rate_rps = s->rates[i] * batch_server_capacity_rps(s->scale),
            .warm_s = s->window_s / 4,
            .window_s = s->window_s,
            .drain_s = s->drain_s,
            .scale = s->scale,
            .seed = 1000 * seed + i,
            .index = (uint32_t)i,
        },
        &run);
    measure_begin(m, &run.data, &slo);
    for (size_t k = 0; k < run.data.n; k++) {
        measure_tokens(m, &run.data.records[k], &run.dt_us[run.offsets[k]],
                       run.offsets[k + 1] - run.offsets[k]);
    }
    measure_end(m);
    batch_server_free(&run);
}

/* A whole sweep judged; with rate_rps in units of capacity. saturation_free(out). */
static void run_sweep(const struct sweep *s, uint64_t seed, struct saturation *out)
{
    struct measure *m = calloc(s->n, sizeof *m);
    struct saturation_step steps[MAX_RATES];
    double capacity = batch_server_capacity_rps(s->scale);
    for (size_t i = 0; i < s->n; i++) {
        measure_step(s, i, seed, &m[i]);
        steps[i] = (struct saturation_step){s->rates[i] * capacity, &m[i]};
    }
    saturation_find(steps, s->n, 1, out);
    out->rate_rps.value /= capacity;
    out->rate_rps.lo /= capacity;
    out->rate_rps.hi /= capacity;
    free(m);
}

static uint64_t soaked(uint64_t n)
{
    const char *soak = getenv("TIDEMARK_SOAK");
    return soak && strcmp(soak, "0") != 0 ? 10 * n : n;
}

static const struct sweep ten_rates = {
    .rates = {0.2, 0.35, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.12, 1.25},
    .n = 10,
    .window_s = 120,
    .drain_s = 30,
    .scale = 1,
};

static void saturation_is_accurate_and_covered(void **state)
{
    (void)state;
    uint64_t n = soaked(40);
    double sum = 0, squares = 0, width = 0;
    unsigned covered = 0, found = 0;
    for (uint64_t seed = 1; seed <= n; seed++) {
        struct saturation sat;
        run_sweep(&ten_rates, seed, &sat);
        struct stats_interval v = sat.rate_rps;
        sum += v.value;
        squares += v.value * v.value;
        found += sat.verdict == SATURATION_FOUND;
        covered += v.lo <= 1 && v.hi >= 1;
        width += (v.hi - v.lo) / 2;
        saturation_free(&sat);
    }
    double mean = sum / (double)n, sd = sqrt(squares / (double)n - mean * mean);
    print_message("%d sweeps: found %u; mean %.4f, sd %.4f of capacity; the 95 %% interval covers "
                  "in %u, half width %.4f\n",
                  (int)n, found, mean, sd, covered, width / (double)n);
    assert_true(found >= 0.9 * (double)n);
    near(mean, 1, 0.01);
    assert_true(sd <= 0.015 * (1 + 2 / sqrt(2 * (double)n))); // 1.5 % and two errors of a sd
    assert_true(covered >= 0.85 * (double)n);
    assert_true(width / (double)n <= 0.05);
}

static void short_geometric_sweeps_are_found_too(void **state)
{
    (void)state;
    const struct sweep s = {
        .rates = {0.2, 0.3, 0.45, 0.675, 1.01, 1.52, 2.28},
        .n = 7,
        .window_s = 9.6,
        .drain_s = 5,
        .scale = 0.1,
    };
    for (uint64_t seed = 1; seed <= soaked(30); seed++) {
        struct saturation sat;
        run_sweep(&s, seed, &sat);
        assert_int_equal(sat.verdict, SATURATION_FOUND);
        near(sat.rate_rps.value, 1, 0.12);
        assert_true(sat.check.agrees);
        saturation_free(&sat);
    }
}

static void no_false_saturation_below_capacity(void **state)
{
    (void)state;
    struct sweep s = {
        .rates = {0.2, 0.3, 0.4, 0.5, 0.6, 0.7},
        .n = 6,
        .window_s = 60,
        .drain_s = 30,
        .scale = 1,
    };
    for (uint64_t seed = 1; seed <= soaked(20); seed++) {
        struct saturation sat;
        run_sweep(&s, seed, &sat);
        assert_int_equal(sat.verdict, SATURATION_NOT_REACHED);
        assert_true(isnan(sat.rate_rps.value));
        saturation_free(&sat);
    }
}

static void overload_from_the_first_step_says_so(void **state)
{
    (void)state;
    struct sweep s = {.rates = {1.5, 2.2}, .n = 2, .window_s = 60, .drain_s = 10, .scale = 0.2};
    struct saturation sat;
    run_sweep(&s, 3, &sat);
    assert_int_equal(sat.verdict, SATURATION_FIRST_STEP);
    near(sat.rate_rps.value, 1, 0.05); // throughput is capacity all the same
    saturation_free(&sat);
}

/* A target that turns requests away beyond its capacity never grows a queue. */
static void failures_are_no_headroom(void **state)
{
    (void)state;
    struct measure m = {.window_s = 6, .n_due = 600, .n_requests = 600};
    for (int i = 0; i < MEASURE_BINS; i++) {
        m.due[i] = 5;
        m.due_in[i] = 50;
        m.due_out[i] = 100;
        m.served_out[i] = 40;
    }
    const struct saturation_step step = {100, &m};
    struct saturation sat;
    m.verdict.verdict = VERDICT_ERRORS;
    saturation_find(&step, 1, 1, &sat);
    assert_int_equal(sat.verdict, SATURATION_INCONCLUSIVE);
    assert_non_null(strstr(sat.reason, "requests failed from 100/s"));
    assert_true(isnan(sat.rate_rps.value));
    saturation_free(&sat);
    m.verdict.verdict = VERDICT_STABLE;
    saturation_find(&step, 1, 1, &sat);
    assert_int_equal(sat.verdict, SATURATION_NOT_REACHED);
    saturation_free(&sat);
}

static void without_steps_it_is_inconclusive(void **state)
{
    (void)state;
    struct saturation sat;
    saturation_find(NULL, 0, 1, &sat);
    assert_int_equal(sat.verdict, SATURATION_INCONCLUSIVE);
    assert_true(isnan(sat.rate_rps.value));
    saturation_free(&sat);
    struct measure closed = {.closed_loop = true, .window_s = 5, .n_due = 100};
    saturation_find(&(struct saturation_step){0, &closed}, 1, 1, &sat);
    assert_int_equal(sat.verdict, SATURATION_INCONCLUSIVE);
    saturation_free(&sat);
}

static void the_bootstrap_is_reproducible(void **state)
{
    (void)state;
    double due[12], in[12], out[12], served[12];
    for (int i = 0; i < 12; i++) {
        due[i] = 3 + i % 3;
        in[i] = 100 * due[i];
        out[i] = 200 * due[i] + 10 * (i % 5);
        served[i] = out[i] - 5 * (i % 2);
    }
    struct fit_step step = {due, in, out, served, 12, 3, 6, 40, 4000, 8200};
    struct fit_result *a = calloc(FIT_DRAWS, sizeof *a), *b = calloc(FIT_DRAWS, sizeof *b);
    fit_bootstrap(&step, 1, 5, a);
    fit_bootstrap(&step, 1, 5, b);
    assert_memory_equal(a, b, FIT_DRAWS * sizeof *a);
    fit_bootstrap(&step, 1, 6, b);
    assert_true(memcmp(a, b, FIT_DRAWS * sizeof *a) != 0);
    free(a);
    free(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(exact_points_give_the_exact_stick),
        cmocka_unit_test(a_straight_line_has_no_plateau),
        cmocka_unit_test(nothing_beats_the_fit),
        cmocka_unit_test(saturation_is_accurate_and_covered),
        cmocka_unit_test(short_geometric_sweeps_are_found_too),
        cmocka_unit_test(no_false_saturation_below_capacity),
        cmocka_unit_test(overload_from_the_first_step_says_so),
        cmocka_unit_test(failures_are_no_headroom),
        cmocka_unit_test(without_steps_it_is_inconclusive),
        cmocka_unit_test(the_bootstrap_is_reproducible),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
