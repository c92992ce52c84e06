#include "model/pretokenizer.h"

#include "core/mem.h"

#include <jansson.h>

#include <stdlib.h>
#include <string.h>

/* --- from JSON -------------------------------------------------------------------------------- */

static int add_stage(struct pretokenizer *p, struct pretokenizer_stage stage, struct err *e)
{
    if (p->is_byte_level) {
        free(stage.literal);
        return err_set(e, ERR_INPUT, "a step after ByteLevel is not supported");
    }
    if (p->n_stages == PRETOKENIZER_MAX_STAGES) {
        free(stage.literal);
        return err_set(e, ERR_INPUT, "more than %d steps", PRETOKENIZER_MAX_STAGES);
    }
    p->stages[p->n_stages++] = stage;
    return 0;
}

static int parse_split_literal(struct pretokenizer *p, const char *literal, const char *behavior,
                               struct err *e)
{
    static const char *const behaviors[] = {
        [PRETOKENIZER_ALONE] = "Isolated",
        [PRETOKENIZER_ENDS] = "MergedWithPrevious",
        [PRETOKENIZER_BEGINS] = "MergedWithNext",
    };
    for (size_t i = 0; i < 3 && literal[0] != '\0'; i++) {
        if (strcmp(behavior, behaviors[i]) == 0) {
            struct pretokenizer_stage stage = {
                .literal_is = i, .literal = xstrdup(literal), .literal_len = strlen(literal)};
            return add_stage(p, stage, e);
        }
    }
    return err_set(e, ERR_INPUT,
                   "Split: by a String, only Isolated, MergedWithPrevious and MergedWithNext at "
                   "some text are supported");
}

static int parse_split(struct pretokenizer *p, const json_t *json, struct err *e)
{
    const json_t *pattern = json_object_get(json, "pattern");
    const char *literal = json_string_value(json_object_get(pattern, "String"));
    const char *regex = json_string_value(json_object_get(pattern, "Regex"));
    const char *behavior = json_string_value(json_object_get(json, "behavior"));
    bool is_inverted = json_is_true(json_object_get(json, "invert"));
    if ((literal == NULL && regex == NULL) || behavior == NULL) {
        return err_set(e, ERR_INPUT, "Split: no \"pattern\" or no \"behavior\"");
    }
    if (literal != NULL) {
        return is_inverted ? err_set(e, ERR_INPUT, "Split: inverted String is not supported")
                           : parse_split_literal(p, literal, behavior, e);
    }
    const struct splitters_rule *rule = splitters_find(regex);
    if (rule == NULL) {
        return err_set(e, ERR_INPUT,
                       "Split: not a known regular expression (docs/extending.md tells how to add "
                       "one): %.120s",
                       regex);
    }
    /* where all text is in matches, to keep them apart and to remove the rest is the same */
    bool is_kept = strcmp(behavior, "Isolated") == 0 && !is_inverted;
    if (!is_kept && !(rule->is_total && strcmp(behavior, "Removed") == 0 && is_inverted)) {
        return err_set(e, ERR_INPUT, "Split: %.40s%s is not supported (Isolated is)", behavior,
                       is_inverted ? ", inverted," : "");
    }
    return add_stage(p, (struct pretokenizer_stage){.split = rule->split}, e);
}

/* Several prefixes would be put before pieces, which is not what `prefix` does. */
static int set_prefix(struct pretokenizer *p, const char *prefix, struct err *e)
{
    if (p->n_stages > 0 || p->prefix != NULL || p->space != NULL) {
        return err_set(e, ERR_INPUT, "a prefix after another step is not supported");
    }
    p->prefix = xstrdup(prefix);
    return 0;
}

static bool is_default_true(const json_t *json, const char *key)
{
    const json_t *v = json_object_get(json, key);
    return v == NULL || json_is_true(v);
}

static int parse_byte_level(struct pretokenizer *p, const json_t *json, struct err *e)
{
    if (p->space != NULL) {
        return err_set(e, ERR_INPUT, "ByteLevel after Metaspace is not supported");
    }
    if (json_is_true(json_object_get(json, "add_prefix_space")) && set_prefix(p, " ", e) != 0) {
        return err_wrap(e, "ByteLevel");
    }
    if (is_default_true(json, "use_regex") &&
        add_stage(p, (struct pretokenizer_stage){.split = splitters_gpt2}, e) != 0) {
        return -1;
    }
    if (p->is_byte_level) {
        return err_set(e, ERR_INPUT, "a step after ByteLevel is not supported");
    }
    p->is_byte_level = true;
    return 0;
}

static int parse_metaspace(struct pretokenizer *p, const json_t *json, struct err *e)
{
    const char *space = json_string_value(json_object_get(json, "replacement"));
    const char *scheme = json_string_value(json_object_get(json, "prepend_scheme"));
    if (scheme == NULL) { // as older files said it
        scheme = is_default_true(json, "add_prefix_space") ? "always" : "never";
    }
    bool is_first = strcmp(scheme, "first") == 0, is_never = strcmp(scheme, "never") == 0;
    if (space == NULL || space[0] == '\0' ||
        (!is_first && !is_never && strcmp(scheme, "always") != 0)) {
        return err_set(e, ERR_INPUT,
                       "Metaspace: a \"replacement\" and a \"prepend_scheme\" (always, first, "
                       "never) are needed");
    }
    if (p->space != NULL || p->n_stages > 0) {
        return err_set(e, ERR_INPUT, "Metaspace after another step is not supported");
    }
    if (!is_never && set_prefix(p, space, e) != 0) {
        return err_wrap(e, "Metaspace");
    }
    p->space = xstrdup(space);
    p->prefix_first = is_first;
    if (!is_default_true(json, "split")) {
        return 0;
    }
    struct pretokenizer_stage stage = {
        .literal_is = PRETOKENIZER_BEGINS, .literal = xstrdup(space), .literal_len = strlen(space)};
    return add_stage(p, stage, e);
}

