/*
 * Squares of numbers as an SVG file of its own: row to column, each cell coloured by its value on a scale
 * of ratios, from blue for the least to orange for the greatest; marked cells have a border. Deterministic to
 * the byte. Pure.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "core/str.h"

struct heatmap {
    const char *title; // above, and what `unit` values are
    const char *unit;  // "us": behind each number
    const double *v;   // (n, n) [row][column]; NaN: an empty cell
    const bool *marks; // (n, n), or NULL
};

/* Side by side; `from` and `to` name rows and columns, `foot` stands below (NULL: nothing does). */
void heatmap_svg(struct str *out, const char *title, const struct heatmap *maps, size_t n_maps,
                 size_t n, const char *from, const char *to, const char *foot);
