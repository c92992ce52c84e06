#include "core/config.h"

#include "core/mem.h"
#include "core/str.h"

#include <jansson.h>
#include <yaml.h>

#include <ctype.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#define TEXT_MAX_BYTES ((size_t)1 << 20)
#define DEPTH_MAX      32
#define KEY_MAX        128 // bytes of one key

/* The text being read, as a stream of libyaml events of which `ev` is the present one. */
struct reader {
    yaml_parser_t parser;
    yaml_event_t ev;
    const char *text; // (len)
    size_t len;
    const char *where;
    bool has_lines; // messages carry line:column (a file) or not (an override)
    struct err *e;
};

static int fail_at(struct reader *r, yaml_mark_t at, const char *what, const char *quoted)
{
    const char *open = quoted[0] != '\0' ? " '" : "";
    const char *close = quoted[0] != '\0' ? "'" : "";
    if (!r->has_lines) {
        return err_set(r->e, ERR_INPUT, "%.200s: %.150s%s%.80s%s", r->where, what, open, quoted,
                       close);
    }
    return err_set(r->e, ERR_INPUT, "%.200s:%zu:%zu: %.150s%s%.80s%s", r->where, at.line + 1,
                   at.column + 1, what, open, quoted, close);
}

static int fail_here(struct reader *r, const char *what)
{
    return fail_at(r, r->ev.start_mark, what, "");
}

/* Line and column of a byte offset: the reader of libyaml reports no mark for bad encodings. */
static yaml_mark_t mark_of_offset(const struct reader *r, size_t offset)
{
    yaml_mark_t m = {.index = offset};
    for (size_t i = 0; i < offset && i < r->len; i++) {
        m.column++;
        if (r->text[i] == '\n') {
            m.line++;
            m.column = 0;
        }
    }
    return m;
}

static int next_event(struct reader *r)
{
    yaml_event_delete(&r->ev);
    if (yaml_parser_parse(&r->parser, &r->ev)) {
        return 0;
    }
    memset(&r->ev, 0, sizeof r->ev);
    const char *problem = r->parser.problem != NULL ? r->parser.problem : "not YAML";
    switch (r->parser.error) {
    case YAML_MEMORY_ERROR:
        return err_set(r->e, ERR_ENV, "%.200s: out of memory", r->where);
    case YAML_READER_ERROR:
        return fail_at(r, mark_of_offset(r, r->parser.problem_offset), problem, "");
    case YAML_NO_ERROR:
    case YAML_SCANNER_ERROR:
    case YAML_PARSER_ERROR:
    case YAML_COMPOSER_ERROR:
    case YAML_WRITER_ERROR:
    case YAML_EMITTER_ERROR:
        break;
    }
    return fail_at(r, r->parser.problem_mark, problem, "");
}

static bool is_null_text(const char *s)
{
    static const char *const nulls[] = {"", "~", "null", "Null", "NULL"};
    for (size_t i = 0; i < sizeof nulls / sizeof nulls[0]; i++) {
        if (strcmp(s, nulls[i]) == 0) {
            return true;
        }
    }
    return false;
}

static int check_no_tag(struct reader *r, const yaml_char_t *anchor, const yaml_char_t *tag)
{
    if (anchor != NULL) {
        return fail_here(r, "anchors and aliases are not allowed: write the value out");
    }
    if (tag != NULL) {
        return fail_here(r, "tags are not allowed: each key has its own type");
    }
    return 0;
}

static json_t *out_of_memory(struct reader *r)
{
    err_set(r->e, ERR_ENV, "%.200s: out of memory", r->where);
    return NULL;
}

/* The scalar under ev as text without NUL bytes, NULL (with the error) if it is not one. */
static const char *scalar_text(struct reader *r)
{
    const char *s = (const char *)r->ev.data.scalar.value;
    if (check_no_tag(r, r->ev.data.scalar.anchor, r->ev.data.scalar.tag) != 0) {
        return NULL;
    }
    if (strlen(s) != r->ev.data.scalar.length) {
        fail_here(r, "a NUL byte is not allowed");
        return NULL;
    }
    return s;
}

