/* Option tables: defaults, every kind of mistake with its line, and dump -> read back equal. */
#include "core/config.h"
#include "core/mem.h"
#include "core/opt.h"
#include "core/rng.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <jansson.h>

#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define N_OF(a) (sizeof(a) / sizeof((a)[0]))

struct settings {
    char *name, *model;
    bool eos;
    int64_t pipeline, seed, users;
    double cv, warmup;
    int64_t step_ns, kv_bytes;
    int arrival;
    struct opt_numbers rates;
    char *start;
    double factor;
    struct opt_window window;
    int64_t timeout_ns;
};

#define ROW(key_, type_, def_, lo_, hi_, field_)                                                   \
    .key = (key_), .type = (type_), .def = (def_), .lo = (lo_), .hi = (hi_),                       \
    .offset = offsetof(struct settings, field_), .help = "the " #field_

static const struct opt rows[] = {
    {ROW("name", OPT_STRING, NULL, 0, 0, name)},
    {ROW("target.model", OPT_STRING, "preset:tiny", 0, 0, model)},
    {ROW("target.eos", OPT_BOOL, "true", 0, 0, eos)},
    {ROW("target.pipeline", OPT_INT, "1", 1, 1024, pipeline)},
    {ROW("load.seed", OPT_INT, "1", 0, 0, seed)},
    {ROW("load.users", OPT_INT, NULL, 1, 1e6, users)},
    {ROW("load.arrival.kind", OPT_CHOICE, "poisson", 0, 0, arrival),
     .choices = "poisson|constant|closed", .short_key = "load.arrival"},
    {ROW("load.arrival.cv", OPT_NUMBER, "1", 0.01, INFINITY, cv)},
    {ROW("load.rates.list", OPT_NUMBERS, NULL, 0.001, INFINITY, rates), .short_key = "load.rates"},
    {ROW("load.rates.start", OPT_STRING, "auto", 0, 0, start), .short_key = "load.rates"},
    {ROW("load.rates.factor", OPT_NUMBER, "1.5", 1.01, 10, factor)},
    {ROW("load.step", OPT_DURATION, "12s", 1e9, 36e11, step_ns)},
    {ROW("load.warmup", OPT_SHARE, "20%", 0, 0, warmup)},
    {ROW("load.window", OPT_WINDOW, NULL, 0, 0, window)},
    {ROW("load.timeout", OPT_DURATION, NULL, 0, 0, timeout_ns)},
    {ROW("target.kv", OPT_BYTES, "64MiB", 1024, 1e15, kv_bytes)},
};
static const struct opt_table table = {rows, N_OF(rows)};

static int apply_text(struct settings *s, const char *yaml, struct err *e)
{
    json_t *root = NULL;
    *s = (struct settings){0};
    opt_defaults(table, s);
    if (config_parse(yaml, strlen(yaml), "t.yaml", &root, e) != 0) {
        fail_msg("%s", e->msg);
    }
    int rc = opt_apply(table, s, root, e);
    json_decref(root);
    return rc;
}

static void assert_applies(struct settings *s, const char *yaml)
{
    struct err e = {0};
    if (apply_text(s, yaml, &e) != 0) {
        fail_msg("%s", e.msg);
    }
}

static void assert_refused(const char *yaml, const char *message)
{
    struct err e = {0};
    struct settings s;
    if (apply_text(&s, yaml, &e) == 0) {
        fail_msg("'%s' was taken", yaml);
    }
    assert_int_equal(e.code, ERR_INPUT);
    assert_string_equal(e.msg, message);
    opt_free(table, &s);
}

