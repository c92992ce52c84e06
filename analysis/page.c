#include "analysis/page.h"

#include "analysis/engine.h"
#include "analysis/figure.h"
#include "analysis/page_gpus.h"
#include "analysis/page_style.h"
#include "analysis/svg.h"
#include "analysis/value.h"

#include <jansson.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const json_t *get(const json_t *o, const char *key)
{
    return json_object_get(o, key);
}

static void put_text(struct str *out, const json_t *o, const char *key)
{
    const char *s = json_string_value(json_object_get(o, key));
    svg_escape(out, s ? s : "\xe2\x80\x93");
}

/* Three significant digits or whole numbers with separated thousands: "0.0532", "12.4", "15,120". */
static void put_number(struct str *out, double x)
{
    double size = fabs(x);
    if (!isfinite(x)) {
        str_puts(out, "\xe2\x80\x93");
    } else if (size >= 999.5 && size < 1e12) {
        long long whole = llround(size);
        str_printf(out, "%s", x < 0 ? "\xe2\x88\x92" : "");
        if (whole >= 1000000) {
            str_printf(out, "%lld,%03lld,%03lld", whole / 1000000, whole / 1000 % 1000,
                       whole % 1000);
        } else {
            str_printf(out, "%lld,%03lld", whole / 1000, whole % 1000);
        }
    } else {
        int decimals = size >= 99.95 || size == 0 ? 0 : size >= 9.995 ? 1 : size >= 0.0995 ? 2 : 4;
        str_printf(out, "%.*f", decimals, x);
    }
}

static void put_usd(struct str *out, double x)
{
    char buf[32];
    str_puts(out, isfinite(x) ? value_usd(x, buf, sizeof buf) : "\xe2\x80\x93");
}

typedef void (*put_fn)(struct str *out, double x);

/* "7.81 - 8.39", with a sign where one bound is not known. */
static void put_bounds(struct str *out, double lo, double hi, put_fn put)
{
    if (isnan(lo) || isnan(hi)) {
        str_puts(out, isnan(hi) ? "\xe2\x89\xa5 " : "\xe2\x89\xa4 ");
        put(out, isnan(hi) ? lo : hi);
        return;
    }
    put(out, lo);
    str_puts(out, " \xe2\x80\x93 ");
    put(out, hi);
}

static bool has(const json_t *o, const char *key)
{
    return json_is_number(get(o, key));
}

/* --- head --------------------------------------------------------------------------------------- */

static void put_list(struct str *out, const json_t *list)
{
    size_t i;
    const json_t *line;
    if (json_array_size(list) == 0) {
        return;
    }
    str_puts(out, "<ul>");
    json_array_foreach(list, i, line)
    {
        str_puts(out, "<li>");
        svg_escape(out, json_string_value(line));
        str_puts(out, "</li>");
    }
    str_puts(out, "</ul>");
}

static void put_validity(struct str *out, const json_t *run)
{
    bool valid = json_is_true(get(run, "valid")), complete = json_is_true(get(run, "complete"));
    str_printf(out, "<div class=\"banner %s\" role=\"status\">", valid ? "good" : "bad");
    str_puts(out, valid ? "Valid: the run passes its own checks"
                        : "Invalid by its own checks: these answers must not be used");
    str_puts(out, complete ? "" : ". Incomplete: the run did not finish");
    put_list(out, get(run, "invalid_reasons"));
    str_puts(out, "</div>\n");
    if (json_array_size(get(run, "warnings")) > 0) {
        str_puts(out, "<div class=\"banner warn\">Notes");
        put_list(out, get(run, "warnings"));
        str_puts(out, "</div>\n");
    }
}

static void put_fact(struct str *out, const char *label, const json_t *o, const char *key)
{
    const json_t *v = get(o, key);
    if (json_is_string(v) || json_is_number(v)) {
        str_printf(out, "<span>%s <b>", label);
        if (json_is_string(v)) {
            svg_escape(out, json_string_value(v));
        } else {
            str_printf(out, "%.6g", json_number_value(v));
        }
        str_puts(out, "</b></span>");
    }
}

