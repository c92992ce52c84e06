#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "analysis/cost.h"
#include "analysis/prices.h"
#include "analysis/value.h"
#include "core/rng.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define HEADER                                                                                     \
    "provider,instance_type,accelerator,accel_count,region,pricing_model,usd_per_hour,as_of,"      \
    "source_url,note\n"
#define GOOD "acme,big-8,x100,8,eu1,on-demand,24.00,2026-11-01,https://example.org/p,list price\n"

static void the_split_pays_the_machine_exactly(void **state)
{
    (void)state;
    for (uint64_t i = 0; i < 1000; i++) {
        double usd = 10 * rng_uniform(1, RNG_SHUFFLE, i, 0);
        double in = 1e5 * rng_uniform(1, RNG_SHUFFLE, i, 1);
        double out = 1e5 * rng_uniform(1, RNG_SHUFFLE, i, 2);
        double ratio = 0.1 + 20 * rng_uniform(1, RNG_SHUFFLE, i, 3);
        struct cost_split c = cost_split(usd, in, out, ratio);
        double paid = (in * c.usd_per_m_input + out * c.usd_per_m_output) * 1e-6;
        assert_true(fabs(paid - usd) <= 1e-12 * usd);
        assert_true(fabs(c.usd_per_m_output - ratio * c.usd_per_m_input) <=
                    1e-12 * c.usd_per_m_output);
    }
    assert_true(isnan(cost_split(1, 0, 0, 4).usd_per_m_output));
}

/* One instance at 3.6 $/h = 0.001 $/s, 4000 input and 1000 output tokens/s, ratio 4. */
static void a_worked_example(void **state)
{
    (void)state;
    double usd_per_s = cost_usd_per_s(1, 3.6);
    assert_true(fabs(usd_per_s - 0.001) < 1e-15);
    struct cost_split c = cost_split(usd_per_s, 4000, 1000, 4);
    assert_true(fabs(c.usd_per_m_output - 0.5) < 1e-12);
    assert_true(fabs(c.usd_per_m_input - 0.125) < 1e-12);
    struct cost_split_interval i =
        cost_split_interval(usd_per_s, (struct stats_interval){4000, 2000, 8000},
                            (struct stats_interval){1000, 500, 2000}, 4);
    assert_true(fabs(i.usd_per_m_output.value - 0.5) < 1e-12);
    assert_true(fabs(i.usd_per_m_output.lo - 0.25) < 1e-12); // more tokens, cheaper tokens
    assert_true(fabs(i.usd_per_m_output.hi - 1.0) < 1e-12);
}

static void says(double usd, const char *want)
{
    char buf[32];
    assert_string_equal(value_usd(usd, buf, sizeof buf), want);
}

/* A CPU and a tiny model cost so little that three decimals would show "0.002 [0.002, 0.002]". */
static void small_prices_keep_three_digits(void **state)
{
    (void)state;
    says(0.00192, "0.00192");
    says(0.000725, "0.000725");
    says(0.0351, "0.0351");
    says(0.123, "0.123");
    says(12.3456, "12.346");
    says(123.456, "123.46");
    says(0, "0.000");
    says(STATS_NONE, "-");
}

static void instances_are_whole_machines(void **state)
{
    (void)state;
    struct err e;
    int64_t n;
    assert_int_equal(cost_instances(0, 0, &n, &e), 0);
    assert_int_equal(n, 1);
    assert_int_equal(cost_instances(0, 8, &n, &e), 0);
    assert_int_equal(n, 1);
    assert_int_equal(cost_instances(9, 8, &n, &e), 0);
    assert_int_equal(n, 2);
    assert_int_equal(cost_instances(16, 8, &n, &e), 0);
    assert_int_equal(n, 2);
    assert_int_equal(cost_instances(1, 0, &n, &e), -1);
    assert_int_equal(e.code, ERR_INPUT);
}

/* --- the table ---------------------------------------------------------------------------------- */

static void parse(const char *text, struct prices *p)
{
    struct err e;
    assert_int_equal(prices_parse(p, text, strlen(text), "prices.csv", &e), 0);
}

static void refuse(const char *text, const char *says)
{
    struct err e = {0};
    struct prices p;
    assert_int_equal(prices_parse(&p, text, strlen(text), "prices.csv", &e), -1);
    assert_int_equal(e.code, ERR_INPUT);
    if (!strstr(e.msg, says)) {
        fail_msg("'%s' does not say '%s'", e.msg, says);
    }
}