static void test_defaults(void **state)
{
    (void)state;
    struct settings s;
    assert_applies(&s, "");
    assert_null(s.name);
    assert_string_equal(s.model, "preset:tiny");
    assert_true(s.eos);
    assert_int_equal(s.pipeline, 1);
    assert_int_equal(s.users, 0);
    assert_int_equal(s.step_ns, 12000000000);
    assert_int_equal(s.kv_bytes, 64 << 20);
    assert_true(s.warmup == 0.2);
    assert_int_equal(s.rates.n, 0);
    assert_int_equal(s.arrival, 0);
    opt_free(table, &s);
    assert_null(s.model);
    opt_free(table, &s);
}

static void test_every_type(void **state)
{
    (void)state;
    struct settings s;
    assert_applies(&s, "name: x\n"
                       "target: {eos: false, pipeline: 4, model: /m, kv: 2GB}\n"
                       "load:\n"
                       "  seed: -3\n"
                       "  arrival: {kind: closed, cv: 2.5}\n"
                       "  users: 1k\n"
                       "  rates: {list: [1, 2.5k], factor: 2}\n"
                       "  step: 2m\n"
                       "  warmup: 0.25\n"
                       "  window: [60s, 5m]\n");
    assert_string_equal(s.name, "x");
    assert_string_equal(s.model, "/m");
    assert_false(s.eos);
    assert_int_equal(s.pipeline, 4);
    assert_int_equal(s.kv_bytes, 2000000000);
    assert_int_equal(s.seed, -3);
    assert_int_equal(s.arrival, 2);
    assert_true(s.cv == 2.5);
    assert_int_equal(s.users, 1000);
    assert_int_equal(s.rates.n, 2);
    assert_true(s.rates.v[0] == 1 && s.rates.v[1] == 2500);
    assert_true(s.factor == 2);
    assert_int_equal(s.step_ns, 120000000000);
    assert_true(s.warmup == 0.25);
    assert_int_equal(s.window.from_ns, 60000000000);
    assert_int_equal(s.window.to_ns, 300000000000);
    opt_free(table, &s);
}

static void test_short_forms(void **state)
{
    (void)state;
    struct settings s;
    assert_applies(&s, "load: {arrival: constant, rates: [2, 4, 8], window: [1s, ~]}");
    assert_int_equal(s.arrival, 1);
    assert_int_equal(s.rates.n, 3);
    assert_true(s.rates.v[2] == 8);
    assert_int_equal(s.window.from_ns, 1000000000);
    assert_int_equal(s.window.to_ns, -1);
    opt_free(table, &s);
    assert_applies(&s, "load: {rates: 16, window: '0s,9s'}"); // a single value is no list
    assert_int_equal(s.rates.n, 0);
    assert_string_equal(s.start, "16");
    assert_int_equal(s.window.to_ns, 9000000000);
    opt_free(table, &s);
    assert_applies(&s, "load: {rates: {list: '2, 4'}, window: [3s]}");
    assert_int_equal(s.rates.n, 2);
    assert_int_equal(s.window.to_ns, -1);
    opt_free(table, &s);
}

static void test_null_is_the_default(void **state)
{
    (void)state;
    struct settings s;
    assert_applies(&s, "target: {model: ~, pipeline: }\nload:\n");
    assert_string_equal(s.model, "preset:tiny");
    assert_int_equal(s.pipeline, 1);
    opt_free(table, &s);
}

/* "kind: null" is YAML's null: where null is a choice it means that choice. */
static void test_null_as_a_choice(void **state)
{
    (void)state;
    static const struct opt row = {
        .key = "target.kind", .type = OPT_CHOICE, .def = "stages", .choices = "stages|null"};
    struct opt_table one = {&row, 1};
    int kind = 0;
    struct err e = {0};
    json_t *root = json_pack("{s:{s:n}}", "target", "kind");
    opt_defaults(one, &kind);
    assert_int_equal(opt_apply(one, &kind, root, &e), 0);
    assert_int_equal(kind, 1);
    json_decref(root);
    root = json_object();
    opt_dump(one, &kind, root);
    kind = 0;
    assert_int_equal(opt_apply(one, &kind, root, &e), 0);
    assert_int_equal(kind, 1);
    json_decref(root);
}