static void put_facts(struct str *out, const json_t *run)
{
    const json_t *target = get(run, "target");
    str_puts(out, "<div class=\"facts\">");
    put_fact(out, "run", run, "created_utc");
    put_fact(out, "target", target, "kind");
    put_fact(out, "model", target, "model");
    put_fact(out, "backend", target, "backend");
    put_fact(out, "server", target, "server");
    put_fact(out, "replicas", target, "replicas");
    put_fact(out, "pipeline", target, "pipeline");
    put_fact(out, "tensor", target, "tensor");
    put_fact(out, "instance", target, "instance");
    put_fact(out, "accelerator", target, "accelerator");
    const json_t *engine = get(run, "engine");
    put_fact(out, "kernels", engine, "kernels");
    put_fact(out, "weights", engine, "weights");
    put_fact(out, "bytes per weight", engine, "bytes_per_weight");
    put_fact(out, "KV cache", engine, "kv_cache");
    put_fact(out, "traffic", get(run, "dataset"), "source");
    str_puts(out, "</div>\n");
}

void page_head(struct str *out, const json_t *report)
{
    const json_t *run = get(report, "run");
    str_puts(out, "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
                  "<meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\n"
                  "<meta name=\"color-scheme\" content=\"light dark\">\n<title>");
    put_text(out, run, "name");
    str_puts(out, " \xe2\x80\x93 tidemark</title>\n<style>\n");
    str_puts(out, page_style);
    str_puts(out, "</style>\n</head>\n<body>\n<header><div>\n"
                  "<div class=\"brand\">tidemark</div>\n<h1>");
    put_text(out, run, "name");
    str_puts(out, "</h1>\n");
    put_facts(out, run);
    put_validity(out, run);
    str_puts(out, "</div></header>\n<main>\n");
}

void page_foot(struct str *out)
{
    str_puts(out, "<footer>Made by tidemark from one result file; the same file gives the same "
                  "page. Nothing on it is loaded from a network.</footer>\n</main>\n</body>\n"
                  "</html>\n");
}

/* --- answers ------------------------------------------------------------------------------------ */

static void open_card(struct str *out, const char *what, const char *tag)
{
    str_printf(out, "<div class=\"card\"><div class=\"what\">%s", what);
    if (tag) {
        str_printf(out, " <span class=\"tag\">%s</span>", tag);
    }
    str_puts(out, "</div><div class=\"value\">");
}

static void close_card(struct str *out, double lo, double hi, put_fn put, const char *why)
{
    str_puts(out, "</div><div class=\"range\">");
    if (!isnan(lo) || !isnan(hi)) {
        str_puts(out, "95 % interval ");
        put_bounds(out, lo, hi, put);
    }
    str_puts(out, "</div>");
    if (why) {
        str_puts(out, "<div class=\"why\">");
        svg_escape(out, why);
        str_puts(out, "</div>");
    }
    str_puts(out, "</div>\n");
}

/* The word of a verdict where there is no number. */
static void put_value_or_verdict(struct str *out, const json_t *answer, const char *key,
                                 const char *unit)
{
    if (has(answer, key)) {
        put_number(out, value_get(answer, key));
        str_printf(out, " <small>%s</small>", unit);
        return;
    }
    const char *verdict = json_string_value(get(answer, "verdict"));
    str_puts(out, verdict && strcmp(verdict, "not_reached") == 0  ? "not reached"
                  : verdict && strcmp(verdict, "first_step") == 0 ? "below the first step"
                  : verdict && strcmp(verdict, "none") == 0       ? "none asked for"
                                                                  : "inconclusive");
}

/* Beside a number that is not the plain answer; NULL beside one that is. */
static const char *tag_of(const json_t *answer)
{
    const char *verdict = json_string_value(get(answer, "verdict"));
    if (!verdict || !has(answer, "rate_rps") || strcmp(verdict, "found") == 0) {
        return NULL;
    }
    return strcmp(verdict, "first_step") == 0 ? "FIRST STEP" : "INCONCLUSIVE";
}

static void card_saturation(struct str *out, const json_t *sat)
{
    struct str why = {0};
    open_card(out, "Saturation", tag_of(sat));
    put_value_or_verdict(out, sat, "rate_rps", "requests/s");
    str_printf(&why, "%s: %s", json_string_value(get(sat, "verdict")),
               json_string_value(get(sat, "reason")));
    close_card(out, value_get(sat, "lo95"), value_get(sat, "hi95"), put_number, why.data);
    str_free(&why);
}

