/*
 * Every table of the schema is looked for, read whole and checked against the others; each thing
 * that is wrong is one finding, and the check goes on with the next.
 */
#include "results/store.h"

#include "core/mem.h"
#include "results/store_column.h"
#include "results/store_read.h"

#include <inttypes.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TOKEN_BLOCK ((size_t)16384) // records whose token times are held at once

struct findings {
    void (*line)(void *arg, const char *text);
    void *arg;
    int n;
    int minor;     // of the file's schema
    size_t n_gpus; // rows of meta/gpus
};

enum { // minor versions that brought a table
    MINOR_ENGINE = 3,
    MINOR_GPUS = 4,
    MINOR_EDGES = 5,
};

static void add(struct findings *f, const char *text)
{
    f->n++;
    f->line(f->arg, text);
}

/* An error of a reader, as a finding. */
static bool failed(struct findings *f, int status, const struct err *e)
{
    if (status != 0) {
        add(f, e->msg);
    }
    return status != 0;
}

static bool has_text_attribute(hid_t dataset, const char *name)
{
    bool has = H5Aexists(dataset, name) > 0;
    store_hdf5_forget();
    return has;
}

static void check_description(struct findings *f, const struct store_group *g, const char *name)
{
    static const char *const wanted[] = {"units", "long_name"};
    struct err e;
    hid_t d = store_hdf5_has(g, name) ? H5Dopen2(g->id, name, H5P_DEFAULT) : -1;
    for (size_t i = 0; d >= 0 && i < sizeof wanted / sizeof wanted[0]; i++) {
        if (!has_text_attribute(d, wanted[i])) {
            char what[48];
            snprintf(what, sizeof what, "has no attribute %s", wanted[i]);
            store_hdf5_fail(&e, g, name, what);
            add(f, e.msg);
        }
    }
    if (d >= 0) {
        H5Dclose(d);
    }
}

/* Columns are there, described, of one length, and can be read. */
static void check_table(struct findings *f, const struct store_group *parent,
                        const struct store_table *t)
{
    struct store_group g;
    struct err e;
    size_t n_rows = 0, n;
    if (failed(f, store_hdf5_group_open(parent, t->group, &g, &e), &e)) {
        return;
    }
    for (size_t i = 0; i < t->n_fields; i++) {
        const struct store_field *field = &t->fields[i];
        if (store_schema_is_recent(field) && !store_hdf5_has(&g, field->name)) {
            continue;
        }
        check_description(f, &g, field->name);
        if (failed(f, store_column_length(&g, field->name, field, &n, &e), &e)) {
            continue;
        }
        n_rows = i == 0 ? n : n_rows;
        void *rows = calloc(n + 1, t->row_bytes);
        if (rows == NULL) {
            store_hdf5_fail(&e, &g, field->name, "is too long for this machine's memory");
            add(f, e.msg);
        } else {
            (void)failed(f, store_column_read(&g, field->name, field, 0, n, rows, t->row_bytes, &e),
                         &e);
        }
        free(rows);
        if (n != n_rows) {
            store_hdf5_fail(&e, &g, field->name, "is not as long as the other columns");
            add(f, e.msg);
        }
    }
    store_hdf5_group_close(&g);
}

/* --- a step --------------------------------------------------------------------------------------- */

static void check_times(struct findings *f, const struct store *s, const struct step_data *d)
{
    size_t n_wrong = 0;
    for (size_t i = 0; i < d->n; i++) {
        const struct record *r = &d->records[i];
        bool finished = r->outcome == OUTCOME_OK;
        n_wrong += finished && (r->t_send_ns == RECORD_NONE || r->t_first_ns < r->t_send_ns ||
                                r->t_last_ns < r->t_first_ns);
    }
    if (n_wrong > 0) {
        char text[256];
        snprintf(text, sizeof text,
                 "%.120s: step %" PRIu32 ": %zu finished requests whose times do not rise", s->path,
                 d->info.index, n_wrong);
        add(f, text);
    }
}

static void check_tokens(struct findings *f, struct store *s, size_t index,
                         const struct step_data *d)
{
    struct err e;
    size_t n_wrong = 0;
    for (size_t at = 0; at < d->n; at += TOKEN_BLOCK) {
        size_t n = d->n - at < TOKEN_BLOCK ? d->n - at : TOKEN_BLOCK;
        uint64_t *offsets;
        uint32_t *dt_us;
        if (failed(f, store_read_tokens(s, index, at, n, &offsets, &dt_us, &e), &e)) {
            return;
        }
        for (size_t i = 0; i < n; i++) {
            n_wrong += offsets[i + 1] - offsets[i] != d->records[at + i].n_out;
        }
        free(offsets);
        free(dt_us);
    }
    if (n_wrong > 0) {
        char text[256];
        snprintf(text, sizeof text,
                 "%.120s: step %" PRIu32
                 ": %zu requests without a time for each of their n_out tokens",
                 s->path, d->info.index, n_wrong);
        add(f, text);
    }
}

