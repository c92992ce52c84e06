#include "analysis/figure.h"

#include "analysis/value.h"
#include "core/mem.h"

#include <jansson.h>

#include <stdlib.h>
#include <string.h>

struct ranked {
    const json_t *step;
    double rate_rps;
};

static int by_rate(const void *a, const void *b)
{
    double x = ((const struct ranked *)a)->rate_rps, y = ((const struct ranked *)b)->rate_rps;
    return (x > y) - (x < y);
}

void figure_steps(const json_t *report, struct figure_steps *out)
{
    const json_t *steps = json_object_get(report, "steps"), *step;
    size_t i, n = 0;
    struct ranked *r = xcalloc(json_array_size(steps) + 1, sizeof *r);
    json_array_foreach(steps, i, step)
    {
        double rate = value_get(step, "rate_rps");
        if (rate > 0 && !(value_get(step, "users") > 0)) {
            r[n++] = (struct ranked){step, rate};
        }
    }
    qsort(r, n, sizeof *r, by_rate);
    out->step = xcalloc(n + 1, sizeof *out->step);
    out->rate_rps = xcalloc(n + 1, sizeof *out->rate_rps);
    out->n = n;
    for (i = 0; i < n; i++) {
        out->step[i] = r[i].step;
        out->rate_rps[i] = r[i].rate_rps;
    }
    free(r);
}

void figure_steps_free(struct figure_steps *s)
{
    free(s->step);
    free(s->rate_rps);
}

double *figure_column(const struct figure_steps *s, const char *group, const char *sub,
                      const char *key)
{
    double *v = xcalloc(s->n + 1, sizeof *v);
    for (size_t i = 0; i < s->n; i++) {
        const json_t *o = json_object_get(s->step[i], group);
        v[i] = value_get(sub ? json_object_get(o, sub) : o, key);
    }
    return v;
}

void figure_open(struct str *out, const char *title, const char *sentence, bool wide)
{
    str_printf(out, "<figure%s>\n<figcaption><h3>", wide ? " class=\"wide\"" : "");
    svg_escape(out, title);
    str_puts(out, "</h3><p>");
    svg_escape(out, sentence);
    str_puts(out, "</p></figcaption>\n");
}

void figure_close(struct str *out)
{
    str_puts(out, "</figure>\n");
}

static const char *swatch(enum svg_shape shape)
{
    switch (shape) {
    case SVG_DIAMOND:
        return "M7 1L13 7L7 13L1 7Z";
    case SVG_SQUARE:
        return "M2 2H12V12H2Z";
    case SVG_DISC:
    case SVG_RING:
    default:
        return "M2 7A5 5 0 1 0 12 7A5 5 0 1 0 2 7Z";
    }
}

void figure_legend(struct str *out, const struct figure_key *keys, size_t n)
{
    str_puts(out, "<div class=\"legend\">");
    for (size_t i = 0; i < n; i++) {
        bool ring = keys[i].shape == SVG_RING;
        str_printf(out,
                   "<span><svg viewBox=\"0 0 14 14\" aria-hidden=\"true\"><path fill=\"%s\" "
                   "stroke=\"%s\" stroke-width=\"2\" d=\"%s\"/></svg>",
                   ring ? "none" : keys[i].colour, keys[i].colour, swatch(keys[i].shape));
        svg_escape(out, keys[i].label);
        str_puts(out, "</span>");
    }
    str_puts(out, "</div>\n");
}

struct look {
    const char *verdict;
    enum svg_colour colour;
    enum svg_shape shape;
};
static const struct look looks[] = {
    {"stable", SVG_GREEN, SVG_DISC},   {"unstable", SVG_VERMILION, SVG_DIAMOND},
    {"too_short", SVG_GREY, SVG_RING}, {"client_limited", SVG_PURPLE, SVG_SQUARE},
    {"errors", SVG_INK, SVG_SQUARE},
};

static const struct look *look_of(const char *verdict)
{
    for (size_t i = 0; verdict && i < sizeof looks / sizeof looks[0]; i++) {
        if (strcmp(looks[i].verdict, verdict) == 0) {
            return &looks[i];
        }
    }
    return &looks[2];
}

const char *figure_verdict_colour(const char *verdict)
{
    return svg_colour(look_of(verdict)->colour);
}

enum svg_shape figure_verdict_shape(const char *verdict)
{
    return look_of(verdict)->shape;
}

struct svg_plot figure_plot(struct str *out, struct svg_axis x, struct svg_axis y)
{
    return (struct svg_plot){
        .out = out,
        .width = 560,
        .height = 330,
        .left = 52,
        .right = 14,
        .top = 26,
        .bottom = 42,
        .x = x,
        .y = y,
    };
}