static void card_throughput(struct str *out, const json_t *sat)
{
    open_card(out, "Throughput at saturation", tag_of(sat));
    put_value_or_verdict(out, sat, "output_tokens_per_s", "output tokens/s");
    close_card(out, value_get(sat, "output_tokens_per_s_lo95"),
               value_get(sat, "output_tokens_per_s_hi95"), put_number,
               "plateau of the broken stick");
}

static void card_slo(struct str *out, const json_t *slo)
{
    struct str why = {0};
    size_t i;
    const json_t *o;
    json_array_foreach(get(slo, "objectives"), i, o)
    {
        char number[24];
        str_printf(&why, "%s%s p%.4g \xe2\x89\xa4 %s ms", i ? ", " : "",
                   json_string_value(get(o, "metric")), 100 * value_get(o, "quantile"),
                   svg_number(value_get(o, "limit_ms"), number, sizeof number));
    }
    const json_t *decided = get(slo, "decided");
    if (has(decided, "highest_met_rps")) {
        str_printf(&why, "; met with 95 %% at %.4g/s", value_get(decided, "highest_met_rps"));
    }
    if (has(decided, "lowest_missed_rps")) {
        str_printf(&why, "; missed at %.4g/s", value_get(decided, "lowest_missed_rps"));
    }
    if (has(decided, "lowest_client_limited_rps")) {
        str_printf(&why, "; undecided at %.4g/s, where the client was the limit",
                   value_get(decided, "lowest_client_limited_rps"));
    }
    open_card(out, "Rate that meets the objectives", NULL);
    put_value_or_verdict(out, slo, "rate_rps", "requests/s");
    close_card(out, value_get(slo, "lo95"), value_get(slo, "hi95"), put_number, why.data);
    str_free(&why);
}

static void card_concurrency(struct str *out, const json_t *c)
{
    const json_t *above = get(c, "above"), *below = get(c, "below");
    struct str why = {0};
    if (!has(c, "best")) {
        return;
    }
    if (json_is_object(below)) {
        str_printf(&why, "%.0f users below it: %.0f %% of the throughput. ",
                   value_get(below, "users"), 100 * value_get(below, "throughput_times"));
    }
    if (json_is_object(above)) {
        str_printf(&why, "%.0f users above it: %.0f %% of the throughput at %.3g times the TTFT.",
                   value_get(above, "users"), 100 * value_get(above, "throughput_times"),
                   value_get(above, "ttft_p50_times"));
    }
    open_card(out, "Best limit of requests in flight", NULL);
    put_number(out, value_get(c, "best"));
    close_card(out, value_get(c, "lo95"), value_get(c, "hi95"), put_number, why.data);
    str_free(&why);
}

static void card_cost(struct str *out, const json_t *cost)
{
    const json_t *usd = get(get(cost, "at_saturation"), "usd_per_m_output");
    if (!has(cost, "usd_per_hour")) {
        return;
    }
    open_card(out, "Cost of a million output tokens",
              json_is_true(get(cost, "example")) ? "EXAMPLE PRICE" : NULL);
    str_puts(out, has(usd, "value") ? "US$ " : "");
    put_usd(out, value_get(usd, "value"));
    struct str why = {0};
    str_printf(&why, "at saturation: %.0f \xc3\x97 %s, US$ %.4g/h, %s",
               value_get(cost, "instances"), json_string_value(get(cost, "instance_type")),
               value_get(cost, "usd_per_hour"), json_string_value(get(cost, "pricing_model")));
    close_card(out, value_get(usd, "lo95"), value_get(usd, "hi95"), put_usd, why.data);
    str_free(&why);
}

void page_answers(struct str *out, const json_t *report)
{
    str_puts(out, "<div class=\"cards\">\n");
    card_saturation(out, get(report, "saturation"));
    card_throughput(out, get(report, "saturation"));
    card_slo(out, get(report, "slo"));
    card_concurrency(out, get(report, "concurrency"));
    card_cost(out, get(report, "cost"));
    str_puts(out, "</div>\n");
}

