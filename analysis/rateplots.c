#include "analysis/rateplots.h"

#include "analysis/figure.h"
#include "analysis/report.h"
#include "analysis/value.h"
#include "core/mem.h"
#include "results/record.h"

#include <jansson.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_CURVES    6
#define ROOM_OF_LABEL 2.2 // above the highest mark of a logarithmic axis

/* One curve over a plot: where its numbers are in a step, with an interval or without. */
struct curve {
    const char *group, *sub, *key, *lo, *hi;
    const char *label;
    enum svg_colour colour;
    enum svg_shape shape;
    double *y, *y_lo, *y_hi; // (n), filled by panel_load
};

struct panel {
    struct figure_steps steps;
    const double *x; // (n) borrowed
    struct curve curves[MAX_CURVES];
    size_t n_curves;
    bool log_y;
};

static void panel_load(struct panel *p, const json_t *report, const struct curve *curves, size_t n)
{
    figure_steps(report, &p->steps);
    p->x = p->steps.rate_rps;
    p->n_curves = n;
    for (size_t k = 0; k < n; k++) {
        struct curve *c = &p->curves[k];
        *c = curves[k];
        c->y = figure_column(&p->steps, c->group, c->sub, c->key);
        c->y_lo = figure_column(&p->steps, c->group, c->sub, c->lo ? c->lo : "");
        c->y_hi = figure_column(&p->steps, c->group, c->sub, c->hi ? c->hi : "");
    }
}

static void panel_free(struct panel *p)
{
    for (size_t k = 0; k < p->n_curves; k++) {
        free(p->curves[k].y);
        free(p->curves[k].y_lo);
        free(p->curves[k].y_hi);
    }
    figure_steps_free(&p->steps);
}

static struct svg_axis x_axis(const struct panel *p, const char *label)
{
    struct svg_range r = svg_range_empty();
    for (size_t i = 0; i < p->steps.n; i++) {
        svg_range_add(&r, p->x[i], false);
    }
    return svg_axis_of(r, false, label);
}

static struct svg_axis y_axis(const struct panel *p, const char *label)
{
    struct svg_range r = svg_range_empty();
    for (size_t k = 0; k < p->n_curves; k++) {
        for (size_t i = 0; i < p->steps.n; i++) {
            svg_range_add(&r, p->curves[k].y[i], p->log_y);
            svg_range_add(&r, p->curves[k].y_lo[i], p->log_y);
            svg_range_add(&r, p->curves[k].y_hi[i], p->log_y);
        }
    }
    return svg_axis_of(r, p->log_y, label);
}

static void draw_curve(const struct svg_plot *plot, const struct panel *p, const struct curve *c)
{
    const char *colour = svg_colour(c->colour);
    svg_line(plot, p->x, c->y, p->steps.n, colour, false);
    for (size_t i = 0; i < p->steps.n; i++) {
        char tip[160], x[24], y[24];
        snprintf(tip, sizeof tip, "%s: %s at %s/s (%s)", c->label, svg_number(c->y[i], y, sizeof y),
                 svg_number(p->steps.rate_rps[i], x, sizeof x),
                 json_string_value(json_object_get(p->steps.step[i], "verdict")));
        svg_error_bar(plot, p->x[i], c->y_lo[i], c->y_hi[i], colour);
        svg_dot(plot, p->x[i], c->y[i], c->shape, colour, tip);
    }
}

static void close_curves_with(const struct svg_plot *plot, const struct panel *p,
                              const struct figure_key *more, size_t n_more)
{
    struct figure_key keys[MAX_CURVES + 1];
    size_t n = 0;
    for (; n < p->n_curves; n++) {
        keys[n] = (struct figure_key){p->curves[n].label, svg_colour(p->curves[n].colour),
                                      p->curves[n].shape};
    }
    for (size_t k = 0; k < n_more; k++) {
        keys[n++] = more[k];
    }
    svg_close(plot);
    figure_legend(plot->out, keys, n);
}

static void close_curves(const struct svg_plot *plot, const struct panel *p)
{
    close_curves_with(plot, p, NULL, 0);
}

static void draw_curves(const struct svg_plot *plot, const struct panel *p)
{
    for (size_t k = 0; k < p->n_curves; k++) {
        draw_curve(plot, p, &p->curves[k]);
    }
}

