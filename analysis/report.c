#include "analysis/report.h"

#include "analysis/answers.h"
#include "analysis/answers_search.h"
#include "analysis/definitions.h"
#include "analysis/engine.h"
#include "analysis/gpu_report.h"
#include "analysis/step_json.h"
#include "analysis/step_measure.h"
#include "analysis/value.h"
#include "core/mem.h"

#include <jansson.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define MIN_SLOPE  0.97 // served over offered below the corner: outside of this something leaks
#define MAX_SLOPE  1.03
#define MAX_LITTLE 0.1 // |X R / N - 1| of a rung

/* --- steps ------------------------------------------------------------------------------------ */

static int measure_step(struct store *s, size_t i, struct answers *a, struct err *e)
{
    struct step_data d;
    if (store_read_step(s, i, &d, e)) {
        return -1;
    }
    int rc = step_measure(s, &d, &a->cfg->slo, &a->measure[i], e);
    if (rc == 0) {
        a->info[i] = d.info;
        json_array_append_new(a->steps, step_json(&a->measure[i], &d, &d.info, &a->meta));
    }
    step_data_free(&d);
    return rc;
}

static int measure_steps(struct store *s, struct answers *a, struct err *e)
{
    a->n_steps = store_n_steps(s);
    a->info = xcalloc(a->n_steps + 1, sizeof *a->info);
    a->measure = xcalloc(a->n_steps + 1, sizeof *a->measure);
    a->steps = json_array();
    for (size_t i = 0; i < a->n_steps; i++) {
        if (measure_step(s, i, a, e)) {
            return -1;
        }
    }
    return 0;
}

/* --- validity --------------------------------------------------------------------------------- */

static bool has_open_loop(const struct answers *a)
{
    for (size_t i = 0; i < a->n_steps; i++) {
        if (a->info[i].rate_rps > 0 && !a->measure[i].closed_loop) {
            return true;
        }
    }
    return false;
}

/* A closed loop counts where it is the rung of a ladder, or where there is nothing else: the probe of a
 * search only says where rates begin. */
static bool rests_on(const struct answers *a, size_t i)
{
    bool is_rung = ladder_uses(&a->info[i], &a->measure[i]);
    return saturation_uses(&(struct saturation_step){a->info[i].rate_rps, &a->measure[i]}) ||
           (is_rung && (a->ladder.n > 0 || !has_open_loop(a)));
}

static void note_invalid(json_t *list, const struct step_info *i, const struct verdict_result *v)
{
    const char *name = record_verdict_names[v->verdict];
    if (i->users > 0) {
        value_note(list, "step %u (%u users) is %s: %s", i->index, i->users, name, v->reason);
    } else {
        value_note(list, "step %u (%.4g requests/s) is %s: %s", i->index, i->rate_rps, name,
                   v->reason);
    }
}

/* Why the answers must not be used: empty when the run is valid. */
static json_t *invalid_reasons(const struct answers *a)
{
    json_t *list = json_array();
    if (a->n_steps == 0) {
        value_note(list, "no step was completed");
    }
    for (size_t i = 0; i < a->n_steps; i++) {
        enum verdict v = a->measure[i].verdict.verdict;
        if (rests_on(a, i) && (v == VERDICT_CLIENT_LIMITED || v == VERDICT_ERRORS)) {
            note_invalid(list, &a->info[i], &a->measure[i].verdict);
        }
    }
    return list;
}

static void warn_price(const struct answers *a, json_t *list)
{
    const struct price *p = a->price;
    if (!p && answers_want_price(a)) {
        value_note(
            list,
            "no cost: the file keeps no price of %s that fits its target; ask with cost.prices=",
            a->cfg->cost.instance);
    } else if (p && prices_is_example(p)) {
        value_note(list, "%s is an example price, not one of a real market", p->instance_type);
    } else if (p && prices_age_days(p, a->meta.created_unix_ns) > PRICES_STALE_DAYS) {
        value_note(list, "the price of %s is %lld days older than the run (as of %s)",
                   p->instance_type, (long long)prices_age_days(p, a->meta.created_unix_ns),
                   p->as_of);
    }
}

