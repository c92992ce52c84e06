/*
 * A step of a few records written down by hand, and everything that is measured of it.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "analysis/critical.h"
#include "analysis/measure.h"
#include "analysis/step_json.h"
#include "analysis/utilisation.h"
#include "core/clock.h"

#include <jansson.h>

#include <math.h>
#include <stdlib.h>

#define MS NS_PER_MS

static void near(double got, double want, double within)
{
    if (!(fabs(got - want) <= within)) {
        fail_msg("%.17g is not within %g of %.17g", got, within, want);
    }
}

/* Due and sent at q, first token 50 ms later, then every 10 ms. */
static struct record request(uint64_t id, int64_t q_ms, uint32_t n_in, uint32_t n_out)
{
    struct record r;
    record_init(&r);
    r.id = id;
    r.t_sched_ns = q_ms * MS;
    r.t_send_ns = q_ms * MS + 20000;
    r.t_first_ns = r.t_send_ns + 50 * MS;
    r.t_last_ns = r.t_first_ns + 10 * MS * (n_out - 1);
    r.n_in = n_in;
    r.n_out = r.n_out_req = n_out;
    r.itl_max_us = n_out > 1 ? 10000 : 0;
    r.outcome = OUTCOME_OK;
    return r;
}

static struct record unfinished(uint64_t id, int64_t q_ms)
{
    struct record r = request(id, q_ms, 7, 9);
    r.t_first_ns = r.t_last_ns = RECORD_NONE;
    r.n_out = 0;
    r.outcome = OUTCOME_CANCELLED;
    return r;
}

/* Window [1 s, 4 s), drain to 5 s. */
static struct step_data step(struct record *records, size_t n)
{
    return (struct step_data){
        .info = {.kind = STEP_SWEEP,
                 .rate_rps = 2,
                 .t_warm_ns = NS_PER_S,
                 .t_end_ns = 4 * NS_PER_S,
                 .t_drain_ns = 5 * NS_PER_S,
                 .n_scheduled = n},
        .n = n,
        .records = records,
    };
}

static void measure_all(struct measure *m, const struct step_data *d, const struct slo_config *slo)
{
    uint32_t dt_us[64] = {50000};
    for (int i = 1; i < 64; i++) {
        dt_us[i] = 10000;
    }
    measure_begin(m, d, slo);
    for (size_t i = 0; i < d->n; i++) {
        measure_tokens(m, &d->records[i], dt_us, d->records[i].n_out);
    }
    measure_end(m);
}

static void windows_cut_by_event_and_by_request(void **state)
{
    (void)state;
    struct record r[] = {
        request(0, 500, 100, 60), // before the window: its last 15 tokens fall into it
        request(1, 1000, 10, 5),  request(2, 2000, 20, 1),   request(3, 3990, 40, 3),
        unfinished(4, 3500),      request(5, 4000, 1000, 2), // due when the window has ended
    };
    r[3].n_out_req = 30; // it stopped by itself
    struct step_data d = step(r, 6);
    struct slo_config slo = {.ttft_ns = 60 * MS, .itl_ns = 9 * MS, .quantile = 0.5};
    struct measure m;
    measure_all(&m, &d, &slo);
    assert_int_equal(m.n_due, 4);
    assert_int_equal(m.n_ok, 3);
    assert_int_equal(m.n_cancelled, 1);
    assert_int_equal(m.n_starved, 1);
    assert_int_equal(m.by_outcome[OUTCOME_OK], 5);
    // replies took 71 of the 98 tokens that they might have: so would the unfinished one of its 9
    near(measure_rate(&m, m.due_out), (5 + 1 + 3 + 9 * 71.0 / 98) / 3.0, 1e-12);
    near(m.tokens_out, 71 + 9 * 71.0 / 98, 1e-12);
    near(measure_rate(&m, m.due_in), (10 + 20 + 40 + 7) / 3.0, 1e-12);
    // tokens of 0 at 550 ms + 10 ms k: those from 1 s on; 3 begins at 4.04 s, past the end
    near(measure_rate(&m, m.served_out), (15 + 5 + 1) / 3.0, 1e-12);
    near(measure_rate(&m, m.served_in), 30 / 3.0, 1e-12);
    near(measure_rate(&m, m.done), 3 / 3.0, 1e-12); // 0, 1 and 2
    assert_int_equal(m.latency[LATENCY_TTFT].n, 3);
    near(m.latency[LATENCY_TTFT].p50, 50.02, 1e-9);
    assert_int_equal(m.latency[LATENCY_ITL].n, 4 + 0 + 2);
    near(m.latency[LATENCY_ITL].p99, 10, 1e-9);
    assert_int_equal(m.latency[LATENCY_TPOT].n, 2);
    assert_int_equal(m.n_good, 1); // an ITL limit of 9 ms holds for the one without a gap
    near(m.objective[LATENCY_TTFT].quantile_ms, 50.02, 1e-9);
    near(m.objective[LATENCY_ITL].quantile_ms, 10, 1e-9);
    near(m.lag_us[0], 20, 1e-9);
}

