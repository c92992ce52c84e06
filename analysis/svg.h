/*
 * Line plots as SVG text: axes with ticks, lines, bands, error bars, dots. Deterministic to the byte, no
 * library, no script; colours are classes and CSS variables of the page around it (var(--grid) ...), so
 * that a figure follows light and dark. Dots carry tooltips as <title>. Text is escaped here.
 *
 * A plot maps data to pixels inside its margins; what lies outside of the axes is clamped to the edge.
 * A missing value (NaN) breaks a line and draws no dot. Borrowed: the output and all strings.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "core/str.h"

struct svg_axis {
    double lo, hi; // data at both ends, lo < hi; > 0 if log
    bool log;
    bool percent; // ticks as shares
    const char *label;
};

struct svg_plot {
    struct str *out;
    double width, height;            // of the whole figure, pixels
    double left, right, top, bottom; // margins
    struct svg_axis x, y;
};

/* Colours: those of Okabe and Ito, told apart with any colour vision, plus grey and the text's own. */
enum svg_colour {
    SVG_BLUE,
    SVG_ORANGE,
    SVG_GREEN,
    SVG_VERMILION,
    SVG_SKY,
    SVG_PURPLE,
    SVG_GREY,
    SVG_INK,
    SVG_COLOURS,
};
const char *svg_colour(enum svg_colour c); // "var(--blue)"; page_style.c gives the values

/* The i-th of n ordered things, blue to orange, into buf (>= 8 bytes). */
const char *svg_ramp(size_t i, size_t n, char *buf);

enum svg_shape {
    SVG_DISC,
    SVG_DIAMOND,
    SVG_SQUARE,
    SVG_RING,
};

/* Text with & < > " ' escaped; bytes that are no UTF-8 or no XML become U+FFFD. */
void svg_escape(struct str *out, const char *text);

/* A pixel length with one decimal, without "-0.0". */
void svg_px(struct str *out, double px);

/* A number for a tick or a label: 1200 -> "1.2k", 0.05 -> "0.05"; buf >= 24 bytes. */
const char *svg_number(double x, char *buf, size_t cap);

/* Round up to the next 1, 2, 2.5 or 5 times a power of ten. */
double svg_nice_ceil(double x);

/* Largest range of an axis over data: for log axes only positive values count. Start with empty. */
struct svg_range {
    double lo, hi; // lo > hi: empty
};
struct svg_range svg_range_empty(void);
void svg_range_add(struct svg_range *r, double x, bool log);
/* Axis from 0 (or a decade below) to a little above; a sane axis for an empty range. */
struct svg_axis svg_axis_of(struct svg_range r, bool log, const char *label);

/* <svg ...> with grid, ticks and labels; then marks; then svg_close. */
void svg_open(const struct svg_plot *p, const char *title);
void svg_close(const struct svg_plot *p);

double svg_x(const struct svg_plot *p, double x);
double svg_y(const struct svg_plot *p, double y);

void svg_line(const struct svg_plot *p, const double *x, const double *y, size_t n,
              const char *colour, bool dashed);
/* Area between lo and hi over x; points with a missing bound are left out. */
void svg_band(const struct svg_plot *p, const double *x, const double *lo, const double *hi,
              size_t n, const char *colour);
/* Vertical band, and rules across the plot, with a label (may be NULL) at their end; `row` puts the
 * labels of several rules below each other. */
void svg_band_x(const struct svg_plot *p, double lo, double hi, const char *colour);
void svg_rule_x(const struct svg_plot *p, double x, const char *colour, const char *label, int row);
void svg_rule_y(const struct svg_plot *p, double y, const char *colour, const char *label);
void svg_error_bar(const struct svg_plot *p, double x, double lo, double hi, const char *colour);
void svg_dot(const struct svg_plot *p, double x, double y, enum svg_shape shape, const char *colour,
             const char *tooltip);

/* The room that a label takes, in pixels, as near as can be told without the font. */
struct svg_box {
    double left, right, top, bottom;
};
struct svg_box svg_box_of(double x, double y, const char *anchor, const char *text);
/* That of svg_rule_x's label. */
struct svg_box svg_rule_box(const struct svg_plot *p, double x, const char *label, int row);
bool svg_boxes_meet(const struct svg_box *a, const struct svg_box *b);

/* In pixels: */
void svg_rect(struct str *out, double x, double y, double width, double height, const char *colour,
              const char *tooltip);
void svg_label(struct str *out, double x, double y, const char *anchor, const char *css_class,
               const char *text);
