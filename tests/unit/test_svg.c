/*
 * The SVG writer against a golden file, byte for byte, and what happens to text and numbers from
 * outside. TIDEMARK_GOLDEN=1 rewrites the golden file.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "analysis/page.h"
#include "analysis/svg.h"
#include "core/err.h"

#include <jansson.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MISSING ((double)NAN)

static void draw(struct str *out)
{
    const double x[] = {1, 2, 3, 4, 5}, y[] = {10, 20, MISSING, 400, 1000};
    const double lo[] = {8, 15, 1, 300, 900}, hi[] = {12, 25, 1, 500, 1200};
    struct svg_range rx = svg_range_empty(), ry = svg_range_empty();
    for (int i = 0; i < 5; i++) {
        svg_range_add(&rx, x[i], false);
        svg_range_add(&ry, y[i], true);
    }
    struct svg_plot p = {
        .out = out,
        .width = 400,
        .height = 240,
        .left = 50,
        .right = 10,
        .top = 20,
        .bottom = 40,
        .x = svg_axis_of(rx, false, "requests/s"),
        .y = svg_axis_of(ry, true, "ms & more"),
    };
    svg_open(&p, "A <plot>");
    svg_band(&p, x, lo, hi, 5, svg_colour(SVG_SKY));
    svg_line(&p, x, y, 5, svg_colour(SVG_BLUE), false);
    svg_band_x(&p, 3.5, 4.5, svg_colour(SVG_GREY));
    svg_rule_x(&p, 4, svg_colour(SVG_VERMILION), "saturation", 0);
    svg_rule_y(&p, 100, svg_colour(SVG_GREEN), "limit");
    svg_error_bar(&p, 1, 8, 12, svg_colour(SVG_BLUE));
    svg_dot(&p, 1, 10, SVG_DISC, svg_colour(SVG_BLUE), "one");
    svg_dot(&p, 2, 20, SVG_DIAMOND, svg_colour(SVG_BLUE), NULL);
    svg_dot(&p, 3, MISSING, SVG_SQUARE, svg_colour(SVG_BLUE), "never drawn");
    svg_dot(&p, 99, 1e9, SVG_RING, svg_colour(SVG_BLUE), "clamped to the corner");
    svg_close(&p);
}

static void a_plot_is_the_golden_bytes(void **state)
{
    (void)state;
    char path[512];
    struct str got = {0}, want = {0};
    struct err e = {0};
    snprintf(path, sizeof path, "%s/tests/golden/plot.svg", getenv("TIDEMARK_SOURCE"));
    draw(&got);
    if (getenv("TIDEMARK_GOLDEN")) {
        FILE *f = fopen(path, "w");
        assert_non_null(f);
        assert_int_equal(fwrite(got.data, 1, got.len, f), got.len);
        assert_int_equal(fclose(f), 0);
    }
    assert_int_equal(str_read_file(&want, path, 1 << 20, &e), 0);
    assert_string_equal(got.data, want.data);
    assert_null(strstr(got.data, "nan"));
    assert_null(strstr(got.data, "never drawn"));
    str_free(&got);
    str_free(&want);
}

static void escaped(const char *text, const char *want)
{
    struct str out = {0};
    svg_escape(&out, text);
    assert_string_equal(out.data ? out.data : "", want);
    str_free(&out);
}

static void text_from_outside_is_escaped(void **state)
{
    (void)state;
    escaped("", "");
    escaped("a<b>&\"c'", "a&lt;b&gt;&amp;&quot;c&#39;");
    escaped("\xc2\xb5s \xe2\x80\x93 \xf0\x9f\x8c\x8a", "\xc2\xb5s \xe2\x80\x93 \xf0\x9f\x8c\x8a");
    escaped("a\x01z", "a\xef\xbf\xbdz");
    escaped("\xff\xc3(", "\xef\xbf\xbd\xef\xbf\xbd(");
    escaped("\xc0\xaf", "\xef\xbf\xbd\xef\xbf\xbd");                 // overlong
    escaped("\xed\xa0\x80", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"); // a surrogate
    escaped("\xe2\x80", "\xef\xbf\xbd\xef\xbf\xbd");                 // cut off
}

static void numbers_are_short(void **state)
{
    (void)state;
    static const struct {
        double x;
        const char *text;
    } cases[] = {
        {0, "0"},        {5, "5"},     {0.05, "0.05"}, {0.2, "0.2"},    {12.34, "12.3"},
        {250, "250"},    {1000, "1k"}, {1200, "1.2k"}, {15000, "15k"},  {999999, "1M"},
        {2.5e6, "2.5M"}, {-40, "-40"}, {1e-9, "0"},    {3e15, "3000T"}, {999.6, "1k"},
    };
    char buf[24];
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        assert_string_equal(svg_number(cases[i].x, buf, sizeof buf), cases[i].text);
    }
    assert_string_equal(svg_number(MISSING, buf, sizeof buf), "\xe2\x80\x93");
}

static void axes_are_sane_for_any_data(void **state)
{
    (void)state;
    const double cases[][2] = {{0, 0}, {-3, 5}, {1e-300, 1e300}, {7, 7}, {-1, -1}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        for (int log = 0; log < 2; log++) {
            struct svg_range r = svg_range_empty();
            svg_range_add(&r, cases[i][0], log);
            svg_range_add(&r, cases[i][1], log);
            svg_range_add(&r, MISSING, log);
            struct svg_axis a = svg_axis_of(r, log, "x");
            assert_true(a.lo < a.hi);
            assert_true(!log || a.lo > 0);
            struct str out = {0};
            struct svg_plot p = {&out, 300, 200, 40, 10, 10, 30, a, a};
            svg_open(&p, "any");
            svg_close(&p);
            assert_true(out.len < 20000);
            assert_null(strstr(out.data, "nan"));
            assert_null(strstr(out.data, "inf"));
            str_free(&out);
        }
    }
    assert_true(isnan(svg_x(&(struct svg_plot){.width = 10, .x = {0, 1, false, false, NULL}},
                            MISSING)) == 0);
}

static void the_ramp_goes_from_blue_to_orange(void **state)
{
    (void)state;
    char buf[8];
    assert_string_equal(svg_ramp(0, 9, buf), "#0072b2");
    assert_string_equal(svg_ramp(8, 9, buf), "#e69f00");
    assert_string_equal(svg_ramp(0, 1, buf), "#0072b2");
}

/* A run whose every string is an attack. */
static void the_page_escapes_what_the_run_says(void **state)
{
    (void)state;
    static const char evil[] = "</title><script>alert('x')</script>";
    struct str out = {0};
    json_t *report = json_pack(
        "{s:{s:s, s:s, s:s, s:b, s:b, s:[s], s:[s], s:{s:s, s:s}, s:{s:s}}, s:[], s:{s:s, s:s},"
        " s:{s:s, s:[]}, s:{s:f, s:i, s:s, s:s, s:s, s:s}}",
        "run", "name", evil, "created_utc", evil, "uuid", evil, "valid", 0, "complete", 0,
        "invalid_reasons", evil, "warnings", evil, "target", "kind", evil, "model", evil, "dataset",
        "source", evil, "steps", "saturation", "verdict", "inconclusive", "reason", evil, "slo",
        "verdict", "none", "objectives", "cost", "usd_per_hour", 1.0, "instances", 1,
        "instance_type", evil, "pricing_model", evil, "region", evil, "as_of", evil);
    assert_non_null(report);
    struct store_rank rank = {.rank = 0};
    snprintf(rank.host, sizeof rank.host, "%s", evil);
    struct store_meta meta = {.ranks = &rank, .n_ranks = 1};
    meta.config = json_pack("{s:s}", evil, evil);
    meta.provenance = json_pack("{s:s, s:[s]}", evil, evil, "list", evil);
    meta.dataset = json_pack("{s:s}", "source", evil);
    page_head(&out, report);
    page_answers(&out, report);
    page_steps(&out, report);
    page_cost(&out, report);
    page_provenance(&out, report, &meta);
    page_foot(&out);
    assert_null(strstr(out.data, "<script"));
    assert_null(strstr(out.data, "alert('"));
    assert_non_null(strstr(out.data, "Invalid by its own checks"));
    assert_non_null(strstr(out.data, "the run did not finish"));
    json_decref(meta.config);
    json_decref(meta.provenance);
    json_decref(meta.dataset);
    json_decref(report);
    str_free(&out);
}

