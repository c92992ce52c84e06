#include "core/opt.h"

#include "core/config.h"
#include "core/opt_value.h"
#include "core/str.h"

#include <jansson.h>

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#define KEY_MAX 200 // bytes of a dotted key, NUL included

void opt_defaults(struct opt_table t, void *base)
{
    for (size_t i = 0; i < t.n_rows; i++) {
        CHECK(strlen(t.rows[i].key) < KEY_MAX);
        opt_value_default(&t.rows[i], base);
    }
}

void opt_free(struct opt_table t, void *base)
{
    for (size_t i = 0; i < t.n_rows; i++) {
        enum opt_type type = t.rows[i].type;
        if (type == OPT_STRING || type == OPT_NUMBERS || type == OPT_STRINGS ||
            type == OPT_MAPPINGS) {
            opt_value_clear(&t.rows[i], base);
        }
    }
}

/* --- the tree to fields ---------------------------------------------------------------------- */

/* Several tables, each over its own struct, walked as one list of rows. */
struct walk {
    const struct opt_set *sets; // (n_sets)
    size_t n_sets;
    struct err *e;
};

struct row {
    const struct opt *o; // NULL: none
    void *base;
};

/* Row i over all sets, in order; .o is NULL behind the last. */
static struct row row_at(const struct walk *w, size_t i)
{
    for (size_t k = 0; k < w->n_sets; k++) {
        const struct opt_set *set = &w->sets[k];
        if (i < set->table.n_rows) {
            return (struct row){.o = &set->table.rows[i], .base = set->base};
        }
        i -= set->table.n_rows;
    }
    return (struct row){0};
}

/* Whether `path` is a proper prefix of the dotted key ("load.rates" of "load.rates.factor"). */
static bool is_above(const char *path, const char *key)
{
    size_t n = strlen(path);
    return strncmp(path, key, n) == 0 && key[n] == '.';
}

static bool has_rows_below(const struct walk *w, const char *path)
{
    struct row r;
    for (size_t i = 0; (r = row_at(w, i)).o != NULL; i++) {
        if (is_above(path, r.o->key)) {
            return true;
        }
    }
    return false;
}

/* The row that a value at `path` sets: the one of that key, else the one of that short key, where
 * lists go to a row that takes a list and single values to one that does not, if there are both. */
static struct row find_row(const struct walk *w, const char *path, const json_t *v)
{
    struct row r, found = {0};
    for (size_t i = 0; (r = row_at(w, i)).o != NULL; i++) {
        if (strcmp(r.o->key, path) == 0) {
            return r;
        }
        if (r.o->short_key == NULL || strcmp(r.o->short_key, path) != 0) {
            continue;
        }
        bool fits = opt_value_is_list(r.o) == json_is_array(v);
        if (found.o == NULL || (fits && opt_value_is_list(found.o) != json_is_array(v))) {
            found = r;
        }
    }
    return found;
}

struct nearest {
    const char *to;
    char name[KEY_MAX];
    int distance;
};

static void nearest_offer(struct nearest *best, const char *key, size_t n)
{
    char name[KEY_MAX];
    CHECK(n < sizeof name);
    memcpy(name, key, n);
    name[n] = '\0';
    int d = str_distance(best->to, name);
    if (best->name[0] == '\0' || d < best->distance) {
        best->distance = d;
        strcpy(best->name, name);
    }
}

/* Name the known key, or the known mapping of keys, that is nearest to `path`. */
static int fail_unknown(const struct walk *w, const char *path)
{
    struct nearest best = {.to = path};
    struct row r;
    for (size_t i = 0; (r = row_at(w, i)).o != NULL; i++) {
        for (const char *s = strchr(r.o->key, '.'); s != NULL; s = strchr(s + 1, '.')) {
            nearest_offer(&best, r.o->key, (size_t)(s - r.o->key));
        }
        nearest_offer(&best, r.o->key, strlen(r.o->key));
    }
    return err_set(w->e, ERR_INPUT, "%s: unknown key; did you mean %s?", path, best.name);
}

static int apply_node(const struct walk *w, const char *path, json_t *v);

static int apply_value(const struct walk *w, const char *path, json_t *v)
{
    struct row r = find_row(w, path, v);
    if (r.o != NULL) {
        return opt_value_apply(r.o, r.base, v, w->e);
    }
    if (!has_rows_below(w, path)) {
        return fail_unknown(w, path);
    }
    if (json_is_null(v)) {
        return 0; // "load:" with nothing below
    }
    return err_set(w->e, ERR_INPUT, "%s: takes a mapping (key: value), not a single value or list",
                   path);
}

