/*
 * Values of a config.json, read strictly: an absent key (null counts as absent) takes the default or
 * is an error, a wrong type or a value out of range is an error; each names the key and what is
 * allowed. Used by model/arch_config.c alone.
 */
#pragma once

#include <stdbool.h>

#include "core/err.h"

struct json_t; // jansson's

struct config_reader {
    const struct json_t *root;
    const char *where; // of messages
    struct err *e;
};

/* NULL when absent or null. */
const struct json_t *config_reader_get(const struct json_t *object, const char *key);

/* def NULL: the key must be there. */
int config_reader_int(const struct config_reader *r, const struct json_t *object, const char *key,
                      int lo, int hi, const int *def, int *out) ERR_CHECKED;

/* Bounds are exclusive of lo, inclusive of hi. */
int config_reader_number(const struct config_reader *r, const struct json_t *object,
                         const char *key, double lo, double hi, const double *def,
                         double *out) ERR_CHECKED;

int config_reader_bool(const struct config_reader *r, const struct json_t *object, const char *key,
                       bool def, bool *out) ERR_CHECKED;

/* The text must be `only` where it is given: what else a config may ask for is not supported. */
int config_reader_only_text(const struct config_reader *r, const struct json_t *object,
                            const char *key, const char *only) ERR_CHECKED;

/* Likewise of numbers and of booleans. */
int config_reader_only_number(const struct config_reader *r, const struct json_t *object,
                              const char *key, double only) ERR_CHECKED;
int config_reader_only_bool(const struct config_reader *r, const struct json_t *object,
                            const char *key, bool only) ERR_CHECKED;
