#include "cli/keeper.h"

#include <jansson.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "analysis/report.h"
#include "cli/fold.h"
#include "core/clock.h"
#include "core/mem.h"

#define ABANDON_NS (700 * NS_PER_MS) // Open MPI kills a second after it has asked

struct keeper {
    struct world *w;
    struct store *store;
    struct journal *journal; // of the step under way
    char *journal_dir;
    int64_t t0_ns;
    size_t n_ranks;
    _Atomic bool failed;
    struct err err; // set by the helper before `failed`
};

/* One piece of work for the helper. Only the fields that the function needs are set. */
struct work {
    struct keeper *k;
    enum journal_kind kind;
    uint32_t step;
    struct step_info *info;
    struct slo_sample *sample;
    const struct store_run *run;
    const struct store_rank *ranks_after;
    bool force, resume, complete;
    json_t *report;
    size_t n_bytes;
    uint8_t bytes[];
};

static void note_failure(struct keeper *k, int rc, const struct err *e)
{
    if (rc && !atomic_load(&k->failed)) {
        k->err = *e;
        atomic_store(&k->failed, true);
    }
}

int keeper_check(struct keeper *k, struct err *e)
{
    if (k && atomic_load(&k->failed)) {
        *e = k->err;
        return -1;
    }
    return 0;
}

/* Run in the helper and wait. */
static int do_now(struct keeper *k, void (*fn)(void *), struct work *work, struct err *e)
{
    work->k = k;
    return world_wait(k->w, fn, work, e) || keeper_check(k, e) ? -1 : 0;
}

/* Hand over and go on; the helper frees the work. Returns the ticket. */
static long do_later(struct keeper *k, void (*fn)(void *), enum journal_kind kind, uint32_t step,
                     const void *bytes, size_t n_bytes)
{
    struct work *work = xmalloc(sizeof *work + n_bytes);
    *work = (struct work){.k = k, .kind = kind, .step = step, .n_bytes = n_bytes};
    if (n_bytes) {
        memcpy(work->bytes, bytes, n_bytes);
    }
    return jobs_push(k->w->jobs, fn, work);
}

/* --- the file --------------------------------------------------------------------------------- */

int keeper_check_resume(const struct run_config *c, struct err *e)
{
    struct store *s;
    struct store_meta m;
    if (store_open(&s, c->results, false, e)) {
        return -1;
    }
    int rc = store_read_meta(s, &m, e);
    store_close(s);
    if (rc) {
        return -1;
    }
    json_t *now = run_config_dump(c);
    if (c->endpoint.context == 0) { // the server said it when the run began
        json_t *target = json_object_get(now, "target");
        json_object_set(target, "context",
                        json_object_get(json_object_get(m.config, "target"), "context"));
    }
    json_object_del(now, "results");
    json_object_del(m.config, "results");
    bool same = json_equal(now, m.config), complete = m.complete;
    json_decref(now);
    store_meta_free(&m);
    if (complete) {
        return err_set(e, ERR_INPUT, "%s: the run is complete; nothing to resume", c->results);
    }
    return same ? 0
                : err_set(e, ERR_INPUT,
                          "%s: was begun with another config; --resume needs the same one",
                          c->results);
}

static int reopen(struct keeper *k, const char *path, struct err *e)
{
    struct store_meta m;
    if (keeper_check_resume(&k->w->config, e) || store_open(&k->store, path, true, e)) {
        return -1;
    }
    if (store_read_meta(k->store, &m, e)) {
        return -1;
    }
    // the monotonic clock may have restarted since: t0 is where the wall clock puts it
    k->t0_ns = clock_now_ns() - (clock_unix_ns() - m.created_unix_ns);
    store_meta_free(&m);
    return 0;
}

static void open_work(void *arg)
{
    struct work *work = arg;
    struct keeper *k = work->k;
    const char *path = k->w->config.results;
    struct err e = {0};
    int rc = work->resume ? reopen(k, path, &e)
                          : store_create(&k->store, path, work->force, work->run, &e);
    note_failure(k, rc, &e);
}

int keeper_open(struct keeper **out, struct world *w, const struct store_run *run, bool force,
                bool resume, struct err *e)
{
    struct keeper *k = xcalloc(1, sizeof *k);
    struct work work = {.run = run, .force = force, .resume = resume};
    k->w = w;
    k->journal_dir = xasprintf("%s.journal", w->config.results);
    k->t0_ns = run->t0_ns;
    k->n_ranks = run->n_ranks;
    if (do_now(k, open_work, &work, e)) {
        keeper_destroy(k);
        return -1;
    }
    *out = k;
    return 0;
}