static json_t *read_scalar(struct reader *r)
{
    const char *s = scalar_text(r);
    if (s == NULL) {
        return NULL;
    }
    bool is_plain = r->ev.data.scalar.style == YAML_PLAIN_SCALAR_STYLE;
    json_t *v = is_plain && is_null_text(s) ? json_null() : json_string(s);
    return v != NULL ? v : out_of_memory(r);
}

static json_t *read_node(struct reader *r, int depth);

static json_t *read_sequence(struct reader *r, int depth)
{
    json_t *list = json_array();
    if (list == NULL) {
        return out_of_memory(r);
    }
    if (check_no_tag(r, r->ev.data.sequence_start.anchor, r->ev.data.sequence_start.tag) != 0) {
        goto drop_list;
    }
    for (;;) {
        if (next_event(r) != 0) {
            goto drop_list;
        }
        if (r->ev.type == YAML_SEQUENCE_END_EVENT) {
            return list;
        }
        json_t *v = read_node(r, depth + 1);
        if (v == NULL) {
            goto drop_list;
        }
        if (json_array_append_new(list, v) != 0) {
            out_of_memory(r);
            goto drop_list;
        }
    }
drop_list:
    json_decref(list);
    return NULL;
}

/* The key under ev into key[KEY_MAX]: a scalar, new in `map`, and no dotted path. */
static int read_key(struct reader *r, const json_t *map, char *key)
{
    if (r->ev.type == YAML_ALIAS_EVENT) {
        return fail_here(r, "anchors and aliases are not allowed: write the value out");
    }
    if (r->ev.type != YAML_SCALAR_EVENT) {
        return fail_here(r, "a key must be a plain word");
    }
    const char *s = scalar_text(r);
    if (s == NULL) {
        return -1;
    }
    if (s[0] == '\0' || strlen(s) >= KEY_MAX) {
        return fail_here(r, "a key must have 1 to 127 bytes");
    }
    if (strcmp(s, "<<") == 0) {
        return fail_here(r, "merge keys are not allowed: write the value out");
    }
    if (strchr(s, '.') != NULL) {
        return fail_at(r, r->ev.start_mark, "dots are for the command line; nest the key", s);
    }
    if (json_object_get(map, s) != NULL) {
        return fail_at(r, r->ev.start_mark, "duplicate key", s);
    }
    strcpy(key, s);
    return 0;
}

static json_t *read_mapping(struct reader *r, int depth)
{
    json_t *map = json_object();
    if (map == NULL) {
        return out_of_memory(r);
    }
    if (check_no_tag(r, r->ev.data.mapping_start.anchor, r->ev.data.mapping_start.tag) != 0) {
        goto drop_map;
    }
    for (;;) {
        char key[KEY_MAX];
        if (next_event(r) != 0) {
            goto drop_map;
        }
        if (r->ev.type == YAML_MAPPING_END_EVENT) {
            return map;
        }
        if (read_key(r, map, key) != 0 || next_event(r) != 0) {
            goto drop_map;
        }
        json_t *v = read_node(r, depth + 1);
        if (v == NULL) {
            goto drop_map;
        }
        if (json_object_set_new(map, key, v) != 0) {
            out_of_memory(r);
            goto drop_map;
        }
    }
drop_map:
    json_decref(map);
    return NULL;
}

static json_t *read_node(struct reader *r, int depth)
{
    if (depth > DEPTH_MAX) {
        fail_here(r, "nested more than 32 deep");
        return NULL;
    }
    if (r->ev.type == YAML_SCALAR_EVENT) {
        return read_scalar(r);
    }
    if (r->ev.type == YAML_SEQUENCE_START_EVENT) {
        return read_sequence(r, depth);
    }
    if (r->ev.type == YAML_MAPPING_START_EVENT) {
        return read_mapping(r, depth);
    }
    if (r->ev.type == YAML_ALIAS_EVENT) {
        fail_here(r, "anchors and aliases are not allowed: write the value out");
        return NULL;
    }
    fail_here(r, "not a value");
    return NULL;
}

