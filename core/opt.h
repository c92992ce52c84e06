/*
 * Option tables. A module that has settings owns a transparent struct and one table of rows that
 * says for each setting: dotted key, type, default (as text, read by the same parser as the user's
 * value), bounds or choices, help, and where it goes. Config files, the command line, --help and
 * the stored resolved config all come from the table; nothing else parses options.
 *
 * Variants with a short form ("arrival: poisson" for "arrival: {kind: poisson}") mark the row that
 * takes the scalar or list with the short key in `short_key`. Beside other keys of the group it is under
 * CONFIG_SHORT (core/config.h), and a key that names its row wins.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "core/err.h"

struct json_t;

enum opt_type {
    OPT_STRING,   // char *, owned; NULL when unset and no default
    OPT_BOOL,     // bool
    OPT_INT,      // int64_t, lo..hi
    OPT_NUMBER,   // double, lo..hi
    OPT_DURATION, // int64_t ns; text has a unit
    OPT_SHARE,    // double in [0, 1]; "20%" or 0.2
    OPT_BYTES,    // int64_t
    OPT_CHOICE,   // int: index into `choices` ("a|b|c")
    OPT_NUMBERS,  // struct opt_numbers, each lo..hi; "a,b,c" or [a, b, c]
    OPT_WINDOW,   // struct opt_window: [from, to] of durations
    OPT_MAPPINGS, // struct json_t *, owned: [{key: value, ...}, ...] as it stands, for its owner's table
    OPT_STRINGS, // struct opt_strings; "a,b,c" or [a, b, c] (elements with commas: the list)
};

struct opt_strings {
    char **v; // (n), owned, as is each
    size_t n;
};

struct opt_numbers {
    double *v; // (n), owned
    size_t n;
};

struct opt_window {
    int64_t from_ns, to_ns; // to_ns < 0: open end
};

struct opt {
    const char *key; // dotted, from the root of the config: "load.rates.factor"
    enum opt_type type;
    const char *def;     // default as text; NULL: unset (zero value)
    double lo, hi;       // bounds of numbers (of durations in ns, of sizes in bytes); both 0: none
    const char *choices; // OPT_CHOICE
    const char *help;    // one line
    size_t offset;       // into the table's struct
    const char *short_key; // "load.rates": a scalar or list given there sets this row
};

struct opt_table {
    const struct opt *rows;
    size_t n_rows;
};

/* Every row's default into the struct `base` (zeroed by the caller). Bad defaults are bugs. */
void opt_defaults(struct opt_table t, void *base);

/*
 * Take from the config tree `root` every key of this table. Keys of the table's top sections
 * ("load.") that no row knows are ERR_INPUT with the nearest name, as are wrong types and bounds;
 * each message names the dotted key, the value and what is allowed. A null value is the default.
 * After an error the struct holds some new values and is fit for opt_free.
 */
int opt_apply(struct opt_table t, void *base, const struct json_t *root, struct err *e) ERR_CHECKED;

/* Several tables, each over its own struct, as one: for tables that share a section ("load."). */
struct opt_set {
    struct opt_table table;
    void *base;
};
int opt_apply_sets(const struct opt_set *sets, size_t n_sets, const struct json_t *root,
                   struct err *e) ERR_CHECKED;

/* Add the struct's present values to the tree, canonical form; reading it back gives the same. */
void opt_dump(struct opt_table t, const void *base, struct json_t *root);

/* Free what rows own (strings, lists). */
void opt_free(struct opt_table t, void *base);

/* Help text: one line per row, "key  type  default  help". Caller frees. */
char *opt_help(struct opt_table t);
