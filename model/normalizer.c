#include "model/normalizer.h"

#include "core/mem.h"

#include <jansson.h>

#include <stdlib.h>
#include <string.h>

#define MAX_STEPS 32

/* A Prepend has an empty pattern. */
struct normalizer {
    struct normalizer_rule steps[MAX_STEPS];
    size_t n_steps;
    struct arena text; // of the rules
};

int normalizer_parse_replace(struct normalizer_rule *r, const struct json_t *json, struct err *e)
{
    const json_t *pattern = json_object_get(json_object_get(json, "pattern"), "String");
    const json_t *content = json_object_get(json, "content");
    if (!json_is_string(pattern) || json_string_length(pattern) == 0 || !json_is_string(content)) {
        return err_set(e, ERR_INPUT,
                       "Replace: only a \"String\" pattern with a \"content\" is supported");
    }
    *r = (struct normalizer_rule){
        .pattern = json_string_value(pattern),
        .content = json_string_value(content),
        .pattern_len = json_string_length(pattern),
        .content_len = json_string_length(content),
    };
    return 0;
}

static int add_step(struct normalizer *n, struct normalizer_rule r, struct err *e)
{
    if (n->n_steps == MAX_STEPS) {
        return err_set(e, ERR_INPUT, "more than %d steps", MAX_STEPS);
    }
    r.pattern = arena_strdup(&n->text, r.pattern, r.pattern_len);
    r.content = arena_strdup(&n->text, r.content, r.content_len);
    if (r.pattern == NULL || r.content == NULL) {
        return err_set(e, ERR_ENV, "out of memory");
    }
    n->steps[n->n_steps++] = r;
    return 0;
}

static int parse_step(struct normalizer *n, const json_t *json, struct err *e)
{
    const char *type = json_string_value(json_object_get(json, "type"));
    struct normalizer_rule r = {.pattern = ""};
    if (type == NULL) {
        return err_set(e, ERR_INPUT, "a step has no \"type\"");
    }
    if (strcmp(type, "Replace") == 0) {
        return normalizer_parse_replace(&r, json, e) == 0 ? add_step(n, r, e) : -1;
    }
    if (strcmp(type, "Prepend") == 0) {
        const json_t *prepend = json_object_get(json, "prepend");
        if (!json_is_string(prepend)) {
            return err_set(e, ERR_INPUT, "Prepend: no \"prepend\" text");
        }
        r.content = json_string_value(prepend);
        r.content_len = json_string_length(prepend);
        return add_step(n, r, e);
    }
    return err_set(e, ERR_INPUT, "type %.40s is not supported (Sequence, Prepend and Replace are)",
                   type);
}

/* Sequences do not nest in practice: one level is read. */
static int parse_steps(struct normalizer *n, const json_t *json, struct err *e)
{
    const char *type = json_string_value(json_object_get(json, "type"));
    if (type == NULL || strcmp(type, "Sequence") != 0) {
        return parse_step(n, json, e);
    }
    const json_t *list = json_object_get(json, "normalizers");
    if (!json_is_array(list)) {
        return err_set(e, ERR_INPUT, "Sequence: no list of \"normalizers\"");
    }
    for (size_t i = 0; i < json_array_size(list); i++) {
        if (parse_step(n, json_array_get(list, i), e) != 0) {
            return -1;
        }
    }
    return 0;
}

int normalizer_parse(struct normalizer **out, const struct json_t *json, struct err *e)
{
    struct normalizer *n = xcalloc(1, sizeof *n);
    if (json != NULL && !json_is_null(json) && parse_steps(n, json, e) != 0) {
        normalizer_destroy(n);
        return err_wrap(e, "normalizer");
    }
    *out = n;
    return 0;
}

void normalizer_destroy(struct normalizer *n)
{
    if (n != NULL) {
        arena_free(&n->text);
        free(n);
    }
}

void normalizer_replace(const struct normalizer_rule *r, const char *text, size_t len,
                        struct str *out)
{
    size_t done = 0;
    while (done < len) {
        const char *hit = memmem(text + done, len - done, r->pattern, r->pattern_len);
        if (hit == NULL) {
            break;
        }
        str_append(out, text + done, (size_t)(hit - text) - done);
        str_append(out, r->content, r->content_len);
        done = (size_t)(hit - text) + r->pattern_len;
    }
    str_append(out, text + done, len - done);
}

static void apply_step(const struct normalizer_rule *r, const char *text, size_t len,
                       struct str *out)
{
    if (r->pattern_len > 0) {
        normalizer_replace(r, text, len, out);
        return;
    }
    if (len > 0) { // as in `tokenizers`: nothing is put before nothing
        str_append(out, r->content, r->content_len);
    }
    str_append(out, text, len);
}

size_t normalizer_apply(const struct normalizer *n, struct normalizer_work *w, const char *text,
                        size_t len, const char **normal)
{
    for (size_t i = 0; i < n->n_steps; i++) {
        struct str *out = &w->text[i % 2];
        str_clear(out);
        apply_step(&n->steps[i], text, len, out);
        text = out->data;
        len = out->len;
    }
    *normal = text;
    return len;
}

void normalizer_work_free(struct normalizer_work *w)
{
    str_free(&w->text[0]);
    str_free(&w->text[1]);
}