static void warn_drift(const struct answers *a, json_t *list)
{
    const struct drift *d = &a->drift;
    for (int k = 0; d->is_known && k < DRIFT_METRICS; k++) {
        const struct drift_metric *m = &d->metric[k];
        if (m->is_significant) {
            value_note(
                list,
                "the target drifted: at %.4g/s, %s was %.4g in step %u and %.4g (%+.0f %%) in "
                "step %u",
                a->info[d->first].rate_rps, m->name, m->first, a->info[d->first].index, m->last,
                100 * m->change, a->info[d->last].index);
        }
    }
}

static void warn_ladder(const struct answers *a, json_t *list)
{
    const struct ladder *l = &a->ladder;
    if (l->best < l->n && l->is_short) {
        value_note(list,
                   "the best limit, %u in flight, rests on a step that is too_short: no longer one "
                   "meets the objectives",
                   l->rungs[l->best].users);
    }
}

static void warn_little(const struct answers *a, json_t *list)
{
    for (size_t i = 0; i < a->ladder.n; i++) {
        const struct ladder_rung *r = &a->ladder.rungs[i];
        if (fabs(r->little - 1) > MAX_LITTLE) {
            value_note(
                list,
                "at %u users throughput x time in the system is %.2f of the users (Little's law): "
                "the step is short against E2E",
                r->users, r->little);
        }
    }
}

static json_t *warnings(const struct answers *a)
{
    json_t *list = json_array();
    double slope = a->saturation.n_steps ? a->saturation.fit.stick.slope : STATS_NONE;
    const json_t *imported = json_object_get(a->meta.provenance, "imported");
    if (imported) {
        const char *note = json_string_value(json_object_get(imported, "note"));
        value_note(list, "%s", note ? note : "imported from another tool's results");
    }
    const char *telemetry = json_string_value(json_object_get(a->meta.provenance, "telemetry"));
    if (telemetry) {
        value_note(list, "telemetry of GPUs is %s", telemetry);
    }
    if (!a->meta.complete) {
        value_note(list, "the run did not finish: the answers rest on the steps that did");
    }
    if (a->saturation.verdict == SATURATION_FOUND && (slope < MIN_SLOPE || slope > MAX_SLOPE)) {
        value_note(
            list,
            "below saturation %.3g of the offered tokens were served inside the window (expected "
            "%.2f to %.2f): steps or warm-up are short against E2E",
            slope, MIN_SLOPE, MAX_SLOPE);
    }
    if (a->slo->all.rate_rps.value > a->saturation.rate_rps.value) {
        value_note(
            list,
            "the rate that meets the objectives, %.4g/s, lies above saturation: it does so only "
            "for as long as these steps lasted; cost is taken at saturation",
            a->slo->all.rate_rps.value);
    }
    for (size_t i = 0; i < a->n_steps; i++) {
        if (a->info[i].recovered) {
            value_note(list, "step %u was recovered from a killed run", a->info[i].index);
        }
    }
    warn_drift(a, list);
    warn_ladder(a, list);
    warn_little(a, list);
    warn_price(a, list);
    return list;
}

/* --- the run ---------------------------------------------------------------------------------- */

/* out[key] for each key: what `from` says of the right kind, else null. */
static json_t *pick(const json_t *from, const char *const *keys, size_t n)
{
    json_t *o = json_object();
    for (size_t i = 0; i < n; i++) {
        json_t *v = json_object_get(from, keys[i]);
        bool scalar = json_is_string(v) || json_is_number(v) || json_is_boolean(v);
        json_object_set(o, keys[i], scalar ? v : json_null());
    }
    return o;
}

static void set_if_null(json_t *o, const char *key, const char *text)
{
    if (json_is_null(json_object_get(o, key)) && text) {
        json_object_set_new(o, key, json_string(text));
    }
}