/* --- where the answers lie --------------------------------------------------------------------- */

static const char *mark_label(const json_t *answer, const char *value, const char *name, char *buf,
                              size_t cap)
{
    char number[24];
    snprintf(buf, cap, "%s %s", name, svg_number(value_get(answer, value), number, sizeof number));
    return buf;
}

static void mark(const struct svg_plot *plot, const json_t *answer, const char *value,
                 const char *lo, const char *hi, enum svg_colour colour, const char *name, int row)
{
    char label[80];
    svg_band_x(plot, value_get(answer, lo), value_get(answer, hi), svg_colour(colour));
    svg_rule_x(plot, value_get(answer, value), svg_colour(colour),
               mark_label(answer, value, name, label, sizeof label), row);
}

static void mark_saturation(const struct svg_plot *plot, const json_t *report)
{
    mark(plot, json_object_get(report, "saturation"), "rate_rps", "lo95", "hi95", SVG_VERMILION,
         "saturation", 0);
}

/* What labels keep clear of. */
struct room {
    struct svg_box *taken; // (n)
    size_t n;
};

static void take_marks(const struct svg_plot *plot, const struct panel *p, struct room *r)
{
    for (size_t k = 0; k < p->n_curves; k++) {
        for (size_t i = 0; i < p->steps.n; i++) {
            double x = svg_x(plot, p->x[i]), y = svg_y(plot, p->curves[k].y[i]);
            r->taken[r->n++] = (struct svg_box){x - 4, x + 4, y - 4, y + 4};
        }
    }
}

static bool is_free(const struct svg_plot *plot, const struct room *r, const struct svg_box *b)
{
    bool inside = b->left > plot->left && b->right < plot->width && b->top > 0 &&
                  b->bottom < plot->height - plot->bottom;
    for (size_t i = 0; inside && i < r->n; i++) {
        inside = !svg_boxes_meet(&r->taken[i], b);
    }
    return inside;
}

/* Above, right, left or below, whichever has room first; nowhere if none has. */
static void label_mark(const struct svg_plot *plot, double x, double y, const char *text,
                       struct room *r)
{
    static const struct {
        double dx, dy;
        const char *anchor;
    } places[] = {{0, -10, "middle"}, {9, 4, "start"}, {-9, 4, "end"}, {0, 19, "middle"}};
    for (size_t i = 0; i < sizeof places / sizeof places[0]; i++) {
        double at_x = x + places[i].dx, at_y = y + places[i].dy;
        struct svg_box b = svg_box_of(at_x, at_y, places[i].anchor, text);
        if (is_free(plot, r, &b)) {
            svg_label(plot->out, at_x, at_y, places[i].anchor, "mark", text);
            r->taken[r->n++] = b;
            return;
        }
    }
}

/* Each step's rate beside its mark on one curve, clear of other marks and of the rule's label. */
static void label_rates(const struct svg_plot *plot, const struct panel *p, const struct curve *c,
                        const struct svg_box *rule)
{
    struct room r = {xcalloc((p->n_curves + 1) * p->steps.n + 1, sizeof *r.taken), 0};
    r.taken[r.n++] = *rule;
    take_marks(plot, p, &r);
    for (size_t i = 0; i < p->steps.n; i++) {
        char text[32], number[24];
        if (isfinite(c->y[i])) {
            snprintf(text, sizeof text, "%s/s",
                     svg_number(p->steps.rate_rps[i], number, sizeof number));
            label_mark(plot, svg_x(plot, p->x[i]), svg_y(plot, c->y[i]), text, &r);
        }
    }
    free(r.taken);
}

/* --- the figures -------------------------------------------------------------------------------- */

