/*
 * tidemark recover: closes the file of a killed run. Journals left behind are folded into their
 * steps; the schedule is rebuilt from the stored config and the announced seed, so that every
 * request without a record is named, with outcome `lost`.
 */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "analysis/report.h"
#include "cli/command.h"
#include "cli/fold.h"
#include "cli/run_config.h"
#include "cli/text_model.h"
#include "core/clock.h"
#include "core/mem.h"
#include "loadgen/plan.h"
#include "model/tokenizer.h"
#include "model/wire.h"
#include "results/journal.h"

struct recovery {
    struct store *store;
    struct run_config config;
    struct arch arch;
    struct tokenizer *tokenizer;
    struct dataset *dataset;
    struct layout layout;
    char *journal_dir;
};

static int open_recovery(struct recovery *r, const char *path, struct err *e)
{
    struct store_meta m;
    if (store_open(&r->store, path, true, e) || store_read_meta(r->store, &m, e)) {
        return -1;
    }
    r->journal_dir = xasprintf("%s.journal", path);
    int rc = run_config_from_json(&r->config, m.config, e);
    store_meta_free(&m);
    if (rc || text_model_open(&r->config, &r->arch, e)) {
        return -1;
    }
    r->layout = run_config_layout(&r->config);
    return 0;
}

/* Only when a journal is to be folded: the dataset may be large, or gone. */
static int open_dataset(struct recovery *r, struct err *e)
{
    if (r->dataset) {
        return 0;
    }
    if (text_model_tokenizer(&r->config, &r->arch, &r->tokenizer, e)) {
        return -1;
    }
    struct dataset_model model = text_model_dataset(&r->config, &r->arch, r->tokenizer);
    return dataset_open(&r->dataset, &r->config.dataset, &model, e);
}

static void close_recovery(struct recovery *r)
{
    dataset_close(r->dataset);
    tokenizer_close(r->tokenizer);
    run_config_free(&r->config);
    free(r->journal_dir);
    if (r->store) {
        store_close(r->store);
    }
}

/* The account of a rank that had finished the step when the run died. */
struct done_entry {
    int32_t rank, reserved;
    struct wire_step_done done;
};

/* Whether it is the account of a load rank. */
static bool take_entry(const struct recovery *r, const struct journal_entry *entry,
                       struct step_info *info)
{
    struct done_entry d;
    if (entry->kind != JOURNAL_DONE || entry->n_bytes != sizeof d) {
        return false;
    }
    memcpy(&d, entry->payload, sizeof d);
    bool is_load = layout_is_load(&r->layout, d.rank);
    fold_take_done(info, &d.done, is_load, r->layout.load_ranks);
    return is_load;
}

static void take_stop(const struct journal_entry *entry, struct step_info *info, int64_t t0_ns)
{
    struct wire_step_stop stop;
    if (entry->kind == JOURNAL_STOP && entry->n_bytes == sizeof stop) {
        memcpy(&stop, entry->payload, sizeof stop);
        fold_take_stop(info, &stop, t0_ns);
    }
}

/* The announcement, and what ranks had reported as done before the run died. */
static int read_entries(const struct recovery *r, struct journal_reader *j, const char *path,
                        struct fold_announcement *a, struct step_info *info, struct err *e)
{
    struct journal_entry entry;
    int rc = journal_next(j, &entry, e);
    if (rc != 1 || entry.kind != JOURNAL_STEP || entry.n_bytes != sizeof *a) {
        return rc < 0 ? -1 : err_set(e, ERR_INPUT, "%s: holds no announcement of its step", path);
    }
    memcpy(a, entry.payload, sizeof *a);
    *info = fold_step_info(&a->step, a->t0_ns);
    int n_told = 0;
    while ((rc = journal_next(j, &entry, e)) == 1) {
        n_told += take_entry(r, &entry, info);
        take_stop(&entry, info, a->t0_ns);
    }
    if (n_told < r->layout.load_ranks) {
        fold_forget_done(info);
    }
    return rc;
}

static int read_announcement(const struct recovery *r, uint32_t step, struct fold_announcement *a,
                             struct step_info *info, struct err *e)
{
    struct journal_reader *j;
    char *path = journal_path(r->journal_dir, step);
    int rc = journal_open(&j, path, e);
    if (rc == 0) {
        rc = read_entries(r, j, path, a, info, e);
        journal_reader_close(j);
    }
    free(path);
    return rc;
}