static void test_later_trees_win(void **state)
{
    (void)state;
    struct settings s;
    struct err e = {0};
    assert_applies(&s, "target: {model: a}\nload: {rates: [1, 2]}");
    json_t *root = json_pack("{s:{s:s}, s:{s:[i]}}", "target", "model", "b", "load", "rates", 9);
    assert_int_equal(opt_apply(table, &s, root, &e), 0);
    assert_string_equal(s.model, "b");
    assert_int_equal(s.rates.n, 1);
    json_decref(root);
    opt_free(table, &s);
}

static void test_unknown_keys(void **state)
{
    (void)state;
    assert_refused("load: {ratez: 3}", "load.ratez: unknown key; did you mean load.rates?");
    assert_refused("load: {rates: {facto: 3}}",
                   "load.rates.facto: unknown key; did you mean load.rates.factor?");
    assert_refused("load: {arival: {kind: poisson}}",
                   "load.arival: unknown key; did you mean load.arrival?");
    assert_refused("target: {pipline: 3}",
                   "target.pipline: unknown key; did you mean target.pipeline?");
    assert_refused("target: {model: x, foo: {bar: 1}}",
                   "target.foo: unknown key; did you mean target.eos?");
    struct settings s;
    assert_applies(&s, "other: {pipline: 3}"); // another table's section
    opt_free(table, &s);
}

static void test_mistakes(void **state)
{
    (void)state;
    assert_refused("load: {seed: abc}", "load.seed: 'abc' is not a whole number");
    assert_refused("load: {seed: 1.5}", "load.seed: '1.5' is not a whole number");
    assert_refused("load: {seed: ' 1'}", "load.seed: ' 1' is not a whole number");
    assert_refused("load: {seed: 99999999999999999999}",
                   "load.seed: '99999999999999999999' is not a whole number");
    assert_refused("target: {pipeline: 0}", "target.pipeline: 0 is out of range (1..1024)");
    assert_refused("target: {pipeline: 1025}", "target.pipeline: 1025 is out of range (1..1024)");
    assert_refused("load: {arrival: {kind: poison}}",
                   "load.arrival.kind: 'poison' is not one of poisson, constant, closed");
    assert_refused("load: {arrival: poison}",
                   "load.arrival.kind: 'poison' is not one of poisson, constant, closed");
    assert_refused("load: {arrival: [poisson]}",
                   "load.arrival.kind: a list is not allowed here (one value is)");
    assert_refused("load: {arrival: {kind: {}}}",
                   "load.arrival.kind: a mapping is not allowed here");
    assert_refused("load: {arrival: {cv: 0}}",
                   "load.arrival.cv: 0 is out of range (at least 0.01)");
    assert_refused("load: {rates: [1, -2]}",
                   "load.rates.list: -2 is out of range (at least 0.001)");
    assert_refused("load: {rates: [1, x]}",
                   "load.rates.list: 'x' is not a number (3, 2.5k, 1M, 1e-3)");
    assert_refused("load: {rates: [1, ~]}", "load.rates.list: element 2 of the list is empty");
    assert_refused("load: {rates: [1, [2]]}",
                   "load.rates.list: element 2 of the list is not a single value");
    assert_refused("load: {rates: {list: ''}}", "load.rates.list: element 1 of the list is empty");
    assert_refused("load: {step: 5}",
                   "load.step: '5' is not a duration (a number >= 0 with ns, us, ms, "
                   "s, m or h: 500ms)");
    assert_refused("load: {step: 10ms}", "load.step: 10ms is out of range (1s..1h)");
    assert_refused("load: {warmup: 120%}",
                   "load.warmup: '120%' is not a share (0 to 1, or 0% to 100%: 20%)");
    assert_refused("load: {window: [5s, 2s]}",
                   "load.window: the window [5s, 2s] is empty (to must be after from)");
    assert_refused("load: {window: [5s, 6s, 7s]}",
                   "load.window: a window is [from, to] or [from, ] (durations)");
    assert_refused("load: {window: []}",
                   "load.window: a window is [from, to] or [from, ] (durations)");
    assert_refused("load: {window: [~, 3s]}",
                   "load.window: a window is [from, to] or [from, ] (durations)");
    assert_refused("target: {eos: maybe}", "target.eos: 'maybe' is not true or false");
    assert_refused("target: {kv: 10}", "target.kv: 10 is out of range (1024..1000000000000000)");
    assert_refused("target: {model: [a, b]}",
                   "target.model: a list is not allowed here (one value is)");
    assert_refused("target: 3", "target: takes a mapping (key: value), not a single value or list");
    assert_refused("target: [3]",
                   "target: takes a mapping (key: value), not a single value or list");
    assert_refused("name: {a: 1}", "name: a mapping is not allowed here");
}

