#include "analysis/compare.h"

#include "analysis/value.h"
#include "core/mem.h"

#include <jansson.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* --- figures ---------------------------------------------------------------------------------- */

/* Where a figure stands in a report: object, key and the keys of its interval. */
struct figure {
    const char *name;
    const char *path[3]; // of objects, from a step or from the report; NULL: no further
    const char *value, *lo, *hi;
    bool higher_is_better, of_response;
};

#define LATENCY(metric, response)                                                                  \
    {metric ".mean", {metric}, "mean", "lo95", "hi95", false, response},                           \
        {metric ".p50", {metric}, "p50", "p50_lo95", "p50_hi95", false, response},                 \
    {                                                                                              \
        metric ".p99", {metric}, "p99", "p99_lo95", "p99_hi95", false, response                    \
    }

static const struct figure step_figures[] = {
    LATENCY("ttft_ms", true),
    LATENCY("ttft_service_ms", false),
    LATENCY("itl_ms", false),
    LATENCY("tpot_ms", false),
    LATENCY("ntpot_ms", true),
    LATENCY("ntpot_service_ms", false),
    LATENCY("e2e_ms", true),
    LATENCY("e2e_service_ms", false),
    {"tokens_per_s.input", {"tokens_per_s", "input"}, "value", "lo95", "hi95", true, false},
    {"tokens_per_s.output", {"tokens_per_s", "output"}, "value", "lo95", "hi95", true, false},
    {"requests_per_s", {"requests_per_s"}, "value", "lo95", "hi95", true, false},
    {"goodput.attainment", {"goodput"}, "attainment", "-", "-", true, true},
    {"goodput.failed_share", {"goodput"}, "failed_share", "-", "-", false, false},
    {"gpus.joules_per_output_token",
     {"gpus", "joules_per_output_token"},
     "value",
     "lo95",
     "hi95",
     false,
     false},
    {"gpus.joules_per_token", {"gpus", "joules_per_token"}, "value", "lo95", "hi95", false, false},
};

#define COST(where, what)                                                                          \
    {                                                                                              \
        "cost." where "." what, {"cost", where, what}, "value", "lo95", "hi95", false, false       \
    }

static const struct figure answer_figures[] = {
    {"saturation.rate_rps", {"saturation"}, "rate_rps", "lo95", "hi95", true, false},
    {"saturation.output_tokens_per_s",
     {"saturation"},
     "output_tokens_per_s",
     "output_tokens_per_s_lo95",
     "output_tokens_per_s_hi95",
     true,
     false},
    {"slo.rate_rps", {"slo"}, "rate_rps", "lo95", "hi95", true, true},
    COST("at_saturation", "usd_per_m_output"),
    COST("at_saturation", "usd_per_m_input"),
    COST("at_slo", "usd_per_m_output"),
    COST("at_slo", "usd_per_m_input"),
};

enum {
    N_STEP_FIGURES = sizeof step_figures / sizeof step_figures[0],
    N_ANSWER_FIGURES = sizeof answer_figures / sizeof answer_figures[0],
};

static struct stats_interval figure_of(const struct figure *f, const json_t *from)
{
    for (int i = 0; i < 3 && f->path[i]; i++) {
        from = json_object_get(from, f->path[i]);
    }
    return (struct stats_interval){value_get(from, f->value), value_get(from, f->lo),
                                   value_get(from, f->hi)};
}

static bool is_in_list(const char *name, const char *list)
{
    size_t n = strlen(name);
    for (const char *at = list; at; at = strchr(at, ',') ? strchr(at, ',') + 1 : NULL) {
        if (strcspn(at, ",") == n && strncmp(at, name, n) == 0) {
            return true;
        }
    }
    return false;
}

/* --- a change --------------------------------------------------------------------------------- */

