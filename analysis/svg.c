#include "analysis/svg.h"

#include "core/err.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define MAX_TICKS 64

/* --- text ------------------------------------------------------------------------------------- */

/* Length of the UTF-8 sequence at s if it is a valid one of a character that XML allows, else 0. */
static size_t utf8_length(const unsigned char *s)
{
    size_t n = s[0] < 0x80 ? 1 : s[0] < 0xc2 ? 0 : s[0] < 0xe0 ? 2 : s[0] < 0xf0 ? 3 : 4;
    unsigned code = n == 1 ? s[0] : s[0] & (0x7fu >> n);
    for (size_t i = 1; i < n; i++) {
        if ((s[i] & 0xc0) != 0x80) {
            return 0;
        }
        code = code << 6 | (s[i] & 0x3fu);
    }
    bool shortest = n < 3 || (n == 3 ? code >= 0x800 : code >= 0x10000 && code <= 0x10ffff);
    bool allowed = code >= ' ' ? code != 0x7f && (code < 0xd800 || code > 0xdfff) &&
                                     code != 0xfffe && code != 0xffff
                               : code == '\t' || code == '\n';
    return n > 0 && shortest && allowed ? n : 0;
}

void svg_escape(struct str *out, const char *text)
{
    static const char special[] = "&<>\"'";
    static const char *const entity[] = {"&amp;", "&lt;", "&gt;", "&quot;", "&#39;"};
    while (*text != '\0') {
        const char *at = strchr(special, *text);
        size_t n = utf8_length((const unsigned char *)text);
        if (at) {
            str_puts(out, entity[at - special]);
        } else if (n > 0) {
            str_append(out, text, n);
        } else {
            str_puts(out, "\xef\xbf\xbd");
        }
        text += n > 0 ? n : 1;
    }
}

void svg_px(struct str *out, double px)
{
    double tenths = round(px * 10);
    if (fmod(tenths, 10) == 0) {
        str_printf(out, "%.0f", tenths / 10 + 0.0);
    } else {
        str_printf(out, "%.1f", tenths / 10);
    }
}

const char *svg_number(double x, char *buf, size_t cap)
{
    static const char *const units[] = {"", "k", "M", "G", "T"};
    size_t u = 0;
    if (!isfinite(x)) {
        snprintf(buf, cap, "\xe2\x80\x93"); // en dash
        return buf;
    }
    while (fabs(x) >= 999.5 && u < 4) {
        x /= 1000;
        u++;
    }
    double size = fabs(x);
    int decimals = size >= 99.95 ? 0 : size >= 9.995 ? 1 : size >= 0.0995 ? 2 : size > 0 ? 4 : 0;
    snprintf(buf, cap, "%.*f", decimals, x);
    size_t n = strlen(buf);
    if (strchr(buf, '.')) {
        while (buf[n - 1] == '0') {
            buf[--n] = '\0';
        }
        if (buf[n - 1] == '.') {
            buf[--n] = '\0';
        }
    }
    snprintf(buf + n, cap - n, "%s", units[u]);
    return buf;
}

/* --- colours ---------------------------------------------------------------------------------- */

const char *svg_colour(enum svg_colour c)
{
    static const char *const colours[SVG_COLOURS] = {
        "var(--blue)", "var(--orange)", "var(--green)", "var(--vermilion)",
        "var(--sky)",  "var(--purple)", "var(--grey)",  "var(--ink)",
    };
    CHECK(c < SVG_COLOURS);
    return colours[c];
}

const char *svg_ramp(size_t i, size_t n, char *buf)
{
    static const double stops[][3] = {
        {0, 114, 178}, {86, 160, 200}, {150, 120, 170}, {213, 94, 60}, {230, 159, 0}};
    double t = n > 1 ? 4.0 * (double)i / (double)(n - 1) : 0;
    size_t k = t >= 3 ? 3 : (size_t)t;
    unsigned rgb[3];
    for (size_t c = 0; c < 3; c++) {
        rgb[c] = (unsigned)(stops[k][c] + (t - (double)k) * (stops[k + 1][c] - stops[k][c]) + 0.5);
    }
    snprintf(buf, 8, "#%02x%02x%02x", rgb[0] & 255, rgb[1] & 255, rgb[2] & 255);
    return buf;
}

/* --- axes ------------------------------------------------------------------------------------- */