void rateplots_latency_throughput(struct str *out, const json_t *report)
{
    static const struct curve curves[] = {
        {"ttft_ms", NULL, "p50", "p50_lo95", "p50_hi95", "TTFT p50", SVG_BLUE, SVG_DISC, 0, 0, 0},
        {"ttft_ms", NULL, "p99", "p99_lo95", "p99_hi95", "TTFT p99", SVG_SKY, SVG_DIAMOND, 0, 0, 0},
        {"ntpot_ms", NULL, "p50", "p50_lo95", "p50_hi95", "NTPOT p50", SVG_ORANGE, SVG_SQUARE, 0, 0,
         0},
    };
    char label[80];
    const json_t *sat = json_object_get(report, "saturation");
    struct panel p = {.log_y = true};
    panel_load(&p, report, curves, 3);
    double *served = figure_column(&p.steps, "tokens_per_s", "output", "value");
    p.x = served;
    figure_open(out, "Latency\xe2\x80\x93throughput curve",
                "Latency from when a request was due, against output tokens per second served; one "
                "mark per step, in the order of rates. The band is the interval of the plateau.",
                true);
    struct svg_plot plot =
        figure_plot(out, x_axis(&p, "output tokens/s served"), y_axis(&p, "ms, log scale"));
    plot.width = 1130;
    plot.height = 400;
    plot.y.hi *= ROOM_OF_LABEL;
    str_puts(out, "<div class=\"scroll\">\n");
    svg_open(&plot, "Latency against throughput");
    mark(&plot, sat, "output_tokens_per_s", "output_tokens_per_s_lo95", "output_tokens_per_s_hi95",
         SVG_VERMILION, "saturation", 0);
    draw_curves(&plot, &p);
    struct svg_box rule =
        svg_rule_box(&plot, value_get(sat, "output_tokens_per_s"),
                     mark_label(sat, "output_tokens_per_s", "saturation", label, sizeof label), 0);
    label_rates(&plot, &p, &p.curves[1], &rule);
    close_curves(&plot, &p);
    str_puts(out, "</div>\n");
    figure_close(out);
    free(served);
    panel_free(&p);
}

static void draw_stick(const struct svg_plot *plot, const json_t *saturation)
{
    double slope = value_get(json_object_get(saturation, "cross_check"), "slope");
    double plateau = value_get(saturation, "output_tokens_per_s");
    if (isnan(plateau)) {
        return;
    }
    double x[3] = {0, plateau / slope, plot->x.hi}, y[3] = {0, plateau, plateau};
    double ends[2] = {plateau / slope, plot->x.hi};
    double low = value_get(saturation, "output_tokens_per_s_lo95");
    double high = value_get(saturation, "output_tokens_per_s_hi95");
    double lo[2] = {low, low}, hi[2] = {high, high};
    svg_band(plot, ends, lo, hi, 2, svg_colour(SVG_VERMILION));
    svg_line(plot, x, y, 3, svg_colour(SVG_VERMILION), false);
}

static void draw_verdicts(const struct svg_plot *plot, const struct panel *p)
{
    const struct curve *c = &p->curves[0];
    for (size_t i = 0; i < p->steps.n; i++) {
        const char *verdict = json_string_value(json_object_get(p->steps.step[i], "verdict"));
        char tip[120], x[24], y[24];
        snprintf(tip, sizeof tip, "%s tokens/s offered, %s served: %s",
                 svg_number(p->x[i], x, sizeof x), svg_number(c->y[i], y, sizeof y), verdict);
        svg_error_bar(plot, p->x[i], c->y_lo[i], c->y_hi[i], figure_verdict_colour(verdict));
        svg_dot(plot, p->x[i], c->y[i], figure_verdict_shape(verdict),
                figure_verdict_colour(verdict), tip);
    }
}

/* Only the verdicts that there are. */
static void legend_of_verdicts(struct str *out, const struct figure_steps *steps)
{
    struct figure_key keys[VERDICT_N];
    size_t n = 0;
    for (int v = 0; v < VERDICT_N; v++) {
        const char *name = record_verdict_names[v];
        for (size_t i = 0; i < steps->n; i++) {
            const json_t *verdict = json_object_get(steps->step[i], "verdict");
            if (json_is_string(verdict) && strcmp(json_string_value(verdict), name) == 0) {
                keys[n++] = (struct figure_key){name, figure_verdict_colour(name),
                                                figure_verdict_shape(name)};
                break;
            }
        }
    }
    figure_legend(out, keys, n);
}

