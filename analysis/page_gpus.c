#include "analysis/page_gpus.h"

#include "analysis/gpu_report.h"
#include "analysis/svg.h"
#include "analysis/value.h"

#include <jansson.h>

#include <math.h>
#include <stdio.h>

#define DASH "\xe2\x80\x93"

bool page_gpus_any(const json_t *report)
{
    size_t i;
    const json_t *step;
    json_array_foreach(value_at(report, "steps"), i, step)
    {
        if (json_is_object(value_at(step, "gpus"))) {
            return true;
        }
    }
    return false;
}

static void put_number(struct str *out, double x)
{
    if (isfinite(x)) {
        str_printf(out, fabs(x) >= 1000 ? "%.0f" : "%.4g", x);
    } else {
        str_puts(out, DASH);
    }
}

/* A cell with an interval below its number where it has one. */
static void interval_cell(struct str *out, const json_t *v)
{
    str_puts(out, "<td>");
    put_number(out, value_get(v, "value"));
    if (json_is_number(value_at(v, "lo95"))) {
        str_puts(out, "<small>");
        put_number(out, value_get(v, "lo95"));
        str_puts(out, " " DASH " ");
        put_number(out, value_get(v, "hi95"));
        str_puts(out, "</small>");
    }
    str_puts(out, "</td>");
}

static void cell(struct str *out, double x)
{
    str_puts(out, "<td>");
    put_number(out, x);
    str_puts(out, "</td>");
}

static void step_row(struct str *out, const json_t *step, const json_t *gpus)
{
    struct str reasons = {0};
    str_printf(out, "<tr><td>%.0f</td>", value_get(step, "index"));
    cell(out, value_get(step, "rate_rps"));
    interval_cell(out, value_at(gpus, "power_w"));
    interval_cell(out, value_at(gpus, "joules_per_output_token"));
    interval_cell(out, value_at(gpus, "joules_per_token"));
    cell(out, 100 * value_get(gpus, "gpu_util"));
    cell(out, value_get(gpus, "sm_mhz"));
    cell(out, value_get(gpus, "temperature_c"));
    cell(out, 1e-9 * value_get(gpus, "memory_used_bytes"));
    str_puts(out, "<td>");
    put_number(out, 100 * value_get(gpus, "throttled"));
    gpu_report_reasons(gpus, &reasons);
    if (reasons.len > 0) {
        str_puts(out, "<small>");
        svg_escape(out, reasons.data);
        str_puts(out, "</small>");
    }
    str_free(&reasons);
    str_puts(out, "</td></tr>\n");
}

void page_gpus_steps(struct str *out, const json_t *report)
{
    size_t i;
    const json_t *step;
    str_puts(
        out,
        "<figure class=\"wide\">\n<figcaption><h3>GPUs</h3><p>All of the target's together: power and energy "
        "are sums, utilisation and clock are means, temperature and memory are the highest of "
        "any.</p></figcaption>\n<div class=\"tablebox\"><table>\n<thead><tr><th>#</th>"
        "<th>rate/s</th><th>power<br>W</th><th>J per<br>output token</th>"
        "<th>J per token<br>in and out</th><th>busy<br>%</th><th>SM clock<br>MHz</th>"
        "<th>hottest<br>\xc2\xb0"
        "C</th><th>memory<br>GB</th><th>throttled<br>%</th></tr></thead>\n<tbody>\n");
    json_array_foreach(value_at(report, "steps"), i, step)
    {
        const json_t *gpus = value_at(step, "gpus");
        if (json_is_object(gpus)) {
            step_row(out, step, gpus);
        }
    }
    str_puts(out, "</tbody></table></div></figure>\n");
}

static void text_cell(struct str *out, const json_t *o, const char *key)
{
    const char *text = json_string_value(value_at(o, key));
    str_puts(out, "<td class=\"text\">");
    svg_escape(out, text ? text : DASH);
    str_puts(out, "</td>");
}

void page_gpus_devices(struct str *out, const json_t *report)
{
    const json_t *list = value_at(value_at(report, "run"), "gpus"), *d;
    size_t i;
    if (json_array_size(list) == 0) {
        return;
    }
    str_puts(out, "<details><summary>GPUs</summary><div class=\"tablebox\"><table>\n<thead><tr>"
                  "<th>#</th><th class=\"text\">host</th><th>there</th><th class=\"text\">name</th>"
                  "<th class=\"text\">UUID</th><th class=\"text\">bus address</th>"
                  "<th class=\"text\">driver</th><th>memory GB</th><th>power limit W</th>"
                  "</tr></thead>\n");
    json_array_foreach(list, i, d)
    {
        str_printf(out, "<tr><td>%zu</td>", i);
        text_cell(out, d, "host");
        cell(out, value_get(d, "index"));
        text_cell(out, d, "name");
        text_cell(out, d, "uuid");
        text_cell(out, d, "pci");
        text_cell(out, d, "driver");
        cell(out, 1e-9 * value_get(d, "memory_bytes"));
        cell(out, value_get(d, "power_limit_w"));
        str_puts(out, "</tr>\n");
    }
    str_puts(out, "</table></div></details>\n");
}
