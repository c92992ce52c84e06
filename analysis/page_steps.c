#include "analysis/page.h"

#include "analysis/figure.h"
#include "analysis/page_put.h"
#include "analysis/svg.h"
#include "analysis/value.h"

#include <jansson.h>

#include <math.h>
#include <stdio.h>
#include <string.h>

/* The percentile of one metric: with failures as infinite where there were any, per chunk where tokens
 * did not come one by one. */
static void percentile_cell(struct str *out, const json_t *step, const char *metric, const char *p)
{
    const json_t *l = value_at(step, metric), *icl = value_at(step, "icl_ms");
    char lo[16], hi[16], adjusted[32];
    bool star =
        strcmp(p, "p99") == 0 && json_is_false(value_at(l, "p99_supported")) && value_has(l, p);
    snprintf(lo, sizeof lo, "%s_lo95", p);
    snprintf(hi, sizeof hi, "%s_hi95", p);
    snprintf(adjusted, sizeof adjusted, "%s_error_adjusted", p);
    str_puts(out, "<td>");
    page_put_interval(out, value_get(l, p), value_get(l, lo), value_get(l, hi), star ? "*" : "",
                      page_put_number);
    if (strcmp(metric, "itl_ms") == 0) {
        if (value_get(icl, "n") < value_get(l, "n")) {
            str_puts(out, "<small>per chunk ");
            page_put_number(out, value_get(icl, p));
            str_puts(out, "</small>");
        }
    } else if (value_get(value_at(step, "requests"), "failed") > 0) {
        str_puts(out, "<small class=\"adjusted\">all ");
        if (value_has(l, adjusted)) {
            page_put_number(out, value_get(l, adjusted));
        } else {
            str_puts(out, "\xe2\x88\x9e");
        }
        str_puts(out, "</small>");
    }
    str_puts(out, "</td>");
}

static void chip(struct str *out, const char *verdict)
{
    str_printf(out, "<span class=\"chip\" style=\"border-color:%s\">",
               figure_verdict_colour(verdict));
    svg_escape(out, verdict ? verdict : "-");
    str_puts(out, "</span>");
}

static void rate_cell(struct str *out, const json_t *step)
{
    str_puts(out, "<td>");
    if (value_get(step, "users") > 0) {
        str_printf(out, "%.0f users", value_get(step, "users"));
    } else {
        page_put_number(out, value_get(step, "rate_rps"));
    }
    str_puts(out, "<small>");
    page_put_number(out, value_get(value_at(step, "offered"), "rps"));
    str_puts(out, " offered</small></td>");
}

/* Of all requests, and never without the share of those that failed. */
static void goodput_cell(struct str *out, const json_t *goodput)
{
    str_printf(out, "<td>%.0f %%", 100 * value_get(goodput, "attainment"));
    if (value_get(goodput, "failed_share") > 0) {
        str_printf(out, "<small class=\"adjusted\">%.1f %% failed</small>",
                   100 * value_get(goodput, "failed_share"));
    }
    str_puts(out, "</td>");
}

static bool has_sockets(const json_t *steps)
{
    size_t i;
    const json_t *step;
    json_array_foreach(steps, i, step)
    {
        if (value_has(value_at(step, "stamp_us"), "p99")) {
            return true;
        }
    }
    return false;
}

static void p99_cell(struct str *out, const json_t *of)
{
    page_put_cell(out, value_get(of, "p99"), STATS_NONE, STATS_NONE, "", page_put_number);
}

static void step_row(struct str *out, const json_t *step, bool sockets)
{
    const json_t *requests = value_at(step, "requests"),
                 *tokens = value_at(value_at(step, "tokens_per_s"), "output");
    str_printf(out, "<tr><td>%.0f<small>", value_get(step, "index"));
    page_put_text(out, step, "kind");
    str_puts(out, "</small></td>");
    rate_cell(out, step);
    str_puts(out, "<td class=\"text\">");
    chip(out, json_string_value(value_at(step, "verdict")));
    str_printf(out, "</td><td>%.0f<small>of %.0f</small></td>", value_get(requests, "ok"),
               value_get(requests, "scheduled"));
    percentile_cell(out, step, "ttft_ms", "p50");
    percentile_cell(out, step, "ttft_ms", "p99");
    percentile_cell(out, step, "itl_ms", "p50");
    percentile_cell(out, step, "itl_ms", "p99");
    percentile_cell(out, step, "ntpot_ms", "p50");
    percentile_cell(out, step, "e2e_ms", "p50");
    page_put_cell(out, value_get(tokens, "value"), value_get(tokens, "lo95"),
                  value_get(tokens, "hi95"), json_is_true(value_at(step, "approximate")) ? "~" : "",
                  page_put_number);
    goodput_cell(out, value_at(step, "goodput"));
    p99_cell(out, value_at(step, "send_lag_us"));
    p99_cell(out, value_at(step, "poll_gap_us"));
    if (sockets) {
        p99_cell(out, value_at(step, "stamp_us"));
        p99_cell(out, value_at(step, "chunk_us"));
    }
    str_puts(out, "</tr>\n");
}

