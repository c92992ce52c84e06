/* Numbers with units: what is read, what is refused, and that formatted text reads back equal. */
#include "core/rng.h"
#include "core/units.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>

#define N_OF(a) (sizeof(a) / sizeof((a)[0]))

static void test_durations(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        int64_t ns;
    } good[] = {
        {"250us", 250000},
        {"500ms", 500000000},
        {"12s", 12000000000},
        {"5m", 300000000000},
        {"2h", 7200000000000},
        {"7ns", 7},
        {"0s", 0},
        {"1.5s", 1500000000},
        {".5s", 500000000},
        {"0.1s", 100000000},
        {"0.0000000014s", 1},
        {"9223372036854775807ns", INT64_MAX},
        {"2562047h", 2562047LL * 3600000000000LL},
    };
    struct err e;
    for (size_t i = 0; i < N_OF(good); i++) {
        int64_t ns = -1;
        assert_int_equal(units_parse_duration_ns(good[i].text, &ns, &e), 0);
        assert_int_equal(ns, good[i].ns);
    }
}

static void test_bad_durations(void **state)
{
    (void)state;
    struct err e;
    static const char *const bad[] = {
        "",
        "5",
        "s",
        "-1s",
        "+1s",
        " 1s",
        "1s ",
        "1 s",
        "1e3s",
        "1.s.",
        "1..5s",
        "0x1s",
        "1sec",
        "12S",
        "infs",
        "nans",
        "1h30m",
        "9223372036854775808ns",
        "2562048h",
        "99999999999999999999999s",
        "0.0000000000000000000000000000000001s",
    };
    for (size_t i = 0; i < N_OF(bad); i++) {
        int64_t ns = -1;
        if (units_parse_duration_ns(bad[i], &ns, &e) == 0) {
            fail_msg("'%s' was read as %lld ns", bad[i], (long long)ns);
        }
        assert_int_equal(e.code, ERR_INPUT);
        assert_int_equal(ns, -1);
    }
    assert_int_equal(units_parse_duration_ns("5", &(int64_t){0}, &e), -1);
    assert_string_equal(e.msg,
                        "'5' is not a duration (a number >= 0 with ns, us, ms, s, m or h: 500ms)");
}

static void test_bytes(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        int64_t bytes;
    } good[] = {
        {"4096", 4096},
        {"0", 0},
        {"64KiB", 65536},
        {"2GB", 2000000000},
        {"4GiB", 4LL << 30},
        {"1.5MiB", 1572864},
        {"1.1kB", 1100},
        {"1KB", 1000},
        {"3TiB", 3LL << 40},
        {"12B", 12},
        {"9223372036854775807", INT64_MAX},
    };
    struct err e;
    for (size_t i = 0; i < N_OF(good); i++) {
        int64_t bytes = -1;
        assert_int_equal(units_parse_bytes(good[i].text, &bytes, &e), 0);
        assert_int_equal(bytes, good[i].bytes);
    }
    static const char *const bad[] = {
        "",           "KiB",    "-1",
        "1.5",        "1.1KiB", "4 GiB",
        "4gib",       "4G",     "9223372036854775808",
        "9000000TiB", "1e6",    "0.0001kB",
    };
    for (size_t i = 0; i < N_OF(bad); i++) {
        int64_t bytes = -1;
        if (units_parse_bytes(bad[i], &bytes, &e) == 0) {
            fail_msg("'%s' was read as %lld bytes", bad[i], (long long)bytes);
        }
        assert_int_equal(e.code, ERR_INPUT);
        assert_int_equal(bytes, -1);
    }
}

static void test_shares(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        double share;
    } good[] = {
        {"20%", 0.2}, {"0.2", 0.2},  {"0", 0.0},       {"1", 1.0},     {"100%", 1.0},   {"-0", 0.0},
        {"7%", 0.07}, {"29%", 0.29}, {"12.5%", 0.125}, {"1e-3", 1e-3}, {"1e-3%", 1e-5},
    };
    struct err e;
    for (size_t i = 0; i < N_OF(good); i++) {
        double share = -1;
        assert_int_equal(units_parse_share(good[i].text, &share, &e), 0);
        assert_true(share == good[i].share); // the nearest double, not close to it
    }
    static const char *const bad[] = {"",     "%",    "101%", "1.01", "-1%",
                                      "-0.1", "20 %", "20%%", "nan"};
    for (size_t i = 0; i < N_OF(bad); i++) {
        double share = -1;
        assert_int_equal(units_parse_share(bad[i], &share, &e), -1);
        assert_int_equal(e.code, ERR_INPUT);
        assert_true(share == -1);
    }
    assert_int_equal(units_parse_share("120%", &(double){0}, &e), -1);
    assert_string_equal(e.msg, "'120%' is not a share (0 to 1, or 0% to 100%: 20%)");
}