/* What is under CONFIG_SHORT first: a key that names its row wins. */
static int apply_mapping(const struct walk *w, const char *path, json_t *map)
{
    const char *key;
    json_t *v = json_object_get(map, CONFIG_SHORT);
    if (v != NULL && apply_value(w, path, v) != 0) {
        return -1;
    }
    json_object_foreach(map, key, v)
    {
        if (strcmp(key, CONFIG_SHORT) == 0) {
            continue;
        }
        char below[KEY_MAX + 64]; // cut short, it is longer than any known key still
        snprintf(below, sizeof below, "%s.%s", path, key);
        if (apply_node(w, below, v) != 0) {
            return -1;
        }
    }
    return 0;
}

/* Ends at the depth of the tables' keys, however deep the tree: unknown keys stop it. */
static int apply_node(const struct walk *w, const char *path, json_t *v)
{
    bool is_mapping = json_is_object(v) && has_rows_below(w, path);
    return is_mapping ? apply_mapping(w, path, v) : apply_value(w, path, v);
}

/* The top section of row i into section[KEY_MAX], if no earlier row has it. */
static bool is_new_section(const struct walk *w, size_t i, char *section)
{
    const char *key = row_at(w, i).o->key;
    size_t n = strcspn(key, ".");
    CHECK(n < KEY_MAX);
    memcpy(section, key, n);
    section[n] = '\0';
    for (size_t j = 0; j < i; j++) {
        const char *earlier = row_at(w, j).o->key;
        if (strcmp(earlier, section) == 0 || is_above(section, earlier)) {
            return false;
        }
    }
    return true;
}

int opt_apply_sets(const struct opt_set *sets, size_t n_sets, const struct json_t *root,
                   struct err *e)
{
    struct walk w = {.sets = sets, .n_sets = n_sets, .e = e};
    for (size_t i = 0; row_at(&w, i).o != NULL; i++) {
        char section[KEY_MAX];
        if (!is_new_section(&w, i, section)) {
            continue;
        }
        json_t *v = json_object_get(root, section);
        if (v != NULL && apply_node(&w, section, v) != 0) {
            return -1;
        }
    }
    return 0;
}

int opt_apply(struct opt_table t, void *base, const struct json_t *root, struct err *e)
{
    struct opt_set set = {.table = t, .base = base};
    return opt_apply_sets(&set, 1, root, e);
}

/* --- fields to the tree ---------------------------------------------------------------------- */

/* Put v (owned) at the dotted key, making mappings on the way. */
static void put_at(json_t *root, const char *key, json_t *v)
{
    for (;;) {
        char part[KEY_MAX];
        size_t n = strcspn(key, ".");
        CHECK(n < sizeof part);
        memcpy(part, key, n);
        part[n] = '\0';
        if (key[n] == '\0') {
            json_object_set_new(root, part, v);
            return;
        }
        json_t *below = json_object_get(root, part);
        if (!json_is_object(below)) {
            below = json_object();
            json_object_set_new(root, part, below);
        }
        root = below;
        key += n + 1;
    }
}

void opt_dump(struct opt_table t, const void *base, struct json_t *root)
{
    for (size_t i = 0; i < t.n_rows; i++) {
        put_at(root, t.rows[i].key, opt_value_dump(&t.rows[i], base));
    }
}

/* --- help ------------------------------------------------------------------------------------ */

struct columns {
    int key, type, def; // widths
};

static int max_int(int a, size_t b)
{
    return a > (int)b ? a : (int)b;
}

/* One line of help, once with out == NULL to widen the columns and once to write. */
static void put_help(struct str *out, const struct opt *o, struct columns *c)
{
    struct str type = {0};
    opt_value_put_type(o, &type);
    const char *def = o->def != NULL ? o->def : "-";
    if (out == NULL) {
        c->key = max_int(c->key, strlen(o->key));
        c->type = max_int(c->type, type.len);
        c->def = max_int(c->def, strlen(def));
    } else {
        str_printf(out, "%-*s  %-*s  %-*s  %s%s%s\n", c->key, o->key, c->type, type.data, c->def,
                   def, o->help, o->short_key ? "; short: " : "", o->short_key ? o->short_key : "");
    }
    str_free(&type);
}

char *opt_help(struct opt_table t)
{
    struct columns c = {0};
    struct str out = {0};
    for (size_t i = 0; i < t.n_rows; i++) {
        put_help(NULL, &t.rows[i], &c);
    }
    str_reserve(&out, 1);
    for (size_t i = 0; i < t.n_rows; i++) {
        put_help(&out, &t.rows[i], &c);
    }
    return out.data;
}
