/*
 * The report as one HTML page: everything inline, nothing from a network, no script.
 */
#include "analysis/report.h"

#include "analysis/curves.h"
#include "analysis/page.h"
#include "analysis/page_gpus.h"
#include "analysis/rateplots.h"
#include "analysis/stepplots.h"

#include <jansson.h>

#include <stdlib.h>

static void figures(struct str *out, const json_t *report, const struct curves_step *curves)
{
    str_puts(out, "<h2>Where it saturates</h2>\n<div class=\"figures\">\n");
    rateplots_latency_throughput(out, report);
    rateplots_served(out, report);
    rateplots_metrics(out, report);
    str_puts(out, "</div>\n");
    page_steps(out, report);
    page_repeats(out, report);
    str_puts(out, "<h2>What users would see</h2>\n<div class=\"figures\">\n");
    stepplots_ttft(out, report, curves);
    rateplots_goodput(out, report);
    stepplots_in_flight(out, report, curves);
    str_puts(out, "</div>\n<h2>Inside the target</h2>\n<div class=\"figures\">\n");
    stepplots_utilisation(out, report);
    stepplots_critical(out, report);
    rateplots_queue(out, report);
    rateplots_lag(out, report);
    str_puts(out, "</div>\n");
    if (page_gpus_any(report)) {
        str_puts(out, "<h2>What energy it takes</h2>\n<div class=\"figures\">\n");
        page_gpus_steps(out, report);
        rateplots_energy(out, report);
        str_puts(out, "</div>\n");
    }
    if (json_is_number(json_object_get(json_object_get(report, "cost"), "usd_per_hour"))) {
        str_puts(out, "<h2>What it costs</h2>\n<div class=\"figures\">\n");
        page_cost(out, report);
        rateplots_cost(out, report);
        str_puts(out, "</div>\n");
    }
}

int report_html(struct store *s, const json_t *report, struct str *out, struct err *e)
{
    struct store_meta meta;
    struct curves_step *curves;
    if (store_read_meta(s, &meta, e)) {
        return -1;
    }
    if (curves_read(s, &curves, e)) {
        store_meta_free(&meta);
        return -1;
    }
    page_head(out, report);
    page_answers(out, report);
    figures(out, report, curves);
    page_definitions(out, report);
    page_provenance(out, report, &meta);
    page_foot(out);
    free(curves);
    store_meta_free(&meta);
    return 0;
}