/* One whole document. An empty text is null. */
static json_t *read_document(struct reader *r)
{
    if (next_event(r) != 0 || next_event(r) != 0) { // stream start, then document start or end
        return NULL;
    }
    if (r->ev.type == YAML_STREAM_END_EVENT) {
        return json_null();
    }
    if (next_event(r) != 0) {
        return NULL;
    }
    json_t *v = read_node(r, 1);
    if (v == NULL) {
        return NULL;
    }
    if (next_event(r) != 0 || next_event(r) != 0) { // document end, then stream end
        goto drop_value;
    }
    if (r->ev.type != YAML_STREAM_END_EVENT) {
        fail_here(r, "a second document begins here; only one is allowed");
        goto drop_value;
    }
    return v;
drop_value:
    json_decref(v);
    return NULL;
}

static json_t *parse_text(const char *text, size_t len, const char *where, bool has_lines,
                          struct err *e)
{
    if (len > TEXT_MAX_BYTES) {
        err_set(e, ERR_INPUT, "%.200s: %zu bytes, larger than the %zu allowed", where, len,
                TEXT_MAX_BYTES);
        return NULL;
    }
    struct reader r = {.text = text, .len = len, .where = where, .has_lines = has_lines, .e = e};
    if (!yaml_parser_initialize(&r.parser)) {
        return out_of_memory(&r);
    }
    yaml_parser_set_input_string(&r.parser, (const unsigned char *)text, len);
    json_t *v = read_document(&r);
    yaml_event_delete(&r.ev);
    yaml_parser_delete(&r.parser);
    return v;
}

int config_parse(const char *text, size_t len, const char *where, struct json_t **root,
                 struct err *e)
{
    json_t *v = parse_text(text, len, where, true, e);
    if (v == NULL) {
        return -1;
    }
    if (json_is_null(v)) {
        v = json_object();
    }
    if (!json_is_object(v)) {
        json_decref(v);
        return err_set(e, ERR_INPUT, "%.200s:1:1: a config must be a mapping (key: value)", where);
    }
    *root = v;
    return 0;
}

int config_load(const char *path, struct json_t **root, struct err *e)
{
    struct str text = {0};
    if (str_read_file(&text, path, TEXT_MAX_BYTES, e) != 0) {
        return -1;
    }
    int rc = config_parse(text.data, text.len, path, root, e);
    str_free(&text);
    return rc;
}

/*
 * The value of an override: read as the inside of a flow sequence, so that "a,b" is a list; one
 * element stands for itself unless a comma follows it.
 */
static json_t *parse_value(const char *text, const char *where, struct err *e)
{
    size_t n = strlen(text);
    while (n > 0 && isspace((unsigned char)text[n - 1])) {
        n--;
    }
    struct str flow = {0};
    str_puts(&flow, "[");
    str_append(&flow, text, n);
    str_puts(&flow, "\n]"); // on its own line, so that no comment can swallow it
    json_t *list = parse_text(flow.data, flow.len, where, false, e);
    str_free(&flow);
    if (list == NULL || (n > 0 && text[n - 1] == ',') || json_array_size(list) > 1) {
        return list;
    }
    json_t *one = json_array_size(list) == 1 ? json_incref(json_array_get(list, 0)) : json_null();
    json_decref(list);
    return one;
}

static bool is_key_char(char c)
{
    return isalnum((unsigned char)c) || c == '_' || c == '-';
}

/* Length of the key at s, which must end at '.' or the end of the path; 0 if it is none. */
static size_t key_length(const char *s)
{
    size_t n = 0;
    while (is_key_char(s[n])) {
        n++;
    }
    return n < KEY_MAX && (s[n] == '\0' || (s[n] == '.' && s[n + 1] != '\0')) ? n : 0;
}