/* The whole schedule of an open-loop step, as all load ranks together planned it. */
static int rebuild_schedule(struct recovery *r, const struct wire_step *w, struct step_info *info,
                            struct store_scheduled **out, size_t *n, struct err *e)
{
    struct plan p;
    int64_t duration_ns = w->t_end_ns - w->t_begin_ns;
    *out = NULL;
    *n = 0;
    if (w->users > 0) {
        return 0; // a closed loop schedules nothing ahead: what was sent is what was recorded
    }
    if (open_dataset(r, e) ||
        plan_build(&p, &r->config.load, r->dataset, w->rate_rps, duration_ns, w->seed, 0, 1, e)) {
        return -1;
    }
    struct store_scheduled *s = xcalloc(p.n + 1, sizeof *s);
    for (size_t i = 0; i < p.n && info->t_begin_ns + p.events[i].t_ns < info->t_end_ns; i++) {
        s[(*n)++] = (struct store_scheduled){
            .id = p.events[i].id,
            .t_sched_ns = info->t_begin_ns + p.events[i].t_ns,
            .n_in = p.events[i].n_in,
            .n_out = p.events[i].n_out,
            .load_rank = (uint16_t)(p.events[i].id % (uint64_t)r->layout.load_ranks),
        };
    }
    info->n_scheduled = info->stopped_early ? *n : p.n_total;
    info->n_filtered = p.n_filtered;
    info->schedule_hash = p.hash;
    *out = s;
    plan_free(&p);
    return 0;
}

static int recover_step(struct recovery *r, uint32_t step, struct err *e)
{
    struct fold_announcement a;
    struct step_info info;
    struct store_scheduled *schedule;
    size_t n;
    if (read_announcement(r, step, &a, &info, e) ||
        rebuild_schedule(r, &a.step, &info, &schedule, &n, e)) {
        return -1;
    }
    info.recovered = true;
    int rc =
        fold_step(r->store, r->journal_dir, &info, a.t0_ns, schedule, n, &r->config.slo, NULL, e);
    free(schedule);
    return rc;
}

static int rewrite_analysis(struct recovery *r, struct err *e)
{
    json_t *report;
    const struct report_config c = {.slo = r->config.slo, .cost = r->config.cost};
    if (report_build(r->store, &c, &report, e)) {
        return -1;
    }
    int rc = store_write_analysis(r->store, report, e);
    json_decref(report);
    return rc;
}

static int recover(const char *path, struct err *e)
{
    struct recovery r = {0};
    uint32_t *steps = NULL;
    size_t n = 0;
    int rc = open_recovery(&r, path, e);
    if (rc == 0) {
        rc = journal_list(r.journal_dir, &steps, &n, e);
    }
    for (size_t i = 0; i < n && rc == 0; i++) {
        if (steps[i] < store_n_steps(r.store)) {
            journal_remove(r.journal_dir,
                           steps[i]); // folded; the run died before it could remove it
            continue;
        }
        rc = recover_step(&r, steps[i], e);
        if (rc == 0) {
            printf("%s: step %u folded from its journal\n", path, steps[i]);
        }
    }
    if (rc == 0) {
        rc = rewrite_analysis(&r, e);
    }
    if (rc == 0 && n == 0) {
        printf("%s: no journal left; %zu complete steps\n", path, store_n_steps(r.store));
    }
    free(steps);
    close_recovery(&r);
    return rc;
}

static int run(int argc, char **argv, struct err *e)
{
    struct command_args args;
    if (command_parse(&cmd_recover, argc, argv, NULL, &args, e)) {
        return e->code;
    }
    int rc = args.n == 1 ? recover(args.positional[0], e)
                         : err_set(e, ERR_INPUT, "recover: needs one result file (FILE.h5)");
    command_args_free(&args);
    return rc ? (int)e->code : 0;
}

const struct command cmd_recover = {
    .name = "recover",
    .summary = "folds a killed run's journal into its result file",
    .usage = "recover FILE.h5",
    .details =
        "Every request that finished more than a second before the run died is there; every other\n"
        "request of the step that was under way is there too, with outcome `lost` (an open loop schedules\n"
        "ahead; in a closed loop what was in flight leaves no name). The step itself answers nothing:\n"
        "`run --resume` offers its rate again.\n",
    .example = "recover a.h5",
    .run = run,
};