struct stats_interval compare_change(struct stats_interval a, struct stats_interval b)
{
    struct stats_interval none = {STATS_NONE, STATS_NONE, STATS_NONE};
    if (a.value > 0 && b.value == 0) { // all of it is gone
        bool is_bounded = a.lo > 0 && b.hi >= 0;
        return (struct stats_interval){-1, -1, is_bounded ? b.hi / a.lo - 1 : STATS_NONE};
    }
    if (!(a.value > 0 && b.value > 0)) {
        return none;
    }
    double d = log(b.value / a.value);
    none.value = expm1(d);
    if (!(a.lo > 0 && b.lo > 0 && isfinite(a.hi) && isfinite(b.hi))) {
        return none;
    }
    double down = hypot(log(b.value / b.lo), log(a.hi / a.value));
    double up = hypot(log(b.hi / b.value), log(a.value / a.lo));
    return (struct stats_interval){none.value, expm1(d - down), expm1(d + up)};
}

static const char *verdict_of(const struct figure *f, struct stats_interval change)
{
    if (change.lo > 0) {
        return f->higher_is_better ? "better" : "worse";
    }
    if (change.hi < 0) {
        return f->higher_is_better ? "worse" : "better";
    }
    return "unclear";
}

static bool is_share(const struct figure *f) // which has no interval
{
    return strcmp(f->lo, "-") == 0;
}

/* Beyond doubt; a share as it stands. */
static bool is_worse_than(const struct figure *f, struct stats_interval change, double limit)
{
    double hi = is_share(f) ? change.value : change.hi;
    double lo = is_share(f) ? change.value : change.lo;
    return f->higher_is_better ? hi < -limit : lo > limit;
}

/* --- building --------------------------------------------------------------------------------- */

struct comparing {
    const struct compare_run *a, *b;
    const struct compare_gate *gate;
    json_t *notes, *failed;
    int n_checked; // figures that the gate looked at
};

static bool is_gated(const struct comparing *c, const struct figure *f)
{
    return !isnan(c->gate->max_regression) && is_in_list(f->name, c->gate->metrics);
}

/* where: "step 3", or "" for the run's answers. */
static void check_gate(struct comparing *c, const struct figure *f, struct stats_interval a,
                       struct stats_interval b, struct stats_interval change, const char *where)
{
    if (!is_gated(c, f)) {
        return;
    }
    c->n_checked++;
    char bounds[64] = "";
    if (isfinite(change.lo) && isfinite(change.hi)) {
        snprintf(bounds, sizeof bounds, " (%+.1f to %+.1f)", 100 * change.lo, 100 * change.hi);
    }
    if (is_share(f) && a.value == 0 && b.value > 0 &&
        !f->higher_is_better) { // no change in percent
        value_note(c->failed, "%s%s%s: from 0 to %.3g", where, where[0] ? ": " : "", f->name,
                   b.value);
    } else if (is_worse_than(f, change, c->gate->max_regression)) {
        value_note(c->failed, "%s%s%s: %+.1f %%%s", where, where[0] ? ": " : "", f->name,
                   100 * change.value, bounds);
    }
}

/* The answer that a figure belongs to: "slo" or "saturation", at whose rate costs are. */
static const char *answer_of(const struct figure *f)
{
    if (strcmp(f->path[0], "cost") != 0) {
        return f->path[0];
    }
    return strcmp(f->path[1], "at_slo") == 0 ? "slo" : "saturation";
}

/* A figure that A has and B lacks fails where B finished none of the window's requests, or missed the objective at its
 * lowest rate. */
static void check_missing(struct comparing *c, const struct figure *f, const json_t *b,
                          const char *where)
{
    if (!is_gated(c, f)) {
        return;
    }
    const char *answer = answer_of(f), *colon = where[0] ? ": " : "";
    const char *verdict = json_string_value(value_at(value_at(b, answer), "verdict"));
    if (where[0] && !(value_get(value_at(b, "e2e_service_ms"), "n") > 0)) {
        c->n_checked++;
        value_note(c->failed, "%s: %s: B finished no request", where, f->name);
    } else if (strcmp(answer, "slo") == 0 && verdict && strcmp(verdict, "first_step") == 0) {
        c->n_checked++;
        value_note(c->failed, "%s: B has none, its lowest rate is too high", f->name);
    } else {
        value_note(c->notes, "%s%s%s: B has none (%s): the gate says nothing of it", where, colon,
                   f->name, verdict ? verdict : "not measured");
    }
}