static void test_numbers(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        double x;
    } good[] = {
        {"3", 3},         {"-3", -3},
        {"+3", 3},        {"2.5k", 2500},
        {"1M", 1e6},      {"1e-3", 1e-3},
        {"1.1k", 1100.0}, {"4.35k", 4350},
        {"0.1", 0.1},     {".5", 0.5},
        {"5.", 5},        {"1E+3", 1000},
        {"1e2k", 1e5},    {"1.7976931348623157e308", 1.7976931348623157e308},
        {"1e-400", 0},    {"2G", 2e9},
    };
    struct err e;
    for (size_t i = 0; i < N_OF(good); i++) {
        double x = 77;
        assert_int_equal(units_parse_number(good[i].text, &x, &e), 0);
        assert_true(x == good[i].x);
    }
    static const char *const bad[] = {
        "",   "k",   "e3",  "1e",    "1e+",           "inf", "nan", "-inf", "0x10",  "1 ",
        " 1", "1kk", "1,2", "1e999", "1e99999999999", ".",   "-",   "--1",  "1_000", "1K",
    };
    for (size_t i = 0; i < N_OF(bad); i++) {
        double x = 77;
        if (units_parse_number(bad[i], &x, &e) == 0) {
            fail_msg("'%s' was read", bad[i]);
        }
        assert_int_equal(e.code, ERR_INPUT);
        assert_true(x == 77);
    }
}

static void test_texts_of_any_length_are_refused_in_one_line(void **state)
{
    (void)state;
    static char digits[100000];
    memset(digits, '1', sizeof digits - 1);
    struct err e;
    int64_t v;
    double x;
    assert_int_equal(units_parse_duration_ns(digits, &v, &e), -1);
    assert_int_equal(units_parse_bytes(digits, &v, &e), -1);
    assert_int_equal(units_parse_number(digits, &x, &e), -1);
    assert_int_equal(units_parse_share(digits, &x, &e), -1);
    assert_true(strlen(e.msg) < 200);
}

static void test_format(void **state)
{
    (void)state;
    char buf[32];
    assert_string_equal(units_format_duration(0, buf, sizeof buf), "0s");
    assert_string_equal(units_format_duration(500000000, buf, sizeof buf), "500ms");
    assert_string_equal(units_format_duration(12000000000, buf, sizeof buf), "12s");
    assert_string_equal(units_format_duration(1500000000, buf, sizeof buf), "1.5s");
    assert_string_equal(units_format_duration(90000000000, buf, sizeof buf), "90s");
    assert_string_equal(units_format_duration(60000000000, buf, sizeof buf), "1m");
    assert_string_equal(units_format_duration(1, buf, sizeof buf), "1ns");
    assert_string_equal(units_format_duration(1234567, buf, sizeof buf), "1234567ns");
    assert_string_equal(units_format_bytes(0, buf, sizeof buf), "0");
    assert_string_equal(units_format_bytes(4096, buf, sizeof buf), "4KiB");
    assert_string_equal(units_format_bytes(2000000000, buf, sizeof buf), "2GB");
    assert_string_equal(units_format_bytes(4097, buf, sizeof buf), "4097");
}

/* Values of all magnitudes, many of them round in some unit. */
static int64_t draw_quantity(uint64_t i)
{
    static const int64_t factors[] = {1, 1000, 1000000, 1000000000, 60000000000, 1024, 1 << 20, 25};
    int64_t factor = factors[rng_below(N_OF(factors), 3, RNG_SHUFFLE, i, 0)];
    uint64_t bits = rng_below(63, 3, RNG_SHUFFLE, i, 1);
    int64_t v = (int64_t)(rng_u64(3, RNG_SHUFFLE, i, 2) >> (63 - bits) >> 1);
    return v <= INT64_MAX / factor ? v * factor : v;
}

static void test_formatted_text_reads_back_equal(void **state)
{
    (void)state;
    struct err e;
    for (uint64_t i = 0; i < 100002; i++) {
        int64_t v = i < 2 ? INT64_MAX - (int64_t)i : draw_quantity(i);
        int64_t got = -1;
        char buf[32];
        units_format_duration(v, buf, sizeof buf);
        assert_true(strlen(buf) < sizeof buf);
        assert_int_equal(units_parse_duration_ns(buf, &got, &e), 0);
        assert_int_equal(got, v);
        units_format_bytes(v, buf, sizeof buf);
        assert_int_equal(units_parse_bytes(buf, &got, &e), 0);
        assert_int_equal(got, v);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_durations),
        cmocka_unit_test(test_bad_durations),
        cmocka_unit_test(test_bytes),
        cmocka_unit_test(test_shares),
        cmocka_unit_test(test_numbers),
        cmocka_unit_test(test_texts_of_any_length_are_refused_in_one_line),
        cmocka_unit_test(test_format),
        cmocka_unit_test(test_formatted_text_reads_back_equal),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
