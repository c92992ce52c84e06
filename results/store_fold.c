/*
 * Fold: two passes over a step's journal. The first finds where every record lies (24 bytes each)
 * and keeps the spans and the queue samples; then, in the order of ids, the second reads each record
 * once and hands its numbers to the columns, which write them chunk by chunk.
 */
#include "results/store.h"

#include "core/log.h"
#include "core/mem.h"
#include "results/journal.h"
#include "results/store_columns.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BATCH_ROWS ((size_t)1024)

struct place { // of one record in the journal
    uint64_t id;
    uint64_t file_offset;
    uint32_t n_bytes;
    uint32_t n_out;
};

struct list {    // growing array; memory failures are errors: its size is the user's run
    void *items; // (cap) of which n are used
    size_t n, cap;
};

struct found {
    const char *path;
    struct journal_reader *journal;
    struct list places; // struct place
    struct list spans;  // struct span
    struct list series; // struct series_point
    struct list gpus;   // struct gpus_sample
    unsigned n_stages;  // most that any record has
    size_t n_skipped;   // bytes that hold no record
};

static int list_add(struct list *l, const void *items, size_t n, size_t item_bytes,
                    const char *path, struct err *e)
{
    if (n == 0) {
        return 0;
    }
    if (l->n + n > l->cap) {
        size_t cap = (l->n + n) + (l->n + n) / 2 + 64;
        void *p = realloc(l->items, cap * item_bytes);
        if (p == NULL) {
            return err_set(e, ERR_ENV, "%s: out of memory for %zu entries", path, cap);
        }
        l->items = p;
        l->cap = cap;
    }
    memcpy((uint8_t *)l->items + l->n * item_bytes, items, n * item_bytes);
    l->n += n;
    return 0;
}

/* --- first pass ----------------------------------------------------------------------------------- */

static int find_records(struct found *f, const struct journal_entry *entry, struct err *e)
{
    size_t at = 0;
    while (at < entry->n_bytes) {
        struct record r;
        const uint32_t *stage_us, *dt_us;
        size_t n = record_decode(entry->payload + at, entry->n_bytes - at, &r, &stage_us, &dt_us);
        if (n == 0) {
            f->n_skipped += entry->n_bytes - at;
            return 0;
        }
        struct place place = {r.id, entry->file_offset + at, (uint32_t)n, r.n_out};
        if (list_add(&f->places, &place, 1, sizeof place, f->path, e) != 0) {
            return -1;
        }
        f->n_stages = r.n_stages > f->n_stages ? r.n_stages : f->n_stages;
        at += n;
    }
    return 0;
}

static int find_spans(struct found *f, const struct journal_entry *entry, struct err *e)
{
    size_t n = entry->n_bytes / sizeof(struct span);
    for (size_t i = 0; i < n; i++) {
        struct span span;
        memcpy(&span, entry->payload + i * sizeof span, sizeof span);
        if (span.op >= SPAN_OP_N) {
            f->n_skipped += sizeof span;
        } else if (list_add(&f->spans, &span, 1, sizeof span, f->path, e) != 0) {
            return -1;
        }
    }
    return 0;
}

static int find_entry(struct found *f, const struct journal_entry *entry, struct err *e)
{
    switch (entry->kind) {
    case JOURNAL_RECORDS:
        return find_records(f, entry, e);
    case JOURNAL_SPANS:
        return find_spans(f, entry, e);
    case JOURNAL_SERIES:
        return list_add(&f->series, entry->payload, entry->n_bytes / sizeof(struct series_point),
                        sizeof(struct series_point), f->path, e);
    case JOURNAL_GPUS:
        return list_add(&f->gpus, entry->payload, entry->n_bytes / sizeof(struct gpus_sample),
                        sizeof(struct gpus_sample), f->path, e);
    case JOURNAL_STEP:
    case JOURNAL_DONE:
    case JOURNAL_STOP:
    case JOURNAL_KIND_END:
        break;
    }
    return 0;
}

static int compare_places(const void *a, const void *b)
{
    const struct place *x = a, *y = b;
    if (x->id != y->id) {
        return x->id < y->id ? -1 : 1;
    }
    return (x->file_offset > y->file_offset) - (x->file_offset < y->file_offset);
}

static int compare_spans(const void *a, const void *b)
{
    const struct span *x = a, *y = b;
    if (x->rank != y->rank) {
        return x->rank < y->rank ? -1 : 1;
    }
    return (x->t_begin_ns > y->t_begin_ns) - (x->t_begin_ns < y->t_begin_ns);
}

static int compare_series(const void *a, const void *b)
{
    const struct series_point *x = a, *y = b;
    if (x->t_ns != y->t_ns) {
        return x->t_ns < y->t_ns ? -1 : 1;
    }
    return (x->replica > y->replica) - (x->replica < y->replica);
}