struct store *keeper_store(struct keeper *k)
{
    return k->store;
}

int64_t keeper_t0_ns(const struct keeper *k)
{
    return k ? k->t0_ns : 0;
}

/* --- a step ------------------------------------------------------------------------------------- */

static void begin_work(void *arg)
{
    struct work *work = arg;
    struct keeper *k = work->k;
    struct err e = {0};
    int rc = journal_create(&k->journal, k->journal_dir, work->step, &e);
    if (rc == 0) {
        rc = journal_append(k->journal, JOURNAL_STEP, work->bytes, work->n_bytes, &e);
    }
    note_failure(k, rc, &e);
    free(work);
}

void keeper_begin_step(struct keeper *k, const struct wire_step *step)
{
    if (k) {
        const struct fold_announcement a = {.step = *step, .t0_ns = k->t0_ns};
        do_later(k, begin_work, JOURNAL_STEP, step->index, &a, sizeof a);
    }
}

static void append_work(void *arg)
{
    struct work *work = arg;
    struct keeper *k = work->k;
    struct err e = {0};
    if (k->journal && !atomic_load(&k->failed)) {
        note_failure(k, journal_append(k->journal, work->kind, work->bytes, work->n_bytes, &e), &e);
    }
    free(work);
}

void keeper_append(struct keeper *k, enum journal_kind kind, const void *bytes, size_t n_bytes)
{
    if (k) {
        do_later(k, append_work, kind, 0, bytes, n_bytes);
    }
}

static void end_work(void *arg)
{
    struct work *work = arg;
    struct keeper *k = work->k;
    struct err e = {0};
    int rc = journal_sync(k->journal, &e);
    journal_close(k->journal);
    k->journal = NULL;
    if (rc == 0) {
        rc = fold_step(k->store, k->journal_dir, work->info, k->t0_ns, NULL, 0, &k->w->config.slo,
                       work->sample, &e);
    }
    note_failure(k, rc, &e);
}

int keeper_end_step(struct keeper *k, struct step_info *info, struct slo_sample *sample,
                    struct err *e)
{
    struct work work = {.info = info, .sample = sample};
    return k ? do_now(k, end_work, &work, e) : 0;
}

static void abandon_work(void *arg)
{
    struct work *work = arg;
    struct keeper *k = work->k;
    struct err e = {0};
    if (k->journal) {
        note_failure(k, journal_sync(k->journal, &e), &e);
        journal_close(k->journal);
        k->journal = NULL;
    }
    free(work);
}

void keeper_abandon(struct keeper *k)
{
    int64_t deadline_ns = clock_local_ns() + ABANDON_NS;
    long ticket = do_later(k, abandon_work, JOURNAL_DONE, 0, NULL, 0);
    while (!jobs_done(k->w->jobs, ticket) && clock_local_ns() < deadline_ns) {
        clock_sleep_until_ns(clock_local_ns() + NS_PER_MS);
    }
}

/* --- the end ------------------------------------------------------------------------------------ */

static void finish_work(void *arg)
{
    struct work *work = arg;
    struct keeper *k = work->k;
    struct err e = {0};
    const struct report_config rc = {.slo = k->w->config.slo, .cost = k->w->config.cost};
    int failed = work->complete ? store_finish(k->store, work->ranks_after, k->n_ranks, &e) : 0;
    if (!failed) {
        failed = report_build(k->store, &rc, &work->report, &e);
    }
    if (!failed) {
        failed = store_write_analysis(k->store, work->report, &e);
    }
    note_failure(k, failed, &e);
}

int keeper_finish(struct keeper *k, const struct store_rank *ranks_after, bool complete,
                  struct json_t **report, struct err *e)
{
    struct work work = {.ranks_after = ranks_after, .complete = complete};
    if (do_now(k, finish_work, &work, e)) {
        return -1;
    }
    *report = work.report;
    return 0;
}

void keeper_destroy(struct keeper *k)
{
    if (!k) {
        return;
    }
    if (k->journal) {
        journal_close(k->journal);
    }
    if (k->store) {
        store_close(k->store);
    }
    free(k->journal_dir);
    free(k);
}
