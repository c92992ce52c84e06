#include "results/store_read.h"

#include "core/mem.h"
#include "results/store_columns.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* --- steps ---------------------------------------------------------------------------------------- */

int store_read_open(struct store *s, size_t index, struct store_group *step, struct err *e)
{
    bool pending = index == s->n_steps && s->pending > 0;
    if (index >= s->n_steps && !pending) {
        return err_set(e, ERR_INPUT, "%s: no step %zu: there are %zu", s->path, index, s->n_steps);
    }
    if (pending) {
        *step = (struct store_group){.store = s, .id = s->pending};
        snprintf(step->path, sizeof step->path, "/steps/%04" PRIu32, s->pending_info.index);
        return 0;
    }
    struct store_group root, steps;
    char name[16];
    store_hdf5_root(s, &root);
    if (store_hdf5_group_open(&root, "steps", &steps, e) != 0) {
        return -1;
    }
    snprintf(name, sizeof name, "%04" PRIu32, s->steps[index]);
    int status = store_hdf5_group_open(&steps, name, step, e);
    store_hdf5_group_close(&steps);
    return status;
}

void store_read_close(const struct store *s, struct store_group *step)
{
    if (step->id != s->pending) {
        store_hdf5_group_close(step);
    }
}

unsigned store_read_n_stages(const struct store_group *step)
{
    struct store_group path, first;
    struct err ignored;
    unsigned n = 0;
    char name[16];
    if (store_hdf5_group_open(step, "path", &path, &ignored) != 0) {
        return 0;
    }
    if (store_hdf5_group_open(&path, "first", &first, &ignored) == 0) {
        while (n < RECORD_MAX_STAGES &&
               store_hdf5_has(&first, store_schema_stage_name(n, name, sizeof name))) {
            n++;
        }
        store_hdf5_group_close(&first);
    }
    store_hdf5_group_close(&path);
    return n;
}

static int out_of_memory(const struct store_group *g, struct err *e)
{
    return err_set(e, ERR_ENV, "%s: %s: out of memory", g->store->path, g->path);
}

static int check_records(const struct store_group *g, const struct step_data *d, struct err *e)
{
    for (size_t i = 0; i < d->n; i++) {
        if (i > 0 && d->records[i - 1].id >= d->records[i].id) {
            return store_hdf5_fail(e, g, "id", "is not ascending");
        }
        if (d->records[i].n_stages > d->n_stages) {
            return store_hdf5_fail(e, g, "n_stages", "counts more stages than path/ has");
        }
    }
    return 0;
}

static int read_requests(const struct store_group *step, struct step_data *d, struct err *e)
{
    struct store_group g;
    if (store_hdf5_group_open(step, "requests", &g, e) != 0) {
        return -1;
    }
    const struct store_field *id = store_schema_field(&store_schema_requests, "id");
    int status = store_column_length(&g, id->name, id, &d->n, e);
    if (status == 0) {
        d->records = calloc(d->n + 1, sizeof *d->records);
        status = d->records == NULL ? out_of_memory(&g, e) : 0;
    }
    if (status == 0) {
        status = store_columns_read(&g, &store_schema_requests, d->n, d->records, e);
    }
    if (status == 0) {
        status = check_records(&g, d, e);
    }
    store_hdf5_group_close(&g);
    return status;
}

static int read_stages(const struct store_group *g, const struct step_data *d, uint32_t *stage_us,
                       struct err *e)
{
    for (unsigned k = 0; k < d->n_stages; k++) {
        char name[16];
        size_t length;
        store_schema_stage_name(k, name, sizeof name);
        if (store_column_length(g, name, &store_schema_stage_us, &length, e) != 0) {
            return -1;
        }
        if (length != d->n) {
            return store_hdf5_fail(e, g, name, "is not as long as the other columns");
        }
        if (store_column_read(g, name, &store_schema_stage_us, 0, d->n, stage_us + k,
                              d->n_stages * sizeof *stage_us, e) != 0) {
            return -1;
        }
    }
    return 0;
}