static void verdict_row(struct str *out, const json_t *step)
{
    str_printf(out, "<tr><td>%.0f</td>", value_get(step, "index"));
    rate_cell(out, step);
    str_puts(out, "<td class=\"text\">");
    chip(out, json_string_value(value_at(step, "verdict")));
    str_puts(out, "</td><td class=\"text wrap\">");
    page_put_text(out, step, "reason");
    str_puts(out, "</td></tr>\n");
}

/* What a step's row has no room for: lateness and waiting on the client's side. */
static void client_note(struct str *out, const json_t *step)
{
    const json_t *cap = value_at(step, "cap_wait_us");
    double late = value_get(value_at(step, "requests"), "late");
    if (late > 0) {
        str_printf(out, " Step %.0f: %.0f requests were sent more than 1 ms late.",
                   value_get(step, "index"), late);
    }
    if (value_get(cap, "share") > 0) {
        str_printf(out,
                   " Step %.0f: %.1f %% waited at the cap on concurrency, p50 %.4g, p99 %.4g ms.",
                   value_get(step, "index"), 100 * value_get(cap, "share"),
                   1e-3 * value_get(cap, "p50"), 1e-3 * value_get(cap, "p99"));
    }
}

/* What the target did that a latency does not show. */
static void queue_note(struct str *out, const json_t *step)
{
    const json_t *queue = value_at(step, "queue");
    double index = value_get(step, "index"), n = value_get(queue, "preemptions");
    if (n > 0) {
        str_printf(out, " Step %.0f: %.0f preemptions, for want of KV cache.", index, n);
    }
    if (json_is_number(value_at(queue, "prefix_hit_share"))) {
        str_printf(out, " Step %.0f: %.3g %% of the prompt tokens were found in the prefix cache.",
                   index, 100 * value_get(queue, "prefix_hit_share"));
    }
}

void page_steps(struct str *out, const json_t *report)
{
    const json_t *steps = value_at(report, "steps"), *step;
    bool sockets = has_sockets(steps);
    size_t i;
    str_puts(out,
             "<h2>Steps</h2>\n<div class=\"tablebox\"><table>\n<thead><tr><th>#</th><th>rate/s</th>"
             "<th class=\"text\">verdict</th><th>ok</th><th>TTFT p50<br>ms</th><th>p99</th>"
             "<th>ITL p50<br>ms</th><th>p99</th><th>NTPOT p50<br>ms</th><th>E2E p50<br>ms</th>"
             "<th>output<br>tokens/s</th><th>met all<br>objectives</th><th>send lag<br>p99 "
             "\xc2\xb5s</th><th>poll gap<br>p99 \xc2\xb5s</th>");
    str_puts(out, sockets ? "<th>arrival to read<br>p99 \xc2\xb5s</th>"
                            "<th>handling<br>p99 \xc2\xb5s</th>"
                          : "");
    str_puts(out, "</tr></thead>\n<tbody>\n");
    json_array_foreach(steps, i, step)
    {
        step_row(out, step, sockets);
    }
    str_puts(out, "</tbody></table></div>\n<p class=\"facts\" style=\"margin-top:8px\">Small: 95 % "
                  "intervals. Percentiles are of requests that did not fail; all: the same with "
                  "each failure as infinite. * p99 from fewer than 459 requests. ~ "
                  "interval approximate: a request spans more than a tenth of the window.");
    json_array_foreach(steps, i, step)
    {
        client_note(out, step);
        queue_note(out, step);
    }
    str_puts(out,
             "</p>\n<details><summary>Why each verdict</summary><div class=\"tablebox\"><table>\n");
    json_array_foreach(steps, i, step)
    {
        verdict_row(out, step);
    }
    str_puts(out, "</table></div></details>\n");
}
