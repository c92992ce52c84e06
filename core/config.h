/*
 * Config text to a tree: YAML (libyaml) into jansson objects whose scalars are all strings (types
 * are the option tables' business) or null (plain null, ~ or nothing), plus "key.path=value"
 * overrides whose values are YAML flow; a bare "a,b,c" is a list. An override replaces what was at
 * its path, mappings too. A nested key assigned below a scalar or list makes a mapping of both, in which the
 * scalar or list is under CONFIG_SHORT: the short form of that mapping (core/opt.h). Below a list of mappings it is
 * refused.
 *
 * Refused, each with its line and column: duplicate keys, anchors, aliases, merge keys, tags, dots
 * in a file's keys, a second document, more than 32 levels; and texts above 1 MiB.
 *
 * Trees are jansson objects: the caller json_decref()s.
 */
#pragma once

#include <stddef.h>

#include "core/err.h"

struct json_t;

#define CONFIG_SHORT "" // which no file and no override can name

const char *config_library(void); // libyaml's version: "0.2.5"

/* Parse YAML text; `where` names it in messages ("configs/a.yaml", with line numbers). */
int config_parse(const char *text, size_t len, const char *where, struct json_t **root,
                 struct err *e) ERR_CHECKED;
int config_load(const char *path, struct json_t **root, struct err *e) ERR_CHECKED;

/* Apply one "a.b=value". ERR_INPUT when it has no '=' or the value is not YAML flow. */
int config_override(struct json_t *root, const char *assignment, struct err *e) ERR_CHECKED;

/* ERR_INPUT naming the first top-level key that is none of `known` ("a|b|c"), with the nearest. */
int config_check_sections(const struct json_t *root, const char *known, struct err *e) ERR_CHECKED;