static void labels_know_their_room(void **state)
{
    (void)state;
    struct svg_box start = svg_box_of(100, 50, "start", "20.5/s");
    struct svg_box middle = svg_box_of(100, 50, "middle", "20.5/s");
    struct svg_box end = svg_box_of(100, 50, "end", "20.5/s");
    assert_true(start.left == 100 && end.right == 100 && start.right - 100 > 30);
    assert_true(middle.left < 100 && middle.right > 100);
    assert_true(start.top < 50 && start.bottom > 50);
    assert_false(svg_boxes_meet(&start, &end));
    assert_true(svg_boxes_meet(&start, &middle) && svg_boxes_meet(&middle, &end));
    struct svg_box below = svg_box_of(100, 70, "middle", "20.5/s");
    assert_false(svg_boxes_meet(&middle, &below));
    const struct svg_plot p = {.width = 500, .height = 300, .x = {.hi = 100}, .y = {.hi = 1}};
    assert_true(svg_rule_box(&p, 20, "saturation", 0).left > 100); // on the side that has room
    assert_true(svg_rule_box(&p, 80, "saturation", 0).right < 400);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_plot_is_the_golden_bytes),
        cmocka_unit_test(text_from_outside_is_escaped),
        cmocka_unit_test(numbers_are_short),
        cmocka_unit_test(axes_are_sane_for_any_data),
        cmocka_unit_test(labels_know_their_room),
        cmocka_unit_test(the_ramp_goes_from_blue_to_orange),
        cmocka_unit_test(the_page_escapes_what_the_run_says),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