/* A file from outside may claim a window of 36 years and a request due in its last nanosecond. */
static void no_window_is_too_long_for_its_bins(void **state)
{
    (void)state;
    struct record r[] = {request(0, 0, 1, 2)};
    struct step_data d = step(r, 1);
    d.info.t_warm_ns = 0;
    d.info.t_end_ns = d.info.t_drain_ns = (int64_t)1 << 60;
    r[0].t_sched_ns = d.info.t_end_ns - 1;
    struct slo_config slo = {.quantile = 0.5};
    struct measure m;
    measure_all(&m, &d, &slo);
    near(m.due[MEASURE_BINS - 1], 1, 0);
}

/* Ten tokens in four chunks (3 + 3 + 2 + 2), the third of which came within a microsecond. */
static void gaps_of_chunks_are_told_from_gaps_of_tokens(void **state)
{
    (void)state;
    struct record r[] = {request(0, 1000, 1, 10)};
    r[0].n_chunks = 4;
    struct step_data d = step(r, 1);
    const uint32_t dt_us[10] = {50000, 0, 0, 30000, 0, 0, 0, 0, 60000, 0};
    struct slo_config slo = {.quantile = 0.5};
    struct measure m;
    measure_begin(&m, &d, &slo);
    measure_tokens(&m, &r[0], dt_us, 10);
    measure_end(&m);
    assert_int_equal(m.latency[LATENCY_ITL].n, 9);
    near(m.latency[LATENCY_ITL].p50, 0, 0);
    assert_int_equal(m.latency[LATENCY_ICL].n, 3);
    near(m.latency[LATENCY_ICL].min, 0, 0);
    near(m.latency[LATENCY_ICL].p50, 30, 1e-9);
    near(m.latency[LATENCY_ICL].max, 60, 1e-9);
    near(m.latency[LATENCY_ICL].mean, 30, 1e-9);
}

static void goodput_counts_all_that_were_due(void **state)
{
    (void)state;
    struct record r[] = {request(0, 1000, 1, 5), request(1, 2000, 1, 5), unfinished(2, 3000),
                         request(3, 3500, 1, 5)};
    r[3].t_first_ns += 100 * MS;
    r[3].t_last_ns += 100 * MS;
    r[3].itl_max_us = 300000;
    struct step_data d = step(r, 4);
    struct slo_config slo = {.ttft_ns = 60 * MS, .quantile = 0.9};
    struct measure m;
    measure_all(&m, &d, &slo);
    assert_int_equal(m.n_good, 2);
    assert_true(isinf(m.objective[LATENCY_TTFT].quantile_ms)); // a tenth may fail, a quarter did
    near(m.latency[LATENCY_TTFT].p50_with_failed, 0.5 * (50.02 + 150.02), 1e-9);
}