static int compare_gpus(const void *a, const void *b)
{
    const struct gpus_sample *x = a, *y = b;
    if (x->t_ns != y->t_ns) {
        return x->t_ns < y->t_ns ? -1 : 1;
    }
    return (x->device > y->device) - (x->device < y->device);
}

static void sort_list(struct list *l, size_t item_bytes, int (*compare)(const void *, const void *))
{
    if (l->n > 1) {
        qsort(l->items, l->n, item_bytes, compare);
    }
}

/* The first record of an id is kept. */
static void drop_duplicates(struct list *places)
{
    struct place *p = places->items;
    size_t kept = 0;
    for (size_t i = 0; i < places->n; i++) {
        if (kept == 0 || p[kept - 1].id != p[i].id) {
            p[kept++] = p[i];
        }
    }
    if (kept < places->n) {
        log_warn("store", "%zu records came twice: the first of each is kept", places->n - kept);
    }
    places->n = kept;
}

static void relative(int64_t *t_ns, int64_t t0_ns)
{
    if (*t_ns != RECORD_NONE) {
        *t_ns = (int64_t)((uint64_t)*t_ns - (uint64_t)t0_ns); // bytes from outside may wrap
    }
}

static int find_all(struct found *f, int64_t t0_ns, struct err *e)
{
    struct journal_entry entry;
    int more;
    while ((more = journal_next(f->journal, &entry, e)) == 1) {
        if (find_entry(f, &entry, e) != 0) {
            return -1;
        }
    }
    if (more < 0) {
        return -1;
    }
    if (journal_torn(f->journal) || f->n_skipped > 0) {
        log_warn("store", "%s: its end or %zu bytes of it are damaged and left out", f->path,
                 f->n_skipped);
    }
    sort_list(&f->places, sizeof(struct place), compare_places);
    drop_duplicates(&f->places);
    sort_list(&f->spans, sizeof(struct span), compare_spans);
    sort_list(&f->series, sizeof(struct series_point), compare_series);
    sort_list(&f->gpus, sizeof(struct gpus_sample), compare_gpus);
    for (size_t i = 0; i < f->spans.n; i++) {
        relative(&((struct span *)f->spans.items)[i].t_begin_ns, t0_ns);
    }
    for (size_t i = 0; i < f->series.n; i++) {
        relative(&((struct series_point *)f->series.items)[i].t_ns, t0_ns);
    }
    for (size_t i = 0; i < f->gpus.n; i++) {
        relative(&((struct gpus_sample *)f->gpus.items)[i].t_ns, t0_ns);
    }
    return 0;
}

/* --- second pass ---------------------------------------------------------------------------------- */

struct folding {
    struct found *found;
    int64_t t0_ns;
    struct store_columns requests, path[2]; // path: up to the first / last token
    struct store_group tokens;
    struct store_column offsets, dt;
    struct store_column *stages; // (2, n_stages)
    uint64_t n_tokens;           // pushed so far
    struct record *rows;         // (BATCH_ROWS)
    uint32_t *stage_rows;        // (2, n_stages, BATCH_ROWS)
    size_t n_rows;               // in the batch
    uint8_t *record;             // (record_cap) one encoded record
    size_t record_cap;
};

static int open_stages(struct folding *f, size_t n_rows, struct err *e)
{
    unsigned n_stages = f->found->n_stages;
    for (unsigned i = 0; i < 2 * n_stages; i++) {
        char name[16];
        store_schema_stage_name(i % n_stages, name, sizeof name);
        if (store_column_create(&f->stages[i], &f->path[i / n_stages].group, name,
                                &store_schema_stage_us, n_rows, STORE_CHUNK_ROWS, e) != 0 ||
            store_columns_attach(&f->requests, &f->stages[i], e) != 0) {
            return -1;
        }
    }
    return 0;
}

static int open_columns(struct folding *f, const struct store_group *step, size_t n_rows,
                        size_t n_tokens, struct err *e)
{
    if (store_columns_create(&f->requests, step, &store_schema_requests, n_rows, NULL, e) != 0 ||
        store_columns_create(&f->path[0], step, &store_schema_path_first, n_rows, &f->requests,
                             e) != 0 ||
        store_columns_create(&f->path[1], step, &store_schema_path_last, n_rows, &f->requests, e) !=
            0 ||
        open_stages(f, n_rows, e) != 0 ||
        store_hdf5_group_create(step, "tokens", &f->tokens, e) != 0 ||
        store_column_create(&f->offsets, &f->tokens, store_schema_offsets.name,
                            &store_schema_offsets, n_rows + 1, STORE_CHUNK_ROWS, e) != 0) {
        return -1;
    }
    return store_column_create(&f->dt, &f->tokens, store_schema_dt_us.name, &store_schema_dt_us,
                               n_tokens, STORE_CHUNK_TOKENS, e);
}

