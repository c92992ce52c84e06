#include "analysis/page.h"

#include "analysis/figure.h"
#include "analysis/page_put.h"
#include "analysis/page_style.h"
#include "analysis/svg.h"
#include "analysis/value.h"

#include <jansson.h>

#include <math.h>
#include <string.h>

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
    bool valid = json_is_true(value_at(run, "valid")),
         complete = json_is_true(value_at(run, "complete"));
    str_printf(out, "<div class=\"banner %s\" role=\"status\">", valid ? "good" : "bad");
    str_puts(out, valid ? "Valid: the run passes its own checks"
                        : "Invalid by its own checks: these answers must not be used");
    str_puts(out, complete ? "" : ". Incomplete: the run did not finish");
    put_list(out, value_at(run, "invalid_reasons"));
    str_puts(out, "</div>\n");
    if (json_array_size(value_at(run, "warnings")) > 0) {
        str_puts(out, "<div class=\"banner warn\">Notes");
        put_list(out, value_at(run, "warnings"));
        str_puts(out, "</div>\n");
    }
}

static void put_fact(struct str *out, const char *label, const json_t *o, const char *key)
{
    const json_t *v = value_at(o, key);
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
    const json_t *target = value_at(run, "target");
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
    const json_t *engine = value_at(run, "engine");
    put_fact(out, "kernels", engine, "kernels");
    put_fact(out, "weights", engine, "weights");
    put_fact(out, "bytes per weight", engine, "bytes_per_weight");
    put_fact(out, "KV cache", engine, "kv_cache");
    put_fact(out, "traffic", value_at(run, "dataset"), "source");
    str_puts(out, "</div>\n");
}

