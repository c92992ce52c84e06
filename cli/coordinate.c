#include "cli/coordinate.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "analysis/report.h"
#include "cli/early_stop.h"
#include "cli/evidence.h"
#include "cli/fold.h"
#include "cli/gpu_watch.h"
#include "cli/keeper.h"
#include "cli/origin.h"
#include "cli/roster.h"
#include "cli/signals.h"
#include "cli/wires.h"
#include "core/clock.h"
#include "core/log.h"
#include "core/mem.h"
#include "loadgen/client_null.h"
#include "loadgen/client_openai.h"
#include "loadgen/client_stages.h"
#include "loadgen/loop.h"
#include "loadgen/progress.h"
#include "loadgen/scrape.h"
#include "loadgen/search.h"
#include "results/provenance.h"

/* A step begins this long after its announcement: planning takes about 1 us per event and rank. */
#define LEAD_NS           (200 * NS_PER_MS)
#define LEAD_PER_EVENT_NS (2 * NS_PER_US)
/* How long ranks may take, past a step's drain, to hand over what they hold; beside the first batch of a size. */
#define DONE_TIMEOUT_NS (60 * NS_PER_S)
#define FIRST_BATCH     4 // times deadline.batch, as workers/patience.h has it

/* The one request of --dry-run gets this long, whatever load.drain says. */
#define DRY_RUN_DRAIN_NS (60 * NS_PER_S)
/* What a request and a token take in a result file (tests/perf/null_target.sh, quickstart). */
#define RECORD_DISK_BYTES 150.0
#define TOKEN_DISK_BYTES  1.7

struct coordinator {
    struct world *w;
    struct coordinate_options o;
    struct keeper *keeper; // rank 0
    struct search search;  // rank 0
    struct loop *loop;
    struct client *client;
    struct scrape *scrape; // rank 0, of an endpoint with metrics; else NULL
    struct gpu_watch gpus;
    struct progress progress; // rank 0
    int64_t t0_ns;
    struct wire_step step; // under way
    struct step_info info;
    struct slo_sample sample;     // of the step that has ended
    struct evidence evidence;     // rank 0
    struct early_stop early_stop; // load ranks
    int n_done;                   // ranks that have reported the step under way as done
    bool shutdown;
    bool is_over; // rank 0: no step is left to run
};

/* --- messages ------------------------------------------------------------------------------------ */

static int bad_message(const struct comm_msg *m, struct err *e)
{
    return err_set(e, ERR_ENV, "rank %d: sent an unexpected message (tag %d, %zu bytes)", m->src,
                   m->tag, m->n_bytes);
}

static int take_journal(struct coordinator *c, const struct comm_msg *m, struct err *e)
{
    const struct wire_journal *j = m->data;
    if (m->n_bytes < sizeof *j || j->step != c->step.index) {
        return bad_message(m, e);
    }
    keeper_append(c->keeper, (enum journal_kind)j->kind, j->bytes, m->n_bytes - sizeof *j);
    return 0;
}

static int take_done(struct coordinator *c, const struct comm_msg *m, struct err *e)
{
    struct {
        int32_t rank, reserved;
        struct wire_step_done done;
    } entry = {.rank = m->src};
    if (m->n_bytes != sizeof entry.done) {
        return bad_message(m, e);
    }
    memcpy(&entry.done, m->data, sizeof entry.done);
    if (entry.done.index != c->step.index) {
        return bad_message(m, e);
    }
    fold_take_done(&c->info, &entry.done, layout_is_load(&c->w->layout, m->src),
                   c->w->layout.load_ranks);
    keeper_append(c->keeper, JOURNAL_DONE, &entry, sizeof entry);
    c->n_done++;
    return 0;
}

/* Rank 0: the step under way ends sooner than it was announced. */
static void take_stop(struct coordinator *c, const struct wire_step_stop *stop)
{
    fold_take_stop(&c->info, stop, keeper_t0_ns(c->keeper));
    c->progress.t_end_ns = stop->t_end_ns;
    keeper_append(c->keeper, JOURNAL_STOP, stop, sizeof *stop);
}