static void folding_init(struct folding *f, struct found *found, int64_t t0_ns)
{
    size_t n_stages = found->n_stages;
    *f = (struct folding){.found = found, .t0_ns = t0_ns};
    f->stages = xcalloc(2 * n_stages + 1, sizeof *f->stages);
    f->rows = xcalloc(BATCH_ROWS, sizeof *f->rows);
    f->stage_rows = xcalloc((2 * n_stages + 1) * BATCH_ROWS, sizeof *f->stage_rows);
}

static void folding_free(struct folding *f)
{
    for (unsigned i = 0; i < 2 * f->found->n_stages; i++) {
        store_column_close(&f->stages[i]);
    }
    store_column_close(&f->dt);
    store_column_close(&f->offsets);
    store_hdf5_group_close(&f->tokens);
    store_columns_close(&f->path[1]);
    store_columns_close(&f->path[0]);
    store_columns_close(&f->requests);
    free(f->stages);
    free(f->rows);
    free(f->stage_rows);
    free(f->record);
}

static int push_batch(struct folding *f, struct err *e)
{
    size_t n = f->n_rows;
    f->n_rows = 0;
    for (unsigned i = 0; i < 2 * f->found->n_stages; i++) {
        const uint32_t *rows = f->stage_rows + i * BATCH_ROWS;
        if (store_column_push(&f->stages[i], rows, sizeof *rows, n, e) != 0) {
            return -1;
        }
    }
    if (store_columns_push(&f->path[0], f->rows, n, e) != 0 ||
        store_columns_push(&f->path[1], f->rows, n, e) != 0) {
        return -1;
    }
    return store_columns_push(&f->requests, f->rows, n, e);
}

static void to_run_time(struct record *r, int64_t t0_ns)
{
    int64_t *const times[] = {&r->t_sched_ns,      &r->t_send_ns,     &r->t_byte_ns,
                              &r->t_first_ns,      &r->t_content_ns,  &r->t_last_ns,
                              &r->t_recv_ns,       &r->t_admit_ns,    &r->t_prefill_ns,
                              &r->t_emit_first_ns, &r->t_emit_last_ns};
    for (size_t i = 0; i < sizeof times / sizeof times[0]; i++) {
        relative(times[i], t0_ns);
    }
}

/* One request, in the order of ids. stage_us (2, n_stages), dt_us (n_out); both may be NULL. */
static int push_request(struct folding *f, const struct record *r, const uint32_t *stage_us,
                        const uint32_t *dt_us, struct err *e)
{
    unsigned n_stages = f->found->n_stages;
    f->rows[f->n_rows] = *r;
    for (unsigned upto = 0; upto < 2; upto++) {
        for (unsigned k = 0; k < n_stages; k++) {
            uint32_t us = k < r->n_stages ? stage_us[upto * r->n_stages + k] : UINT32_MAX;
            f->stage_rows[(upto * n_stages + k) * BATCH_ROWS + f->n_rows] = us;
        }
    }
    f->n_rows++;
    f->n_tokens += r->n_out;
    if (store_column_push(&f->offsets, &f->n_tokens, sizeof f->n_tokens, 1, e) != 0 ||
        store_column_push(&f->dt, dt_us, sizeof *dt_us, r->n_out, e) != 0) {
        return -1;
    }
    return f->n_rows == BATCH_ROWS ? push_batch(f, e) : 0;
}

static int push_lost(struct folding *f, const struct store_scheduled *lost, struct err *e)
{
    struct record r;
    record_init(&r);
    r.id = lost->id;
    r.t_sched_ns = lost->t_sched_ns;
    r.n_in = lost->n_in;
    r.n_out_req = lost->n_out;
    r.load_rank = lost->load_rank;
    r.outcome = OUTCOME_LOST;
    return push_request(f, &r, NULL, NULL, e);
}

static int push_found(struct folding *f, const struct place *place, struct err *e)
{
    struct record r;
    const uint32_t *stage_us, *dt_us;
    if (place->n_bytes > f->record_cap) {
        f->record = xrealloc(f->record, place->n_bytes);
        f->record_cap = place->n_bytes;
    }
    if (journal_pread(f->found->journal, place->file_offset, f->record, place->n_bytes, e) != 0) {
        return -1;
    }
    if (record_decode(f->record, place->n_bytes, &r, &stage_us, &dt_us) != place->n_bytes ||
        r.n_out != place->n_out || r.n_stages > f->found->n_stages) {
        return err_set(e, ERR_ENV, "%s: changed while it was read", f->found->path);
    }
    to_run_time(&r, f->t0_ns);
    return push_request(f, &r, stage_us, dt_us, e);
}

