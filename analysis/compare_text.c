/* A comparison for a terminal: one line per figure. */
#include "analysis/compare.h"

#include "analysis/report.h"
#include "analysis/value.h"

#include <jansson.h>

#include <math.h>
#include <stdio.h>
#include <string.h>

static const char *text_of(const json_t *o, const char *key)
{
    const char *text = json_string_value(json_object_get(o, key));
    return text ? text : "-";
}

/* Means are in the JSON; here, of latency, only percentiles. */
static bool is_shown(const char *metric)
{
    size_t n = strlen(metric);
    return n < 5 || strcmp(metric + n - 5, ".mean") != 0;
}

static void put_number(struct str *out, double x, const char *mark)
{
    char text[32] = "-";
    if (isfinite(x)) {
        snprintf(text, sizeof text, fabs(x) >= 1000 ? "%.0f%s" : "%.4g%s", x, mark);
    }
    str_printf(out, " %10s", text);
}

static void put_change(struct str *out, const json_t *change)
{
    double value = value_get(change, "value"), lo = value_get(change, "lo95");
    if (!isfinite(value)) {
        str_printf(out, " %9s %20s", "-", "");
    } else if (isnan(lo)) {
        str_printf(out, " %+7.1f %% %20s", 100 * value, "(no interval)");
    } else {
        char interval[48];
        snprintf(interval, sizeof interval, "(%+.1f to %+.1f)", 100 * lo,
                 100 * value_get(change, "hi95"));
        str_printf(out, " %+7.1f %% %20s", 100 * value, interval);
    }
}

static double of_side(const json_t *figure, const char *side)
{
    return value_get(json_object_get(figure, side), "value");
}

/* The share that failed beside a goodput, NULL: not known. */
static const json_t *find_failed(const json_t *figures)
{
    for (size_t i = 0; i < json_array_size(figures); i++) {
        const json_t *f = json_array_get(figures, i);
        if (strcmp(text_of(f, "metric"), "goodput.failed_share") == 0) {
            return f;
        }
    }
    return NULL;
}

/* "!" behind a goodput that does not stand alone. */
static const char *mark_of(const char *metric, const json_t *failed, const char *side)
{
    bool is_goodput = strcmp(metric, "goodput.attainment") == 0;
    return is_goodput && of_side(failed, side) > REPORT_MUCH_FAILED ? "!" : "";
}

static bool any_failed(const json_t *failed)
{
    return of_side(failed, "a") > 0 || of_side(failed, "b") > 0;
}

static void put_figures(struct str *out, const json_t *figures)
{
    const json_t *failed = find_failed(figures);
    for (size_t i = 0; i < json_array_size(figures); i++) {
        const json_t *f = json_array_get(figures, i);
        const char *metric = text_of(f, "metric"), *verdict = text_of(f, "verdict");
        if (!is_shown(metric) || (f == failed && !any_failed(failed))) {
            continue;
        }
        str_printf(out, "  %-34s", metric);
        put_number(out, of_side(f, "a"), mark_of(metric, failed, "a"));
        put_number(out, of_side(f, "b"), mark_of(metric, failed, "b"));
        put_change(out, json_object_get(f, "change"));
        str_printf(out, "%s%s\n", strcmp(verdict, "unclear") == 0 ? "" : "  ",
                   strcmp(verdict, "unclear") == 0 ? "" : verdict);
    }
}

static void put_step(struct str *out, const json_t *s)
{
    const json_t *same = json_object_get(s, "same_schedule");
    double users = value_get(s, "users");
    str_printf(out, "\nstep %.0f -> %.0f, ", value_get(s, "a_index"), value_get(s, "b_index"));
    if (users > 0) {
        str_printf(out, "%.0f users", users);
    } else {
        str_printf(out, "%.4g/s", value_get(s, "rate_rps"));
    }
    str_printf(out, ": %s -> %s%s\n", text_of(s, "a_verdict"), text_of(s, "b_verdict"),
               json_is_true(same)    ? ", the same requests"
               : json_is_false(same) ? ", other requests"
                                     : "");
    put_figures(out, json_object_get(s, "figures"));
}

static void put_run(struct str *out, const char *name, const json_t *run)
{
    str_printf(out, "%s  %s  %s, %s\n", name, text_of(run, "path"), text_of(run, "name"),
               text_of(run, "created_utc"));
}

static void put_gate(struct str *out, const json_t *gate)
{
    const json_t *failed = json_object_get(gate, "failed");
    if (!json_is_object(gate)) {
        return;
    }
    str_printf(
        out,
        "\ngate     %s: %.0f figures, none may be worse by more than %.3g %% with 95 %% confidence\n",
        json_array_size(failed) ? "FAILED" : "passed", value_get(gate, "checked"),
        100 * value_get(gate, "max_regression"));
    for (size_t i = 0; i < json_array_size(failed); i++) {
        str_printf(out, "         %s\n", json_string_value(json_array_get(failed, i)));
    }
}

void compare_text(const json_t *c, struct str *out)
{
    const json_t *notes = json_object_get(c, "notes"), *steps = json_object_get(c, "steps");
    const json_t *answers = json_object_get(c, "answers");
    put_run(out, "A", json_object_get(c, "a"));
    put_run(out, "B", json_object_get(c, "b"));
    for (size_t i = 0; i < json_array_size(notes); i++) {
        str_printf(out, "  note   %s\n", json_string_value(json_array_get(notes, i)));
    }
    str_printf(out, "\n%-36s %10s %10s %9s %20s\n", "", "A", "B", "change", "95 %");
    for (size_t i = 0; i < json_array_size(steps); i++) {
        put_step(out, json_array_get(steps, i));
    }
    if (json_array_size(answers)) {
        str_puts(out, "\nanswers\n");
        put_figures(out, answers);
    }
    str_puts(out, "\n! goodput where more than 1 % failed: it does not stand alone\n");
    put_gate(out, json_object_get(c, "gate"));
}