static int on_message(void *arg, const struct comm_msg *m, struct err *e)
{
    struct coordinator *c = arg;
    if (c->w->rank == 0 && m->tag == WIRE_JOURNAL) {
        return take_journal(c, m, e);
    }
    if (c->w->rank == 0 && m->tag == WIRE_STEP_DONE) {
        return take_done(c, m, e);
    }
    if ((m->tag == WIRE_WAITING || m->tag == WIRE_STEP_STOP) && c->loop) {
        return early_stop_message(&c->early_stop, c->loop, m) ? 0 : bad_message(m, e);
    }
    if (c->w->rank != 0 && m->tag == WIRE_SHUTDOWN) {
        c->shutdown = true;
        return 0;
    }
    if (m->tag == WIRE_TOKENS || m->tag == WIRE_TRACE || m->tag == WIRE_REJECT ||
        m->tag == WIRE_LOAD) {
        return 0; // of a request that the step's end has cancelled
    }
    return bad_message(m, e);
}

/* The endpoint's queues, as its metrics had them during this step. */
static void keep_samples(struct coordinator *c)
{
    struct series_point samples[16];
    size_t n = scrape_take(c->scrape, samples, sizeof samples / sizeof *samples), first = 0;
    while (first < n && samples[first].t_ns < c->step.t_begin_ns) {
        first++;
    }
    if (first < n) {
        keeper_append(c->keeper, JOURNAL_SERIES, samples + first, (n - first) * sizeof *samples);
    }
}

static int on_tick(void *arg, int64_t now_ns, struct err *e)
{
    struct coordinator *c = arg;
    if (signals_abort()) {
        return err_set(e, ERR_ENV, SIGNALS_ABORTED);
    }
    if (telemetry_tick(c->gpus.telemetry, now_ns, e)) {
        return -1;
    }
    struct wire_step_stop stop;
    int stops = early_stop_tick(&c->early_stop, c->loop, now_ns, &stop, e);
    if (stops < 0 || c->w->rank != 0) {
        return stops;
    }
    if (stops > 0) {
        take_stop(c, &stop);
    }
    keep_samples(c);
    progress_draw(&c->progress, c->loop, c->w->layout.load_ranks, now_ns);
    return keeper_check(c->keeper, e);
}

static int on_end(void *arg, struct err *e)
{
    struct coordinator *c = arg;
    return telemetry_end_step(c->gpus.telemetry, e);
}

/* --- setting up ---------------------------------------------------------------------------------- */

static int keep_file(struct coordinator *c, const struct roster *roster, int argc, char **argv,
                     struct err *e)
{
    struct world *w = c->w;
    json_t *provenance = NULL;
    if (!c->o.resume && origin_collect(w, argc, argv, &provenance, e)) { // else the file has it
        return -1;
    }
    if (provenance && c->gpus.why[0] != '\0') {
        const char *what = c->gpus.n_gpus > 0 ? "incomplete, so that energy is too low" : "off";
        json_object_set_new(provenance, "telemetry", json_sprintf("%s: %s", what, c->gpus.why));
    }
    json_t *config = run_config_dump(&w->config);
    json_t *dataset = dataset_describe(w->dataset);
    json_t *target = roster_target(roster, w);
    struct store_run run = {
        .name = w->config.name,
        .created_unix_ns = clock_unix_ns(),
        .t0_ns = clock_now_ns(),
        .config = config,
        .provenance = provenance,
        .dataset = dataset,
        .target = target,
        .ranks = roster->ranks,
        .n_ranks = (size_t)comm_size(w->comm),
        .engines = roster->engines,
        .n_engines = roster->n_engines,
        .edges = roster->edges,
        .n_edges = roster->n_edges,
        .gpus = c->gpus.gpus,
        .n_gpus = c->gpus.n_gpus,
    };
    provenance_uuid(run.uuid, sizeof run.uuid);
    int rc = keeper_open(&c->keeper, w, &run, c->o.force, c->o.resume, e);
    json_decref(config);
    json_decref(provenance);
    json_decref(dataset);
    json_decref(target);
    return rc;
}

