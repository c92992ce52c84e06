#include "analysis/stepplots.h"

#include "analysis/figure.h"
#include "analysis/value.h"
#include "core/mem.h"

#include <jansson.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BAR_PX   13.0 // height of a bar and its gap
#define MAX_BARS 120

/* "12.5/s" or "8 users" into buf; returns buf. */
static const char *step_name(const json_t *step, char *buf, size_t cap)
{
    char n[24];
    double users = value_get(step, "users");
    if (users > 0) {
        snprintf(buf, cap, "%.0f users", users);
    } else {
        snprintf(buf, cap, "%s/s", svg_number(value_get(step, "rate_rps"), n, sizeof n));
    }
    return buf;
}

static const char *verdict_of(const json_t *step)
{
    const char *v = json_string_value(json_object_get(step, "verdict"));
    return v ? v : "-";
}

/* --- TTFT --------------------------------------------------------------------------------------- */

void stepplots_ttft(struct str *out, const json_t *report, const struct curves_step *curves)
{
    const json_t *steps = json_object_get(report, "steps"), *step;
    size_t i, n = json_array_size(steps);
    struct svg_range r = svg_range_empty();
    for (i = 0; i < n; i++) {
        for (size_t k = 0; k < curves[i].n_cdf; k++) {
            svg_range_add(&r, curves[i].ttft_ms[k], true);
        }
    }
    figure_open(out, "Distribution of TTFT",
                "Share of finished requests whose first token came within so many ms of when they "
                "were due; one line per step.",
                false);
    struct svg_plot plot =
        figure_plot(out, svg_axis_of(r, true, "ms, log scale"),
                    (struct svg_axis){0, 1, false, true, "share of finished requests"});
    struct figure_key *keys = xcalloc(n + 1, sizeof *keys);
    char(*names)[2][32] = xcalloc(n + 1, sizeof *names); // label, colour
    svg_open(&plot, "Distribution of time to first token");
    json_array_foreach(steps, i, step)
    {
        svg_ramp(i, n, names[i][1]);
        svg_line(&plot, curves[i].ttft_ms, curves[i].share, curves[i].n_cdf, names[i][1], false);
        keys[i] = (struct figure_key){step_name(step, names[i][0], sizeof names[i][0]), names[i][1],
                                      SVG_SQUARE};
    }
    svg_close(&plot);
    figure_legend(out, keys, n);
    figure_close(out);
    free(names);
    free(keys);
}

/* --- in flight ---------------------------------------------------------------------------------- */

static void in_flight_panel(struct str *out, const json_t *step, const struct curves_step *c)
{
    char name[32], title[80];
    struct svg_range r = svg_range_empty();
    for (size_t k = 0; k < CURVES_TIME_POINTS; k++) {
        svg_range_add(&r, c->in_flight[k], false);
    }
    struct svg_plot plot = {
        .out = out,
        .width = 272,
        .height = 150,
        .left = 36,
        .right = 14,
        .top = 24,
        .bottom = 22,
        .x = {.lo = 0, .hi = c->drain_s > 0 ? c->drain_s : 1},
        .y = svg_axis_of(r, false, NULL),
    };
    const char *verdict = verdict_of(step), *colour = figure_verdict_colour(verdict);
    snprintf(title, sizeof title, "%s, %s", step_name(step, name, sizeof name), verdict);
    svg_open(&plot, title);
    svg_band_x(&plot, c->warm_s, c->end_s, svg_colour(SVG_GREY));
    svg_line(&plot, c->t_s, c->in_flight, CURVES_TIME_POINTS, colour, false);
    svg_rect(out, plot.left, 7, 9, 9, colour, NULL);
    svg_label(out, plot.left + 15, 15.5, "start", "panel", title);
    svg_close(&plot);
}

void stepplots_in_flight(struct str *out, const json_t *report, const struct curves_step *curves)
{
    const json_t *steps = json_object_get(report, "steps"), *step;
    size_t i;
    figure_open(
        out, "Requests in flight over time",
        "Seconds since the step began, to the end of its drain; the measuring window is "
        "shaded. A line that keeps rising in the window is a queue that never settles. Each "
        "panel has its own scale.",
        true);
    str_puts(out, "<div class=\"panels\">\n");
    json_array_foreach(steps, i, step)
    {
        in_flight_panel(out, step, &curves[i]);
    }
    str_puts(out, "</div>\n");
    figure_close(out);
}