/* --- the table of steps ------------------------------------------------------------------------- */

static void number_with(struct str *out, double x, double lo, double hi, const char *mark,
                        put_fn put)
{
    put(out, x);
    str_puts(out, mark);
    if (!isnan(lo) || !isnan(hi)) {
        str_puts(out, "<small>");
        put_bounds(out, lo, hi, put);
        str_puts(out, "</small>");
    }
}

static void cell_with(struct str *out, double x, double lo, double hi, const char *mark, put_fn put)
{
    str_puts(out, "<td>");
    number_with(out, x, lo, hi, mark, put);
    str_puts(out, "</td>");
}

static void cell(struct str *out, double x, double lo, double hi, const char *mark)
{
    cell_with(out, x, lo, hi, mark, put_number);
}

/* The percentile of one metric: with failures as infinite where there were any, per chunk where tokens
 * did not come one by one. */
static void percentile_cell(struct str *out, const json_t *step, const char *metric, const char *p)
{
    const json_t *l = get(step, metric), *icl = get(step, "icl_ms");
    char lo[16], hi[16], adjusted[32];
    bool star = strcmp(p, "p99") == 0 && json_is_false(get(l, "p99_supported")) && has(l, p);
    snprintf(lo, sizeof lo, "%s_lo95", p);
    snprintf(hi, sizeof hi, "%s_hi95", p);
    snprintf(adjusted, sizeof adjusted, "%s_error_adjusted", p);
    str_puts(out, "<td>");
    number_with(out, value_get(l, p), value_get(l, lo), value_get(l, hi), star ? "*" : "",
                put_number);
    if (strcmp(metric, "itl_ms") == 0) {
        if (value_get(icl, "n") < value_get(l, "n")) {
            str_puts(out, "<small>per chunk ");
            put_number(out, value_get(icl, p));
            str_puts(out, "</small>");
        }
    } else if (value_get(get(step, "requests"), "failed") > 0) {
        str_puts(out, "<small class=\"adjusted\">all ");
        if (has(l, adjusted)) {
            put_number(out, value_get(l, adjusted));
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
        put_number(out, value_get(step, "rate_rps"));
    }
    str_puts(out, "<small>");
    put_number(out, value_get(get(step, "offered"), "rps"));
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
        if (has(get(step, "stamp_us"), "p99")) {
            return true;
        }
    }
    return false;
}

static void p99_cell(struct str *out, const json_t *of)
{
    cell(out, value_get(of, "p99"), STATS_NONE, STATS_NONE, "");
}

static void step_row(struct str *out, const json_t *step, bool sockets)
{
    const json_t *requests = get(step, "requests"),
                 *tokens = get(get(step, "tokens_per_s"), "output");
    str_printf(out, "<tr><td>%.0f<small>", value_get(step, "index"));
    put_text(out, step, "kind");
    str_puts(out, "</small></td>");
    rate_cell(out, step);
    str_puts(out, "<td class=\"text\">");
    chip(out, json_string_value(get(step, "verdict")));
    str_printf(out, "</td><td>%.0f<small>of %.0f</small></td>", value_get(requests, "ok"),
               value_get(requests, "scheduled"));
    percentile_cell(out, step, "ttft_ms", "p50");
    percentile_cell(out, step, "ttft_ms", "p99");
    percentile_cell(out, step, "itl_ms", "p50");
    percentile_cell(out, step, "itl_ms", "p99");
    percentile_cell(out, step, "ntpot_ms", "p50");
    percentile_cell(out, step, "e2e_ms", "p50");
    cell(out, value_get(tokens, "value"), value_get(tokens, "lo95"), value_get(tokens, "hi95"),
         json_is_true(get(step, "approximate")) ? "~" : "");
    goodput_cell(out, get(step, "goodput"));
    p99_cell(out, get(step, "send_lag_us"));
    p99_cell(out, get(step, "poll_gap_us"));
    if (sockets) {
        p99_cell(out, get(step, "stamp_us"));
        p99_cell(out, get(step, "chunk_us"));
    }
    str_puts(out, "</tr>\n");
}

