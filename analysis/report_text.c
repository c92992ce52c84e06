/*
 * The report as text for a terminal: answers first, then one line per step. Works from the JSON alone.
 */
#include "analysis/report.h"

#include "analysis/engine.h"
#include "analysis/gpu_report.h"
#include "analysis/value.h"

#include <jansson.h>

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static const char *text(const json_t *o, const char *key)
{
    const char *s = json_string_value(json_object_get(o, key));
    return s ? s : "-";
}

/* --- numbers ---------------------------------------------------------------------------------- */

#define NUMBER_BYTES 32

/* Three significant digits or whole numbers, "-" when missing. */
static const char *number(double x, char *buf)
{
    double size = fabs(x);
    if (!isfinite(x)) {
        snprintf(buf, NUMBER_BYTES, "-");
    } else if (size >= 99.95 || x == 0) {
        snprintf(buf, NUMBER_BYTES, "%.0f", x);
    } else {
        snprintf(buf, NUMBER_BYTES, "%.*f", size >= 9.995 ? 1 : size >= 0.0995 ? 2 : 4, x);
    }
    return buf;
}

/* "12.3 [11.0, 13.5]" */
static void put_interval(struct str *out, const json_t *o, const char *value, const char *lo,
                         const char *hi)
{
    char a[NUMBER_BYTES], b[NUMBER_BYTES], c[NUMBER_BYTES];
    str_printf(out, "%s [%s, %s]", number(value_get(o, value), a), number(value_get(o, lo), b),
               number(value_get(o, hi), c));
}

/* --- the head --------------------------------------------------------------------------------- */

static void put_list(struct str *out, const char *label, const json_t *list)
{
    size_t i;
    const json_t *line;
    json_array_foreach(list, i, line)
    {
        str_printf(out, "%s%s\n", label, json_string_value(line));
    }
}

static void put_target(struct str *out, const json_t *target)
{
    str_printf(out, "target   %s", text(target, "kind"));
    if (json_is_string(value_at(target, "model"))) {
        str_printf(out, ", %s", text(target, "model"));
    }
    if (json_is_string(value_at(target, "backend"))) {
        str_printf(out, " on %s", text(target, "backend"));
    }
    if (json_is_number(value_at(target, "replicas"))) {
        str_printf(out, ": %.0f replica(s) x %.0f stage(s) x %.0f", value_get(target, "replicas"),
                   value_get(target, "pipeline"), value_get(target, "tensor"));
    }
    str_puts(out, "\n");
}

static void put_head(struct str *out, const json_t *report)
{
    const json_t *run = value_at(report, "run");
    bool valid = json_is_true(value_at(run, "valid"));
    str_printf(out, "%s  %s  %s\n", text(run, "name"), text(run, "created_utc"), text(run, "uuid"));
    str_printf(out, "%s%s\n",
               valid ? "VALID    by its own checks" : "INVALID  the answers below must not be used",
               json_is_true(value_at(run, "complete")) ? "" : "; INCOMPLETE");
    put_list(out, "  !      ", value_at(run, "invalid_reasons"));
    put_list(out, "  note   ", value_at(run, "warnings"));
    put_target(out, value_at(run, "target"));
    if (json_is_object(value_at(run, "engine"))) {
        str_puts(out, "engine   ");
        engine_line(value_at(run, "engine"), out);
        str_puts(out, "\n");
    }
    str_printf(out, "traffic  %s\n\n", text(value_at(run, "dataset"), "source"));
}

/* --- answers ---------------------------------------------------------------------------------- */

static void put_saturation(struct str *out, const json_t *sat)
{
    str_printf(out, "saturation    %s: ", text(sat, "verdict"));
    if (json_is_number(value_at(sat, "rate_rps"))) {
        put_interval(out, sat, "rate_rps", "lo95", "hi95");
        str_puts(out, " requests/s, ");
        put_interval(out, sat, "output_tokens_per_s", "output_tokens_per_s_lo95",
                     "output_tokens_per_s_hi95");
        str_puts(out, " output tokens/s\n              ");
    }
    str_printf(out, "%s\n", text(sat, "reason"));
}