double svg_nice_ceil(double x)
{
    static const double steps[] = {1, 2, 2.5, 5, 10};
    if (!(x > 0) || !isfinite(x)) {
        return 1;
    }
    double decade = pow(10, floor(log10(x)));
    for (size_t i = 0; i < sizeof steps / sizeof steps[0]; i++) {
        if (x <= steps[i] * decade * (1 + 1e-9)) {
            return steps[i] * decade;
        }
    }
    return 10 * decade;
}

struct svg_range svg_range_empty(void)
{
    return (struct svg_range){1, 0};
}

void svg_range_add(struct svg_range *r, double x, bool log)
{
    if (!isfinite(x) || (log && x <= 0)) {
        return;
    }
    bool empty = r->lo > r->hi;
    r->lo = empty || x < r->lo ? x : r->lo;
    r->hi = empty || x > r->hi ? x : r->hi;
}

struct svg_axis svg_axis_of(struct svg_range r, bool log, const char *label)
{
    struct svg_axis a = {.log = log, .label = label};
    if (r.lo > r.hi) {
        r = log ? (struct svg_range){0.1, 1} : (struct svg_range){0, 1};
    }
    if (log) {
        a.lo = r.lo / 1.3;
        a.hi = r.hi * 1.3;
        if (a.hi < a.lo * 4) { // at least two thirds of a decade: flat data look flat
            double middle = sqrt(a.lo * a.hi);
            a.lo = middle / 2;
            a.hi = middle * 2;
        }
    } else {
        a.lo = r.lo < 0 ? -svg_nice_ceil(-r.lo) : 0;
        a.hi = r.hi > 0 ? r.hi * 1.06 : 1;
    }
    return a;
}

/* Tick values of an axis: at (cap MAX_TICKS), returns how many. */
static size_t linear_ticks(const struct svg_axis *a, int wanted, double *at)
{
    double step = svg_nice_ceil((a->hi - a->lo) / wanted);
    size_t n = 0;
    for (double k = ceil(a->lo / step - 1e-9); k * step <= a->hi * (1 + 1e-12) && n < MAX_TICKS;
         k++) {
        at[n++] = k * step + 0.0;
    }
    return n;
}

static size_t log_ticks(const struct svg_axis *a, double *at)
{
    double decades = log10(a->hi / a->lo);
    size_t n = 0;
    for (double d = floor(log10(a->lo)); d <= ceil(log10(a->hi)); d++) {
        static const double parts[] = {1, 2, 5};
        for (size_t i = 0; i < (decades > 3.5 ? 1 : 3); i++) {
            double v = parts[i] * pow(10, d);
            if (v >= a->lo * (1 - 1e-9) && v <= a->hi * (1 + 1e-9) && n < MAX_TICKS) {
                at[n++] = v;
            }
        }
    }
    return n;
}

static double position(const struct svg_axis *a, double v)
{
    double t = a->log ? log(v / a->lo) / log(a->hi / a->lo) : (v - a->lo) / (a->hi - a->lo);
    return t > 1 ? 1 : t > 0 ? t : 0; // what is not a number is at 0; callers leave it out
}

double svg_x(const struct svg_plot *p, double x)
{
    return p->left + position(&p->x, x) * (p->width - p->left - p->right);
}

double svg_y(const struct svg_plot *p, double y)
{
    return p->height - p->bottom - position(&p->y, y) * (p->height - p->top - p->bottom);
}

static void put_segment(struct str *out, const char *css_class, double x1, double y1, double x2,
                        double y2)
{
    str_printf(out, "<path class=\"%s\" d=\"M", css_class);
    svg_px(out, x1);
    str_puts(out, " ");
    svg_px(out, y1);
    str_puts(out, "L");
    svg_px(out, x2);
    str_puts(out, " ");
    svg_px(out, y2);
    str_puts(out, "\"/>\n");
}

void svg_label(struct str *out, double x, double y, const char *anchor, const char *css_class,
               const char *text)
{
    str_printf(out, "<text class=\"%s\" text-anchor=\"%s\" x=\"", css_class, anchor);
    svg_px(out, x);
    str_puts(out, "\" y=\"");
    svg_px(out, y);
    str_puts(out, "\">");
    svg_escape(out, text);
    str_puts(out, "</text>\n");
}

static const char *tick_text(const struct svg_axis *a, double v, char *buf, size_t cap)
{
    if (a->percent) {
        snprintf(buf, cap, "%.4g%%", 100 * v);
        return buf;
    }
    return svg_number(v, buf, cap);
}

