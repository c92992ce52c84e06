#include "analysis/page.h"

#include "analysis/engine.h"
#include "analysis/page_gpus.h"
#include "analysis/page_put.h"
#include "analysis/svg.h"
#include "analysis/value.h"

#include <jansson.h>

#include <stdint.h>
#include <stdlib.h>

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
    const json_t *v = value_at(row, key);
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
    for (size_t i = 0; i < json_array_size(value_at(engine, "ranks")); i++) {
        str_puts(out, "<tr>");
        for (size_t k = 0; k < n; k++) {
            put_cell(out, json_array_get(value_at(engine, "ranks"), i), columns[k].key);
        }
        str_puts(out, "</tr>\n");
    }
    str_puts(out, "</table></div></details>\n");
}

void page_provenance(struct str *out, const json_t *report, const struct store_meta *meta)
{
    str_puts(out, "<h2>Provenance</h2>\n<p class=\"facts\">run <b>");
    page_put_text(out, value_at(report, "run"), "uuid");
    str_puts(out, "</b></p>\n<details><summary>Machine and build</summary>\n");
    put_object(out, meta->provenance);
    str_puts(out, "</details>\n<details><summary>Dataset</summary>\n");
    put_object(out, meta->dataset);
    str_puts(out, "</details>\n");
    put_engine(out, value_at(value_at(report, "run"), "engine"));
    page_gpus_devices(out, report);
    put_ranks(out, meta);
    char *config = json_dumps(meta->config, JSON_INDENT(2));
    str_puts(out, "<details><summary>Resolved configuration</summary><pre>");
    svg_escape(out, config ? config : "");
    str_puts(out, "</pre></details>\n");
    free(config);
}