static int make_loop(struct coordinator *c, struct err *e)
{
    struct world *w = c->w;
    const struct loop_hooks hooks = {
        .arg = c, .message = on_message, .tick = on_tick, .end = on_end};
    if (loop_create(&c->loop, w->comm, &w->layout, &w->config.load, w->dataset, w->arch.max_context,
                    hooks, e)) {
        return -1;
    }
    if (w->config.target.kind == TARGET_NULL) {
        c->client = client_null_create(loop_live_table(c->loop));
        return 0;
    }
    if (w->config.target.kind == TARGET_OPENAI) {
        http_raise_open_files();
        return client_openai_create(&c->client, &w->config.endpoint, w->config.target.model,
                                    w->config.load.ignore_eos, loop_live_table(c->loop),
                                    (uint32_t)w->config.load.max_in_flight,
                                    (uint32_t)w->arch.max_context, w->tokenizer, e);
    }
    c->client = client_stages_create(w->comm, &w->layout, loop_live_table(c->loop),
                                     w->arch.max_context, w->config.load.ignore_eos,
                                     (enum routing_kind)w->config.target.routing);
    const struct endpoint_config *how = &w->config.endpoint;
    if (how->temperature > 0) {
        client_stages_sample(c->client, &(struct wire_sampling){
                                            .seed = (uint64_t)how->seed,
                                            .temperature = (float)how->temperature,
                                            .top_p = (float)how->top_p,
                                            .min_p = (float)how->min_p,
                                            .top_k = (uint32_t)how->top_k,
                                        });
    }
    return 0;
}

static int watch_endpoint(struct coordinator *c, struct err *e)
{
    const struct endpoint_config *cfg = &c->w->config.endpoint;
    if (scrape_start(&c->scrape, cfg, e)) {
        return -1;
    }
    if (!c->scrape && strstr(cfg->metrics, "://")) {
        log_warn("endpoint", "%s: no metrics of known names; queues are not recorded",
                 cfg->metrics);
    }
    return 0;
}

/* Begin to look at the target's GPUs: those that the file has, which a resumed run's may not be. */
static int watch_gpus(struct coordinator *c, struct err *e)
{
    struct world *w = c->w;
    struct store_meta m = {.name = NULL};
    bool resumes = w->rank == 0 && c->o.resume;
    int rc = resumes ? store_read_meta(keeper_store(c->keeper), &m, e) : 0;
    CHECK(rc == 0 || e->code != ERR_NONE);
    if (world_agree(w, e)) {
        return -1;
    }
    const struct gpus_device *known = resumes ? m.gpus : c->gpus.gpus;
    rc = gpu_watch_start(&c->gpus, w, known, resumes ? m.n_gpus : c->gpus.n_gpus, e);
    store_meta_free(&m);
    CHECK(rc == 0 || e->code != ERR_NONE);
    if (w->worker) {
        worker_set_telemetry(w->worker, c->gpus.telemetry);
    }
    return world_agree(w, e);
}

/* Who is where, before the one request of --dry-run; else only what could be better. */
static void say_places(const struct coordinator *c, const struct roster *roster)
{
    const struct world *w = c->w;
    struct str text = {0};
    if (c->o.dry_run) {
        wires_text(&w->layout, roster->ranks, roster->engines, roster->edges, roster->n_edges,
                   &text);
        fputs(text.data, stdout);
    } else if (!c->o.quiet && wires_detour(&w->layout, w->comm, &text)) {
        log_warn("run", "%s", text.data);
    }
    str_free(&text);
}

int coordinate_open(struct coordinator **out, struct world *w, const struct coordinate_options *o,
                    int argc, char **argv, struct err *e)
{
    struct coordinator *c = xcalloc(1, sizeof *c);
    struct roster roster = {0};
    c->w = w;
    c->o = *o;
    if (w->auto_why[0] != '\0' && !o->quiet) {
        log_info("run", "target.backend: auto takes the CPU (%s)", w->auto_why);
    }
    if (w->is_load) {
        loop_realtime(true);
    }
    if (roster_call(&roster, w, e) || (!o->dry_run && gpu_watch_find(&c->gpus, w, e))) {
        gpu_watch_stop(&c->gpus);
        roster_free(&roster);
        free(c);
        return -1;
    }
    int rc = 0;
    if (w->rank == 0 && !o->dry_run) {
        rc = keep_file(c, &roster, argc, argv, e);
    }
    if (w->rank == 0) {
        say_places(c, &roster);
    }
    if (rc == 0 && w->is_load) {
        early_stop_init(&c->early_stop, w->comm, w->layout.load_ranks);
        rc = make_loop(c, e);
    }
    if (rc == 0 && w->rank == 0 && !o->dry_run && w->config.target.kind == TARGET_OPENAI) {
        rc = watch_endpoint(c, e);
    }
    roster_free(&roster);
    CHECK(rc == 0 || e->code != ERR_NONE);
    *out = c;
    if (world_agree(w, e)) {
        return -1;
    }
    return o->dry_run ? 0 : watch_gpus(c, e);
}