static void test_hostile_trees_end(void **state)
{
    (void)state;
    struct settings s = {0};
    struct err e = {0};
    opt_defaults(table, &s);
    json_t *deep = json_object();
    for (int i = 0; i < 500; i++) {
        deep = json_pack("{s:o}", "rates", deep);
    }
    json_t *root = json_pack("{s:o}", "load", deep);
    assert_int_equal(opt_apply(table, &s, root, &e), -1);
    assert_string_equal(e.msg, "load.rates.rates: unknown key; did you mean load.rates.start?");
    json_decref(root);
    char key[5000];
    memset(key, 'k', sizeof key - 1);
    key[sizeof key - 1] = '\0';
    root = json_pack("{s:{s:i}}", "load", key, 1);
    assert_int_equal(opt_apply(table, &s, root, &e), -1);
    assert_int_equal(e.code, ERR_INPUT);
    json_decref(root);
    root = json_array();
    assert_int_equal(opt_apply(table, &s, root, &e), 0); // no section of ours
    json_decref(root);
    opt_free(table, &s);
}

struct extra {
    char *source;
    int64_t n_in;
};

static const struct opt extra_rows[] = {
    {.key = "load.dataset.source",
     .type = OPT_STRING,
     .def = "sharegpt",
     .offset = offsetof(struct extra, source),
     .short_key = "load.dataset"},
    {.key = "load.input_tokens", .type = OPT_INT, .offset = offsetof(struct extra, n_in)},
};

static void test_tables_that_share_a_section(void **state)
{
    (void)state;
    struct settings s = {0};
    struct extra x = {0};
    struct err e = {0};
    struct opt_set sets[] = {{table, &s}, {{extra_rows, N_OF(extra_rows)}, &x}};
    opt_defaults(sets[0].table, &s);
    opt_defaults(sets[1].table, &x);
    json_t *root = NULL;
    const char *yaml = "load: {dataset: a.json, input_tokens: 7, seed: 5}";
    assert_int_equal(config_parse(yaml, strlen(yaml), "t", &root, &e), 0);
    assert_int_equal(opt_apply_sets(sets, 2, root, &e), 0);
    assert_string_equal(x.source, "a.json");
    assert_int_equal(x.n_in, 7);
    assert_int_equal(s.seed, 5);
    assert_int_equal(opt_apply(table, &s, root, &e), -1); // alone, dataset is unknown
    assert_int_equal(config_override(root, "load.datasets=b", &e), 0);
    assert_int_equal(opt_apply_sets(sets, 2, root, &e), -1);
    assert_string_equal(e.msg, "load.datasets: unknown key; did you mean load.dataset?");
    json_decref(root);
    opt_free(sets[0].table, &s);
    opt_free(sets[1].table, &x);
}

struct several {
    char *source;
    json_t *mix;
};

static const struct opt several_rows[] = {
    {.key = "set.source",
     .type = OPT_STRING,
     .offset = offsetof(struct several, source),
     .short_key = "set"},
    {.key = "set.mix",
     .type = OPT_MAPPINGS,
     .offset = offsetof(struct several, mix),
     .short_key = "set"},
};