static void check_gpus(struct findings *f, const struct store *s, const struct step_data *d)
{
    size_t n_wrong = 0;
    for (size_t i = 0; i < d->n_gpus; i++) {
        n_wrong += d->gpus[i].device >= f->n_gpus;
    }
    if (n_wrong > 0) {
        char text[256];
        snprintf(text, sizeof text,
                 "%.120s: step %" PRIu32 ": %zu samples of GPUs that meta/gpus does not have",
                 s->path, d->info.index, n_wrong);
        add(f, text);
    }
}

static void check_step(struct findings *f, struct store *s, size_t index)
{
    static const struct store_table *const tables[] = {
        &store_schema_requests,   &store_schema_path_first, &store_schema_path_last,
        &store_schema_workers,    &store_schema_series,     &store_schema_summary,
        &store_schema_gpu_samples};
    size_t n_tables = sizeof tables / sizeof tables[0] - (f->minor < MINOR_GPUS);
    struct err e;
    struct store_group step;
    struct step_data d;
    int n_before = f->n;
    if (failed(f, store_read_open(s, index, &step, &e), &e)) {
        return;
    }
    for (size_t i = 0; i < n_tables; i++) {
        check_table(f, &step, tables[i]);
    }
    store_read_close(s, &step);
    if (f->n > n_before || failed(f, store_read_step(s, index, &d, &e), &e)) {
        return;
    }
    check_times(f, s, &d);
    check_tokens(f, s, index, &d);
    check_gpus(f, s, &d);
    step_data_free(&d);
}

/* --- the file ------------------------------------------------------------------------------------- */

static int minor_of(const struct store_meta *m)
{
    int major = 0, minor = 0;
    return sscanf(m->schema_version, "%d.%d", &major, &minor) == 2 ? minor : 0;
}

static void add_engine(struct findings *f, const struct store *s, int rank, const char *what)
{
    char text[256];
    snprintf(text, sizeof text, "%.120s: meta/engine: rank %d %s", s->path, rank, what);
    add(f, text);
}

/* The stage before in the same replica ends where this one begins; the first begins at 0. */
static bool follows_on(const struct store_meta *m, const struct store_rank *workers, size_t i)
{
    const struct engine *x = &m->engines[i];
    bool is_first = workers[i].stage == 0;
    for (size_t k = 0; k < m->n_engines; k++) {
        const struct store_rank *w = &workers[k];
        if (w->replica == workers[i].replica && w->tensor == workers[i].tensor &&
            w->stage == workers[i].stage - 1) {
            return m->engines[k].first_layer + m->engines[k].n_layers == x->first_layer;
        }
    }
    return is_first && x->first_layer == 0;
}

static bool bytes_fit(const struct engine *x)
{
    if (x->n_weights <= 0) {
        return x->n_weights == 0 && isnan(x->bytes_per_weight);
    }
    const double quotient = (double)x->weight_bytes / (double)x->n_weights;
    return fabs(x->bytes_per_weight - quotient) <= 1e-9 * quotient;
}

/* workers (n_engines): the rows of meta/ranks that belong to them. */
static void check_engine(struct findings *f, const struct store *s, const struct store_meta *m,
                         const struct store_rank *workers, size_t i)
{
    const struct engine *x = &m->engines[i];
    if (x->rank != workers[i].rank) {
        add_engine(f, s, x->rank, "is not the next worker of meta/ranks");
    } else if (x->n_layers < 1 || !follows_on(m, workers, i)) {
        add_engine(f, s, x->rank, "has layers that do not follow those of the stage before");
    } else if (x->backend[0] == '\0' || x->weights[0] == '\0' || x->kv_cache[0] == '\0') {
        add_engine(f, s, x->rank, "does not say its backend, weights and KV cache");
    } else if (x->weight_bytes < 0 || !bytes_fit(x)) {
        add_engine(f, s, x->rank, "has bytes_per_weight that is not weight_bytes / n_weights");
    }
}

static void check_engines(struct findings *f, const struct store *s, const struct store_group *root,
                          const struct store_meta *m)
{
    if (f->minor < MINOR_ENGINE) {
        return;
    }
    int n_before = f->n;
    check_table(f, root, &store_schema_engine);
    if (f->n > n_before) {
        return;
    }
    struct store_rank *workers = xcalloc(m->n_ranks + 1, sizeof *workers);
    size_t n = 0;
    for (size_t i = 0; i < m->n_ranks; i++) {
        workers[n] = m->ranks[i];
        n += m->ranks[i].role == 1;
    }
    if (n != m->n_engines) {
        char text[256];
        snprintf(text, sizeof text, "%.120s: meta/engine: %zu rows for %zu worker ranks", s->path,
                 m->n_engines, n);
        add(f, text);
    }
    for (size_t i = 0; n == m->n_engines && i < n; i++) {
        check_engine(f, s, m, workers, i);
    }
    free(workers);
}