void rateplots_served(struct str *out, const json_t *report)
{
    static const struct curve curves[] = {
        {"tokens_per_s", "output", "value", "lo95", "hi95", "", SVG_BLUE, SVG_DISC, 0, 0, 0}};
    struct panel p = {0};
    panel_load(&p, report, curves, 1);
    double *offered = figure_column(&p.steps, "offered", NULL, "output_tokens_per_s");
    p.x = offered;
    figure_open(
        out, "Served against offered",
        "Output tokens per second; the line is the broken stick whose corner is saturation.",
        false);
    struct svg_plot plot = figure_plot(out, x_axis(&p, "output tokens/s offered (realised draw)"),
                                       y_axis(&p, "output tokens/s served"));
    svg_open(&plot, "Served against offered tokens per second");
    draw_stick(&plot, json_object_get(report, "saturation"));
    draw_verdicts(&plot, &p);
    svg_close(&plot);
    legend_of_verdicts(out, &p.steps);
    figure_close(out);
    free(offered);
    panel_free(&p);
}

/* Above the rule, at its left, middle or right end: where no mark is, else at the left. */
static void label_limit(const struct svg_plot *plot, double y, const char *text, struct room *r)
{
    double left = plot->left + 6, right = plot->width - plot->right - 6;
    const double x[] = {left, 0.5 * (left + right), right};
    static const char *const anchors[] = {"start", "middle", "end"};
    size_t at = 0;
    for (size_t i = 3; i-- > 0;) {
        struct svg_box b = svg_box_of(x[i], y, anchors[i], text);
        at = is_free(plot, r, &b) ? i : at;
    }
    svg_label(plot->out, x[at], y, anchors[at], "note", text);
    r->taken[r->n++] = svg_box_of(x[at], y, anchors[at], text);
}

/* Horizontal rules at the limits of objectives, in the colour of their curve. */
static void draw_limits(const struct svg_plot *plot, const struct panel *p, const json_t *report)
{
    const json_t *list = json_object_get(json_object_get(report, "slo"), "objectives"), *o;
    struct room r = {xcalloc(p->n_curves * p->steps.n + json_array_size(list) + 1, sizeof *r.taken),
                     0};
    size_t i;
    take_marks(plot, p, &r);
    json_array_foreach(list, i, o)
    {
        const char *metric = json_string_value(json_object_get(o, "metric"));
        double limit = value_get(o, "limit_ms");
        for (size_t k = 0; metric && k < p->n_curves; k++) {
            if (strcmp(p->curves[k].group, metric) == 0) {
                char label[80], number[24];
                snprintf(label, sizeof label, "%.24s limit, %s ms", p->curves[k].label,
                         svg_number(limit, number, sizeof number));
                svg_rule_y(plot, limit, svg_colour(p->curves[k].colour), NULL);
                label_limit(plot, svg_y(plot, limit) - 5, label, &r);
            }
        }
    }
    free(r.taken);
}

void rateplots_metrics(struct str *out, const json_t *report)
{
    static const struct curve curves[] = {
        {"ttft_ms", NULL, "p50", "p50_lo95", "p50_hi95", "TTFT p50", SVG_BLUE, SVG_DISC, 0, 0, 0},
        {"itl_ms", NULL, "p50", NULL, NULL, "ITL p50", SVG_GREEN, SVG_RING, 0, 0, 0},
        {"ntpot_ms", NULL, "p50", "p50_lo95", "p50_hi95", "NTPOT p50", SVG_ORANGE, SVG_SQUARE, 0, 0,
         0},
        {"e2e_ms", NULL, "p50", "p50_lo95", "p50_hi95", "E2E p50", SVG_PURPLE, SVG_DIAMOND, 0, 0,
         0},
    };
    struct panel p = {.log_y = true};
    panel_load(&p, report, curves, 4);
    figure_open(out, "Latency against request rate",
                "Medians with 95 % order-statistic intervals, objectives, and the rates of the "
                "answers.",
                false);
    struct svg_plot plot = figure_plot(out, x_axis(&p, "requests/s"), y_axis(&p, "ms, log scale"));
    plot.y.hi *= ROOM_OF_LABEL * ROOM_OF_LABEL; // two
    svg_open(&plot, "Latency against request rate");
    mark_saturation(&plot, report);
    mark(&plot, json_object_get(report, "slo"), "rate_rps", "lo95", "hi95", SVG_GREY, "objectives",
         1);
    draw_limits(&plot, &p, report);
    draw_curves(&plot, &p);
    close_curves(&plot, &p);
    figure_close(out);
    panel_free(&p);
}