static int apply_several(struct several *x, const char *yaml, struct err *e)
{
    struct opt_table t = {several_rows, N_OF(several_rows)};
    json_t *root = NULL;
    *x = (struct several){0};
    assert_int_equal(config_parse(yaml, strlen(yaml), "t", &root, e), 0);
    int rc = opt_apply(t, x, root, e);
    json_decref(root);
    if (rc != 0) {
        opt_free(t, x);
    }
    return rc;
}

static void test_a_list_of_mappings(void **state)
{
    (void)state;
    struct opt_table t = {several_rows, N_OF(several_rows)};
    struct several x, again = {0};
    struct err e = {0};
    assert_int_equal(apply_several(&x, "set: [{source: a, weight: 2}, {source: b}]", &e), 0);
    assert_null(x.source);
    assert_int_equal(json_array_size(x.mix), 2);
    json_t *root = json_object();
    opt_dump(t, &x, root);
    assert_int_equal(opt_apply(t, &again, root, &e), 0);
    assert_true(json_equal(x.mix, again.mix));
    json_decref(root);
    opt_free(t, &x);
    opt_free(t, &again);
    assert_int_equal(apply_several(&x, "set: a", &e), 0); // one scalar still is the short form
    assert_string_equal(x.source, "a");
    assert_null(x.mix);
    opt_free(t, &x);
    assert_int_equal(apply_several(&x, "set: [a, b]", &e), -1);
    assert_string_equal(e.msg, "set.mix: element 1 of the list is not a mapping (key: value)");
    assert_int_equal(apply_several(&x, "set: {mix: a}", &e), -1);
    assert_int_equal(apply_several(&x, "set: {mix: []}", &e), -1);
    assert_string_equal(e.msg, "set.mix: the list is empty");
}

/* "set=a" and then "set.mix=..", on the command line: nothing is lost, and the longer key wins. */
static void test_a_short_form_beside_longer_keys(void **state)
{
    (void)state;
    struct opt_table t = {several_rows, N_OF(several_rows)};
    struct several x = {0};
    struct err e = {0};
    json_t *root = NULL;
    assert_int_equal(config_parse("set: a", 6, "t", &root, &e), 0);
    assert_int_equal(config_override(root, "set.mix=[{source: b}]", &e), 0);
    assert_int_equal(opt_apply(t, &x, root, &e), 0);
    assert_string_equal(x.source, "a");
    assert_int_equal(json_array_size(x.mix), 1);
    assert_int_equal(config_override(root, "set.source=c", &e), 0);
    assert_int_equal(opt_apply(t, &x, root, &e), 0);
    assert_string_equal(x.source, "c");
    json_decref(root);
    opt_free(t, &x);
    // where there is no short form, what stood there is refused still
    struct settings s = {0};
    opt_defaults(table, &s);
    root = json_object();
    assert_int_equal(config_override(root, "load=3", &e), 0);
    assert_int_equal(config_override(root, "load.seed=4", &e), 0);
    assert_int_equal(opt_apply(table, &s, root, &e), -1);
    assert_string_equal(e.msg, "load: takes a mapping (key: value), not a single value or list");
    json_decref(root);
    opt_free(table, &s);
}

/* --- dump and read back ---------------------------------------------------------------------- */

static uint64_t draw(uint64_t i, uint64_t what)
{
    return rng_u64(11, RNG_SHUFFLE, i, what);
}

/* A double of any magnitude in lo..hi, sometimes the bounds. */
static double draw_double(uint64_t i, uint64_t what, double lo, double hi)
{
    double u = rng_uniform(12, RNG_SHUFFLE, i, what);
    switch (draw(i, what) % 4) {
    case 0:
        return lo;
    case 1:
        return hi;
    case 2:
        return lo * pow(hi / lo, u);
    }
    return lo + (hi - lo) * u;
}