/* --- one step, rank 0 ---------------------------------------------------------------------------- */

static int tell_all(struct coordinator *c, int first_rank, int tag, const void *data,
                    size_t n_bytes, struct err *e)
{
    for (int r = first_rank; r < comm_size(c->w->comm); r++) {
        if (comm_post(c->w->comm, r, tag, data, n_bytes, e)) {
            return -1;
        }
    }
    return 0;
}

static void make_step(struct coordinator *c, uint32_t index, const struct search_step *s)
{
    const struct load_config *cfg = &c->w->config.load;
    double n_events = load_expected(cfg, s->rate_rps, s->duration_ns);
    int64_t drain_ns = c->o.dry_run ? DRY_RUN_DRAIN_NS : cfg->drain_ns;
    int64_t t_begin_ns = clock_now_ns() + LEAD_NS + (int64_t)(n_events * (double)LEAD_PER_EVENT_NS);
    c->step = (struct wire_step){
        .index = index,
        .kind = (int32_t)s->kind,
        .rate_rps = s->rate_rps,
        .users = s->users,
        .may_stop = s->may_stop,
        .repeat = s->repeat,
        .seed = load_step_seed(cfg, index),
        .t_begin_ns = t_begin_ns,
        .t_warm_ns = t_begin_ns + (int64_t)(cfg->warmup * (double)s->duration_ns),
        .t_end_ns = t_begin_ns + s->duration_ns,
        .t_drain_ns = t_begin_ns + s->duration_ns + drain_ns,
    };
    c->info = fold_step_info(&c->step, keeper_t0_ns(c->keeper));
    c->n_done = 0;
}

static int wait_done(struct coordinator *c, int n_wanted, struct err *e)
{
    const int64_t timeout_ns = DONE_TIMEOUT_NS + FIRST_BATCH * c->w->config.deadline.batch_ns;
    while (c->n_done < n_wanted) {
        struct comm_msg m;
        if (world_next_message(c->w, &m, timeout_ns, "end of the step from other ranks", e) < 0 ||
            on_message(c, &m, e) || keeper_check(c->keeper, e)) {
            return -1;
        }
    }
    return 0;
}

struct plan_job {
    struct coordinator *c;
    int rc;
    struct err e;
};

static void plan_job_run(void *arg)
{
    struct plan_job *job = arg;
    job->rc = loop_plan_step(job->c->loop, &job->c->step, &job->e);
}

static int offer_step(struct coordinator *c, struct err *e)
{
    struct plan_job plan = {.c = c};
    if (world_wait(c->w, plan_job_run, &plan, e)) {
        return -1;
    }
    if (plan.rc) {
        *e = plan.e;
        return -1;
    }
    const struct load_config *cfg = &c->w->config.load;
    double cv = cfg->arrival == LOAD_GAMMA ? cfg->arrival_cv : 1.0;
    early_stop_begin(&c->early_stop, &c->step, cv, evidence_ttft_s(&c->evidence));
    telemetry_begin_step(c->gpus.telemetry, c->w->comm, c->step.index, clock_now_ns());
    return loop_run_step(c->loop, c->client, e);
}

static int run_step(struct coordinator *c, uint32_t index, const struct search_step *s,
                    struct err *e)
{
    const struct layout *l = &c->w->layout;
    make_step(c, index, s);
    keeper_begin_step(c->keeper, &c->step);
    progress_begin_step(&c->progress, &c->step);
    if (tell_all(c, 1, WIRE_STEP, &c->step, sizeof c->step, e) || offer_step(c, e) ||
        wait_done(c, l->load_ranks, e)) {
        return -1;
    }
    const struct wire_step_end end = {.index = index};
    if (tell_all(c, l->load_ranks, WIRE_STEP_END, &end, sizeof end, e) ||
        wait_done(c, comm_size(c->w->comm), e)) {
        return -1;
    }
    progress_clear(&c->progress);
    return keeper_end_step(c->keeper, &c->info, &c->sample, e);
}