/* What the probes decided one by one: "holds at 12.3/s, missed at 12.9/s". */
static void put_decided(struct str *out, const json_t *decided)
{
    char buf[NUMBER_BYTES];
    if (!json_is_object(decided)) {
        return;
    }
    double met = value_get(decided, "highest_met_rps"),
           missed = value_get(decided, "lowest_missed_rps"),
           client = value_get(decided, "lowest_client_limited_rps");
    str_puts(out, "              decided by 95 %: ");
    if (isnan(met)) {
        str_puts(out, "met at no rate");
    } else {
        str_printf(out, "met at %s/s", number(met, buf));
    }
    if (!isnan(missed)) {
        str_printf(out, ", missed at %s/s", number(missed, buf));
    }
    if (!isnan(client)) {
        str_printf(out, "; undecided at %s/s, where the client was the limit", number(client, buf));
    }
    str_printf(out, "%s\n",
               json_is_false(value_at(decided, "monotone"))
                   ? "; NOT MONOTONE: missed below a met rate"
                   : "");
}

static void put_slo(struct str *out, const json_t *slo)
{
    size_t i;
    const json_t *o;
    char buf[NUMBER_BYTES];
    if (json_array_size(value_at(slo, "objectives")) == 0) {
        return;
    }
    str_printf(out, "objectives    %s", text(slo, "verdict"));
    if (json_is_number(value_at(slo, "rate_rps"))) {
        str_puts(out, " up to ");
        put_interval(out, slo, "rate_rps", "lo95", "hi95");
        str_puts(out, " requests/s");
    }
    json_array_foreach(value_at(slo, "objectives"), i, o)
    {
        str_printf(out, "%s%s p%.4g <= %s ms", i == 0 ? " (" : ", ", text(o, "metric"),
                   100 * value_get(o, "quantile"), number(value_get(o, "limit_ms"), buf));
    }
    str_puts(out, ")\n");
    put_decided(out, value_at(slo, "decided"));
}

static bool any_rung_meets(const json_t *rungs)
{
    size_t i;
    const json_t *rung;
    json_array_foreach(rungs, i, rung)
    {
        if (json_is_true(value_at(rung, "meets"))) {
            return true;
        }
    }
    return false;
}

static void put_concurrency(struct str *out, const json_t *c)
{
    char a[NUMBER_BYTES], b[NUMBER_BYTES];
    const json_t *above = value_at(c, "above"), *below = value_at(c, "below");
    if (json_array_size(value_at(c, "rungs")) == 0) {
        return;
    }
    str_puts(out, "concurrency   ");
    if (!json_is_number(value_at(c, "best"))) {
        str_puts(out, any_rung_meets(value_at(c, "rungs"))
                          ? "no limit to go by: where the objectives hold, requests failed or the "
                            "client was the limit\n"
                          : "no limit meets the objectives\n");
        return;
    }
    str_printf(out,
               "best limit %.0f [%.0f, %.0f] in flight: %s output tokens/s (rule of thumb: %s)\n",
               value_get(c, "best"), value_get(c, "lo95"), value_get(c, "hi95"),
               number(value_get(value_at(c, "output_tokens_per_s"), "value"), a),
               number(value_get(c, "rule"), b));
    if (json_is_object(below)) {
        str_printf(out, "              at %.0f: %s of that throughput, the target idles\n",
                   value_get(below, "users"), number(value_get(below, "throughput_times"), a));
    }
    if (json_is_object(above)) {
        str_printf(out, "              at %.0f: %s of it at %s times the TTFT, requests queue\n",
                   value_get(above, "users"), number(value_get(above, "throughput_times"), a),
                   number(value_get(above, "ttft_p50_times"), b));
    }
}

/* "TTFT p50 12.3 [11, 13.6]" of one step over passes. */
static void put_pooled(struct str *out, const json_t *step, const char *name, const char *key)
{
    str_printf(out, "  %s ", name);
    put_interval(out, value_at(step, key), "value", "lo95", "hi95");
}

