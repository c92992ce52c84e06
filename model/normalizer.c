#include "model/normalizer.h"

#include "core/mem.h"
#include "model/normal_form.h"
#include "model/utf8.h"

#include <jansson.h>

#include <stdlib.h>
#include <string.h>

#define MAX_STEPS 32

enum kind {
    KIND_REPLACE,
    KIND_PREPEND,
    KIND_STRIP,
    KIND_FORM,
};

struct step {
    enum kind kind;
    struct normalizer_rule rule; // Replace; Prepend: its content
    bool left, right;            // Strip
    enum normal_form form;
};

struct normalizer {
    struct step steps[MAX_STEPS];
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

static int add_step(struct normalizer *n, struct step step, struct err *e)
{
    struct normalizer_rule *r = &step.rule;
    if (n->n_steps == MAX_STEPS) {
        return err_set(e, ERR_INPUT, "more than %d steps", MAX_STEPS);
    }
    r->pattern = arena_strdup(&n->text, r->pattern != NULL ? r->pattern : "", r->pattern_len);
    r->content = arena_strdup(&n->text, r->content != NULL ? r->content : "", r->content_len);
    if (r->pattern == NULL || r->content == NULL) {
        return err_set(e, ERR_ENV, "out of memory");
    }
    n->steps[n->n_steps++] = step;
    return 0;
}

static int parse_prepend(struct step *step, const json_t *json, struct err *e)
{
    const json_t *prepend = json_object_get(json, "prepend");
    if (!json_is_string(prepend)) {
        return err_set(e, ERR_INPUT, "Prepend: no \"prepend\" text");
    }
    step->kind = KIND_PREPEND;
    step->rule.content = json_string_value(prepend);
    step->rule.content_len = json_string_length(prepend);
    return 0;
}

static int parse_step(struct normalizer *n, const json_t *json, struct err *e)
{
    const char *type = json_string_value(json_object_get(json, "type"));
    struct step step = {.kind = KIND_REPLACE};
    int form = type != NULL ? normal_form_find(type) : -1, rc = 0;
    if (type == NULL) {
        return err_set(e, ERR_INPUT, "a step has no \"type\"");
    }
    if (strcmp(type, "Replace") == 0) {
        rc = normalizer_parse_replace(&step.rule, json, e);
    } else if (strcmp(type, "Prepend") == 0) {
        rc = parse_prepend(&step, json, e);
    } else if (strcmp(type, "Strip") == 0) {
        step.kind = KIND_STRIP;
        step.left = json_is_true(json_object_get(json, "strip_left"));
        step.right = json_is_true(json_object_get(json, "strip_right"));
    } else if (form >= 0) {
        step.kind = KIND_FORM;
        step.form = (enum normal_form)form;
    } else {
        return err_set(e, ERR_INPUT,
                       "type %.40s is not supported (Sequence, Prepend, Replace, Strip, NFC, NFD, "
                       "NFKC and NFKD are)",
                       type);
    }
    return rc == 0 ? add_step(n, step, e) : -1;
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

/* A pattern of one byte, most often a space: one pass to size the result, one to write it. */
static void replace_byte(const struct normalizer_rule *r, const char *text, size_t len,
                         struct str *out)
{
    size_t n = 0;
    for (size_t i = 0; i < len; i++) {
        n += text[i] == r->pattern[0];
    }
    str_reserve(out, len + n * r->content_len);
    char *to = out->data + out->len;
    for (size_t i = 0; i < len; i++) {
        if (text[i] != r->pattern[0]) {
            *to++ = text[i];
            continue;
        }
        for (size_t k = 0; k < r->content_len; k++) {
            *to++ = r->content[k];
        }
    }
    out->len = (size_t)(to - out->data);
    *to = '\0';
}

void normalizer_replace(const struct normalizer_rule *r, const char *text, size_t len,
                        struct str *out)
{
    if (r->pattern_len == 1) {
        replace_byte(r, text, len, out);
        return;
    }
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

static void strip(const struct step *step, const char *text, size_t len, struct str *out)
{
    size_t from = step->left ? utf8_spaces_after(text, len, 0) : 0;
    size_t to = step->right ? utf8_spaces_before(text, len, from) : len;
    str_append(out, text + from, to - from);
}

static void apply_step(const struct step *step, const char *text, size_t len, struct str *out)
{
    switch (step->kind) {
    case KIND_REPLACE:
        normalizer_replace(&step->rule, text, len, out);
        return;
    case KIND_PREPEND:
        if (len > 0) { // as in `tokenizers`: nothing is put before nothing
            str_append(out, step->rule.content, step->rule.content_len);
        }
        str_append(out, text, len);
        return;
    case KIND_STRIP:
        strip(step, text, len, out);
        return;
    case KIND_FORM:
        normal_form_apply(step->form, text, len, out);
    }
}

/* Whether a step leaves a text as it is, so that it need not be copied. */
static bool is_idle(const struct step *step, const char *text, size_t len)
{
    if (step->kind != KIND_FORM) {
        return false;
    }
    size_t i = 0;
    while (i < len && (uint8_t)text[i] < 0x80) {
        i++;
    }
    return i == len;
}

size_t normalizer_apply(const struct normalizer *n, struct normalizer_work *w, const char *text,
                        size_t len, const char **normal)
{
    for (size_t i = 0, used = 0; i < n->n_steps; i++) {
        if (is_idle(&n->steps[i], text, len)) {
            continue;
        }
        struct str *out = &w->text[used++ % 2];
        str_reserve(out, 0);
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
