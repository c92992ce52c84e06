#include "results/store.h"

#include "core/mem.h"
#include "results/store_columns.h"
#include "results/store_write.h"

#include <inttypes.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* --- a step --------------------------------------------------------------------------------------- */

static void summary_row(const char *metric, const json_t *values, struct store_summary_row *row)
{
    const struct store_table *t = &store_schema_summary;
    *row = (struct store_summary_row){.n = 0};
    snprintf(row->metric, sizeof row->metric, "%s", metric);
    for (size_t i = 0; i < t->n_fields; i++) {
        const struct store_field *f = &t->fields[i];
        if (f->type == FIELD_F64) {
            const json_t *v = json_object_get(values, f->name);
            double x = json_is_number(v) ? json_number_value(v) : (double)NAN;
            memcpy((char *)row + f->offset, &x, sizeof x);
        }
    }
}

/* Every member that has a mean is a metric: one row. */
static int write_summary(const struct store_group *step, const json_t *summary, struct err *e)
{
    struct store_summary_row *rows = xcalloc(json_object_size(summary) + 1, sizeof *rows);
    size_t n = 0;
    const char *metric;
    const json_t *values;
    for (void *it = json_object_iter((json_t *)(uintptr_t)summary); it != NULL;
         it = json_object_iter_next((json_t *)(uintptr_t)summary, it)) {
        metric = json_object_iter_key(it);
        values = json_object_iter_value(it);
        if (json_is_object(values) && json_object_get(values, "mean") != NULL) {
            summary_row(metric, values, &rows[n++]);
        }
    }
    struct store_group g;
    int status = store_columns_write(step, &store_schema_summary, rows, n, e);
    if (status == 0) {
        status = store_hdf5_group_open(step, "summary", &g, e);
    }
    if (status == 0) {
        status = store_write_json(&g, "json", summary, "the step's summary, JSON", e);
        store_hdf5_group_close(&g);
    }
    free(rows);
    return status;
}

static int finish_pending(struct store *s, const struct step_info *info, const json_t *summary,
                          const struct store_group *step, struct err *e)
{
    struct store_group root, steps;
    store_hdf5_root(s, &root);
    bool complete = true;
    if (store_hdf5_write_attributes(step, &store_schema_step, info, e) != 0 ||
        write_summary(step, summary, e) != 0 ||
        store_hdf5_write_attribute(step, &store_schema_complete, &complete, e) != 0 ||
        store_hdf5_group_open(&root, "steps", &steps, e) != 0) {
        return -1;
    }
    char name[16];
    snprintf(name, sizeof name, "%04" PRIu32, info->index);
    int status = store_hdf5_commit(s, &steps, name, step, e);
    store_hdf5_group_close(&steps);
    return status;
}

int store_finish_step(struct store *s, const struct step_info *info, const json_t *summary,
                      struct err *e)
{
    CHECK(s->pending >= 0 && info->index == s->pending_info.index);
    struct store_group step = {.store = s, .id = s->pending};
    snprintf(step.path, sizeof step.path, "/steps/%04" PRIu32, info->index);
    if (finish_pending(s, info, summary, &step, e) != 0) {
        return -1;
    }
    H5Gclose(s->pending);
    s->pending = -1;
    store_hdf5_add_step(s, info->index);
    return 0;
}

/* --- the run -------------------------------------------------------------------------------------- */

static int read_step_info(const struct store_group *steps, uint32_t number, struct step_info *info,
                          struct err *e)
{
    struct store_group step;
    char name[16];
    snprintf(name, sizeof name, "%04" PRIu32, number);
    if (store_hdf5_group_open(steps, name, &step, e) != 0) {
        return -1;
    }
    int status = store_hdf5_read_attributes(&step, &store_schema_step, info, e);
    store_hdf5_group_close(&step);
    return status;
}

/* The attributes of every step once more, as columns: a table of contents. */
static int write_index(struct store *s, const struct store_group *root, struct err *e)
{
    struct store_group steps;
    if (store_hdf5_group_open(root, "steps", &steps, e) != 0) {
        return -1;
    }
    struct step_info *rows = xcalloc(s->n_steps + 1, sizeof *rows);
    int status = 0;
    for (size_t i = 0; i < s->n_steps && status == 0; i++) {
        status = read_step_info(&steps, s->steps[i], &rows[i], e);
    }
    store_hdf5_group_close(&steps);
    if (status == 0) {
        status = store_columns_write(root, &store_schema_index, rows, s->n_steps, e);
    }
    free(rows);
    return status;
}

/* What an earlier end wrote that was cut short, or that a resumed run has outgrown. */
static int remove_end(struct store *s, const struct store_group *root, struct err *e)
{
    static const struct store_table *const tables[] = {&store_schema_ranks_after,
                                                       &store_schema_index};
    bool complete = false;
    if (store_hdf5_update_attribute(root, &store_schema_complete, &complete, e) != 0) {
        return -1;
    }
    for (size_t i = 0; i < sizeof tables / sizeof tables[0]; i++) {
        const char *name = tables[i]->group;
        if (store_hdf5_has(root, name) && H5Ldelete(root->id, name, H5P_DEFAULT) < 0) {
            return store_hdf5_fail(e, root, name, "cannot be replaced");
        }
    }
    return store_hdf5_flush(s, e);
}

int store_finish(struct store *s, const struct store_rank *ranks_after, size_t n_ranks,
                 struct err *e)
{
    struct store_group root;
    bool complete = true;
    store_hdf5_root(s, &root);
    if (remove_end(s, &root, e) != 0 ||
        store_columns_write(&root, &store_schema_ranks_after, ranks_after, n_ranks, e) != 0 ||
        write_index(s, &root, e) != 0 || store_hdf5_flush(s, e) != 0 ||
        store_hdf5_update_attribute(&root, &store_schema_complete, &complete, e) != 0) {
        return -1;
    }
    return store_hdf5_flush(s, e);
}