/* --- the run, rank 0 ------------------------------------------------------------------------------ */

static void report_to_search(struct coordinator *c, const struct step_info *info,
                             const struct slo_sample *sample)
{
    evidence_add(&c->evidence, info, sample);
    struct search_result r = evidence_result(&c->evidence, c->w->config.slo.quantile);
    search_report(&c->search, &r);
}

static void say_step(const struct step_info *i)
{
    char what[64];
    if (i->users) {
        snprintf(what, sizeof what, "%u users", i->users);
    } else {
        snprintf(what, sizeof what, "%.3g req/s", i->rate_rps);
    }
    log_info("run", "step %u: %s: %s (%s)", i->index, what, record_verdict_names[i->verdict],
             i->reason);
}

/* A step of the file, judged anew, for what its attributes do not keep. */
static int judge_again(struct coordinator *c, uint32_t index, struct step_info *info,
                       struct slo_sample *sample, struct err *e)
{
    json_t *summary;
    if (step_judge(keeper_store(c->keeper), index, &c->w->config.slo, info, &summary, sample, e)) {
        return -1;
    }
    json_decref(summary);
    return 0;
}

static bool is_same_step(const struct search_step *s, const struct step_info *i)
{
    return s->kind == i->kind && s->rate_rps == i->rate_rps && s->users == i->users &&
           s->repeat == i->repeat;
}

/* Steps that the file has already are the search's past. */
static int replay_steps(struct coordinator *c, uint32_t *index, struct err *e)
{
    struct search_step s;
    size_t n = store_n_steps(keeper_store(c->keeper));
    for (*index = 0; *index < n; (*index)++) {
        struct step_info info;
        struct slo_sample sample;
        if (judge_again(c, *index, &info, &sample, e)) {
            return -1;
        }
        if (info.recovered) {
            continue; // cut short: its rate is offered again
        }
        if (!search_next(&c->search, &s) || !is_same_step(&s, &info)) {
            return err_set(e, ERR_INPUT,
                           "%s: step %u is of another plan; --resume needs the config "
                           "that the run began with",
                           c->w->config.results, *index);
        }
        report_to_search(c, &info, &sample);
    }
    return 0;
}

static int run_steps(struct coordinator *c, struct err *e)
{
    struct search_step s;
    uint32_t index = 0;
    if (c->o.resume && replay_steps(c, &index, e)) {
        return -1;
    }
    for (; !signals_graceful() && search_next(&c->search, &s); index++) {
        if (run_step(c, index, &s, e)) {
            return -1;
        }
        if (!c->o.quiet) {
            say_step(&c->info);
        }
        report_to_search(c, &c->info, &c->sample);
    }
    c->is_over = !search_next(&c->search, &s);
    if (c->is_over && !c->o.quiet) {
        log_info("run", "the search ends: %s", search_ending(&c->search));
    }
    return 0;
}

/* Time with every drain used in full; disk from what requests and tokens take in a result file. */
static void print_estimates(const struct coordinator *c)
{
    const struct load_config *l = &c->w->config.load;
    struct search_step first;
    struct dataset_stats in, out;
    int64_t n = search_most_steps(&c->search), step_ns = l->step_ns, probe_ns = 0;
    if (search_next(&c->search, &first)) {
        bool is_probe = first.kind == STEP_BASE && n > 1;
        probe_ns = is_probe ? first.duration_ns + l->drain_ns : 0;
        step_ns = is_probe ? l->step_ns : first.duration_ns;
        n -= is_probe;
    }
    double seconds = (double)(probe_ns + n * (step_ns + l->drain_ns)) / 1e9;
    dataset_lengths(c->w->dataset, &in, &out);
    double request_bytes = RECORD_DISK_BYTES + TOKEN_DISK_BYTES * out.mean;
    printf("at most %lld steps%s, %.0f s with every drain used in full\n", (long long)n,
           probe_ns > 0 ? " after the probe" : "", seconds);
    printf("disk: %.0f bytes a request (%.0f output tokens on average)", request_bytes, out.mean);
    double n_requests = 0;
    for (size_t i = 0; i < l->rates_list.n; i++) {
        n_requests += l->rates_list.v[i] * (double)step_ns / 1e9;
    }
    if (n_requests > 0) {
        printf(", %.1f MB for %.0f requests", n_requests * request_bytes / 1e6, n_requests);
    }
    printf("; stages add up to 30 bytes for each batch they compute\n");
}