static json_t *target_json(const struct answers *a)
{
    static const char *const keys[] = {"kind",     "model",      "backend", "replicas",
                                       "pipeline", "tensor",     "server",  "server_version",
                                       "instance", "accelerator"};
    json_t *o = pick(a->meta.target, keys, sizeof keys / sizeof keys[0]);
    set_if_null(o, "instance", a->price ? a->price->instance_type : NULL);
    return o;
}

static json_t *dataset_json(const json_t *dataset)
{
    static const char *const keys[] = {"source", "filter", "hash", "entries", "note"};
    static const char *const stats[] = {"min", "median", "mean", "p90", "p99", "max"};
    json_t *o = pick(dataset, keys, sizeof keys / sizeof keys[0]);
    json_t *filtered = json_object_get(dataset, "filtered");
    json_object_set(o, "filtered", filtered ? filtered : json_null());
    json_object_set_new(o, "input_tokens",
                        pick(json_object_get(dataset, "input_tokens"), stats, 6));
    json_object_set_new(o, "output_tokens",
                        pick(json_object_get(dataset, "output_tokens"), stats, 6));
    return o;
}

static json_t *run_json(const struct answers *a)
{
    json_t *o = json_object(), *invalid = invalid_reasons(a);
    json_object_set_new(o, "uuid", json_string(a->meta.uuid));
    json_object_set_new(o, "name", a->meta.name ? json_string(a->meta.name) : json_null());
    json_object_set_new(o, "created_utc", json_string(a->meta.created_utc));
    json_object_set_new(o, "complete", json_boolean(a->meta.complete));
    json_object_set_new(o, "valid", json_boolean(json_array_size(invalid) == 0));
    json_object_set_new(o, "invalid_reasons", invalid);
    json_object_set_new(o, "warnings", warnings(a));
    json_object_set_new(o, "target", target_json(a));
    json_object_set_new(o, "engine", engine_json(&a->meta));
    json_object_set_new(o, "gpus", gpu_report_devices(&a->meta));
    json_object_set_new(o, "dataset", dataset_json(a->meta.dataset));
    return o;
}

static void set_definitions(json_t *o, const struct definition *list, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        json_object_set_new(o, list[i].term, json_string(list[i].text));
    }
}

static json_t *definitions_json(const struct answers *a)
{
    const char *kind = json_string_value(json_object_get(a->meta.target, "kind"));
    json_t *o = json_object();
    set_definitions(o, definitions, definitions_n);
    if (kind && strcmp(kind, "openai") == 0) {
        set_definitions(o, definitions_of_endpoint, definitions_of_endpoint_n);
    }
    if (a->meta.n_gpus > 0) {
        set_definitions(o, definitions_of_gpus, definitions_of_gpus_n);
    }
    return o;
}

int report_build(struct store *s, const struct report_config *cfg, json_t **report, struct err *e)
{
    struct answers a = {.cfg = cfg};
    if (store_read_meta(s, &a.meta, e)) {
        return -1;
    }
    int rc = answers_price(&a, e) || measure_steps(s, &a, e) ? -1 : 0;
    if (rc == 0) {
        answers_find(&a);
        json_t *o = json_object();
        json_object_set_new(o, "schema", json_string("tidemark.report/1"));
        json_object_set_new(o, "run", run_json(&a));
        json_object_set(o, "steps", a.steps);
        json_object_set_new(o, "saturation", answers_saturation(&a));
        json_object_set_new(o, "slo", answers_slo(&a));
        json_object_set_new(o, "concurrency", answers_concurrency(&a));
        json_object_set_new(o, "drift", answers_search_drift(&a));
        json_object_set_new(o, "repeats", answers_search_repeats(&a));
        json_object_set_new(o, "cost", answers_cost(&a));
        json_object_set_new(o, "definitions", definitions_json(&a));
        *report = o;
    }
    answers_free(&a);
    return rc;
}