/* NULL: no such rank. */
static const struct store_rank *rank_of(const struct store_meta *m, int rank)
{
    for (size_t i = 0; i < m->n_ranks; i++) {
        if (m->ranks[i].rank == rank) {
            return &m->ranks[i];
        }
    }
    return NULL;
}

/* Whether two workers of a replica are what an edge of this kind is between. */
static bool edge_fits(const struct edge *x, const struct store_rank *from,
                      const struct store_rank *to)
{
    if (!from || !to || from->role != 1 || to->role != 1 || from->replica != to->replica) {
        return false;
    }
    switch (x->kind) {
    case EDGE_HIDDEN:
        return to->stage == from->stage + 1 && to->tensor == from->tensor;
    case EDGE_SUMS:
        return to->stage == from->stage && to->tensor > from->tensor;
    default:
        return to->stage == 0 && to->tensor == 0 && from->stage > 0 && from->tensor == 0;
    }
}

static void check_edges(struct findings *f, const struct store *s, const struct store_group *root,
                        const struct store_meta *m)
{
    if (f->minor < MINOR_EDGES) {
        return;
    }
    check_table(f, root, &store_schema_edges);
    for (size_t i = 0; i < m->n_edges; i++) {
        const struct edge *x = &m->edges[i];
        const struct store_rank *from = rank_of(m, x->from_rank), *to = rank_of(m, x->to_rank);
        char text[256];
        const char *what = NULL;
        if (!edge_fits(x, from, to)) {
            what = "is not between two workers that send such to each other";
        } else if (x->same_host != (strcmp(from->host, to->host) == 0)) {
            what = "has a same_host that is not what meta/ranks says of its hosts";
        }
        if (what) {
            snprintf(text, sizeof text, "%.120s: meta/edges: the one from rank %d to rank %d %s",
                     s->path, x->from_rank, x->to_rank, what);
            add(f, text);
        }
    }
}

static void check_meta(struct findings *f, struct store *s)
{
    struct store_meta m;
    struct store_group root;
    struct err e;
    int n_before = f->n;
    store_hdf5_root(s, &root);
    check_table(f, &root, &store_schema_ranks);
    if (f->n > n_before || failed(f, store_read_meta(s, &m, &e), &e)) {
        return;
    }
    if (m.complete) {
        check_table(f, &root, &store_schema_ranks_after);
        check_table(f, &root, &store_schema_index);
    }
    f->minor = minor_of(&m);
    f->n_gpus = m.n_gpus;
    if (f->minor >= MINOR_GPUS) {
        check_table(f, &root, &store_schema_gpus);
    }
    check_engines(f, s, &root, &m);
    check_edges(f, s, &root, &m);
    store_meta_free(&m);
}

static void check_analysis(struct findings *f, struct store *s)
{
    struct store_group root, g;
    struct store_answers row;
    struct err e;
    char *text;
    store_hdf5_root(s, &root);
    if (!store_hdf5_has(&root, "analysis") ||
        failed(f, store_hdf5_group_open(&root, "analysis", &g, &e), &e)) {
        return;
    }
    (void)failed(f, store_hdf5_read_attributes(&g, &store_schema_answers, &row, &e), &e);
    if (!failed(f, store_hdf5_read_text(&g, "report", &text, &e), &e)) {
        json_t *report = json_loads(text, 0, NULL);
        if (report == NULL) {
            store_hdf5_fail(&e, &g, "report", "is not JSON");
            add(f, e.msg);
        }
        json_decref(report);
        free(text);
    }
    store_hdf5_group_close(&g);
}

/* Steps that the file names but that were never completed. */
static void check_incomplete(struct findings *f, struct store *s)
{
    struct store_group root, steps;
    struct err e;
    H5G_info_t info;
    store_hdf5_root(s, &root);
    if (failed(f, store_hdf5_group_open(&root, "steps", &steps, &e), &e)) {
        return;
    }
    if (H5Gget_info(steps.id, &info) < 0 || info.nlinks != s->n_steps) {
        store_hdf5_fail(&e, &steps, NULL, "holds something that is not a complete step");
        add(f, e.msg);
    }
    store_hdf5_group_close(&steps);
}

int store_validate(const char *path, void (*line)(void *arg, const char *text), void *arg,
                   int *n_findings, struct err *e)
{
    struct findings f = {.line = line, .arg = arg};
    struct store *s;
    if (store_open(&s, path, false, e) != 0) {
        return -1;
    }
    check_meta(&f, s);
    check_incomplete(&f, s);
    for (size_t i = 0; i < s->n_steps; i++) {
        check_step(&f, s, i);
    }
    check_analysis(&f, s);
    store_close(s);
    *n_findings = f.n;
    return 0;
}