static int parse_digits(struct pretokenizer *p, const json_t *json, struct err *e)
{
    bool is_single = json_is_true(json_object_get(json, "individual_digits"));
    struct pretokenizer_stage stage = {.split = is_single ? splitters_digit : splitters_digits};
    return add_stage(p, stage, e);
}

static int parse_step(struct pretokenizer *p, const json_t *json, struct err *e)
{
    static const struct {
        const char *type;
        int (*parse)(struct pretokenizer *p, const json_t *json, struct err *e);
    } kinds[] = {{"Split", parse_split},
                 {"ByteLevel", parse_byte_level},
                 {"Digits", parse_digits},
                 {"Metaspace", parse_metaspace}};
    const char *type = json_string_value(json_object_get(json, "type"));
    for (size_t i = 0; type != NULL && i < sizeof kinds / sizeof *kinds; i++) {
        if (strcmp(type, kinds[i].type) == 0) {
            return kinds[i].parse(p, json, e);
        }
    }
    return err_set(e, ERR_INPUT,
                   "type %.40s is not supported (Sequence, Split, ByteLevel, Digits and Metaspace "
                   "are)",
                   type != NULL ? type : "(none)");
}

/* Sequences do not nest in practice: one level is read. */
static int parse_steps(struct pretokenizer *p, const json_t *json, struct err *e)
{
    const char *type = json_string_value(json_object_get(json, "type"));
    if (type == NULL || strcmp(type, "Sequence") != 0) {
        return parse_step(p, json, e);
    }
    const json_t *list = json_object_get(json, "pretokenizers");
    if (!json_is_array(list)) {
        return err_set(e, ERR_INPUT, "Sequence: no list of \"pretokenizers\"");
    }
    for (size_t i = 0; i < json_array_size(list); i++) {
        if (parse_step(p, json_array_get(list, i), e) != 0) {
            return -1;
        }
    }
    return 0;
}

int pretokenizer_parse(struct pretokenizer *p, const struct json_t *json, struct err *e)
{
    *p = (struct pretokenizer){0};
    if (json != NULL && !json_is_null(json) && parse_steps(p, json, e) != 0) {
        pretokenizer_free(p);
        return err_wrap(e, "pre_tokenizer");
    }
    return 0;
}

void pretokenizer_free(struct pretokenizer *p)
{
    for (size_t i = 0; i < p->n_stages; i++) {
        free(p->stages[i].literal);
    }
    free(p->space);
    free(p->prefix);
    *p = (struct pretokenizer){0};
}

/* --- cutting ---------------------------------------------------------------------------------- */

size_t pretokenizer_prepare(const struct pretokenizer *p, struct str *work, const char *text,
                            size_t len, bool is_first, const char **prepared)
{
    *prepared = text;
    if (len == 0 || (p->space == NULL && p->prefix == NULL)) {
        return len;
    }
    str_clear(work);
    size_t from = 0;
    if (p->prefix != NULL && (is_first || !p->prefix_first)) {
        size_t n = strlen(p->prefix);
        bool has_it = len >= n && memcmp(text, p->prefix, n) == 0;
        str_puts(work, has_it || (p->space != NULL && text[0] == ' ') ? "" : p->prefix);
    }
    for (size_t i = 0; i < len && p->space != NULL; i++) {
        if (text[i] == ' ') {
            str_append(work, text + from, i - from);
            str_puts(work, p->space);
            from = i + 1;
        }
    }
    str_append(work, text + from, len - from);
    *prepared = work->data;
    return work->len;
}

static const char *split_at_literal(const struct pretokenizer_stage *stage, const char *s,
                                    const char *end)
{
    size_t len = stage->literal_len, n = (size_t)(end - s);
    bool is_here = n >= len && memcmp(s, stage->literal, len) == 0;
    if (is_here && stage->literal_is != PRETOKENIZER_BEGINS) {
        return s + len;
    }
    const char *from = is_here ? s + len : s;
    const char *hit = memmem(from, (size_t)(end - from), stage->literal, len);
    if (hit == NULL) {
        return end;
    }
    return stage->literal_is == PRETOKENIZER_ENDS ? hit + len : hit;
}

void pretokenizer_begin(struct pretokenizer_words *w, const struct pretokenizer *p,
                        const char *text, size_t len)
{
    w->p = p;
    w->at = text;
    w->ends[0] = text + len;
    for (size_t i = 0; i < p->n_stages; i++) {
        w->ends[i + 1] = text;
    }
}

const char *pretokenizer_next(struct pretokenizer_words *w, size_t *len)
{
    const struct pretokenizer *p = w->p;
    const char *word = w->at;
    if (word == w->ends[0]) {
        return NULL;
    }
    for (size_t i = 0; i < p->n_stages; i++) {
        if (w->ends[i + 1] == word) {
            const struct pretokenizer_stage *stage = &p->stages[i];
            w->ends[i + 1] = stage->split != NULL ? stage->split(word, w->ends[i])
                                                  : split_at_literal(stage, word, w->ends[i]);
        }
    }
    w->at = w->ends[p->n_stages];
    *len = (size_t)(w->at - word);
    return word;
}
