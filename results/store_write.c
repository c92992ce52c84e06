#include "results/store_write.h"

#include "core/str.h"
#include "results/provenance.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int store_write_json(const struct store_group *g, const char *name, const json_t *json,
                     const char *long_name, struct err *e)
{
    char *text = json_dumps(json, JSON_INDENT(2) | JSON_SORT_KEYS | JSON_REAL_PRECISION(17));
    if (text == NULL) {
        return err_set(e, ERR_ENV, "%s: %s/%s cannot be written as JSON", g->store->path, g->path,
                       name);
    }
    struct str clean = {0};
    provenance_redact_urls(text, strlen(text), &clean);
    int status = store_hdf5_write_text(g, name, clean.data, long_name, e);
    str_free(&clean);
    free(text);
    return status;
}

/* --- /analysis ------------------------------------------------------------------------------------ */

/* Where each answer stands in the report. */
static const struct {
    const char *field;
    const char *path; // of keys
} answers[] = {
    {"saturation_verdict", "saturation.verdict"},
    {"saturation_rate_rps", "saturation.rate_rps"},
    {"saturation_lo95_rps", "saturation.lo95"},
    {"saturation_hi95_rps", "saturation.hi95"},
    {"saturation_output_tokens_per_s", "saturation.output_tokens_per_s"},
    {"slo_rate_rps", "slo.rate_rps"},
    {"slo_lo95_rps", "slo.lo95"},
    {"slo_hi95_rps", "slo.hi95"},
    {"usd_per_m_input", "cost.at_saturation.usd_per_m_input.value"},
    {"usd_per_m_output", "cost.at_saturation.usd_per_m_output.value"},
};

static const json_t *at_path(const json_t *json, const char *path)
{
    while (json != NULL && *path != '\0') {
        char key[64];
        size_t n = strcspn(path, ".");
        snprintf(key, sizeof key, "%.*s", (int)n, path);
        json = json_object_get(json, key);
        path += n + (path[n] == '.');
    }
    return json;
}

static void take_answers(const json_t *report, struct store_answers *out)
{
    *out = (struct store_answers){.saturation_verdict = ""};
    for (size_t i = 0; i < sizeof answers / sizeof answers[0]; i++) {
        const struct store_field *f = store_schema_field(&store_schema_answers, answers[i].field);
        const json_t *v = at_path(report, answers[i].path);
        char *to = (char *)out + f->offset;
        if (f->type == FIELD_TEXT) {
            snprintf(to, f->width, "%s", json_is_string(v) ? json_string_value(v) : "");
        } else {
            double x = json_is_number(v) ? json_number_value(v) : (double)NAN;
            memcpy(to, &x, sizeof x);
        }
    }
}

int store_write_analysis(struct store *s, const json_t *report, struct err *e)
{
    struct store_group root, g;
    struct store_answers row;
    store_hdf5_root(s, &root);
    if (store_hdf5_group_anonymous(s, "/analysis", &g, e) != 0) {
        return -1;
    }
    take_answers(report, &row);
    int status = -1;
    if (store_hdf5_write_attributes(&g, &store_schema_answers, &row, e) == 0 &&
        store_write_json(&g, "report", report, "the report, JSON", e) == 0) {
        status = store_hdf5_commit(s, &root, "analysis", &g, e);
    }
    store_hdf5_group_close(&g);
    return status;
}