void page_head(struct str *out, const json_t *report)
{
    const json_t *run = value_at(report, "run");
    str_puts(out, "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
                  "<meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\n"
                  "<meta name=\"color-scheme\" content=\"light dark\">\n<title>");
    page_put_text(out, run, "name");
    str_puts(out, " \xe2\x80\x93 tidemark</title>\n<style>\n");
    str_puts(out, page_style);
    str_puts(out, "</style>\n</head>\n<body>\n<header><div>\n"
                  "<div class=\"brand\">tidemark</div>\n<h1>");
    page_put_text(out, run, "name");
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

static void close_card(struct str *out, double lo, double hi, page_put_fn put, const char *why)
{
    str_puts(out, "</div><div class=\"range\">");
    if (!isnan(lo) || !isnan(hi)) {
        str_puts(out, "95 % interval ");
        page_put_bounds(out, lo, hi, put);
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
    if (value_has(answer, key)) {
        page_put_number(out, value_get(answer, key));
        str_printf(out, " <small>%s</small>", unit);
        return;
    }
    const char *verdict = json_string_value(value_at(answer, "verdict"));
    str_puts(out, verdict && strcmp(verdict, "not_reached") == 0  ? "not reached"
                  : verdict && strcmp(verdict, "first_step") == 0 ? "below the first step"
                  : verdict && strcmp(verdict, "none") == 0       ? "none asked for"
                                                                  : "inconclusive");
}

/* Beside a number that is not the plain answer; NULL beside one that is. */
static const char *tag_of(const json_t *answer)
{
    const char *verdict = json_string_value(value_at(answer, "verdict"));
    if (!verdict || !value_has(answer, "rate_rps") || strcmp(verdict, "found") == 0) {
        return NULL;
    }
    return strcmp(verdict, "first_step") == 0 ? "FIRST STEP" : "INCONCLUSIVE";
}

static void card_saturation(struct str *out, const json_t *sat)
{
    struct str why = {0};
    open_card(out, "Saturation", tag_of(sat));
    put_value_or_verdict(out, sat, "rate_rps", "requests/s");
    str_printf(&why, "%s: %s", json_string_value(value_at(sat, "verdict")),
               json_string_value(value_at(sat, "reason")));
    close_card(out, value_get(sat, "lo95"), value_get(sat, "hi95"), page_put_number, why.data);
    str_free(&why);
}

static void card_throughput(struct str *out, const json_t *sat)
{
    open_card(out, "Throughput at saturation", tag_of(sat));
    put_value_or_verdict(out, sat, "output_tokens_per_s", "output tokens/s");
    close_card(out, value_get(sat, "output_tokens_per_s_lo95"),
               value_get(sat, "output_tokens_per_s_hi95"), page_put_number,
               "plateau of the broken stick");
}

static void card_slo(struct str *out, const json_t *slo)
{
    struct str why = {0};
    size_t i;
    const json_t *o;
    json_array_foreach(value_at(slo, "objectives"), i, o)
    {
        char number[24];
        str_printf(&why, "%s%s p%.4g \xe2\x89\xa4 %s ms", i ? ", " : "",
                   json_string_value(value_at(o, "metric")), 100 * value_get(o, "quantile"),
                   svg_number(value_get(o, "limit_ms"), number, sizeof number));
    }
    const json_t *decided = value_at(slo, "decided");
    if (value_has(decided, "highest_met_rps")) {
        str_printf(&why, "; met with 95 %% at %.4g/s", value_get(decided, "highest_met_rps"));
    }
    if (value_has(decided, "lowest_missed_rps")) {
        str_printf(&why, "; missed at %.4g/s", value_get(decided, "lowest_missed_rps"));
    }
    if (value_has(decided, "lowest_client_limited_rps")) {
        str_printf(&why, "; undecided at %.4g/s, where the client was the limit",
                   value_get(decided, "lowest_client_limited_rps"));
    }
    open_card(out, "Rate that meets the objectives", NULL);
    put_value_or_verdict(out, slo, "rate_rps", "requests/s");
    close_card(out, value_get(slo, "lo95"), value_get(slo, "hi95"), page_put_number, why.data);
    str_free(&why);
}

static void card_concurrency(struct str *out, const json_t *c)
{
    const json_t *above = value_at(c, "above"), *below = value_at(c, "below");
    struct str why = {0};
    if (!value_has(c, "best")) {
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
    page_put_number(out, value_get(c, "best"));
    close_card(out, value_get(c, "lo95"), value_get(c, "hi95"), page_put_number, why.data);
    str_free(&why);
}

static void card_cost(struct str *out, const json_t *cost)
{
    const json_t *usd = value_at(value_at(cost, "at_saturation"), "usd_per_m_output");
    if (!value_has(cost, "usd_per_hour")) {
        return;
    }
    open_card(out, "Cost of a million output tokens",
              json_is_true(value_at(cost, "example")) ? "EXAMPLE PRICE" : NULL);
    str_puts(out, value_has(usd, "value") ? "US$ " : "");
    page_put_usd(out, value_get(usd, "value"));
    struct str why = {0};
    str_printf(&why, "at saturation: %.0f \xc3\x97 %s, US$ %.4g/h, %s",
               value_get(cost, "instances"), json_string_value(value_at(cost, "instance_type")),
               value_get(cost, "usd_per_hour"), json_string_value(value_at(cost, "pricing_model")));
    close_card(out, value_get(usd, "lo95"), value_get(usd, "hi95"), page_put_usd, why.data);
    str_free(&why);
}

void page_answers(struct str *out, const json_t *report)
{
    str_puts(out, "<div class=\"cards\">\n");
    card_saturation(out, value_at(report, "saturation"));
    card_throughput(out, value_at(report, "saturation"));
    card_slo(out, value_at(report, "slo"));
    card_concurrency(out, value_at(report, "concurrency"));
    card_cost(out, value_at(report, "cost"));
    str_puts(out, "</div>\n");
}

/* --- passes --------------------------------------------------------------------------------------- */

static void pooled_cell(struct str *out, const json_t *step, const char *key)
{
    const json_t *v = value_at(step, key);
    page_put_cell(out, value_get(v, "value"), value_get(v, "lo95"), value_get(v, "hi95"), "",
                  page_put_number);
}

void page_repeats(struct str *out, const json_t *report)
{
    const json_t *repeats = value_at(report, "repeats"), *step;
    size_t i;
    if (!json_is_object(repeats)) {
        return;
    }
    str_printf(out,
               "<h2>Over %.0f passes</h2>\n<div class=\"tablebox\"><table><thead><tr><th>Step</th>"
               "<th>TTFT p50<br>ms</th><th>TTFT p99<br>ms</th><th>NTPOT p50<br>ms</th>"
               "<th>E2E p50<br>ms</th><th>Output<br>tokens/s</th></tr></thead><tbody>\n",
               value_get(repeats, "passes"));
    json_array_foreach(value_at(repeats, "steps"), i, step)
    {
        bool closed = value_get(step, "users") > 0;
        str_printf(out, "<tr><td>%s %.4g%s</td>", json_string_value(value_at(step, "kind")),
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
    const json_t *in = value_at(at, "usd_per_m_input"), *o = value_at(at, "usd_per_m_output");
    if (!value_has(o, "value")) {
        return;
    }
    str_printf(out, "<tr><td class=\"text\">%s</td>", where);
    page_put_cell(out, value_get(at, "input_tokens_per_s"), STATS_NONE, STATS_NONE, "",
                  page_put_number);
    page_put_cell(out, value_get(at, "output_tokens_per_s"), STATS_NONE, STATS_NONE, "",
                  page_put_number);
    page_put_cell(out, value_get(in, "value"), value_get(in, "lo95"), value_get(in, "hi95"), "",
                  page_put_usd);
    page_put_cell(out, value_get(o, "value"), value_get(o, "lo95"), value_get(o, "hi95"), "",
                  page_put_usd);
    str_puts(out, "</tr>\n");
}

void page_cost(struct str *out, const json_t *report)
{
    const json_t *cost = value_at(report, "cost"), *step;
    bool example = json_is_true(value_at(cost, "example"));
    size_t i;
    if (!value_has(cost, "usd_per_hour")) {
        return;
    }
    str_printf(out, "<figure>\n<figcaption><h3>Cost%s</h3><p>%.0f \xc3\x97 ",
               example ? " <span class=\"tag\">EXAMPLE PRICE</span>" : "",
               value_get(cost, "instances"));
    page_put_text(out, cost, "instance_type");
    str_printf(out, " at US$ %.4g per hour (", value_get(cost, "usd_per_hour"));
    page_put_text(out, cost, "pricing_model");
    str_puts(out, ", ");
    page_put_text(out, cost, "region");
    str_puts(out, ", as of ");
    page_put_text(out, cost, "as_of");
    str_printf(out, "); an output token counts %.4g times an input token.</p></figcaption>\n",
               value_get(cost, "output_to_input_ratio"));
    str_printf(out,
               "<div class=\"tablebox\"><table>\n<thead><tr><th class=\"text\">at</th>"
               "<th>input<br>tokens/s</th><th>output<br>tokens/s</th><th>US$%s per<br>M input</th>"
               "<th>US$%s per<br>M output</th></tr></thead>\n",
               example ? " (example)" : "", example ? " (example)" : "");
    cost_row(out, "saturation", value_at(cost, "at_saturation"));
    cost_row(out, "objectives", value_at(cost, "at_slo"));
    json_array_foreach(value_at(cost, "by_step"), i, step)
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
    json_object_foreach((json_t *)(uintptr_t)value_at(report, "definitions"), term, v)
    {
        str_printf(out, "<dt>%s</dt><dd>", term);
        svg_escape(out, json_string_value(v));
        str_puts(out, "</dd>\n");
    }
    str_puts(out, "</dl></div>\n");
}