/* Over each goodput that does not stand alone: how many there are. */
static size_t mark_failed(const struct svg_plot *plot, const struct panel *p,
                          const struct curve *goodput)
{
    size_t n = 0;
    for (size_t i = 0; i < p->steps.n; i++) {
        double failed = value_get(json_object_get(p->steps.step[i], "goodput"), "failed_share");
        char tip[120], x[24], y[24];
        if (failed > REPORT_MUCH_FAILED) {
            snprintf(tip, sizeof tip, "%s: %s at %s/s, %.1f %% failed", goodput->label,
                     svg_number(goodput->y[i], y, sizeof y),
                     svg_number(p->steps.rate_rps[i], x, sizeof x), 100 * failed);
            svg_dot(plot, p->x[i], goodput->y[i], SVG_DIAMOND, svg_colour(SVG_VERMILION), tip);
            n++;
        }
    }
    return n;
}

void rateplots_goodput(struct str *out, const json_t *report)
{
    static const struct curve curves[] = {
        {"offered", NULL, "rps", NULL, NULL, "offered", SVG_GREY, SVG_RING, 0, 0, 0},
        {"requests_per_s", NULL, "value", "lo95", "hi95", "completed", SVG_BLUE, SVG_DISC, 0, 0, 0},
        {"goodput", NULL, "rps", NULL, NULL, "met every objective", SVG_GREEN, SVG_SQUARE, 0, 0, 0},
    };
    struct panel p = {0};
    const struct figure_key failed = {"goodput where more than 1 % failed",
                                      svg_colour(SVG_VERMILION), SVG_DIAMOND};
    panel_load(&p, report, curves, 3);
    figure_open(out, "Goodput",
                "Requests per second: offered, completed inside the window, and those of all "
                "offered that met every objective.",
                false);
    struct svg_plot plot = figure_plot(out, x_axis(&p, "requests/s"), y_axis(&p, "requests/s"));
    svg_open(&plot, "Goodput against request rate");
    mark_saturation(&plot, report);
    draw_curves(&plot, &p);
    size_t n_failed = mark_failed(&plot, &p, &p.curves[2]);
    close_curves_with(&plot, &p, &failed, n_failed > 0);
    figure_close(out);
    panel_free(&p);
}

void rateplots_queue(struct str *out, const json_t *report)
{
    const json_t *target = json_object_get(json_object_get(report, "run"), "target");
    const char *kind = json_string_value(json_object_get(target, "kind"));
    bool is_endpoint = kind && strcmp(kind, "openai") == 0;
    static const struct curve curves[] = {
        {"queue", "running", "mean", NULL, NULL, "running, mean", SVG_BLUE, SVG_DISC, 0, 0, 0},
        {"queue", "waiting", "mean", NULL, NULL, "waiting, mean", SVG_VERMILION, SVG_DIAMOND, 0, 0,
         0},
        {"queue", "waiting", "max", NULL, NULL, "waiting, max", SVG_ORANGE, SVG_RING, 0, 0, 0},
    };
    struct panel p = {.log_y = true};
    panel_load(&p, report, curves, 3);
    figure_open(out, "Running and waiting requests",
                is_endpoint ? "Of each URL, as its metrics tell, read target.metrics_rate times a "
                              "second: what autoscaling thresholds are made of."
                            : "Per replica, from the scheduler, sampled ten times a second: what "
                              "autoscaling thresholds are made of.",
                false);
    struct svg_plot plot =
        figure_plot(out, x_axis(&p, "requests/s"), y_axis(&p, "requests, log scale"));
    svg_open(&plot, "Running and waiting requests against request rate");
    mark_saturation(&plot, report);
    draw_curves(&plot, &p);
    close_curves(&plot, &p);
    figure_close(out);
    panel_free(&p);
}