/* path/first (0) or path/last (1) into the records and stage_us. */
static int read_path(const struct store_group *step, const char *name, struct step_data *d,
                     int upto, struct err *e)
{
    static const struct store_table *const tables[] = {&store_schema_path_first,
                                                       &store_schema_path_last};
    struct store_group path, g;
    if (store_hdf5_group_open(step, "path", &path, e) != 0) {
        return -1;
    }
    int status = store_hdf5_group_open(&path, name, &g, e);
    store_hdf5_group_close(&path);
    if (status != 0) {
        return -1;
    }
    status = store_columns_read(&g, tables[upto], d->n, d->records, e);
    if (status == 0 && d->n_stages > 0) {
        d->stage_us[upto] = calloc(d->n + 1, d->n_stages * sizeof *d->stage_us[upto]);
        status = d->stage_us[upto] == NULL ? out_of_memory(&g, e)
                                           : read_stages(&g, d, d->stage_us[upto], e);
    }
    store_hdf5_group_close(&g);
    return status;
}

/* A table of any length: rows malloc'd. */
static int read_rows(const struct store_group *parent, const struct store_table *t, void **rows,
                     size_t *n, struct err *e)
{
    struct store_group g;
    if (store_hdf5_group_open(parent, t->group, &g, e) != 0) {
        return -1;
    }
    int status = store_column_length(&g, t->fields[0].name, &t->fields[0], n, e);
    if (status == 0) {
        *rows = calloc(*n + 1, t->row_bytes);
        status = *rows == NULL ? out_of_memory(&g, e) : store_columns_read(&g, t, *n, *rows, e);
    }
    store_hdf5_group_close(&g);
    return status;
}

/* The same of a table that files of an older minor version do not have. */
static int read_rows_if_there(const struct store_group *parent, const struct store_table *t,
                              void **rows, size_t *n, struct err *e)
{
    *n = 0;
    return store_hdf5_has(parent, t->group) ? read_rows(parent, t, rows, n, e) : 0;
}

/* What sums and loops over steps rely on. */
static int check_info(const struct store_group *step, const struct step_info *i, struct err *e)
{
    const int64_t times[] = {i->t_begin_ns, i->t_warm_ns, i->t_end_ns, i->t_drain_ns,
                             i->t_planned_ns};
    for (size_t k = 0; k < sizeof times / sizeof *times; k++) {
        if (times[k] > STORE_MAX_TIME_NS || times[k] < -STORE_MAX_TIME_NS) {
            return err_set(e, ERR_INPUT, "%s: a time of %" PRId64 " ns is no time of a run",
                           step->path, times[k]);
        }
    }
    return i->repeat < STORE_MAX_PASSES
               ? 0
               : err_set(e, ERR_INPUT, "%s: attribute repeat is %" PRIu32 ", at most %d is allowed",
                         step->path, i->repeat, STORE_MAX_PASSES - 1);
}

static int read_all(struct store *s, size_t index, const struct store_group *step,
                    struct step_data *d, struct err *e)
{
    void *spans = NULL, *series = NULL, *gpus = NULL;
    if (index == s->n_steps) {
        d->info = s->pending_info;
    } else if (store_hdf5_read_attributes(step, &store_schema_step, &d->info, e) != 0 ||
               check_info(step, &d->info, e) != 0) {
        return -1;
    }
    d->n_stages = store_read_n_stages(step);
    if (read_requests(step, d, e) != 0 || read_path(step, "first", d, 0, e) != 0 ||
        read_path(step, "last", d, 1, e) != 0) {
        return -1;
    }
    int status = read_rows(step, &store_schema_workers, &spans, &d->n_spans, e);
    d->spans = spans;
    if (status == 0) {
        status = read_rows(step, &store_schema_series, &series, &d->n_series, e);
        d->series = series;
    }
    if (status == 0) {
        status = read_rows_if_there(step, &store_schema_gpu_samples, &gpus, &d->n_gpus, e);
        d->gpus = gpus;
    }
    return status;
}