/* --- stacked bars ------------------------------------------------------------------------------- */

struct part {
    const char *label;
    const char *colour;
};

/* One row of shares; what is missing to 1 stays empty. */
static void stacked_bar(struct str *out, double x, double y, double width, const char *name,
                        const struct part *parts, const double *share, size_t n)
{
    for (size_t k = 0; k < n; k++) {
        double w = isfinite(share[k]) && share[k] > 0 ? share[k] * width : 0;
        char tip[120];
        snprintf(tip, sizeof tip, "%.40s, %s: %.1f %%", name, parts[k].label, 100 * share[k]);
        if (w >= 0.05) {
            svg_rect(out, x, y, w, BAR_PX - 3, parts[k].colour, tip);
        }
        x += w;
    }
}

static void legend_of_parts(struct str *out, const struct part *parts, size_t n)
{
    struct figure_key keys[16];
    for (size_t k = 0; k < n && k < 16; k++) {
        keys[k] = (struct figure_key){parts[k].label, parts[k].colour, SVG_SQUARE};
    }
    figure_legend(out, keys, n < 16 ? n : 16);
}

static void open_bars(struct str *out, double width, double height, const char *title)
{
    str_printf(out,
               "<div class=\"scroll\"><svg class=\"bars\" viewBox=\"0 0 %.0f %.0f\" role=\"img\" "
               "aria-label=\"",
               width, height);
    svg_escape(out, title);
    str_puts(out, "\">\n");
}

static void close_bars(struct str *out)
{
    str_puts(out, "</svg></div>\n");
}

/* --- utilisation -------------------------------------------------------------------------------- */

static size_t count_rows(const json_t *steps)
{
    size_t n = 0, i;
    const json_t *step;
    json_array_foreach(steps, i, step)
    {
        n += json_array_size(json_object_get(step, "stages"));
    }
    return n;
}

static void utilisation_row(struct str *out, const json_t *row, double y, const struct part *parts)
{
    char name[64], number[16];
    double busy = value_get(row, "busy");
    double bubble = value_get(row, "bubble"), wait = value_get(row, "recv_wait");
    const double share[] = {busy, fmax(0, 1 - busy - wait), bubble, fmax(0, wait - bubble)};
    snprintf(name, sizeof name, "replica %.0f stage %.0f", value_get(row, "replica"),
             value_get(row, "stage"));
    if (value_get(row, "tensor") > 0) {
        snprintf(name + strlen(name), sizeof name - strlen(name), ".%.0f",
                 value_get(row, "tensor"));
    }
    svg_label(out, 190, y + 9, "end", "tick", name);
    stacked_bar(out, 200, y, 850, name, parts, share, 4);
    snprintf(number, sizeof number, "%.0f %%", 100 * busy);
    svg_label(out, 1060, y + 9, "start", "tick", number);
}

void stepplots_utilisation(struct str *out, const json_t *report)
{
    const struct part parts[] = {
        {"computing", svg_colour(SVG_BLUE)},
        {"sending", svg_colour(SVG_SKY)},
        {"bubble: work in the replica, none here", svg_colour(SVG_ORANGE)},
        {"no load", "var(--empty)"},
    };
    const json_t *steps = json_object_get(report, "steps"), *step, *row;
    size_t rows = count_rows(steps), i, k, drawn = 0;
    if (rows == 0) {
        return;
    }
    double y = 8, height = 10 + (double)(rows < MAX_BARS ? rows : MAX_BARS) * BAR_PX +
                           (double)json_array_size(steps) * 8;
    figure_open(out, "Pipeline utilisation",
                "Share of the window per stage and step. The number is the share spent computing.",
                true);
    open_bars(out, 1130, height, "Pipeline utilisation per stage and step");
    json_array_foreach(steps, i, step)
    {
        char name[32];
        json_array_foreach(json_object_get(step, "stages"), k, row)
        {
            if (drawn++ >= MAX_BARS) {
                break;
            }
            if (k == 0) {
                svg_label(out, 4, y + 9, "start", "panel", step_name(step, name, sizeof name));
            }
            utilisation_row(out, row, y, parts);
            y += BAR_PX;
        }
        y += k > 0 ? 8 : 0;
    }
    close_bars(out);
    legend_of_parts(out, parts, 4);
    if (rows > MAX_BARS) {
        str_printf(out, "<p class=\"note\">%zu more rows are in the JSON report.</p>\n",
                   rows - MAX_BARS);
    }
    figure_close(out);
}

