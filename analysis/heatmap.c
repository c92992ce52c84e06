#include "analysis/heatmap.h"

#include "analysis/svg.h"

#include <math.h>
#include <stdio.h>

#define SIDE     440.0 // of a square, pixels, where cells are large enough
#define MIN_CELL 9.0
#define MAX_CELL 64.0
#define LEFT     54.0
#define TOP      76.0
#define GAP      70.0
#define BELOW    74.0
#define COLOURS  64
#define MIN_TEXT 30.0 // a cell of that size has room for its number

static double cell_size(size_t n)
{
    double cell = SIDE / (double)n;
    return cell < MIN_CELL ? MIN_CELL : cell > MAX_CELL ? MAX_CELL : cell;
}

static double map_width(size_t n)
{
    double side = cell_size(n) * (double)n;
    return side < 200 ? 200 : side; // its heading needs some
}

static struct svg_range range_of(const struct heatmap *m, size_t n)
{
    struct svg_range r = svg_range_empty();
    for (size_t i = 0; i < n * n; i++) {
        svg_range_add(&r, m->v[i], true);
    }
    return r;
}

/* On a scale of ratios. */
static const char *colour_of(double v, const struct svg_range *r, char *buf)
{
    const double t = r->hi > r->lo ? log(v / r->lo) / log(r->hi / r->lo) : 0.5;
    return svg_ramp((size_t)(t * (COLOURS - 1) + 0.5), COLOURS, buf);
}

static void put_index(struct str *out, double x, double y, const char *anchor, size_t i)
{
    char text[24];
    snprintf(text, sizeof text, "%zu", i);
    svg_label(out, x, y, anchor, "tick", text);
}

static void put_indices(struct str *out, double left, size_t n)
{
    const double cell = cell_size(n);
    const size_t every = cell >= 16 ? 1 : 8;
    for (size_t i = 0; i < n; i += every) {
        const double at = (double)i * cell + cell / 2;
        put_index(out, left - 6, TOP + at + 4, "end", i);
        put_index(out, left + at, TOP - 6, "middle", i);
    }
}

static void put_cell(struct str *out, const struct heatmap *m, double left, size_t n, size_t row,
                     size_t column, const struct svg_range *r)
{
    char colour[8], number[24], tip[96];
    const double v = m->v[row * n + column], cell = cell_size(n);
    const double x = left + (double)column * cell, y = TOP + (double)row * cell;
    if (!isfinite(v) || v <= 0) {
        return;
    }
    svg_number(v, number, sizeof number);
    snprintf(tip, sizeof tip, "%zu to %zu: %s %s", row, column, number, m->unit);
    const bool marked = m->marks && m->marks[row * n + column];
    if (marked) {
        svg_rect(out, x, y, cell, cell, "#000000", NULL);
    }
    const double border = marked ? 2 : 0.5;
    svg_rect(out, x + border, y + border, cell - 2 * border, cell - 2 * border,
             colour_of(v, r, colour), tip);
    if (cell >= MIN_TEXT) {
        svg_label(out, x + cell / 2, y + cell / 2 + 4, "middle", "number", number);
    }
}

/* The scale, below: its ends and its middle. */
static void put_scale(struct str *out, const struct heatmap *m, double left, double y,
                      const struct svg_range *r)
{
    char colour[8], number[24], text[64];
    const double width = 180, values[] = {r->lo, sqrt(r->lo * r->hi), r->hi};
    static const char *const anchors[] = {"start", "middle", "end"};
    for (size_t i = 0; i < COLOURS; i++) {
        svg_rect(out, left + (double)i * width / COLOURS, y, width / COLOURS + 0.5, 10,
                 svg_ramp(i, COLOURS, colour), NULL);
    }
    for (size_t i = 0; i < 3; i++) {
        svg_number(values[i], number, sizeof number);
        snprintf(text, sizeof text, i == 2 ? "%s %s" : "%s", number, m->unit);
        svg_label(out, left + (double)i * width / 2, y + 24, anchors[i], "tick", text);
    }
}

static void put_map(struct str *out, const struct heatmap *m, double left, size_t n,
                    const char *from, const char *to)
{
    const struct svg_range r = range_of(m, n);
    char axes[96];
    svg_label(out, left, TOP - 42, "start", "heading", m->title);
    snprintf(axes, sizeof axes, "rows: %s, columns: %s", from, to);
    svg_label(out, left, TOP - 26, "start", "tick", axes);
    put_indices(out, left, n);
    for (size_t row = 0; row < n; row++) {
        for (size_t column = 0; column < n; column++) {
            put_cell(out, m, left, n, row, column, &r);
        }
    }
    if (r.lo <= r.hi) {
        put_scale(out, m, left, TOP + (double)n * cell_size(n) + 14, &r);
    }
}

void heatmap_svg(struct str *out, const char *title, const struct heatmap *maps, size_t n_maps,
                 size_t n, const char *from, const char *to, const char *foot)
{
    const double each = map_width(n) + GAP;
    const double width = LEFT + each * (double)n_maps;
    const double height = TOP + cell_size(n) * (double)n + BELOW;
    str_printf(out,
               "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %.0f %.0f\" role=\"img\" "
               "aria-label=\"",
               width, height);
    svg_escape(out, title);
    str_puts(out, "\">\n<style>text{font-family:system-ui,sans-serif;font-size:11.5px;fill:#5b6875}"
                  ".title{font-size:15px;font-weight:650;fill:#18222d}"
                  ".heading{font-weight:600;fill:#18222d}"
                  ".number{fill:#ffffff;font-weight:600;paint-order:stroke;stroke:#18222d;"
                  "stroke-width:2.5px}</style>\n");
    svg_rect(out, 0, 0, width, height, "#ffffff", NULL);
    svg_label(out, LEFT, 20, "start", "title", title);
    for (size_t i = 0; i < n_maps; i++) {
        put_map(out, &maps[i], LEFT + each * (double)i, n, from, to);
    }
    if (foot) {
        svg_label(out, LEFT, height - 8, "start", "tick", foot);
    }
    str_puts(out, "</svg>\n");
}