/* The figures that both have. */
static json_t *compare_figures(struct comparing *c, const struct figure *rows, int n,
                               const json_t *a, const json_t *b, const char *where)
{
    json_t *list = json_array();
    bool service_only = c->a->imported != c->b->imported;
    for (int i = 0; i < n; i++) {
        const struct figure *f = &rows[i];
        struct stats_interval of_a = figure_of(f, a), of_b = figure_of(f, b);
        if (isnan(of_a.value) || (service_only && f->of_response)) {
            continue;
        }
        if (isnan(of_b.value)) {
            check_missing(c, f, b, where);
            continue;
        }
        struct stats_interval change = compare_change(of_a, of_b);
        json_array_append_new(list,
                              json_pack("{s:s, s:s, s:o, s:o, s:o, s:s}", "metric", f->name,
                                        "better", f->higher_is_better ? "higher" : "lower", "a",
                                        value_interval(of_a), "b", value_interval(of_b), "change",
                                        value_interval(change), "verdict", verdict_of(f, change)));
        check_gate(c, f, of_a, of_b, change, where);
    }
    return list;
}

/* Distance of two steps: of rates, relative; 0 for the same users; infinite: they do not match. */
static double distance(const json_t *a, const json_t *b)
{
    double rate_a = value_get(a, "rate_rps"), rate_b = value_get(b, "rate_rps");
    double users_a = value_get(a, "users"), users_b = value_get(b, "users");
    if (users_a > 0 || users_b > 0) {
        return fabs(users_a - users_b) < 0.5 ? 0 : (double)INFINITY;
    }
    double d = fabs(rate_b - rate_a) / rate_a;
    return d <= COMPARE_RATE_TOLERANCE ? d : (double)INFINITY;
}

static bool same_text(const json_t *a, const json_t *b, const char *key)
{
    return json_equal(json_object_get(a, key), json_object_get(b, key)) == 1;
}

/* Index of A's step nearest to `b`, of the same kind where two are as near; -1: none. */
static int nearest_step(const json_t *steps, const json_t *b)
{
    int best = -1;
    double least = (double)INFINITY;
    for (size_t i = 0; i < json_array_size(steps); i++) {
        const json_t *a = json_array_get(steps, i);
        double d = distance(a, b) + (same_text(a, b, "kind") ? 0 : 1e-9);
        if (d < least) {
            least = d;
            best = (int)i;
        }
    }
    return best;
}

static json_t *same_schedule(const struct comparing *c, int i_a, int i_b)
{
    uint64_t a = c->a->schedule_hashes[i_a], b = c->b->schedule_hashes[i_b];
    return a && b ? json_boolean(a == b) : json_null();
}

static json_t *compare_step(struct comparing *c, int i_a, int i_b)
{
    char where[32];
    const json_t *a = json_array_get(json_object_get(c->a->report, "steps"), (size_t)i_a);
    const json_t *b = json_array_get(json_object_get(c->b->report, "steps"), (size_t)i_b);
    json_t *o = json_object();
    snprintf(where, sizeof where, "step %.0f", value_get(b, "index"));
    json_object_set(o, "a_index", json_object_get(a, "index"));
    json_object_set(o, "b_index", json_object_get(b, "index"));
    json_object_set(o, "a_rate_rps", json_object_get(a, "rate_rps"));
    json_object_set(o, "rate_rps", json_object_get(b, "rate_rps"));
    json_object_set(o, "users", json_object_get(b, "users"));
    json_object_set_new(o, "same_schedule", same_schedule(c, i_a, i_b));
    json_object_set(o, "a_verdict", json_object_get(a, "verdict"));
    json_object_set(o, "b_verdict", json_object_get(b, "verdict"));
    json_object_set_new(o, "figures",
                        compare_figures(c, step_figures, N_STEP_FIGURES, a, b, where));
    return o;
}

