#include "cli/import.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "analysis/report.h"
#include "cli/fold.h"
#include "cli/run_config.h"
#include "core/clock.h"
#include "core/mem.h"
#include "core/str.h"
#include "results/journal.h"
#include "results/provenance.h"
#include "results/vllm_json.h"

#define BETWEEN_STEPS_NS NS_PER_S // on the file's clock
#define FLUSH_BYTES      ((size_t)1 << 20)

#define NOTE                                                                                         \
    "imported from vLLM's results: requests count from their arrival at its client, which keeps no " \
    "schedule, so that nothing says whether it kept up"

struct importing {
    struct vllm_json runs;
    struct run_config config;
    struct store *store;
    char *journal_dir;
};

static int read_file(struct importing *m, const char *path, struct err *e)
{
    struct str text = {0};
    struct vllm_json v;
    int rc = str_read_file(&text, path, VLLM_JSON_MAX_BYTES, e);
    if (rc == 0) {
        rc = vllm_json_parse(&v, text.data ? text.data : (char[1]){0}, text.len, path, e);
    }
    str_free(&text);
    if (rc == 0) {
        vllm_json_join(&m->runs, &v);
    }
    return rc;
}

static int read_files(struct importing *m, const char *const *paths, int n, struct err *e)
{
    for (int i = 0; i < n; i++) {
        if (read_file(m, paths[i], e)) {
            return -1;
        }
    }
    return 0;
}

/* --- the file --------------------------------------------------------------------------------- */

static json_t *provenance(const char *const *paths, int n)
{
    json_t *files = json_array();
    for (int i = 0; i < n; i++) {
        json_array_append_new(files, json_string(paths[i]));
    }
    json_t *o = provenance_collect(0, NULL, "");
    json_object_set_new(
        o, "imported",
        json_pack("{s:s, s:o, s:s}", "tool", "vllm bench serve", "files", files, "note", NOTE));
    return o;
}

/* The defaults, so that a report can be asked with slo.* and cost.*; nothing of it was run. */
static int make_config(struct importing *m, struct err *e)
{
    const char *const assignments[] = {"target.kind='null'", "name=imported"};
    json_t *none = json_object();
    int rc = run_config_override(&m->config, none, assignments, 2, e);
    json_decref(none);
    return rc;
}

static int create(struct importing *m, const char *const *paths, int n, const char *to, bool force,
                  struct err *e)
{
    const struct vllm_json_run *first = &m->runs.runs[0];
    const struct store_rank rank = {.replica = -1, .stage = -1, .tensor = -1};
    json_t *target =
        json_pack("{s:s, s:s, s:s}", "kind", "imported", "model", vllm_json_text(first, "model_id"),
                  "backend", vllm_json_text(first, "backend"));
    json_t *dataset = json_pack("{s:s}", "source", "vLLM results");
    json_t *config = run_config_dump(&m->config), *origin = provenance(paths, n);
    struct store_run run = {
        .name = "imported",
        .created_unix_ns = first->unix_ns,
        .config = config,
        .provenance = origin,
        .dataset = dataset,
        .target = target,
        .ranks = &rank,
        .n_ranks = 1,
    };
    provenance_uuid(run.uuid, sizeof run.uuid);
    int rc = store_create(&m->store, to, force, &run, e);
    json_decref(config);
    json_decref(origin);
    json_decref(dataset);
    json_decref(target);
    return rc;
}

/* --- steps ------------------------------------------------------------------------------------ */

static void move_ns(int64_t *t_ns, int64_t by_ns)
{
    if (*t_ns != RECORD_NONE) {
        *t_ns += by_ns;
    }
}

static void move_record(struct record *r, int64_t by_ns)
{
    move_ns(&r->t_sched_ns, by_ns);
    move_ns(&r->t_send_ns, by_ns);
    move_ns(&r->t_byte_ns, by_ns);
    move_ns(&r->t_first_ns, by_ns);
    move_ns(&r->t_content_ns, by_ns);
    move_ns(&r->t_last_ns, by_ns);
}

static int flush(struct journal *j, struct str *bytes, struct err *e)
{
    int rc = bytes->len ? journal_append(j, JOURNAL_RECORDS, bytes->data, bytes->len, e) : 0;
    str_clear(bytes);
    return rc;
}

static int write_records(struct journal *j, const struct vllm_json_run *run, int64_t begin_ns,
                         struct err *e)
{
    struct str bytes = {0};
    int rc = 0;
    for (size_t i = 0; i < run->n && rc == 0; i++) {
        struct record r;
        uint32_t *dt_us = vllm_json_record(run, i, &r);
        move_record(&r, begin_ns);
        size_t n = record_encoded_bytes(&r);
        str_reserve(&bytes, n);
        record_encode(&r, NULL, dt_us, (uint8_t *)bytes.data + bytes.len);
        bytes.len += n;
        free(dt_us);
        rc = bytes.len > FLUSH_BYTES ? flush(j, &bytes, e) : 0;
    }
    if (rc == 0) {
        rc = flush(j, &bytes, e);
    }
    str_free(&bytes);
    return rc;
}

/* *begin_ns: of the step; moves on to that of the next. */
static int write_step(struct importing *m, uint32_t index, int64_t *begin_ns, struct err *e)
{
    const struct vllm_json_run *run = &m->runs.runs[index];
    struct step_info info = vllm_json_step(run);
    struct journal *j;
    info.index = index;
    move_ns(&info.t_begin_ns, *begin_ns);
    move_ns(&info.t_warm_ns, *begin_ns);
    move_ns(&info.t_end_ns, *begin_ns);
    move_ns(&info.t_drain_ns, *begin_ns);
    if (journal_create(&j, m->journal_dir, index, e)) {
        return -1;
    }
    int rc = write_records(j, run, *begin_ns, e);
    journal_close(j);
    *begin_ns = info.t_drain_ns + BETWEEN_STEPS_NS;
    return rc ? -1
              : fold_step(m->store, m->journal_dir, &info, 0, NULL, 0, &m->config.slo, NULL, e);
}

static int write_steps(struct importing *m, struct err *e)
{
    int64_t begin_ns = 0;
    int rc = 0;
    for (uint32_t i = 0; i < m->runs.n && rc == 0; i++) {
        rc = write_step(m, i, &begin_ns, e);
    }
    return rc;
}

static int finish(struct importing *m, struct err *e)
{
    const struct store_rank rank = {.replica = -1, .stage = -1, .tensor = -1};
    const struct report_config c = {.slo = m->config.slo, .cost = m->config.cost};
    json_t *report;
    if (store_finish(m->store, &rank, 1, e) || report_build(m->store, &c, &report, e)) {
        return -1;
    }
    int rc = store_write_analysis(m->store, report, e);
    json_decref(report);
    return rc;
}

int import_vllm(struct store **out, const char *const *paths, int n_paths, const char *to,
                bool force, struct err *e)
{
    struct importing m = {.journal_dir = store_journal_dir(to)};
    int rc = read_files(&m, paths, n_paths, e) || make_config(&m, e) ||
                     create(&m, paths, n_paths, to, force, e)
                 ? -1
                 : 0;
    if (rc == 0) {
        rc = write_steps(&m, e) || finish(&m, e) ? -1 : 0;
        store_close(m.store);
    }
    vllm_json_free(&m.runs);
    run_config_free(&m.config);
    free(m.journal_dir);
    return rc ? -1 : store_open(out, to, false, e);
}