static void put_repeats(struct str *out, const json_t *repeats)
{
    size_t i;
    const json_t *step;
    char buf[NUMBER_BYTES];
    if (!json_is_object(repeats)) {
        return;
    }
    str_printf(out, "\nOver %.0f passes (intervals include the variance between them):\n",
               value_get(repeats, "passes"));
    json_array_foreach(value_at(repeats, "steps"), i, step)
    {
        bool closed = value_get(step, "users") > 0;
        str_printf(out, "%-7s %8s%s", text(step, "kind"),
                   number(value_get(step, closed ? "users" : "rate_rps"), buf),
                   closed ? " users" : "/s");
        put_pooled(out, step, "TTFT p50", "ttft_p50_ms");
        put_pooled(out, step, "p99 ms", "ttft_p99_ms");
        put_pooled(out, step, "out tok/s", "output_tokens_per_s");
        str_puts(out, "\n");
    }
}

static void put_usd(struct str *out, const json_t *o)
{
    char a[NUMBER_BYTES], b[NUMBER_BYTES], c[NUMBER_BYTES];
    str_printf(out, "$%s [%s, %s]", value_usd(value_get(o, "value"), a, sizeof a),
               value_usd(value_get(o, "lo95"), b, sizeof b),
               value_usd(value_get(o, "hi95"), c, sizeof c));
}

static void put_cost_at(struct str *out, const char *where, const json_t *at)
{
    const json_t *in = value_at(at, "usd_per_m_input"), *o = value_at(at, "usd_per_m_output");
    if (!json_is_number(value_at(o, "value"))) {
        return;
    }
    str_printf(out, "  at %-10s ", where);
    put_usd(out, in);
    str_puts(out, " per M input, ");
    put_usd(out, o);
    str_puts(out, " per M output tokens\n");
}

static void put_cost(struct str *out, const json_t *cost)
{
    if (!json_is_number(value_at(cost, "usd_per_hour"))) {
        return;
    }
    str_printf(out, "cost          %.0f x %s at $%.4g/h %s, as of %s%s\n",
               value_get(cost, "instances"), text(cost, "instance_type"),
               value_get(cost, "usd_per_hour"), text(cost, "pricing_model"), text(cost, "as_of"),
               json_is_true(value_at(cost, "example")) ? "  ** EXAMPLE PRICE, no market's **" : "");
    put_cost_at(out, "saturation", value_at(cost, "at_saturation"));
    put_cost_at(out, "objectives", value_at(cost, "at_slo"));
}

/* --- steps ------------------------------------------------------------------------------------ */

/* A column: its head, and where its number is ("ttft_ms" "p50"; group NULL: the step itself). */
struct column {
    const char *head, *group, *key;
    int width, need; // need: terminal columns from which it is shown
    bool starred;    // a p99 that too few requests may support
};

static const struct column columns_of_steps[] = {
    {"offered/s", "offered", "rps", 10, 0, false},
    {"TTFT p50", "ttft_ms", "p50", 9, 0, false},
    {"p99 ms", "ttft_ms", "p99", 9, 90, true},
    {"ITL p50", "itl_ms", "p50", 8, 110, false},
    {"p99 ms", "itl_ms", "p99", 9, 125, true},
    {"NTPOT p50", "ntpot_ms", "p50", 10, 80, false},
    {"E2E p50", "e2e_ms", "p50", 9, 140, false},
    {"attained", "goodput", "attainment", 9, 100, false},
    {"lag p99 us", "send_lag_us", "p99", 11, 150, false},
};
#define N_COLUMNS (sizeof columns_of_steps / sizeof columns_of_steps[0])

/* What must be known of a number: "*" of a p99, "!" of a goodput. */
static const char *mark_of(const struct column *c, const json_t *group)
{
    if (value_get(group, "failed_share") > REPORT_MUCH_FAILED) {
        return "!";
    }
    bool is_star = c->starred && json_is_false(value_at(group, "p99_supported")) &&
                   json_is_number(value_at(group, c->key));
    return is_star ? "*" : "";
}

static void put_cell(struct str *out, const struct column *c, const json_t *step)
{
    char buf[NUMBER_BYTES];
    const json_t *group = value_at(step, c->group);
    const char *mark = mark_of(c, group);
    str_printf(out, "%*s%s", c->width - (int)strlen(mark), number(value_get(group, c->key), buf),
               mark);
}