/* The schedule and the journal, merged by id. Ids outside of the schedule are kept too. */
static int push_all(struct folding *f, const struct store_scheduled *expected, size_t n_expected,
                    struct err *e)
{
    const struct place *places = f->found->places.items;
    size_t n = f->found->places.n, i = 0, k = 0;
    uint64_t begin = 0;
    if (store_column_push(&f->offsets, &begin, sizeof begin, 1, e) != 0) {
        return -1;
    }
    while (i < n || k < n_expected) {
        bool lost = i == n || (k < n_expected && expected[k].id < places[i].id);
        k += !lost && k < n_expected && expected[k].id == places[i].id;
        if (lost ? push_lost(f, &expected[k++], e) : push_found(f, &places[i++], e)) {
            return -1;
        }
    }
    return 0;
}

static int end_columns(struct folding *f, struct err *e)
{
    if (push_batch(f, e) != 0) {
        return -1;
    }
    for (unsigned i = 0; i < 2 * f->found->n_stages; i++) {
        if (store_column_end(&f->stages[i], e) != 0) {
            return -1;
        }
    }
    if (store_columns_end(&f->requests, e) != 0 || store_columns_end(&f->path[0], e) != 0 ||
        store_columns_end(&f->path[1], e) != 0 || store_column_end(&f->offsets, e) != 0) {
        return -1;
    }
    return store_column_end(&f->dt, e);
}

/* Ids in the journal, in the schedule, or in both: each once. */
static size_t count_rows(const struct found *found, const struct store_scheduled *expected,
                         size_t n_expected)
{
    const struct place *places = found->places.items;
    size_t i = 0, n_both = 0;
    for (size_t k = 0; k < n_expected; k++) {
        CHECK(k == 0 || expected[k - 1].id < expected[k].id);
        while (i < found->places.n && places[i].id < expected[k].id) {
            i++;
        }
        n_both += i < found->places.n && places[i].id == expected[k].id;
    }
    return found->places.n + n_expected - n_both;
}

/* What was kept whole. */
static int write_lists(const struct found *found, const struct store_group *step, struct err *e)
{
    const struct {
        const struct store_table *table;
        const struct list *list;
    } lists[] = {{&store_schema_workers, &found->spans},
                 {&store_schema_series, &found->series},
                 {&store_schema_gpu_samples, &found->gpus}};
    for (size_t i = 0; i < sizeof lists / sizeof lists[0]; i++) {
        const struct list *l = lists[i].list;
        if (store_columns_write(step, lists[i].table, l->items, l->n, e) != 0) {
            return -1;
        }
    }
    return 0;
}

static int write_step(struct found *found, const struct store_group *step, int64_t t0_ns,
                      const struct store_scheduled *expected, size_t n_expected, struct err *e)
{
    size_t n_rows = count_rows(found, expected, n_expected), n_tokens = 0;
    for (size_t i = 0; i < found->places.n; i++) {
        n_tokens += ((const struct place *)found->places.items)[i].n_out;
    }
    struct folding f;
    folding_init(&f, found, t0_ns);
    int status = -1;
    if (open_columns(&f, step, n_rows, n_tokens, e) == 0 &&
        push_all(&f, expected, n_expected, e) == 0) {
        status = end_columns(&f, e);
    }
    folding_free(&f);
    return status == 0 ? write_lists(found, step, e) : -1;
}

static void drop_pending(struct store *s)
{
    if (s->pending >= 0) {
        H5Gclose(s->pending);
        s->pending = -1;
    }
}

static bool has_step(const struct store *s, uint32_t index)
{
    for (size_t i = 0; i < s->n_steps; i++) {
        if (s->steps[i] == index) {
            return true;
        }
    }
    return false;
}

int store_fold_step(struct store *s, const char *journal_path, const struct step_info *info,
                    int64_t t0_ns, const struct store_scheduled *expected, size_t n_expected,
                    struct err *e)
{
    char path[32];
    snprintf(path, sizeof path, "/steps/%04" PRIu32, info->index);
    if (has_step(s, info->index)) {
        return err_set(e, ERR_ENV, "%s: %s is there already", s->path, path);
    }
    drop_pending(s);
    struct found found = {.path = journal_path};
    struct store_group step;
    if (journal_open(&found.journal, journal_path, e) != 0) {
        return -1;
    }
    int status = find_all(&found, t0_ns, e);
    if (status == 0) {
        status = store_hdf5_group_anonymous(s, path, &step, e);
    }
    if (status == 0) {
        status = write_step(&found, &step, t0_ns, expected, n_expected, e);
        s->pending = status == 0 ? step.id : -1;
        s->pending_info = *info;
        if (status != 0) {
            store_hdf5_group_close(&step);
        }
    }
    free(found.places.items);
    free(found.spans.items);
    free(found.series.items);
    free(found.gpus.items);
    journal_reader_close(found.journal);
    return status;
}