int store_read_step(struct store *s, size_t index, struct step_data *d, struct err *e)
{
    struct store_group step;
    struct step_data got = {.n = 0};
    if (store_read_open(s, index, &step, e) != 0) {
        return -1;
    }
    int status = read_all(s, index, &step, &got, e);
    store_read_close(s, &step);
    if (status != 0) {
        step_data_free(&got);
        return -1;
    }
    *d = got;
    return 0;
}

void step_data_free(struct step_data *d)
{
    free(d->records);
    free(d->stage_us[0]);
    free(d->stage_us[1]);
    free(d->spans);
    free(d->series);
    free(d->gpus);
    *d = (struct step_data){.n = 0};
}

/* --- token times ---------------------------------------------------------------------------------- */

static int check_offsets(const struct store_group *g, const uint64_t *offsets, size_t n,
                         size_t n_tokens, struct err *e)
{
    for (size_t i = 0; i < n; i++) {
        if (offsets[i] > offsets[i + 1]) {
            return store_hdf5_fail(e, g, "offsets", "is not ascending");
        }
    }
    return offsets[n] <= n_tokens ? 0 : store_hdf5_fail(e, g, "offsets", "points past dt_us");
}

static int read_offsets(const struct store_group *g, size_t first, size_t n, uint64_t **out,
                        struct err *e)
{
    size_t length, n_tokens;
    const struct store_field *f = &store_schema_offsets;
    if (store_column_length(g, f->name, f, &length, e) != 0 ||
        store_column_length(g, store_schema_dt_us.name, &store_schema_dt_us, &n_tokens, e) != 0) {
        return -1;
    }
    if (first >= length || n > length - 1 - first) {
        return store_hdf5_fail(e, g, f->name, "is shorter than the records asked for");
    }
    uint64_t *offsets = malloc((n + 1) * sizeof *offsets);
    if (offsets == NULL) {
        return out_of_memory(g, e);
    }
    if (store_column_read(g, f->name, f, first, n + 1, offsets, sizeof *offsets, e) != 0 ||
        check_offsets(g, offsets, n, n_tokens, e) != 0) {
        free(offsets);
        return -1;
    }
    *out = offsets;
    return 0;
}

static int read_tokens(const struct store_group *g, size_t first, size_t n, uint64_t **offsets,
                       uint32_t **dt_us, struct err *e)
{
    uint64_t *o = NULL;
    if (read_offsets(g, first, n, &o, e) != 0) {
        return -1;
    }
    uint64_t base = o[0];
    size_t n_tokens = (size_t)(o[n] - base);
    uint32_t *dt = malloc((n_tokens + 1) * sizeof *dt);
    int status = dt == NULL ? out_of_memory(g, e) : 0;
    if (status == 0) {
        status = store_column_read(g, store_schema_dt_us.name, &store_schema_dt_us, (size_t)base,
                                   n_tokens, dt, sizeof *dt, e);
    }
    if (status != 0) {
        free(dt);
        free(o);
        return -1;
    }
    for (size_t i = 0; i <= n; i++) {
        o[i] -= base;
    }
    *offsets = o;
    *dt_us = dt;
    return 0;
}

int store_read_tokens(struct store *s, size_t step_index, size_t first, size_t n,
                      uint64_t **offsets, uint32_t **dt_us, struct err *e)
{
    struct store_group step, g;
    if (store_read_open(s, step_index, &step, e) != 0) {
        return -1;
    }
    int status = store_hdf5_group_open(&step, "tokens", &g, e);
    if (status == 0) {
        status = read_tokens(&g, first, n, offsets, dt_us, e);
        store_hdf5_group_close(&g);
    }
    store_read_close(s, &step);
    return status;
}