/* Waiting at the user's cap is in the response and in the backlog, and is no lag of the client's. */
static void the_cap_is_not_the_clients_lag(void **state)
{
    (void)state;
    struct record r[] = {request(0, 1000, 1, 5), request(1, 2000, 1, 5), unfinished(2, 3000)};
    r[1].t_sched_ns -= 700 * MS;
    r[1].cap_wait_us = 600 * 1000;
    r[1].late = 1;
    r[2].t_send_ns = RECORD_NONE;
    r[2].cap_wait_us = 2000 * 1000;
    struct step_data d = step(r, 3);
    struct slo_config slo = {.quantile = 0.5};
    struct measure m;
    measure_all(&m, &d, &slo);
    assert_true(record_lag_ns(&r[1]) == 100 * MS + 20000 && record_lag_ns(&r[2]) == RECORD_NONE);
    near(m.lag_us[3], 100020, 1e-9);
    near(m.latency[LATENCY_TTFT].max, 750.02, 1e-9);
    near(m.latency[LATENCY_TTFT_SERVICE].max, 50, 1e-9);
    assert_true(m.n_due == 3 && m.n_sent == 2 && m.n_held == 1 && m.n_late == 1);
    near(m.cap_wait_us[0], 600000, 1e-9);
    near(m.cap_wait_us[2], 2000000, 1e-9);
    // in flight: 0 for 90 ms, 1 from 1.4 s (when it was free to go but for the cap) to 2.09 s, 2 from 3 s
    double sum = 0;
    for (int i = 0; i < MEASURE_BINS; i++) {
        sum += m.in_flight[i] * 3.0 / MEASURE_BINS;
    }
    near(sum, 0.09 + 0.69 + 1.0, 1e-6);
    json_t *o = step_json(&m, &d, &d.info, &(struct store_meta){.n_ranks = 0});
    near(json_number_value(json_object_get(json_object_get(o, "cap_wait_us"), "share")), 2 / 3.0,
         1e-12);
    json_decref(o);
}

static void nothing_at_all_is_no_number(void **state)
{
    (void)state;
    struct step_data d = step(NULL, 0);
    struct slo_config slo = {.ttft_ns = MS, .itl_ns = MS, .quantile = 0.5};
    struct measure m;
    measure_all(&m, &d, &slo);
    assert_int_equal(m.verdict.verdict, VERDICT_TOO_SHORT);
    assert_true(isnan(m.latency[LATENCY_TTFT].p50) && isnan(m.lag_us[1]));
    json_t *o = step_json(&m, &d, &d.info, &(struct store_meta){.n_ranks = 0});
    assert_true(json_is_null(json_object_get(json_object_get(o, "ttft_ms"), "p50")));
    assert_true(json_is_null(json_object_get(json_object_get(o, "goodput"), "attainment")));
    json_decref(o);
}

/* --- inside the target -------------------------------------------------------------------------- */

static struct span span(int64_t from_ms, int64_t to_ms, uint16_t rank, enum span_op op)
{
    return (struct span){.t_begin_ns = from_ms * MS,
                         .dur_ns = (uint32_t)((to_ms - from_ms) * MS),
                         .rank = rank,
                         .op = (uint8_t)op};
}

static void a_bubble_is_waiting_with_work_in_the_replica(void **state)
{
    (void)state;
    struct record r[] = {request(0, 1500, 1, 100)};
    r[0].t_recv_ns = 1500 * MS;
    r[0].t_emit_last_ns = 2500 * MS;
    struct span spans[] = {
        span(500, 1300, 1, SPAN_DECODE),     // 0.3 s of it in the window
        span(1500, 2000, 1, SPAN_MIXED),     //
        span(2000, 2100, 1, SPAN_SEND),      //
        span(1000, 1500, 1, SPAN_WAIT_RECV), // says nothing that the others do not
        span(2200, 2400, 2, SPAN_PREFILL),
    };
    struct step_data d = step(r, 1);
    d.spans = spans;
    d.n_spans = 5;
    const struct store_rank ranks[] = {{.rank = 0, .role = 0, .replica = -1, .stage = -1},
                                       {.rank = 1, .role = 1},
                                       {.rank = 2, .role = 1, .stage = 1}};
    struct utilisation rows[3];
    assert_int_equal(utilisation_rows(&d, ranks, 3, rows), 2);
    near(rows[0].busy, 0.8 / 3, 1e-9);
    near(rows[0].send, 0.1 / 3, 1e-9);
    near(rows[0].recv_wait, 2.1 / 3, 1e-9);
    near(rows[0].bubble, 0.4 / 3, 1e-9); // 2.1 to 2.5 s
    assert_int_equal(rows[1].stage, 1);
    near(rows[1].busy, 0.2 / 3, 1e-9);
    near(rows[1].bubble, 0.8 / 3, 1e-9);
    d.n_spans = 0;
    assert_int_equal(utilisation_rows(&d, ranks, 3, rows), 0);
}

