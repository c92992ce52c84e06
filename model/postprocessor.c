#include "model/postprocessor.h"

#include <jansson.h>

#include <stdbool.h>
#include <string.h>

/* Add the ids of one special token of the template, as its table "special_tokens" gives them. */
static int add_ids(struct postprocessor_ids *to, const json_t *table, const char *name,
                   int32_t n_ids, struct err *e)
{
    const json_t *ids = json_object_get(json_object_get(table, name), "ids");
    if (json_array_size(ids) == 0) {
        return err_set(e, ERR_INPUT, "special_tokens has no ids for %.40s", name);
    }
    for (size_t i = 0; i < json_array_size(ids); i++) {
        const json_t *id = json_array_get(ids, i);
        json_int_t value = json_integer_value(id);
        if (!json_is_integer(id) || value < 0 || value >= n_ids) {
            return err_set(
                e, ERR_INPUT,
                "an id of %.40s does not match the vocabulary of config.json (ids 0..%d)", name,
                n_ids - 1);
        }
        if (to->n == POSTPROCESSOR_MAX) {
            return err_set(e, ERR_INPUT, "more than %d special tokens on one side",
                           POSTPROCESSOR_MAX);
        }
        to->v[to->n++] = (int32_t)value;
    }
    return 0;
}

static int parse_template(struct postprocessor *p, const json_t *json, int32_t n_ids, struct err *e)
{
    const json_t *table = json_object_get(json, "special_tokens");
    const json_t *single = json_object_get(json, "single");
    bool after = false;
    if (p->before.n + p->after.n > 0) {
        return err_set(e, ERR_INPUT, "more than one TemplateProcessing is not supported");
    }
    for (size_t i = 0; i < json_array_size(single); i++) {
        const json_t *item = json_array_get(single, i);
        const char *name =
            json_string_value(json_object_get(json_object_get(item, "SpecialToken"), "id"));
        if (name == NULL) {
            if (json_object_get(item, "Sequence") == NULL || after) {
                return err_set(e, ERR_INPUT,
                               "TemplateProcessing: \"single\" is not one Sequence "
                               "among SpecialTokens");
            }
            after = true;
        } else if (add_ids(after ? &p->after : &p->before, table, name, n_ids, e) != 0) {
            return err_wrap(e, "TemplateProcessing");
        }
    }
    if (!after) {
        return err_set(e, ERR_INPUT, "TemplateProcessing: \"single\" has no Sequence");
    }
    return 0;
}

static int parse_step(struct postprocessor *p, const json_t *json, int32_t n_ids, struct err *e)
{
    const char *type = json_string_value(json_object_get(json, "type"));
    if (type != NULL && strcmp(type, "ByteLevel") == 0) {
        return 0;
    }
    if (type == NULL || strcmp(type, "TemplateProcessing") != 0) {
        return err_set(e, ERR_INPUT,
                       "type %.40s is not supported (Sequence, TemplateProcessing, ByteLevel and "
                       "null are)",
                       type != NULL ? type : "(none)");
    }
    return parse_template(p, json, n_ids, e);
}

/* Sequences do not nest in practice: one level is read. */
static int parse_steps(struct postprocessor *p, const json_t *json, int32_t n_ids, struct err *e)
{
    const char *type = json_string_value(json_object_get(json, "type"));
    if (type == NULL || strcmp(type, "Sequence") != 0) {
        return parse_step(p, json, n_ids, e);
    }
    const json_t *list = json_object_get(json, "processors");
    if (!json_is_array(list)) {
        return err_set(e, ERR_INPUT, "Sequence: no list of \"processors\"");
    }
    for (size_t i = 0; i < json_array_size(list); i++) {
        if (parse_step(p, json_array_get(list, i), n_ids, e) != 0) {
            return -1;
        }
    }
    return 0;
}

int postprocessor_parse(struct postprocessor *p, const struct json_t *json, int32_t n_ids,
                        struct err *e)
{
    *p = (struct postprocessor){0};
    if (json != NULL && !json_is_null(json) && parse_steps(p, json, n_ids, e) != 0) {
        return err_wrap(e, "post_processor");
    }
    return 0;
}