/* --- critical path ------------------------------------------------------------------------------ */

enum {
    CRITICAL_PARTS = 7
};

static double sum_of(const json_t *list)
{
    double sum = 0;
    size_t i;
    const json_t *v;
    json_array_foreach(list, i, v)
    {
        sum += json_number_value(v);
    }
    return sum;
}

static void critical_shares(const json_t *path, double *share)
{
    static const char *const keys[] = {"client_lag_ms", "transport_ms", "queue_ms", NULL,
                                       "hops_ms",       "bubble_ms",    "return_ms"};
    double total = value_get(path, "total_ms");
    for (int k = 0; k < CRITICAL_PARTS; k++) {
        double ms = keys[k] ? value_get(path, keys[k]) : sum_of(json_object_get(path, "stages_ms"));
        share[k] = total > 0 && ms > 0 ? ms / total : 0;
    }
}

static double critical_rows(struct str *out, const json_t *step, double y, const struct part *parts)
{
    static const char *const phases[] = {"ttft", "e2e"};
    static const char *const names[] = {"to first token", "to last token"};
    char name[32], text[48], number[24];
    for (int phase = 0; phase < 2; phase++) {
        const json_t *path = json_object_get(json_object_get(step, "critical_path"), phases[phase]);
        double share[CRITICAL_PARTS];
        if (!json_is_object(path)) {
            continue;
        }
        if (phase == 0) {
            svg_label(out, 4, y + 9, "start", "panel", step_name(step, name, sizeof name));
        }
        critical_shares(path, share);
        svg_label(out, 190, y + 9, "end", "tick", names[phase]);
        stacked_bar(out, 200, y, 800, names[phase], parts, share, CRITICAL_PARTS);
        double ms = value_get(path, "total_ms");
        if (ms >= 999.5) {
            snprintf(text, sizeof text, "%.0f ms", ms);
        } else {
            snprintf(text, sizeof text, "%s ms", svg_number(ms, number, sizeof number));
        }
        svg_label(out, 1010, y + 9, "start", "tick", text);
        y += BAR_PX;
    }
    return y + 8;
}

static bool has_critical(const json_t *step)
{
    return json_is_object(json_object_get(json_object_get(step, "critical_path"), "ttft"));
}

void stepplots_critical(struct str *out, const json_t *report)
{
    const struct part parts[CRITICAL_PARTS] = {
        {"client lag", svg_colour(SVG_PURPLE)},
        {"to the leader", svg_colour(SVG_GREY)},
        {"queue", svg_colour(SVG_VERMILION)},
        {"computing, all stages", svg_colour(SVG_BLUE)},
        {"between stages", svg_colour(SVG_SKY)},
        {"bubble", svg_colour(SVG_ORANGE)},
        {"back to the client", svg_colour(SVG_GREEN)},
    };
    const json_t *steps = json_object_get(report, "steps"), *step;
    size_t i, n = 0;
    json_array_foreach(steps, i, step)
    {
        n += has_critical(step);
    }
    if (n == 0) {
        return;
    }
    figure_open(out, "Where a request's time goes",
                "Mean critical path of finished requests, from due to first token and to last "
                "token, on one clock. What is left empty is unexplained.",
                true);
    open_bars(out, 1130, 10 + (double)n * (2 * BAR_PX + 8), "Critical path per step");
    double y = 8;
    json_array_foreach(steps, i, step)
    {
        y = has_critical(step) ? critical_rows(out, step, y, parts) : y;
    }
    close_bars(out);
    legend_of_parts(out, parts, CRITICAL_PARTS);
    figure_close(out);
}