static void good_rows_are_read(void **state)
{
    (void)state;
    struct prices p;
    parse(HEADER GOOD "acme,\"odd, \"\"name\"\"\",,0,eu1,spot,0.5,2024-02-29,-,\r\n", &p);
    assert_int_equal(p.n, 2);
    assert_string_equal(p.rows[0].instance_type, "big-8");
    assert_int_equal(p.rows[0].accel_count, 8);
    assert_true(p.rows[0].usd_per_hour == 24);
    assert_string_equal(p.rows[0].note, "list price");
    assert_string_equal(p.rows[1].instance_type, "odd, \"name\"");
    assert_int_equal(p.rows[1].as_of_day, 19782); // 54 * 365.25 + 59
    assert_false(prices_is_example(&p.rows[0]));
    int64_t day_ns = 86400LL * 1000000000;
    assert_int_equal(prices_age_days(&p.rows[1], 19872 * day_ns), 90);
    assert_int_equal(prices_age_days(&p.rows[1], 19873 * day_ns - 1), 90);
    prices_free(&p);
    parse(HEADER, &p);
    assert_int_equal(p.n, 0);
    prices_free(&p);
}

static void bad_lines_are_named_by_number(void **state)
{
    (void)state;
    refuse("", "line 1: the first line must be");
    refuse("a,b,c\n", "line 1");
    refuse(HEADER GOOD "acme,big-8\n", "line 3: fewer than 10 fields");
    refuse(HEADER GOOD "\n", "line 3: fewer");
    refuse(HEADER "a,b,c,1,r,on-demand,1,2026-01-01,u,n,extra\n", "line 2: more than 10 fields");
    refuse(HEADER "a,b,c,x,r,on-demand,1,2026-01-01,u,n\n", "line 2: accel_count");
    refuse(HEADER "a,b,c,-1,r,on-demand,1,2026-01-01,u,n\n", "line 2: accel_count");
    refuse(HEADER "a,b,c,1,r,on-demand,free,2026-01-01,u,n\n", "line 2: usd_per_hour");
    refuse(HEADER "a,b,c,1,r,on-demand,0,2026-01-01,u,n\n", "line 2: usd_per_hour");
    refuse(HEADER "a,b,c,1,r,on-demand,1e400,2026-01-01,u,n\n", "line 2: usd_per_hour");
    refuse(HEADER "a,b,c,1,r,on-demand,1,,u,n\n", "line 2: as_of");
    refuse(HEADER "a,b,c,1,r,on-demand,1,2026-02-29,u,n\n", "line 2: as_of");
    refuse(HEADER "a,,c,1,r,on-demand,1,2026-01-01,u,n\n", "line 2: instance_type");
    refuse(HEADER GOOD GOOD, "line 3: big-8, eu1, on-demand is already on line 2");
    refuse(HEADER "a,\"b,c,1,r,on-demand,1,2026-01-01,u,n\n", "line 2: a quoted field");
    refuse(HEADER "a,b\"c,c,1,r,on-demand,1,2026-01-01,u,n\n", "line 2: a quote inside");
    refuse(HEADER "a,b\tc,c,1,r,on-demand,1,2026-01-01,u,n\n", "line 2: a control character");
    refuse(HEADER "a,b,c,1,r,on-demand,1,2026-01-01,u,\xe9\n", "line 2: text that is not UTF-8");
}

static void what_is_not_there_is_an_error_that_names_what_is(void **state)
{
    (void)state;
    struct prices p;
    struct err e;
    const struct price *row;
    parse(HEADER GOOD "acme,big-8,x100,8,us1,on-demand,20,2026-11-01,-,-\n"
                      "acme,big-8,x100,8,us1,spot,8,2026-11-01,-,-\n"
                      "acme,small,x100,1,us1,spot,1,2026-11-01,-,-\n",
          &p);
    assert_int_equal(prices_find(&p, "p.csv", "small", "spot", NULL, &row, &e), 0);
    assert_true(row->usd_per_hour == 1);
    assert_int_equal(prices_find(&p, "p.csv", "big-8", "on-demand", "us1", &row, &e), 0);
    assert_true(row->usd_per_hour == 20);
    assert_int_equal(prices_find(&p, "p.csv", "huge", "spot", NULL, &row, &e), -1);
    assert_int_equal(e.code, ERR_INPUT);
    assert_non_null(strstr(e.msg, "has no huge; it has: big-8, small"));
    assert_int_equal(prices_find(&p, "p.csv", "small", "on-demand", NULL, &row, &e), -1);
    assert_non_null(strstr(e.msg, "it has: spot"));
    assert_int_equal(prices_find(&p, "p.csv", "big-8", "on-demand", NULL, &row, &e), -1);
    assert_non_null(strstr(e.msg, "it has: eu1, us1"));
    assert_int_equal(prices_find(&p, "p.csv", "big-8", "on-demand", "mars", &row, &e), -1);
    assert_non_null(strstr(e.msg, "no mars"));
    prices_free(&p);
}