/*
 * The mapping under a key, made where there is none; the value that stood there becomes its CONFIG_SHORT. NULL
 * where that is a list of mappings: they have keys of their own.
 */
static json_t *mapping_at(json_t *map, const char *key)
{
    json_t *old = json_object_get(map, key);
    if (json_is_object(old)) {
        return old;
    }
    if (json_is_object(json_array_get(old, 0))) {
        return NULL;
    }
    json_t *below = json_object();
    if (old != NULL && !json_is_null(old)) {
        json_object_set(below, CONFIG_SHORT, old);
    }
    json_object_set_new(map, key, below);
    return below;
}

/* Put v (owned) at the dotted path, which check_path has seen, making mappings on the way. */
static int set_path(json_t *root, const char *assignment, const char *path, json_t *v,
                    struct err *e)
{
    const char *whole = path;
    json_t *map = root;
    for (int depth = 1; depth <= DEPTH_MAX; depth++) {
        char key[KEY_MAX];
        size_t n = key_length(path);
        if (n == 0) {
            break;
        }
        memcpy(key, path, n);
        key[n] = '\0';
        if (path[n] == '\0') {
            return json_object_set_new(map, key, v);
        }
        map = mapping_at(map, key);
        if (map == NULL) {
            json_decref(v);
            return err_set(e, ERR_INPUT,
                           "'%.200s': %.*s is a list of mappings, which have keys of their own",
                           assignment, (int)(path - whole + (ptrdiff_t)n), whole);
        }
        path += n + 1;
    }
    CHECK(false);
}

static int check_path(const char *path, const char *assignment, struct err *e)
{
    int depth = 0;
    for (const char *s = path;; depth++) {
        size_t n = key_length(s);
        if (n == 0 || depth == DEPTH_MAX) {
            return err_set(e, ERR_INPUT, "'%.200s': '%.80s' is not a key (words joined by dots)",
                           assignment, path);
        }
        if (s[n] == '\0') {
            return 0;
        }
        s += n + 1;
    }
}

int config_override(struct json_t *root, const char *assignment, struct err *e)
{
    const char *eq = strchr(assignment, '=');
    if (eq == NULL) {
        return err_set(e, ERR_INPUT, "'%.200s' is not an assignment (key.path=value)", assignment);
    }
    char *path = xstrdup(assignment);
    path[eq - assignment] = '\0';
    int rc = check_path(path, assignment, e);
    if (rc == 0) {
        json_t *v = parse_value(eq + 1, assignment, e);
        rc = v == NULL ? -1 : set_path(root, assignment, path, v, e);
    }
    free(path);
    return rc;
}

/* Which of "a|b|c" is closest to `key`. */
static void find_nearest(const char *key, const char *known, char nearest[KEY_MAX])
{
    int best = -1;
    for (const char *s = known; *s != '\0';) {
        char word[KEY_MAX];
        size_t n = strcspn(s, "|");
        CHECK(n > 0 && n < sizeof word);
        memcpy(word, s, n);
        word[n] = '\0';
        int d = str_distance(key, word);
        if (best < 0 || d < best) {
            best = d;
            strcpy(nearest, word);
        }
        s += n + (s[n] == '|');
    }
}

int config_check_sections(const struct json_t *root, const char *known, struct err *e)
{
    // jansson's iterators take no const object, though they do not change it.
    json_t *object = (json_t *)(uintptr_t)root;
    const char *key;
    json_t *v;
    json_object_foreach(object, key, v)
    {
        if (str_choice(known, key) < 0) {
            char nearest[KEY_MAX] = "";
            find_nearest(key, known, nearest);
            return err_set(e, ERR_INPUT, "%.100s: unknown key; did you mean %s?", key, nearest);
        }
    }
    return 0;
}

const char *config_library(void)
{
    return yaml_get_version_string();
}
