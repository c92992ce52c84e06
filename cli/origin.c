#include "cli/origin.h"

#include <jansson.h>
#include <stdlib.h>

#include "analysis/prices.h"
#include "core/mem.h"
#include "results/provenance.h"
#include "workers/weights/weights.h"

/* Of a file, or null: a rank that only sends requests need not have it. */
static json_t *hash_of_file(const char *path)
{
    char hex[17];
    struct err why;
    return provenance_file_hash(path, hex, sizeof hex, &why) ? json_null() : json_string(hex);
}

static json_t *hash_json(uint64_t hash)
{
    return json_sprintf("%016llx", (unsigned long long)hash);
}

static json_t *describe_model(const struct world *w)
{
    const struct target_config *t = &w->config.target;
    bool has_files = t->kind != TARGET_OPENAI && !arch_is_preset(t->model);
    json_t *config = json_null(), *weights = json_null();
    uint64_t hash;
    struct err why;
    if (has_files && arch_is_folder(t->model)) {
        char *path = xasprintf("%s/config.json", t->model);
        config = hash_of_file(path);
        free(path);
    }
    if (has_files && t->kind == TARGET_STAGES &&
        weights_hash(t->model, &w->arch, &hash, &why) == 0) {
        weights = hash_json(hash);
    }
    json_t *tokenizer = w->tokenizer ? hash_json(tokenizer_hash(w->tokenizer)) : json_null();
    return json_pack("{s:s, s:o, s:o, s:o}", "name", t->model, "config_hash", config,
                     "weights_hash", weights, "tokenizer_hash", tokenizer);
}

static int describe_price(const struct cost_config *c, json_t **out, struct err *e)
{
    struct prices table;
    const struct price *row;
    if (!c->instance) {
        *out = json_null();
        return 0;
    }
    if (prices_pick(&table, c, &row, e)) {
        return -1;
    }
    *out = prices_dump(row);
    json_object_set_new(*out, "table", json_string(c->prices));
    json_object_set_new(*out, "table_hash", hash_of_file(c->prices));
    prices_free(&table);
    return 0;
}

struct collect_job {
    const struct world *w;
    int argc;
    char **argv;
    json_t *out;
    int rc;
    struct err e;
};

static void collect_job_run(void *arg)
{
    struct collect_job *job = arg;
    json_t *price;
    job->rc = describe_price(&job->w->config.cost, &price, &job->e);
    if (job->rc == 0) {
        job->out = provenance_collect(job->argc, job->argv, comm_library());
        json_object_set_new(job->out, "model", describe_model(job->w));
        json_object_set_new(job->out, "price", price);
    }
}

int origin_collect(struct world *w, int argc, char **argv, struct json_t **out, struct err *e)
{
    struct collect_job job = {.w = w, .argc = argc, .argv = argv};
    if (world_wait(w, collect_job_run, &job, e)) {
        return -1;
    }
    if (job.rc) {
        *e = job.e;
        return -1;
    }
    *out = job.out;
    return 0;
}