static void the_critical_path_adds_up(void **state)
{
    (void)state;
    struct record r[] = {request(0, 2000, 1, 10), request(1, 2500, 1, 10)};
    uint32_t first_us[] = {20000, 10000, 20000, 10000}, last_us[] = {60000, 30000, 60000, 30000};
    for (int i = 0; i < 2; i++) {
        r[i].t_recv_ns = r[i].t_send_ns + 1 * MS;
        r[i].t_admit_ns = r[i].t_recv_ns + 6 * MS;
        r[i].requeue_us[0] = r[i].requeue_us[1] = 2000;
        r[i].t_emit_first_ns = r[i].t_first_ns - 2 * MS;
        r[i].t_emit_last_ns = r[i].t_last_ns - 2 * MS;
        r[i].n_stages = 2;
        r[i].hop_us[0] = 4000;
        r[i].bubble_us[0] = 5000;
    }
    r[1].bubble_us[0] = 4000; // 1 ms that nothing explains
    struct step_data d = step(r, 2);
    d.n_stages = 2;
    d.stage_us[0] = first_us;
    d.stage_us[1] = last_us;
    struct critical c;
    critical_path(&d, 0, &c);
    assert_int_equal(c.n, 2);
    near(c.total_ms, 50.02, 1e-9);
    near(c.client_lag_ms, 0.02, 1e-9);
    near(c.queue_ms, 8, 1e-9);
    near(c.stage_ms[0], 20, 1e-9);
    near(c.bubble_ms, 4.5, 1e-9);
    near(c.return_ms, 2, 1e-9);
    near(c.unexplained_share, 1 / (2 * 50.02), 1e-9);
    critical_path(&d, 1, &c);
    near(c.total_ms, 140.02, 1e-9);
    near(c.stage_ms[0] + c.stage_ms[1], 90, 1e-9);
}

/* Two replicas; the counter of the second one starts anew once. */
static void counters_grow_over_the_window(void **state)
{
    (void)state;
    const struct {
        int64_t t_ms;
        uint32_t preempted[2];
        uint64_t hits;
    } at[] = {{500, {10, 3}, 100},  {900, {12, 3}, 100},  {1100, {15, 4}, 120},
              {2500, {15, 2}, 150}, {3900, {20, 2}, 150}, {4100, {90, 90}, 9000}};
    struct series_point points[12];
    for (size_t i = 0; i < 12; i++) {
        points[i] = (struct series_point){
            .t_ns = at[i / 2].t_ms * MS,
            .replica = (uint16_t)(i % 2),
            .n_preempted = at[i / 2].preempted[i % 2],
            .prefix_query_tokens = at[i / 2].hits * 4,
            .prefix_hit_tokens = at[i / 2].hits,
        };
    }
    struct record r[] = {request(0, 2000, 1, 10)};
    struct step_data d = step(r, 1);
    d.n_series = 12;
    d.series = points;
    struct slo_config slo = {.ttft_ns = 60 * MS, .quantile = 0.5};
    struct measure m;
    measure_all(&m, &d, &slo);
    json_t *o = step_json(&m, &d, &d.info, &(struct store_meta){.n_ranks = 0}),
           *queue = json_object_get(o, "queue");
    near(json_number_value(json_object_get(queue, "preemptions")), 8 + 1 + 2, 0);
    near(json_number_value(json_object_get(queue, "prefix_hit_share")), 0.25, 1e-12);
    json_decref(o);
    for (size_t i = 0; i < 12; i++) {
        points[i].n_preempted = UINT32_MAX; // not told
        points[i].prefix_query_tokens = points[i].prefix_hit_tokens = 0;
    }
    o = step_json(&m, &d, &d.info, &(struct store_meta){.n_ranks = 0});
    queue = json_object_get(o, "queue");
    assert_true(json_is_null(json_object_get(queue, "preemptions")));
    assert_true(json_is_null(json_object_get(queue, "prefix_hit_share")));
    json_decref(o);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(windows_cut_by_event_and_by_request),
        cmocka_unit_test(no_window_is_too_long_for_its_bins),
        cmocka_unit_test(gaps_of_chunks_are_told_from_gaps_of_tokens),
        cmocka_unit_test(goodput_counts_all_that_were_due),
        cmocka_unit_test(the_cap_is_not_the_clients_lag),
        cmocka_unit_test(nothing_at_all_is_no_number),
        cmocka_unit_test(a_bubble_is_waiting_with_work_in_the_replica),
        cmocka_unit_test(the_critical_path_adds_up),
        cmocka_unit_test(counters_grow_over_the_window),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