/* --- the run -------------------------------------------------------------------------------------- */

static int read_json(const struct store_group *meta, const char *name, json_t **out, struct err *e)
{
    char *text;
    if (store_hdf5_read_text(meta, name, &text, e) != 0) {
        return -1;
    }
    *out = json_loads(text, JSON_DECODE_ANY, NULL);
    free(text);
    return *out != NULL ? 0 : store_hdf5_fail(e, meta, name, "is not JSON");
}

static int read_root(const struct store_group *root, struct store_meta *m, struct err *e)
{
    struct store_root r;
    if (store_hdf5_read_attributes(root, &store_schema_root, &r, e) != 0 ||
        store_hdf5_read_attribute(root, &store_schema_complete, &m->complete, e) != 0) {
        return -1;
    }
    memcpy(m->uuid, r.uuid, sizeof m->uuid);
    memcpy(m->created_utc, r.created_utc, sizeof m->created_utc);
    memcpy(m->schema_version, r.schema_version, sizeof m->schema_version);
    m->name = xstrdup(r.name);
    m->created_unix_ns = r.created_unix_ns;
    m->t0_ns = r.t0_ns;
    return 0;
}

static int read_ranks(const struct store_group *root, struct store_meta *m, struct err *e)
{
    void *ranks = NULL, *after = NULL;
    size_t n_after = 0;
    int status = read_rows(root, &store_schema_ranks, &ranks, &m->n_ranks, e);
    m->ranks = ranks;
    if (status == 0 && m->complete) {
        status = read_rows(root, &store_schema_ranks_after, &after, &n_after, e);
        m->ranks_after = after;
    }
    if (status == 0 && m->complete && n_after != m->n_ranks) {
        status = store_hdf5_fail(e, root, store_schema_ranks_after.group,
                                 "does not have as many ranks as meta/ranks");
    }
    return status;
}

static int read_devices(const struct store_group *root, struct store_meta *m, struct err *e)
{
    void *engines = NULL, *edges = NULL, *gpus = NULL;
    int status = read_rows_if_there(root, &store_schema_engine, &engines, &m->n_engines, e);
    m->engines = engines;
    if (status == 0) {
        status = read_rows_if_there(root, &store_schema_edges, &edges, &m->n_edges, e);
        m->edges = edges;
    }
    if (status == 0) {
        status = read_rows_if_there(root, &store_schema_gpus, &gpus, &m->n_gpus, e);
        m->gpus = gpus;
    }
    return status;
}

int store_read_meta(struct store *s, struct store_meta *m, struct err *e)
{
    struct store_group root, meta;
    struct store_meta got = {.name = NULL};
    store_hdf5_root(s, &root);
    if (store_hdf5_group_open(&root, "meta", &meta, e) != 0) {
        return -1;
    }
    int status = -1;
    if (read_root(&root, &got, e) == 0 && read_json(&meta, "config", &got.config, e) == 0 &&
        read_json(&meta, "provenance", &got.provenance, e) == 0 &&
        read_json(&meta, "dataset", &got.dataset, e) == 0 &&
        read_json(&meta, "target", &got.target, e) == 0) {
        status = read_ranks(&root, &got, e) != 0 || read_devices(&root, &got, e) != 0 ? -1 : 0;
    }
    store_hdf5_group_close(&meta);
    if (status != 0) {
        store_meta_free(&got);
        return -1;
    }
    *m = got;
    return 0;
}

void store_meta_free(struct store_meta *m)
{
    free(m->name);
    json_decref(m->config);
    json_decref(m->provenance);
    json_decref(m->dataset);
    json_decref(m->target);
    free(m->ranks);
    free(m->ranks_after);
    free(m->engines);
    free(m->edges);
    free(m->gpus);
    *m = (struct store_meta){.name = NULL};
}