static void put_step(struct str *out, const json_t *step, int columns)
{
    char buf[NUMBER_BYTES];
    const json_t *requests = value_at(step, "requests");
    double rate = value_get(step, "rate_rps"), users = value_get(step, "users");
    str_printf(out, "%3.0f %-7s", value_get(step, "index"), text(step, "kind"));
    if (users > 0) {
        str_printf(out, " %5.0f users", users);
    } else {
        str_printf(out, " %9s/s", number(rate, buf));
    }
    for (size_t i = 0; i < N_COLUMNS; i++) {
        if (columns >= columns_of_steps[i].need) {
            put_cell(out, &columns_of_steps[i], step);
        }
    }
    str_printf(out, "  %5.0f/%-5.0f ", value_get(requests, "ok"), value_get(requests, "scheduled"));
    const json_t *tokens = value_at(value_at(step, "tokens_per_s"), "output");
    str_printf(out, "%8s", number(value_get(tokens, "value"), buf));
    double half = 0.5 * (value_get(tokens, "hi95") - value_get(tokens, "lo95"));
    str_printf(out, " +-%-6s%s %s\n", number(half, buf),
               json_is_true(value_at(step, "approximate")) ? "~" : " ", text(step, "verdict"));
}

static const char *or_infinite(const json_t *o, const char *key, char *buf)
{
    return json_is_number(value_at(o, key)) ? number(value_get(o, key), buf) : "infinite";
}

/* Without the failures, with them, and goodput of all: side by side. */
static void put_failed(struct str *out, const json_t *step)
{
    char a[NUMBER_BYTES], b[NUMBER_BYTES];
    const json_t *ttft = value_at(step, "ttft_ms"), *requests = value_at(step, "requests"),
                 *goodput = value_at(step, "goodput");
    double failed = value_get(requests, "failed"), scheduled = value_get(requests, "scheduled");
    if (!(failed > 0)) {
        return;
    }
    str_printf(out, "step %.0f: %.0f of %.0f failed (%.1f %%): TTFT p50 %s, p99 %s ms without them",
               value_get(step, "index"), failed, scheduled, 100 * failed / scheduled,
               number(value_get(ttft, "p50"), a), number(value_get(ttft, "p99"), b));
    str_printf(out, "; as infinite, p50 %s, p99 %s ms", or_infinite(ttft, "p50_error_adjusted", a),
               or_infinite(ttft, "p99_error_adjusted", b));
    if (json_is_number(value_at(goodput, "attainment"))) {
        str_printf(out, "; goodput %s/s, %.1f %% of all that were due",
                   number(value_get(goodput, "rps"), a), 100 * value_get(goodput, "attainment"));
    }
    str_puts(out, "\n");
}

/* Whether the client kept up: one line, of what is known. */
static void put_client(struct str *out, const json_t *step)
{
    static const struct {
        const char *name, *key;
    } parts[] = {{"send lag", "send_lag_us"},
                 {"poll gap", "poll_gap_us"},
                 {"arrival to read", "stamp_us"},
                 {"handling", "chunk_us"}};
    char buf[NUMBER_BYTES];
    int n = 0;
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
        const json_t *of = value_at(step, parts[i].key);
        if (json_is_number(value_at(of, "p99"))) {
            if (n++ == 0) {
                str_printf(out, "step %.0f: the client's p99 in us: ", value_get(step, "index"));
            }
            str_printf(out, "%s%s %s", n > 1 ? ", " : "", parts[i].name,
                       number(value_get(of, "p99"), buf));
        }
    }
    str_puts(out, n > 0 ? "\n" : "");
}

/* What the target did that a latency does not show. */
static void put_queue(struct str *out, const json_t *step)
{
    char a[NUMBER_BYTES];
    const json_t *queue = value_at(step, "queue");
    double index = value_get(step, "index"), n = value_get(queue, "preemptions");
    if (n > 0) {
        str_printf(out,
                   "step %.0f: %.0f preemptions, for want of KV cache; its use was %s %% at most\n",
                   index, n, number(100 * value_get(value_at(queue, "kv_used"), "max"), a));
    }
    if (json_is_number(value_at(queue, "prefix_hit_share"))) {
        str_printf(out, "step %.0f: %s %% of the prompt tokens were found in the prefix cache\n",
                   index, number(100 * value_get(queue, "prefix_hit_share"), a));
    }
}

