/* Heat maps as SVG: the cells, their colours, and nothing that is not well-formed. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <string.h>

#include "analysis/heatmap.h"
#include "analysis/svg.h"

static int count(const char *text, const char *what)
{
    int n = 0;
    for (const char *at = text; (at = strstr(at, what)) != NULL; at += strlen(what)) {
        n++;
    }
    return n;
}

static void cells_and_colours(void **state)
{
    (void)state;
    struct str out = {0};
    char least[8], greatest[8], middle[8];
    const double v[] = {(double)NAN, 1, 10, (double)NAN};
    const double w[] = {(double)NAN, 4, 4, (double)NAN};
    const bool marks[] = {false, false, true, false};
    const struct heatmap maps[] = {{"latency <us>", "us", v, marks}, {"rate", "GB/s", w, NULL}};
    heatmap_svg(&out, "a & b", maps, 2, 2, "from", "to", "foot");
    assert_int_equal(count(out.data, "<title>"), 4);
    assert_int_equal(count(out.data, "<title>1 to 0: 10 us</title>"), 1);
    assert_int_equal(count(out.data, "#000000"), 1); // the border of the marked one
    assert_non_null(strstr(out.data, "latency &lt;us&gt;"));
    assert_non_null(strstr(out.data, "aria-label=\"a &amp; b\""));
    assert_non_null(strstr(out.data, svg_ramp(0, 64, least)));
    assert_non_null(strstr(out.data, svg_ramp(63, 64, greatest)));
    assert_non_null(strstr(out.data, svg_ramp(32, 64, middle))); // all alike: the middle
    assert_int_equal(count(out.data, "<svg"), count(out.data, "</svg>"));
    str_free(&out);
}

static void many_cells_and_none(void **state)
{
    (void)state;
    static double v[64 * 64];
    struct str out = {0};
    for (int i = 0; i < 64 * 64; i++) {
        v[i] = i % 65 == 0 ? (double)NAN : 1 + i;
    }
    const struct heatmap map = {"m", "us", v, NULL};
    heatmap_svg(&out, "t", &map, 1, 64, "from", "to", NULL);
    assert_int_equal(count(out.data, "<title>"), 64 * 63);
    assert_int_equal(count(out.data, "class=\"number\""), 0); // no room
    str_free(&out);
    for (int i = 0; i < 64 * 64; i++) {
        v[i] = (double)NAN;
    }
    heatmap_svg(&out, "t", &map, 1, 64, "from", "to", NULL);
    assert_int_equal(count(out.data, "<title>"), 0);
    assert_null(strstr(out.data, "nan"));
    str_free(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(cells_and_colours),
        cmocka_unit_test(many_cells_and_none),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