static void verdict_row(struct str *out, const json_t *step)
{
    str_printf(out, "<tr><td>%.0f</td>", value_get(step, "index"));
    rate_cell(out, step);
    str_puts(out, "<td class=\"text\">");
    chip(out, json_string_value(get(step, "verdict")));
    str_puts(out, "</td><td class=\"text wrap\">");
    put_text(out, step, "reason");
    str_puts(out, "</td></tr>\n");
}

/* What a step's row has no room for: lateness and waiting on the client's side. */
static void client_note(struct str *out, const json_t *step)
{
    const json_t *cap = get(step, "cap_wait_us");
    double late = value_get(get(step, "requests"), "late");
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
    const json_t *queue = get(step, "queue");
    double index = value_get(step, "index"), n = value_get(queue, "preemptions");
    if (n > 0) {
        str_printf(out, " Step %.0f: %.0f preemptions, for want of KV cache.", index, n);
    }
    if (json_is_number(get(queue, "prefix_hit_share"))) {
        str_printf(out, " Step %.0f: %.3g %% of the prompt tokens were found in the prefix cache.",
                   index, 100 * value_get(queue, "prefix_hit_share"));
    }
}

void page_steps(struct str *out, const json_t *report)
{
    const json_t *steps = get(report, "steps"), *step;
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

/* --- passes --------------------------------------------------------------------------------------- */

static void pooled_cell(struct str *out, const json_t *step, const char *key)
{
    const json_t *v = get(step, key);
    cell(out, value_get(v, "value"), value_get(v, "lo95"), value_get(v, "hi95"), "");
}

void page_repeats(struct str *out, const json_t *report)
{
    const json_t *repeats = get(report, "repeats"), *step;
    size_t i;
    if (!json_is_object(repeats)) {
        return;
    }
    str_printf(out,
               "<h2>Over %.0f passes</h2>\n<div class=\"tablebox\"><table><thead><tr><th>Step</th>"
               "<th>TTFT p50<br>ms</th><th>TTFT p99<br>ms</th><th>NTPOT p50<br>ms</th>"
               "<th>E2E p50<br>ms</th><th>Output<br>tokens/s</th></tr></thead><tbody>\n",
               value_get(repeats, "passes"));
    json_array_foreach(get(repeats, "steps"), i, step)
    {
        bool closed = value_get(step, "users") > 0;
        str_printf(out, "<tr><td>%s %.4g%s</td>", json_string_value(get(step, "kind")),
                   value_get(step, closed ? "users" : "rate_rps"), closed ? " users" : "/s");
        pooled_cell(out, step, "ttft_p50_ms");
        pooled_cell(out, step, "ttft_p99_ms");
        pooled_cell(out, step, "ntpot_p50_ms");
        pooled_cell(out, step, "e2e_p50_ms");
        pooled_cell(out, step, "output_tokens_per_s");
        str_puts(out, "</tr>\n");
    }
    str_puts(out, "</tbody></table></div>\n<p class=\"facts\">Small: 95 % intervals that include "
                  "the variance between passes.</p>\n");
}

/* --- cost --------------------------------------------------------------------------------------- */

static void cost_row(struct str *out, const char *where, const json_t *at)
{
    const json_t *in = get(at, "usd_per_m_input"), *o = get(at, "usd_per_m_output");
    if (!has(o, "value")) {
        return;
    }
    str_printf(out, "<tr><td class=\"text\">%s</td>", where);
    cell(out, value_get(at, "input_tokens_per_s"), STATS_NONE, STATS_NONE, "");
    cell(out, value_get(at, "output_tokens_per_s"), STATS_NONE, STATS_NONE, "");
    cell_with(out, value_get(in, "value"), value_get(in, "lo95"), value_get(in, "hi95"), "",
              put_usd);
    cell_with(out, value_get(o, "value"), value_get(o, "lo95"), value_get(o, "hi95"), "", put_usd);
    str_puts(out, "</tr>\n");
}

void page_cost(struct str *out, const json_t *report)
{
    const json_t *cost = get(report, "cost"), *step;
    bool example = json_is_true(get(cost, "example"));
    size_t i;
    if (!has(cost, "usd_per_hour")) {
        return;
    }
    str_printf(out, "<figure>\n<figcaption><h3>Cost%s</h3><p>%.0f \xc3\x97 ",
               example ? " <span class=\"tag\">EXAMPLE PRICE</span>" : "",
               value_get(cost, "instances"));
    put_text(out, cost, "instance_type");
    str_printf(out, " at US$ %.4g per hour (", value_get(cost, "usd_per_hour"));
    put_text(out, cost, "pricing_model");
    str_puts(out, ", ");
    put_text(out, cost, "region");
    str_puts(out, ", as of ");
    put_text(out, cost, "as_of");
    str_printf(out, "); an output token counts %.4g times an input token.</p></figcaption>\n",
               value_get(cost, "output_to_input_ratio"));
    str_printf(out,
               "<div class=\"tablebox\"><table>\n<thead><tr><th class=\"text\">at</th>"
               "<th>input<br>tokens/s</th><th>output<br>tokens/s</th><th>US$%s per<br>M input</th>"
               "<th>US$%s per<br>M output</th></tr></thead>\n",
               example ? " (example)" : "", example ? " (example)" : "");
    cost_row(out, "saturation", get(cost, "at_saturation"));
    cost_row(out, "objectives", get(cost, "at_slo"));
    json_array_foreach(get(cost, "by_step"), i, step)
    {
        char where[48], number[24];
        snprintf(where, sizeof where, "step %.0f, %s/s", value_get(step, "index"),
                 svg_number(value_get(step, "rate_rps"), number, sizeof number));
        if (value_get(step, "rate_rps") > 0) {
            cost_row(out, where, step);
        }
    }
    str_puts(out, "</table></div></figure>\n");
}

/* --- definitions -------------------------------------------------------------------------------- */

void page_definitions(struct str *out, const json_t *report)
{
    const char *term;
    json_t *v;
    str_puts(out, "<h2>Definitions</h2>\n<div class=\"card\" style=\"padding:0\"><dl>\n");
    json_object_foreach((json_t *)(uintptr_t)get(report, "definitions"), term, v)
    {
        str_printf(out, "<dt>%s</dt><dd>", term);
        svg_escape(out, json_string_value(v));
        str_puts(out, "</dd>\n");
    }
    str_puts(out, "</dl></div>\n");
}

/* --- provenance --------------------------------------------------------------------------------- */

static void put_value(struct str *out, const json_t *v)
{
    if (json_is_string(v)) {
        svg_escape(out, json_string_value(v));
        return;
    }
    char *text = json_dumps(v, JSON_COMPACT | JSON_ENCODE_ANY | JSON_REAL_PRECISION(6));
    svg_escape(out, text ? text : "");
    free(text);
}

static void put_object(struct str *out, const json_t *o)
{
    const char *key;
    json_t *v;
    str_puts(out, "<div class=\"card\" style=\"padding:0\"><dl>\n");
    // jansson's iteration goes by insertion order, which is that of the file
    json_object_foreach((json_t *)(uintptr_t)o, key, v)
    {
        str_puts(out, "<dt>");
        svg_escape(out, key);
        str_puts(out, "</dt><dd>");
        put_value(out, v);
        str_puts(out, "</dd>\n");
    }
    str_puts(out, "</dl></div>\n");
}

static void put_ranks(struct str *out, const struct store_meta *m)
{
    str_puts(out, "<details><summary>Ranks and clocks</summary><div class=\"tablebox\"><table>\n"
                  "<thead><tr><th>rank</th><th class=\"text\">role</th><th class=\"text\">host</th>"
                  "<th class=\"text\">CPUs</th><th class=\"text\">scheduling</th>"
                  "<th class=\"text\">kernels</th><th>clock offset "
                  "\xc2\xb5s</th><th>\xc2\xb1</th><th>after</th></tr></thead>\n");
    for (size_t i = 0; i < m->n_ranks; i++) {
        const struct store_rank *r = &m->ranks[i];
        str_printf(out, "<tr><td>%d</td><td class=\"text\">", r->rank);
        if (r->role == 0) {
            str_puts(out, "load");
        } else {
            str_printf(out, "replica %d stage %d.%d", r->replica, r->stage, r->tensor);
        }
        str_puts(out, "</td><td class=\"text\">");
        svg_escape(out, r->host);
        str_puts(out, "</td><td class=\"text\">");
        svg_escape(out, r->cpuset);
        str_puts(out, "</td><td class=\"text\">");
        svg_escape(out, r->sched_class);
        str_puts(out, "</td><td class=\"text\">");
        svg_escape(out, r->kernels[0] ? r->kernels : "\xe2\x80\x93");
        str_printf(out, "</td><td>%.1f</td><td>%.1f</td><td>", (double)r->clock_offset_ns * 1e-3,
                   (double)r->clock_bound_ns * 1e-3);
        if (m->ranks_after) {
            str_printf(out, "%.1f", (double)m->ranks_after[i].clock_offset_ns * 1e-3);
        }
        str_puts(out, "</td></tr>\n");
    }
    str_puts(out, "</table></div></details>\n");
}

static void put_cell(struct str *out, const json_t *row, const char *key)
{
    const json_t *v = get(row, key);
    const bool is_text = !json_is_number(v);
    str_puts(out, is_text ? "<td class=\"text\">" : "<td>");
    if (json_is_string(v)) {
        svg_escape(out, json_string_value(v));
    } else if (is_text) {
        str_puts(out, "\xe2\x80\x93");
    } else if (json_is_integer(v)) {
        str_printf(out, "%.0f", json_number_value(v));
    } else {
        str_printf(out, json_number_value(v) >= 1e6 ? "%.4g" : "%.6g", json_number_value(v));
    }
    str_puts(out, "</td>");
}

/* What each worker rank computes with; nothing without workers. */
static void put_engine(struct str *out, const json_t *engine)
{
    static const struct {
        const char *key, *head;
        bool is_text;
    } columns[] = {
        {"rank", "rank", false},
        {"replica", "replica", false},
        {"stage", "stage", false},
        {"tensor", "tensor", false},
        {"host", "host", true},
        {"numa", "memory node", false},
        {"first_layer", "first layer", false},
        {"n_layers", "layers", false},
        {"threads", "threads", false},
        {"cores", "CPUs", true},
        {"kernels", "kernels", true},
        {"weights", "weights", true},
        {"weight_bytes", "bytes", false},
        {"bytes_per_weight", "bytes per weight", false},
        {"kv_bytes_per_token", "KV bytes per token", false},
    };
    const size_t n = sizeof columns / sizeof *columns;
    struct str line = {0};
    if (!json_is_object(engine)) {
        return;
    }
    engine_line(engine, &line);
    str_puts(out, "<details><summary>Engine</summary><p>");
    svg_escape(out, line.data);
    str_puts(out, "</p><div class=\"tablebox\"><table>\n<thead><tr>");
    str_free(&line);
    for (size_t k = 0; k < n; k++) {
        str_printf(out, "<th%s>%s</th>", columns[k].is_text ? " class=\"text\"" : "",
                   columns[k].head);
    }
    str_puts(out, "</tr></thead>\n");
    for (size_t i = 0; i < json_array_size(get(engine, "ranks")); i++) {
        str_puts(out, "<tr>");
        for (size_t k = 0; k < n; k++) {
            put_cell(out, json_array_get(get(engine, "ranks"), i), columns[k].key);
        }
        str_puts(out, "</tr>\n");
    }
    str_puts(out, "</table></div></details>\n");
}

void page_provenance(struct str *out, const json_t *report, const struct store_meta *meta)
{
    str_puts(out, "<h2>Provenance</h2>\n<p class=\"facts\">run <b>");
    put_text(out, get(report, "run"), "uuid");
    str_puts(out, "</b></p>\n<details><summary>Machine and build</summary>\n");
    put_object(out, meta->provenance);
    str_puts(out, "</details>\n<details><summary>Dataset</summary>\n");
    put_object(out, meta->dataset);
    str_puts(out, "</details>\n");
    put_engine(out, get(get(report, "run"), "engine"));
    page_gpus_devices(out, report);
    put_ranks(out, meta);
    char *config = json_dumps(meta->config, JSON_INDENT(2));
    str_puts(out, "<details><summary>Resolved configuration</summary><pre>");
    svg_escape(out, config ? config : "");
    str_puts(out, "</pre></details>\n");
    free(config);
}
