/* The queues of each serving system, from its own metrics; sums over engines; lines that are none. */
#include "loadgen/metrics.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <string.h>

static struct metrics parse(const char *text)
{
    struct metrics m;
    metrics_parse(text, strlen(text), &m);
    return m;
}

static void assert_metrics(const char *text, const char *server, double waiting, double running,
                           double kv_used)
{
    struct metrics m = parse(text);
    assert_string_equal(m.server, server);
    assert_true(m.waiting == waiting && m.running == running);
    assert_true(fabs(m.kv_used - kv_used) < 1e-12 || (isnan(kv_used) && isnan(m.kv_used)));
}

static void test_each_server(void **state)
{
    (void)state;
    assert_metrics(
        "# HELP vllm:num_requests_waiting waiting\n# TYPE vllm:num_requests_waiting gauge\n"
        "vllm:num_requests_waiting{engine=\"0\",model_name=\"m\"} 3.0\n"
        "vllm:num_requests_running{engine=\"0\",model_name=\"m\"} 5.0\n"
        "vllm:kv_cache_usage_perc{engine=\"0\",model_name=\"m\"} 0.25\n",
        "vllm", 3, 5, 0.25);
    assert_metrics("vllm:gpu_cache_usage_perc 0.5\nvllm:num_requests_waiting 0\n"
                   "vllm:num_requests_running 1",
                   "vllm", 0, 1, 0.5);
    assert_metrics("sglang:num_queue_reqs{tp_rank=\"0\"} 2 1712345678901\n"
                   "sglang:num_running_reqs 1e1\nsglang:token_usage 0.125\n",
                   "sglang", 2, 10, 0.125);
    assert_metrics("tgi_queue_size 4\r\ntgi_batch_current_size 2\r\n", "tgi", 4, 2, (double)NAN);
    assert_metrics("llamacpp:requests_deferred 1\nllamacpp:requests_processing 2\n"
                   "llamacpp:kv_cache_usage_ratio 0.75\n",
                   "llama.cpp", 1, 2, 0.75);
}

static void test_engines_add_up(void **state)
{
    (void)state;
    assert_metrics("vllm:num_requests_waiting{engine=\"0\"} 3\n"
                   "vllm:num_requests_waiting{engine=\"1\"} 4\n"
                   "vllm:num_requests_running{engine=\"0\"} 1\nvllm:num_requests_running 1\n"
                   "vllm:kv_cache_usage_perc{engine=\"0\"} 0.2\n"
                   "vllm:kv_cache_usage_perc{engine=\"1\"} 0.4\n",
                   "vllm", 7, 2, 0.3);
}

static void test_counters(void **state)
{
    (void)state;
    struct metrics m = parse("vllm:num_preemptions_total{engine=\"0\"} 3.0\n"
                             "vllm:num_preemptions_total{engine=\"1\"} 4.0\n"
                             "vllm:prefix_cache_queries_total 1000\n"
                             "vllm:prefix_cache_hits_total 250\n"
                             "vllm:num_preemptions_created 1.7e9\n");
    assert_string_equal(m.server, "vllm");
    assert_true(m.n_preempted == 7 && m.prefix_query_tokens == 1000 && m.prefix_hit_tokens == 250);
    m = parse("vllm:num_requests_waiting 1\n");
    assert_true(isnan(m.n_preempted) && isnan(m.prefix_query_tokens) && isnan(m.prefix_hit_tokens));
}

static void test_odd_lines(void **state)
{
    (void)state;
    assert_metrics("vllm:num_requests_waiting{name=\"a } \\\" b\"}\t3\n"
                   "vllm:num_requests_running{name=\"\\\\\"} 1\nvllm:kv_cache_usage_perc NaN\n",
                   "vllm", 3, 1, (double)NAN);
    static const char *const none[] = {
        "",
        "vllm:num_requests_waiting",
        "vllm:num_requests_waiting\n3",
        "vllm:num_requests_waiting{a=\"b",
        "vllm:num_requests_waiting{a=\"b\"}3",
        "vllm:num_requests_waiting_total 3",
        "vllm:num_requests_waiting three",
        "vllm:num_requests_waiting +Inf",
        "vllm:num_requests_waiting  ",
        " vllm:num_requests_waiting 3",
        "<!doctype html>",
    };
    for (size_t i = 0; i < sizeof none / sizeof *none; i++) {
        struct metrics m = parse(none[i]);
        assert_null(m.server);
        assert_true(isnan(m.waiting) && isnan(m.running) && isnan(m.kv_used));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_server),
        cmocka_unit_test(test_engines_add_up),
        cmocka_unit_test(test_counters),
        cmocka_unit_test(test_odd_lines),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
