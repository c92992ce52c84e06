/*
 * Any bytes as a config file: the first line as an override, the rest as the file, then the tree
 * through an option table with every type. What comes through is dumped and must read back.
 */
#include "core/config.h"
#include "core/opt.h"

#include <jansson.h>

#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct settings {
    char *name;
    bool flag;
    int64_t ranks, step_ns, bytes;
    double factor, warmup;
    int kind;
    struct opt_numbers rates;
    struct opt_window window;
};

#define ROW(key_, type_, def_, field_)                                                             \
    .key = (key_), .type = (type_), .def = (def_), .help = "",                                     \
    .offset = offsetof(struct settings, field_)

static const struct opt rows[] = {
    {ROW("name", OPT_STRING, NULL, name)},
    {ROW("load.flag", OPT_BOOL, "true", flag)},
    {ROW("load.ranks", OPT_INT, "1", ranks), .lo = 1, .hi = 1024},
    {ROW("load.step", OPT_DURATION, "12s", step_ns)},
    {ROW("load.bytes", OPT_BYTES, "64MiB", bytes)},
    {ROW("load.rates.factor", OPT_NUMBER, "1.5", factor), .lo = 1, .hi = INFINITY},
    {ROW("load.rates.list", OPT_NUMBERS, NULL, rates), .short_key = "load.rates"},
    {ROW("load.warmup", OPT_SHARE, "20%", warmup)},
    {ROW("load.arrival.kind", OPT_CHOICE, "poisson", kind), .choices = "poisson|constant|null",
     .short_key = "load.arrival"},
    {ROW("load.window", OPT_WINDOW, NULL, window)},
};
static const struct opt_table table = {rows, sizeof rows / sizeof rows[0]};

static void check_message(const struct err *e)
{
    CHECK(e->code == ERR_INPUT && e->msg[0] != '\0');
    CHECK(strchr(e->msg, '\n') == NULL);
}

/* What opt_apply took, opt_dump writes and opt_apply takes again. */
static void check_round_trip(const struct settings *s)
{
    struct err e = {0};
    struct settings back = {0};
    json_t *first = json_object(), *second = json_object();
    opt_dump(table, s, first);
    opt_defaults(table, &back);
    CHECK(opt_apply(table, &back, first, &e) == 0);
    opt_dump(table, &back, second);
    CHECK(json_equal(first, second));
    json_decref(first);
    json_decref(second);
    opt_free(table, &back);
}

static void apply(const json_t *root)
{
    struct err e = {0};
    struct settings s = {0};
    opt_defaults(table, &s);
    if (config_check_sections(root, "name|load", &e) != 0 || opt_apply(table, &s, root, &e) != 0) {
        check_message(&e);
    } else {
        check_round_trip(&s);
    }
    opt_free(table, &s);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const uint8_t *nl = size != 0 ? memchr(data, '\n', size) : NULL;
    size_t n_line = nl != NULL ? (size_t)(nl - data) : size;
    size_t n_file = nl != NULL ? size - n_line - 1 : 0;
    struct err e = {0};
    json_t *root = NULL;
    if (config_parse((const char *)data + size - n_file, n_file, "fuzz", &root, &e) != 0) {
        check_message(&e);
        root = json_object();
    }
    apply(root);
    char *assignment = strndup((const char *)data, n_line);
    CHECK(assignment != NULL);
    if (config_override(root, assignment, &e) != 0) {
        check_message(&e);
    } else {
        apply(root);
    }
    free(assignment);
    json_decref(root);
    return 0;
}