static void a_kept_row_is_the_row(void **state)
{
    (void)state;
    struct prices p, kept;
    struct err e;
    parse(HEADER "\xc3\xa4,\"a \"\"b\"\"\",,0,eu1,spot,0.1,2024-02-29,,\n", &p);
    json_t *o = prices_dump(&p.rows[0]);
    assert_int_equal(json_object_size(o), 10);
    assert_int_equal(prices_undump(&kept, o, "x.h5", &e), 0);
    assert_int_equal(kept.n, 1);
    assert_string_equal(kept.rows[0].provider, "\xc3\xa4");
    assert_string_equal(kept.rows[0].instance_type, "a \"b\"");
    assert_string_equal(kept.rows[0].region, "eu1");
    assert_string_equal(kept.rows[0].pricing_model, "spot");
    assert_string_equal(kept.rows[0].as_of, "2024-02-29");
    assert_string_equal(kept.rows[0].note, "");
    assert_int_equal(kept.rows[0].accel_count, 0);
    assert_int_equal(kept.rows[0].as_of_day, p.rows[0].as_of_day);
    assert_true(kept.rows[0].usd_per_hour == 0.1);
    prices_free(&kept);
    prices_free(&p);
    json_decref(o);
}

static void a_kept_row_is_checked(void **state)
{
    (void)state;
    static const char *const bad[] = {"\"instance_type\": \"\"",
                                      "\"instance_type\": \"\\u001b[2J\"",
                                      "\"region\": 7",
                                      "\"pricing_model\": null",
                                      "\"accel_count\": -1",
                                      "\"accel_count\": 1000000000",
                                      "\"usd_per_hour\": 0",
                                      "\"usd_per_hour\": \"1\"",
                                      "\"as_of\": \"2026-02-29\"",
                                      "\"as_of\": []"};
    struct prices p, kept;
    struct err e;
    parse(HEADER GOOD, &p);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        char text[64];
        snprintf(text, sizeof text, "{%s}", bad[i]);
        json_t *o = prices_dump(&p.rows[0]), *change = json_loads(text, 0, NULL);
        assert_non_null(change);
        json_object_update(o, change);
        assert_int_equal(prices_undump(&kept, o, "x.h5", &e), -1);
        assert_string_equal(e.msg, "x.h5: not a row of a price table");
        json_decref(change);
        json_decref(o);
    }
    assert_int_equal(prices_undump(&kept, NULL, "x.h5", &e), -1);
    prices_free(&p);
}

static void a_config_picks_its_row(void **state)
{
    (void)state;
    struct err e;
    struct prices table;
    const struct price *row;
    char path[] = "/tmp/tidemark-prices-XXXXXX", instance[] = "big-8", model[] = "on-demand";
    int fd = mkstemp(path);
    assert_int_equal(write(fd, HEADER GOOD, strlen(HEADER GOOD)), strlen(HEADER GOOD));
    close(fd);
    struct cost_config c = {.prices = path, .instance = instance, .pricing_model = model};
    assert_int_equal(prices_pick(&table, &c, &row, &e), 0);
    assert_true(row->usd_per_hour == 24);
    prices_free(&table);
    instance[0] = 'p';
    assert_int_equal(prices_pick(&table, &c, &row, &e), -1);
    assert_non_null(strstr(e.msg, "cost.instance"));
    unlink(path);
    assert_int_equal(prices_pick(&table, &c, &row, &e), -1);
    assert_memory_equal(e.msg, "cost.prices: ", 13);
}

static void the_shipped_table_has_examples_only(void **state)
{
    (void)state;
    char path[512];
    struct prices p;
    struct err e = {0};
    snprintf(path, sizeof path, "%s/configs/prices.csv", getenv("TIDEMARK_SOURCE"));
    assert_int_equal(prices_load(&p, path, &e), 0);
    assert_true(p.n >= 2);
    for (size_t i = 0; i < p.n; i++) {
        assert_true(prices_is_example(&p.rows[i]));
        assert_non_null(strstr(p.rows[i].note, "example"));
    }
    prices_free(&p);
    assert_int_equal(prices_load(&p, "/nonexistent/prices.csv", &e), -1);
    assert_int_equal(e.code, ERR_INPUT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_split_pays_the_machine_exactly),
        cmocka_unit_test(a_worked_example),
        cmocka_unit_test(small_prices_keep_three_digits),
        cmocka_unit_test(instances_are_whole_machines),
        cmocka_unit_test(good_rows_are_read),
        cmocka_unit_test(bad_lines_are_named_by_number),
        cmocka_unit_test(what_is_not_there_is_an_error_that_names_what_is),
        cmocka_unit_test(a_kept_row_is_the_row),
        cmocka_unit_test(a_kept_row_is_checked),
        cmocka_unit_test(a_config_picks_its_row),
        cmocka_unit_test(the_shipped_table_has_examples_only),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
