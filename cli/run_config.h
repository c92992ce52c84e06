/*
 * The whole configuration of a run: the option tables of all parts, each over its place in one
 * struct. A config file, key=value overrides, --help and the config stored in the result file are
 * all views of these tables.
 */
#pragma once

#include <stdint.h>

#include "analysis/cost.h"
#include "analysis/step.h"
#include "core/err.h"
#include "core/opt.h"
#include "datasets/dataset.h"
#include "loadgen/endpoint.h"
#include "loadgen/load.h"
#include "model/layout.h"
#include "workers/target.h"

struct json_t;

struct run_config {
    char *name;
    char *results; // path of the result file
    struct target_config target;
    struct endpoint_config endpoint; // of target.kind: openai
    struct load_config load;
    struct dataset_config dataset;
    struct slo_config slo;
    struct cost_config cost;
    struct {
        int64_t silence_ns; // a rank not heard of for this long ends the run
        int64_t start_ns;   // loading weights and datasets
        int64_t batch_ns;   // what a micro-batch has at least, in a stage
    } deadline;
};

/* "key='text'" for a text that may hold anything: an assignment. Caller frees. */
char *run_config_assign(const char *key, const char *text);

/* The option tables by part, as bits. */
enum {
    RUN_CONFIG_RUN = 1 << 0, // name, results, deadlines
    RUN_CONFIG_TARGET = 1 << 1,
    RUN_CONFIG_LOAD = 1 << 2,
    RUN_CONFIG_DATASET = 1 << 3,
    RUN_CONFIG_SLO = 1 << 4,
    RUN_CONFIG_COST = 1 << 5,
    RUN_CONFIG_ENDPOINT = 1 << 6,
    RUN_CONFIG_ALL = (1 << 7) - 1,
};

/* Every key of these parts, with type, default and help; an empty line between parts. Caller frees. */
char *run_config_help(unsigned parts);

/* Defaults, then the file (may be NULL), then the assignments; then every check that needs no model. */
int run_config_load(struct run_config *c, const char *path, const char *const *assignments,
                    int n_assignments, struct err *e) ERR_CHECKED;
/* From a resolved config as run_config_dump made it (stored file, broadcast). */
int run_config_from_json(struct run_config *c, const struct json_t *root,
                         struct err *e) ERR_CHECKED;
/* The same with assignments on top. */
int run_config_override(struct run_config *c, const struct json_t *root,
                        const char *const *assignments, int n_assignments,
                        struct err *e) ERR_CHECKED;
struct json_t *run_config_dump(const struct run_config *c); // new reference
void run_config_free(struct run_config *c);

struct layout run_config_layout(const struct run_config *c);