static void put_x_axis(const struct svg_plot *p)
{
    double at[MAX_TICKS], bottom = p->height - p->bottom;
    int wanted = (int)((p->width - p->left - p->right) / 70);
    size_t n = p->x.log ? log_ticks(&p->x, at) : linear_ticks(&p->x, wanted > 2 ? wanted : 2, at);
    char buf[24];
    for (size_t i = 0; i < n; i++) {
        double x = svg_x(p, at[i]);
        put_segment(p->out, "grid", x, p->top, x, bottom);
        svg_label(p->out, x, bottom + 15, "middle", "tick",
                  tick_text(&p->x, at[i], buf, sizeof buf));
    }
    put_segment(p->out, "axis", p->left, bottom, p->width - p->right, bottom);
    if (p->x.label) {
        svg_label(p->out, 0.5 * (p->left + p->width - p->right), p->height - 5, "middle",
                  "axis-label", p->x.label);
    }
}

static void put_y_axis(const struct svg_plot *p)
{
    double at[MAX_TICKS];
    int wanted = (int)((p->height - p->top - p->bottom) / 45);
    size_t n = p->y.log ? log_ticks(&p->y, at) : linear_ticks(&p->y, wanted > 2 ? wanted : 2, at);
    char buf[24];
    for (size_t i = 0; i < n; i++) {
        double y = svg_y(p, at[i]);
        put_segment(p->out, "grid", p->left, y, p->width - p->right, y);
        svg_label(p->out, p->left - 7, y + 4, "end", "tick",
                  tick_text(&p->y, at[i], buf, sizeof buf));
    }
    if (p->y.label) {
        svg_label(p->out, p->left, p->top - 9, "start", "axis-label", p->y.label);
    }
}

void svg_open(const struct svg_plot *p, const char *title)
{
    str_printf(p->out, "<svg viewBox=\"0 0 %.0f %.0f\" role=\"img\" aria-label=\"", p->width,
               p->height);
    svg_escape(p->out, title);
    str_puts(p->out, "\">\n");
    put_x_axis(p);
    put_y_axis(p);
}

void svg_close(const struct svg_plot *p)
{
    str_puts(p->out, "</svg>\n");
}

/* --- marks ------------------------------------------------------------------------------------ */

static bool drawable(const struct svg_axis *a, double v)
{
    return isfinite(v) && (!a->log || v > 0);
}

static void put_point(const struct svg_plot *p, const char *command, double x, double y)
{
    str_puts(p->out, command);
    svg_px(p->out, svg_x(p, x));
    str_puts(p->out, " ");
    svg_px(p->out, svg_y(p, y));
}

void svg_line(const struct svg_plot *p, const double *x, const double *y, size_t n,
              const char *colour, bool dashed)
{
    bool pen_down = false;
    str_printf(p->out, "<path class=\"line%s\" stroke=\"%s\" d=\"", dashed ? " dashed" : "",
               colour);
    for (size_t i = 0; i < n; i++) {
        bool ok = drawable(&p->x, x[i]) && drawable(&p->y, y[i]);
        if (ok) {
            put_point(p, pen_down ? "L" : "M", x[i], y[i]);
        }
        pen_down = ok;
    }
    str_puts(p->out, "\"/>\n");
}

static bool has_band(const struct svg_plot *p, double x, double lo, double hi)
{
    return drawable(&p->x, x) && drawable(&p->y, lo) && drawable(&p->y, hi);
}

void svg_band(const struct svg_plot *p, const double *x, const double *lo, const double *hi,
              size_t n, const char *colour)
{
    const char *command = "M";
    str_printf(p->out, "<path class=\"band\" fill=\"%s\" d=\"", colour);
    for (size_t i = 0; i < n; i++) {
        if (has_band(p, x[i], lo[i], hi[i])) {
            put_point(p, command, x[i], hi[i]);
            command = "L";
        }
    }
    for (size_t i = n; i-- > 0;) {
        if (has_band(p, x[i], lo[i], hi[i])) {
            put_point(p, command, x[i], lo[i]);
        }
    }
    str_puts(p->out, "\"/>\n");
}

void svg_rect(struct str *out, double x, double y, double width, double height, const char *colour,
              const char *tooltip)
{
    str_printf(out, "<rect fill=\"%s\" x=\"", colour);
    svg_px(out, x);
    str_puts(out, "\" y=\"");
    svg_px(out, y);
    str_puts(out, "\" width=\"");
    svg_px(out, width);
    str_puts(out, "\" height=\"");
    svg_px(out, height);
    str_puts(out, "\">");
    if (tooltip) {
        str_puts(out, "<title>");
        svg_escape(out, tooltip);
        str_puts(out, "</title>");
    }
    str_puts(out, "</rect>\n");
}