/* Texts with what YAML and JSON treat specially. */
static char *draw_text(uint64_t i, uint64_t what)
{
    static const char *const texts[] = {
        "",       "~",          "null",     "true",        "007",
        "1e3",    "a: b",       "#x",       "- a",         "[x",
        "{y",     "'",          "\"",       "a\\b",        " lead",
        "trail ", "two\nlines", "tab\t",    "caf\xc3\xa9", "\xf0\x9f\x8c\x8a",
        "*a",     "&a",         "!t",       "<<",          "%d",
        "/m/x",   "a,b",        "\x01\x1f",
    };
    return xstrdup(texts[draw(i, what) % N_OF(texts)]);
}

static void draw_settings(struct settings *s, uint64_t i)
{
    *s = (struct settings){
        .name = draw(i, 0) % 4 == 0 ? NULL : draw_text(i, 1),
        .model = draw_text(i, 2),
        .eos = draw(i, 3) & 1,
        .pipeline = 1 + (int64_t)(draw(i, 4) % 1024),
        .seed = (int64_t)(draw(i, 5) >> (draw(i, 6) % 64)),
        .users = draw(i, 7) % 3 == 0 ? 0 : 1 + (int64_t)(draw(i, 8) % 1000000),
        .cv = draw_double(i, 9, 0.01, 1e300),
        .warmup = rng_uniform(13, RNG_SHUFFLE, i, 10),
        .step_ns = 1000000000 + (int64_t)(draw(i, 11) % 3599000000001),
        .kv_bytes = 1024 + (int64_t)(draw(i, 12) % 999999999998977),
        .arrival = (int)(draw(i, 13) % 3),
        .start = draw_text(i, 14),
        .factor = draw_double(i, 15, 1.01, 10),
        .timeout_ns = (int64_t)(draw(i, 16) >> (1 + draw(i, 17) % 63)),
    };
    s->rates.n = draw(i, 18) % 5;
    s->rates.v = xcalloc(s->rates.n, sizeof *s->rates.v);
    for (size_t k = 0; k < s->rates.n; k++) {
        s->rates.v[k] = draw_double(i, 100 + k, 0.001, 1e9);
    }
    if (draw(i, 19) % 3 != 0) {
        s->window.from_ns = (int64_t)(draw(i, 20) % 1000000000000);
        s->window.to_ns =
            draw(i, 21) & 1 ? -1 : s->window.from_ns + 1 + (int64_t)(draw(i, 22) % 1000000000);
    }
}

static void assert_same_text(const char *a, const char *b)
{
    assert_int_equal(a == NULL, b == NULL);
    if (a != NULL) {
        assert_string_equal(a, b);
    }
}

static void assert_same(const struct settings *a, const struct settings *b)
{
    assert_same_text(a->name, b->name);
    assert_same_text(a->model, b->model);
    assert_same_text(a->start, b->start);
    assert_int_equal(a->eos, b->eos);
    assert_int_equal(a->pipeline, b->pipeline);
    assert_int_equal(a->seed, b->seed);
    assert_int_equal(a->users, b->users);
    assert_true(a->cv == b->cv && a->warmup == b->warmup && a->factor == b->factor);
    assert_int_equal(a->step_ns, b->step_ns);
    assert_int_equal(a->kv_bytes, b->kv_bytes);
    assert_int_equal(a->timeout_ns, b->timeout_ns);
    assert_int_equal(a->arrival, b->arrival);
    assert_int_equal(a->window.from_ns, b->window.from_ns);
    assert_int_equal(a->window.to_ns, b->window.to_ns);
    assert_int_equal(a->rates.n, b->rates.n);
    for (size_t k = 0; k < a->rates.n; k++) {
        assert_true(a->rates.v[k] == b->rates.v[k]);
    }
}