/* One request through everything, then what the sweep would take. */
static int dry_run(struct coordinator *c, struct err *e)
{
    const struct search_step one = {.kind = STEP_BASE, .users = 1, .duration_ns = NS_PER_MS};
    if (run_step(c, 0, &one, e)) {
        return -1;
    }
    const struct loop_live *live = loop_live(c->loop);
    printf("one request: %s\n", live->n_ok > 0 ? "ok" : "failed");
    print_estimates(c);
    return live->n_ok > 0 ? 0 : err_set(e, ERR_ENV, "the one request of --dry-run failed");
}

/* Of the target, whoever hosts it. */
static int replicas_of(const struct world *w)
{
    return w->config.target.kind == TARGET_OPENAI ? (int)w->config.target.replicas
                                                  : w->layout.replicas;
}

int coordinate_lead(struct coordinator *c, struct err *e)
{
    const struct world *w = c->w;
    search_init(&c->search, &w->config.load, replicas_of(w), plan_trace_ns(w->dataset),
                dataset_n_arrivals(w->dataset));
    c->progress = (struct progress){
        .columns = c->o.quiet || c->o.dry_run ? 0 : progress_columns(),
        .most_steps = search_most_steps(&c->search),
        .step_ns = w->config.load.step_ns,
        .drain_ns = w->config.load.drain_ns,
    };
    int rc = c->o.dry_run ? dry_run(c, e) : run_steps(c, e);
    return rc || tell_all(c, 1, WIRE_SHUTDOWN, NULL, 0, e) ? -1 : 0;
}

/* --- other load ranks ----------------------------------------------------------------------------- */

int coordinate_follow(struct coordinator *c, struct err *e)
{
    while (!c->shutdown) {
        struct comm_msg m;
        if (world_next_message(c->w, &m, -1, "step", e) < 0) {
            return -1;
        }
        if (m.tag == WIRE_STEP && m.src == 0 && m.n_bytes == sizeof c->step) {
            memcpy(&c->step, m.data, sizeof c->step);
            if (offer_step(c, e)) {
                return -1;
            }
        } else if (on_message(c, &m, e)) {
            return -1;
        }
    }
    return 0;
}

/* --- the end ------------------------------------------------------------------------------------ */

static void print_report(struct coordinator *c, const json_t *report)
{
    struct str text = {0};
    report_text_table(report, 120, &text);
    if (!c->o.quiet && text.data) {
        fputs(text.data, stdout);
        fflush(stdout);
    }
    str_free(&text);
}

int coordinate_finish(struct coordinator *c, bool *valid, struct err *e)
{
    struct store_rank *ranks = NULL;
    json_t *report = NULL;
    if (world_measure_clocks(c->w, e) || world_ranks(c->w, &ranks, e)) {
        return -1;
    }
    int rc = 0;
    if (c->keeper) {
        rc = keeper_finish(c->keeper, ranks, c->is_over, &report, e);
    }
    free(ranks);
    if (rc) {
        return -1;
    }
    if (report) {
        *valid = json_is_true(json_object_get(json_object_get(report, "run"), "valid"));
        print_report(c, report);
        json_decref(report);
    }
    return 0;
}

void coordinate_abandon(struct coordinator *c)
{
    if (c && c->keeper) {
        keeper_abandon(c->keeper);
    }
}

void coordinate_destroy(struct coordinator *c)
{
    if (!c) {
        return;
    }
    if (c->client) {
        c->client->ops->destroy(c->client);
    }
    scrape_stop(c->scrape);
    gpu_watch_stop(&c->gpus);
    loop_destroy(c->loop);
    early_stop_free(&c->early_stop);
    evidence_free(&c->evidence);
    search_free(&c->search);
    keeper_destroy(c->keeper);
    free(c);
}