static json_t *compare_steps(struct comparing *c)
{
    json_t *list = json_array();
    const json_t *of_a = json_object_get(c->a->report, "steps");
    const json_t *of_b = json_object_get(c->b->report, "steps");
    const size_t n_a = json_array_size(of_a);
    bool *is_used = xcalloc(n_a + 1, sizeof *is_used);
    for (size_t i = 0; i < json_array_size(of_b); i++) {
        const json_t *b = json_array_get(of_b, i);
        int i_a = nearest_step(of_a, b);
        if (i_a >= 0) {
            is_used[i_a] = true;
            json_array_append_new(list, compare_step(c, i_a, (int)i));
        } else {
            value_note(c->notes, "step %.0f of B has no step of A within 5 %% of its rate",
                       value_get(b, "index"));
        }
    }
    for (size_t i = 0; i < n_a; i++) {
        if (!is_used[i]) {
            value_note(c->notes, "step %.0f of A is compared with no step of B",
                       value_get(json_array_get(of_a, i), "index"));
        }
    }
    free(is_used);
    return list;
}

/* --- what makes them less comparable ---------------------------------------------------------- */

static const json_t *run_part(const struct compare_run *r, const char *part)
{
    return json_object_get(json_object_get(r->report, "run"), part);
}

static const char *text_of(const json_t *o, const char *key)
{
    const char *text = json_string_value(json_object_get(o, key));
    return text ? text : "none";
}

static void note_difference(struct comparing *c, const char *part, const char *key)
{
    const json_t *a = run_part(c->a, part), *b = run_part(c->b, part);
    if (!same_text(a, b, key)) {
        value_note(c->notes, "%s %s differs: %s, %s", part, key, text_of(a, key), text_of(b, key));
    }
}

/* A text or a number, as a note says it. */
static const char *value_text(const json_t *o, const char *key, char *buf, size_t cap)
{
    const json_t *v = json_object_get(o, key);
    if (json_is_number(v)) {
        snprintf(buf, cap, "%.6g", json_number_value(v));
        return buf;
    }
    return text_of(o, key);
}

/* What the two computed with, where both say it. */
static void note_engines(struct comparing *c)
{
    static const char *const keys[] = {
        "backend",        "device",           "kernels",           "threads",     "weights",
        "weights_stored", "bytes_per_weight", "kv_cache",          "moe_routing", "moe_zipf",
        "placement",      "transport",        "hops_between_hosts"};
    const json_t *a = run_part(c->a, "engine"), *b = run_part(c->b, "engine");
    if (!json_is_object(a) || !json_is_object(b)) {
        return;
    }
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        char of_a[32], of_b[32];
        if (!same_text(a, b, keys[i])) {
            value_note(c->notes, "engine %s differs: %s, %s", keys[i],
                       value_text(a, keys[i], of_a, sizeof of_a),
                       value_text(b, keys[i], of_b, sizeof of_b));
        }
    }
}

static void note_runs(struct comparing *c)
{
    const struct compare_run *runs[2] = {c->a, c->b};
    for (int i = 0; i < 2; i++) {
        const char *name = i ? "B" : "A";
        if (!json_is_true(run_part(runs[i], "valid"))) {
            value_note(c->notes, "%s is invalid by its own checks", name);
        }
        if (json_is_false(run_part(runs[i], "complete"))) {
            value_note(c->notes, "%s is not complete", name);
        }
        if (runs[i]->imported) {
            value_note(c->notes, "%s is imported: its client keeps no schedule", name);
        }
    }
    if (c->a->imported != c->b->imported) {
        value_note(c->notes,
                   "only service latency can be compared: response latency is defined otherwise "
                   "in an imported run");
    }
    note_difference(c, "target", "kind");
    note_difference(c, "target", "model");
    note_engines(c);
    note_difference(c, "dataset", "source");
    note_difference(c, "dataset", "hash");
    const json_t *slo_a = json_object_get(c->a->report, "slo");
    const json_t *slo_b = json_object_get(c->b->report, "slo");
    if (!same_text(slo_a, slo_b, "objectives")) {
        value_note(c->notes,
                   "objectives differ: slo.rate_rps and goodput are not of the same question");
    }
}