static void assert_reads_back(const struct settings *s, const json_t *root)
{
    struct err e = {0};
    struct settings back = {0};
    opt_defaults(table, &back);
    if (opt_apply(table, &back, root, &e) != 0) {
        fail_msg("%s", e.msg);
    }
    assert_same(s, &back);
    opt_free(table, &back);
}

/* As a tree, as stored JSON text, and as that text given as a config file: all read back equal. */
static void test_dump_reads_back_equal(void **state)
{
    (void)state;
    for (uint64_t i = 0; i < 3000; i++) {
        struct settings s;
        struct err e = {0};
        draw_settings(&s, i);
        json_t *root = json_object();
        opt_dump(table, &s, root);
        assert_reads_back(&s, root);
        char *text = json_dumps(root, JSON_INDENT(1));
        json_decref(root);
        root = json_loads(text, 0, NULL);
        assert_non_null(root);
        assert_reads_back(&s, root);
        json_decref(root);
        if (config_parse(text, strlen(text), "stored", &root, &e) != 0) {
            fail_msg("%s", e.msg);
        }
        assert_reads_back(&s, root);
        json_decref(root);
        free(text);
        opt_free(table, &s);
    }
}

static void test_dump_is_canonical(void **state)
{
    (void)state;
    struct settings s;
    assert_applies(&s, "name: x\nload: {rates: [2, 4], window: [1500ms], step: 60s, warmup: 25%}");
    json_t *root = json_object();
    opt_dump(table, &s, root);
    char *text = json_dumps(root, JSON_COMPACT);
    assert_string_equal(
        text,
        "{\"name\":\"x\",\"target\":{\"model\":\"preset:tiny\",\"eos\":true,\"pipeline\":1,"
        "\"kv\":\"64MiB\"},\"load\":{\"seed\":1,\"users\":null,\"arrival\":{\"kind\":\"poisson\","
        "\"cv\":1.0},\"rates\":{\"list\":[2.0,4.0],\"start\":\"auto\",\"factor\":1.5},"
        "\"step\":\"1m\",\"warmup\":0.25,\"window\":[\"1.5s\",null],\"timeout\":null}}");
    free(text);
    json_decref(root);
    opt_free(table, &s);
}

static void test_help(void **state)
{
    (void)state;
    char *help = opt_help(table);
    size_t n_lines = 0;
    for (const char *s = help; (s = strchr(s, '\n')) != NULL; s++) {
        n_lines++;
    }
    assert_int_equal(n_lines, N_OF(rows));
    const char *line = strstr(help, "target.pipeline ");
    assert_non_null(line);
    char type[40], range[40], def[40], text[40];
    assert_int_equal(sscanf(line, "target.pipeline %39s %39s %39s %39s", type, range, def, text),
                     4);
    assert_string_equal(type, "integer");
    assert_string_equal(range, "1..1024");
    assert_string_equal(def, "1");
    assert_string_equal(text, "the");
    assert_non_null(strstr(help, "  poisson|constant|closed  "));
    assert_non_null(strstr(help, "  time 1s..1h  "));
    assert_non_null(strstr(help, "  number 0.01..  "));
    free(help);
    help = opt_help((struct opt_table){NULL, 0});
    assert_string_equal(help, "");
    free(help);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_defaults),
        cmocka_unit_test(test_every_type),
        cmocka_unit_test(test_short_forms),
        cmocka_unit_test(test_null_is_the_default),
        cmocka_unit_test(test_null_as_a_choice),
        cmocka_unit_test(test_later_trees_win),
        cmocka_unit_test(test_unknown_keys),
        cmocka_unit_test(test_mistakes),
        cmocka_unit_test(test_hostile_trees_end),
        cmocka_unit_test(test_tables_that_share_a_section),
        cmocka_unit_test(test_a_list_of_mappings),
        cmocka_unit_test(test_a_short_form_beside_longer_keys),
        cmocka_unit_test(test_dump_reads_back_equal),
        cmocka_unit_test(test_dump_is_canonical),
        cmocka_unit_test(test_help),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