void svg_band_x(const struct svg_plot *p, double lo, double hi, const char *colour)
{
    if (!drawable(&p->x, lo) || !drawable(&p->x, hi)) {
        return;
    }
    double x[2] = {lo, hi}, bottom[2] = {p->y.lo, p->y.lo}, top[2] = {p->y.hi, p->y.hi};
    svg_band(p, x, bottom, top, 2, colour);
}

static bool rule_label_is_left(const struct svg_plot *p, double at)
{
    return at > p->left + 0.6 * (p->width - p->left - p->right);
}

static double rule_label_y(const struct svg_plot *p, int row)
{
    return p->top + 12 + 14 * row;
}

struct svg_box svg_box_of(double x, double y, const char *anchor, const char *text)
{
    double width = 6.6 * (double)strlen(text); // of a digit at 11.5 px, with a little air
    double left = strcmp(anchor, "start") == 0 ? x
                  : strcmp(anchor, "end") == 0 ? x - width
                                               : x - width / 2;
    return (struct svg_box){left, left + width, y - 10, y + 3};
}

struct svg_box svg_rule_box(const struct svg_plot *p, double x, const char *label, int row)
{
    double at = svg_x(p, x);
    bool left = rule_label_is_left(p, at);
    return svg_box_of(at + (left ? -6 : 6), rule_label_y(p, row), left ? "end" : "start", label);
}

bool svg_boxes_meet(const struct svg_box *a, const struct svg_box *b)
{
    return a->left < b->right && b->left < a->right && a->top < b->bottom && b->top < a->bottom;
}

void svg_rule_x(const struct svg_plot *p, double x, const char *colour, const char *label, int row)
{
    if (!drawable(&p->x, x)) {
        return;
    }
    double xs[2] = {x, x}, ys[2] = {p->y.lo, p->y.hi}, at = svg_x(p, x);
    svg_line(p, xs, ys, 2, colour, true);
    if (label) {
        bool left = rule_label_is_left(p, at);
        svg_label(p->out, at + (left ? -6 : 6), rule_label_y(p, row), left ? "end" : "start",
                  "note", label);
    }
}

void svg_rule_y(const struct svg_plot *p, double y, const char *colour, const char *label)
{
    if (!drawable(&p->y, y)) {
        return;
    }
    double xs[2] = {p->x.lo, p->x.hi}, ys[2] = {y, y};
    svg_line(p, xs, ys, 2, colour, true);
    if (label) {
        svg_label(p->out, p->left + 6, svg_y(p, y) - 5, "start", "note", label);
    }
}

void svg_error_bar(const struct svg_plot *p, double x, double lo, double hi, const char *colour)
{
    if (has_band(p, x, lo, hi)) {
        double xs[2] = {x, x}, ys[2] = {lo, hi};
        svg_line(p, xs, ys, 2, colour, false);
    }
}

/* The outline of a shape around (0, 0). */
static const char *shape_path(enum svg_shape shape)
{
    switch (shape) {
    case SVG_DIAMOND:
        return "M0-4.8L4.8 0L0 4.8L-4.8 0Z";
    case SVG_SQUARE:
        return "M-3.6-3.6H3.6V3.6H-3.6Z";
    case SVG_DISC:
    case SVG_RING:
    default:
        return "M-3.8 0A3.8 3.8 0 1 0 3.8 0A3.8 3.8 0 1 0-3.8 0Z";
    }
}

void svg_dot(const struct svg_plot *p, double x, double y, enum svg_shape shape, const char *colour,
             const char *tooltip)
{
    if (!drawable(&p->x, x) || !drawable(&p->y, y)) {
        return;
    }
    str_printf(p->out, "<path class=\"dot%s\" fill=\"%s\" stroke=\"%s\" transform=\"translate(",
               shape == SVG_RING ? " ring" : "", shape == SVG_RING ? "none" : colour, colour);
    svg_px(p->out, svg_x(p, x));
    str_puts(p->out, " ");
    svg_px(p->out, svg_y(p, y));
    str_printf(p->out, ")\" d=\"%s\">", shape_path(shape));
    if (tooltip) {
        str_puts(p->out, "<title>");
        svg_escape(p->out, tooltip);
        str_puts(p->out, "</title>");
    }
    str_puts(p->out, "</path>\n");
}
