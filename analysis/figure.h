/*
 * What all figures of the page share: the card around a plot with its caption and legend, columns of
 * numbers taken from the report's steps, and how a verdict looks. Pure: JSON in, text out.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "analysis/svg.h"

struct json_t;

/* Open-loop steps by rising rate; borrowed from the report. */
struct figure_steps {
    const struct json_t **step; // (n)
    double *rate_rps;           // (n) nominal
    size_t n;
};
void figure_steps(const struct json_t *report, struct figure_steps *out);
void figure_steps_free(struct figure_steps *s);

/* step[group][key] for each step, or step[group][sub][key]; (n), caller frees. */
double *figure_column(const struct figure_steps *s, const char *group, const char *sub,
                      const char *key);

/* <figure> with heading and one sentence below it, up to the plot; and its end. */
void figure_open(struct str *out, const char *title, const char *sentence, bool wide);
void figure_close(struct str *out);

/* A row of swatches; entries until label NULL. */
struct figure_key {
    const char *label, *colour;
    enum svg_shape shape;
};
void figure_legend(struct str *out, const struct figure_key *keys, size_t n);

/* Colour and shape of a verdict by its name. */
const char *figure_verdict_colour(const char *verdict);
enum svg_shape figure_verdict_shape(const char *verdict);

/* A plot of the usual size with room for labels. */
struct svg_plot figure_plot(struct str *out, struct svg_axis x, struct svg_axis y);