static void note_schedules(struct comparing *c, const json_t *steps)
{
    int n_other = 0;
    for (size_t i = 0; i < json_array_size(steps); i++) {
        n_other += json_is_false(json_object_get(json_array_get(steps, i), "same_schedule"));
    }
    if (n_other) {
        value_note(c->notes,
                   "%d matched step(s) offered other requests: part of a change may be theirs",
                   n_other);
    }
}

/* --- the gate --------------------------------------------------------------------------------- */

static bool is_known(const char *name, size_t len)
{
    for (int i = 0; i < N_STEP_FIGURES + N_ANSWER_FIGURES; i++) {
        const char *known =
            i < N_STEP_FIGURES ? step_figures[i].name : answer_figures[i - N_STEP_FIGURES].name;
        if (strlen(known) == len && strncmp(known, name, len) == 0) {
            return true;
        }
    }
    return false;
}

static int check_metrics(const char *list, struct err *e)
{
    for (const char *at = list; at; at = strchr(at, ',') ? strchr(at, ',') + 1 : NULL) {
        size_t len = strcspn(at, ",");
        if (!is_known(at, len)) {
            return err_set(
                e, ERR_INPUT,
                "--metrics: '%.*s' is unknown; names are those of --format json, such as "
                "ttft_ms.p50 or saturation.rate_rps",
                (int)(len < 60 ? len : 60), at);
        }
    }
    return 0;
}

static json_t *gate_json(const struct comparing *c)
{
    if (isnan(c->gate->max_regression)) {
        return json_null();
    }
    return json_pack("{s:f, s:s, s:i, s:O}", "max_regression", c->gate->max_regression, "metrics",
                     c->gate->metrics, "checked", c->n_checked, "failed", c->failed);
}

bool compare_gate_failed(const json_t *comparison)
{
    const json_t *gate = json_object_get(comparison, "gate");
    return json_array_size(json_object_get(gate, "failed")) > 0;
}

/* --- all of it -------------------------------------------------------------------------------- */

static json_t *run_json(const struct compare_run *r)
{
    const json_t *run = json_object_get(r->report, "run");
    json_t *o = json_pack("{s:s}", "path", r->path);
    json_object_set(o, "name", json_object_get(run, "name"));
    json_object_set(o, "uuid", json_object_get(run, "uuid"));
    json_object_set(o, "created_utc", json_object_get(run, "created_utc"));
    return o;
}

int compare_build(const struct compare_run *a, const struct compare_run *b,
                  const struct compare_gate *gate, json_t **out, struct err *e)
{
    struct comparing c = {.a = a, .b = b, .gate = gate};
    if (!isnan(gate->max_regression) && check_metrics(gate->metrics, e)) {
        return -1;
    }
    c.notes = json_array();
    c.failed = json_array();
    note_runs(&c);
    json_t *steps = compare_steps(&c);
    note_schedules(&c, steps);
    json_t *answers =
        compare_figures(&c, answer_figures, N_ANSWER_FIGURES, a->report, b->report, "");
    *out = json_pack("{s:s, s:o, s:o, s:O, s:o, s:o, s:o}", "schema", "tidemark.compare/1", "a",
                     run_json(a), "b", run_json(b), "notes", c.notes, "steps", steps, "answers",
                     answers, "gate", gate_json(&c));
    json_decref(c.notes);
    json_decref(c.failed);
    if (!isnan(gate->max_regression) && c.n_checked == 0) {
        json_decref(*out);
        return err_set(e, ERR_INPUT, "%s, %s: none of the gate's metrics is in both runs", a->path,
                       b->path);
    }
    return 0;
}