static void put_gpus(struct str *out, const json_t *step)
{
    struct str line = {0};
    gpu_report_line(value_at(step, "gpus"), &line);
    if (line.len > 0) {
        str_printf(out, "step %.0f: %s\n", value_get(step, "index"), line.data);
    }
    str_free(&line);
}

/* What the percentiles of the table leave out: requests that failed, gaps inside of chunks. */
static void put_step_notes(struct str *out, const json_t *step)
{
    char a[NUMBER_BYTES], b[NUMBER_BYTES];
    const json_t *itl = value_at(step, "itl_ms"), *icl = value_at(step, "icl_ms"),
                 *cap = value_at(step, "cap_wait_us");
    double index = value_get(step, "index");
    put_failed(out, step);
    put_queue(out, step);
    put_gpus(out, step);
    if (value_get(value_at(step, "requests"), "late") > 0) {
        str_printf(out, "step %.0f: %.0f requests sent late, by more than 1 ms\n", index,
                   value_get(value_at(step, "requests"), "late"));
    }
    if (value_get(cap, "share") > 0) {
        str_printf(out, "step %.0f: %.1f %% waited at the cap on concurrency, p50 %s, p99 %s ms\n",
                   index, 100 * value_get(cap, "share"), number(1e-3 * value_get(cap, "p50"), a),
                   number(1e-3 * value_get(cap, "p99"), b));
    }
    if (value_get(icl, "n") < value_get(itl, "n")) {
        str_printf(out, "step %.0f: tokens came in chunks; between chunks p50 %s, p99 %s ms\n",
                   index, number(value_get(icl, "p50"), a), number(value_get(icl, "p99"), b));
    }
}

static void put_steps(struct str *out, const json_t *steps, int columns)
{
    size_t i;
    const json_t *step;
    str_printf(out, "\n%3s %-7s %11s", "#", "kind", "rate");
    for (size_t k = 0; k < N_COLUMNS; k++) {
        if (columns >= columns_of_steps[k].need) {
            str_printf(out, "%*s", columns_of_steps[k].width, columns_of_steps[k].head);
        }
    }
    str_puts(out, "     ok/sched  out tok/s  95 %    verdict\n");
    json_array_foreach(steps, i, step)
    {
        put_step(out, step, columns);
    }
    str_puts(out, "\n");
    json_array_foreach(steps, i, step)
    {
        put_client(out, step);
        put_step_notes(out, step);
    }
    str_puts(out,
             "* p99 from fewer than 459 requests; ~ interval approximate. Latency is of requests "
             "that did not fail,\n  counted from when they were due. ! goodput where more than 1 % "
             "failed.\n");
}

/* --- definitions ------------------------------------------------------------------------------ */

#define TERM_COLUMNS 16

/* A line per as many words as have room, indented. */
static void put_wrapped(struct str *out, const char *words, int columns)
{
    int at = TERM_COLUMNS;
    while (*words != '\0') {
        int n = (int)strcspn(words, " ");
        if (at > TERM_COLUMNS && at + n + 1 > columns) {
            str_printf(out, "\n%*s", TERM_COLUMNS, "");
            at = TERM_COLUMNS;
        }
        str_printf(out, "%s%.*s", at > TERM_COLUMNS ? " " : "", n, words);
        at += n + (at > TERM_COLUMNS);
        words += n + (words[n] == ' ');
    }
    str_puts(out, "\n");
}

static void put_definitions(struct str *out, const json_t *definitions, int columns)
{
    const char *term;
    json_t *v;
    str_puts(out, "\n");
    json_object_foreach((json_t *)(uintptr_t)definitions, term, v)
    {
        str_printf(out, "%-*s", TERM_COLUMNS, term);
        put_wrapped(out, json_string_value(v), columns);
    }
}

void report_text_table(const json_t *report, int columns, struct str *out)
{
    put_head(out, report);
    put_saturation(out, value_at(report, "saturation"));
    put_slo(out, value_at(report, "slo"));
    put_concurrency(out, value_at(report, "concurrency"));
    put_cost(out, value_at(report, "cost"));
    put_steps(out, value_at(report, "steps"), columns);
    put_repeats(out, value_at(report, "repeats"));
}

void report_text(const json_t *report, int columns, struct str *out)
{
    report_text_table(report, columns, out);
    put_definitions(out, value_at(report, "definitions"), columns);
}