void rateplots_lag(struct str *out, const json_t *report)
{
    static const struct curve curves[] = {
        {"send_lag_us", NULL, "p50", NULL, NULL, "p50", SVG_BLUE, SVG_DISC, 0, 0, 0},
        {"send_lag_us", NULL, "p99", NULL, NULL, "p99", SVG_ORANGE, SVG_SQUARE, 0, 0, 0},
        {"send_lag_us", NULL, "max", NULL, NULL, "max", SVG_VERMILION, SVG_DIAMOND, 0, 0, 0},
    };
    struct panel p = {.log_y = true};
    panel_load(&p, report, curves, 3);
    figure_open(out, "Send lag",
                "How late requests were sent against their schedule: the load generator's own "
                "health. A step is client-limited when its p99 passes 1 ms and 1 % of the median "
                "TTFT.",
                false);
    struct svg_plot plot =
        figure_plot(out, x_axis(&p, "requests/s"), y_axis(&p, "\xc2\xb5s, log scale"));
    svg_open(&plot, "Send lag against request rate");
    svg_rule_y(&plot, 1000 <= plot.y.hi ? 1000 : STATS_NONE, svg_colour(SVG_GREY), "1 ms");
    draw_curves(&plot, &p);
    close_curves(&plot, &p);
    figure_close(out);
    panel_free(&p);
}

void rateplots_energy(struct str *out, const json_t *report)
{
    static const struct curve curves[] = {
        {"gpus", "joules_per_output_token", "value", "lo95", "hi95", "J per output token", SVG_BLUE,
         SVG_DISC, 0, 0, 0},
        {"gpus", "joules_per_token", "value", "lo95", "hi95", "J per token in and out", SVG_ORANGE,
         SVG_SQUARE, 0, 0, 0},
    };
    struct panel p = {.log_y = true};
    panel_load(&p, report, curves, 2);
    figure_open(
        out, "Energy of a token",
        "Of the target's GPUs alone, in the window of each step: an idle GPU draws power, too, "
        "so that a token takes less of it the more there are.",
        false);
    struct svg_plot plot =
        figure_plot(out, x_axis(&p, "requests/s"), y_axis(&p, "J per token, log scale"));
    svg_open(&plot, "Joules per token against request rate");
    mark_saturation(&plot, report);
    draw_curves(&plot, &p);
    close_curves(&plot, &p);
    figure_close(out);
    panel_free(&p);
}

/* --- cost --------------------------------------------------------------------------------------- */

/* cost.by_step[index of each step][group][key]. */
static void load_cost(struct panel *p, const json_t *report)
{
    const json_t *list = json_object_get(json_object_get(report, "cost"), "by_step"), *row;
    size_t k;
    json_array_foreach(list, k, row)
    {
        for (size_t i = 0; i < p->steps.n; i++) {
            if (value_get(p->steps.step[i], "index") != value_get(row, "index")) {
                continue;
            }
            for (size_t c = 0; c < p->n_curves; c++) {
                const json_t *v = json_object_get(row, p->curves[c].group);
                p->curves[c].y[i] = value_get(v, "value");
                p->curves[c].y_lo[i] = value_get(v, "lo95");
                p->curves[c].y_hi[i] = value_get(v, "hi95");
            }
        }
    }
}

void rateplots_cost(struct str *out, const json_t *report)
{
    static const struct curve curves[] = {
        {"usd_per_m_output", NULL, "", NULL, NULL, "US$ per million output tokens", SVG_BLUE,
         SVG_DISC, 0, 0, 0},
        {"usd_per_m_input", NULL, "", NULL, NULL, "US$ per million input tokens", SVG_ORANGE,
         SVG_SQUARE, 0, 0, 0},
    };
    struct panel p = {.log_y = true};
    panel_load(&p, report, curves, 2);
    load_cost(&p, report);
    bool example = json_is_true(json_object_get(json_object_get(report, "cost"), "example"));
    figure_open(out, example ? "Cost against rate (EXAMPLE price)" : "Cost against rate",
                example ? "An idle machine costs as much as a busy one. The dollars rest on an "
                          "example price, not on one of a real market."
                        : "An idle machine costs as much as a busy one: the price of a token falls "
                          "until saturation.",
                false);
    struct svg_plot plot =
        figure_plot(out, x_axis(&p, "requests/s"), y_axis(&p, "US$ per million tokens, log scale"));
    svg_open(&plot, "Cost against request rate");
    mark_saturation(&plot, report);
    draw_curves(&plot, &p);
    close_curves(&plot, &p);
    figure_close(out);
    panel_free(&p);
}
