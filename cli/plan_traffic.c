#include "cli/plan_traffic.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "analysis/stats.h"
#include "cli/text_model.h"
#include "core/clock.h"
#include "core/mem.h"
#include "loadgen/plan.h"
#include "workers/sim/virtual.h"

#define PROBE_REQUESTS 2000 // of the closed loop that `load.rates.start: auto` begins with
#define START_SHARE    0.2  // of what it reaches is the first rate
#define LAST_SHARE     1.25 // ... and beyond this there is no other

struct planner {
    const struct run_config *c;
    struct arch arch;
    struct tokenizer *tok;
    struct dataset *dataset;
    struct costs costs;
    int first[RECORD_MAX_STAGES + 1];
    struct virtual_config cfg;
    json_t *steps; // printed when all is known
};

struct step { // of all replicas
    double rate_rps;
    uint32_t users;
    size_t n;
    struct virtual_request *requests; // (n)
    struct virtual_result *replicas;  // (R)
};

static double ms(double ns)
{
    return ns / (double)NS_PER_MS;
}

/* --- opening ---------------------------------------------------------------------------------------- */

static int open_planner(struct planner *p, struct err *e)
{
    const struct target_config *t = &p->c->target;
    if (t->kind != TARGET_STAGES || t->backend != TARGET_BACKEND_SIM) {
        return err_set(e, ERR_INPUT,
                       "model plan: simulates target.kind=stages with target.backend=sim only");
    }
    if (text_model_open(p->c, &p->arch, e) || target_check(t, &p->arch, e) ||
        target_costs(t, &p->arch, &p->costs, e) || target_split(t, &p->arch, p->first, e) ||
        text_model_tokenizer(p->c, &p->arch, &p->tok, e)) {
        return -1;
    }
    const struct dataset_model model = text_model_dataset(p->c, &p->arch, p->tok);
    if (dataset_open(&p->dataset, &p->c->dataset, &model, e)) {
        return -1;
    }
    p->cfg = (struct virtual_config){
        .sched = target_sched(t, &p->arch),
        .arch = &p->arch,
        .costs = &p->costs,
        .n_stages = (int)t->pipeline,
        .first = p->first,
        .t_until_ns = p->c->load.step_ns + p->c->load.drain_ns,
    };
    p->steps = json_array();
    return plan_check(&p->c->load, p->dataset, e);
}

static void close_planner(struct planner *p)
{
    json_decref(p->steps);
    dataset_close(p->dataset);
    tokenizer_close(p->tok);
}

/* --- a step ----------------------------------------------------------------------------------------- */

static void take_event(struct step *s, const struct plan_event *ev)
{
    s->requests[s->n++] =
        (struct virtual_request){.t_due_ns = ev->t_ns, .n_in = ev->n_in, .n_out = ev->n_out};
}

/* Requests of this replica, by the order of their events. */
static int draw(const struct planner *p, struct step *s, uint64_t seed, int replica, struct err *e)
{
    int n_replicas = (int)p->c->target.replicas;
    struct plan plan;
    if (plan_build(&plan, &p->c->load, p->dataset, s->rate_rps, p->c->load.step_ns, seed, replica,
                   n_replicas, e)) {
        return -1;
    }
    s->requests = xrealloc(s->requests, (s->n + plan.n + 1) * sizeof *s->requests);
    for (size_t i = 0; i < plan.n; i++) {
        take_event(s, &plan.events[i]);
    }
    plan_free(&plan);
    return 0;
}

/* Of a closed loop: more than can end in the step, by asking how many do. */
static void draw_closed(const struct planner *p, struct step *s, uint64_t seed, size_t n)
{
    size_t from = s->n;
    s->requests = xrealloc(s->requests, (from + n) * sizeof *s->requests);
    for (size_t i = 0; i < n; i++) {
        struct plan_event ev;
        (void)plan_turn(p->dataset, seed, from + i, 0, &ev);
        ev.t_ns = VIRTUAL_NEVER;
        take_event(s, &ev);
    }
}

static uint32_t users_of(const struct planner *p, const struct step *s, int replica)
{
    uint32_t n = (uint32_t)p->c->target.replicas, r = (uint32_t)replica;
    return s->users / n + (r < s->users % n);
}

static int play_replica(const struct planner *p, struct step *s, uint64_t seed, int replica,
                        struct err *e)
{
    struct virtual_config cfg = p->cfg;
    size_t from = s->n;
    cfg.users = users_of(p, s, replica);
    if (s->users > 0 && cfg.users == 0) {
        return 0;
    }
    if (s->users == 0 && draw(p, s, seed, replica, e)) {
        return -1;
    }
    for (size_t n = PROBE_REQUESTS; s->users > 0; n *= 4) {
        s->n = from;
        draw_closed(p, s, seed, n);
        if (virtual_run(&cfg, s->requests + from, s->n - from, &s->replicas[replica], e)) {
            return -1;
        }
        if (s->requests[s->n - 1].t_due_ns == VIRTUAL_NEVER) { // the last was never sent: enough
            return 0;
        }
    }
    return virtual_run(&cfg, s->requests + from, s->n - from, &s->replicas[replica], e);
}

static int play(const struct planner *p, struct step *s, uint32_t index, struct err *e)
{
    uint64_t seed = load_step_seed(&p->c->load, index);
    s->replicas = xcalloc((size_t)p->c->target.replicas, sizeof *s->replicas);
    for (int r = 0; r < p->c->target.replicas; r++) {
        if (play_replica(p, s, seed, r, e)) {
            return -1;
        }
    }
    return 0;
}

static void free_step(struct step *s)
{
    free(s->requests);
    free(s->replicas);
}

/* --- its numbers ------------------------------------------------------------------------------------ */

/* The share of [from, to] that lies in the window; a point counts when it does. */
static double inside(double from, double to, double lo, double hi)
{
    if (!(to > from)) {
        return from >= lo && from < hi;
    }
    double a = from > lo ? from : lo, b = to < hi ? to : hi;
    return b > a ? (b - a) / (to - from) : 0;
}

struct sums {
    double *ttft, *tpot, *e2e; // (n_ttft), (n_tpot), (n_e2e) ms
    size_t n_ttft, n_tpot, n_e2e, n_due;
    double tokens_in, tokens_out;
};

static void add_request(struct sums *m, const struct virtual_request *q, double lo, double hi)
{
    double due = (double)q->t_due_ns, first = (double)q->t_first_ns, last = (double)q->t_last_ns;
    bool counts = q->t_due_ns != VIRTUAL_NEVER && due >= lo && due < hi;
    m->n_due += counts;
    if (q->t_first_ns == VIRTUAL_NEVER) {
        return;
    }
    m->tokens_in += first >= lo && first < hi ? q->n_in : 0;
    m->tokens_out += first >= lo && first < hi;
    m->tokens_out += (q->n_done - 1) * inside(first, (double)q->t_latest_ns, lo, hi);
    if (counts) {
        m->ttft[m->n_ttft++] = ms(first - due);
    }
    if (q->t_last_ns == VIRTUAL_NEVER) {
        return;
    }
    if (counts) {
        m->e2e[m->n_e2e++] = ms(last - due);
    }
    if (counts && q->n_out > 1) {
        m->tpot[m->n_tpot++] = ms((last - first) / (q->n_out - 1));
    }
}

static json_t *spread(double *v, size_t n)
{
    stats_sort(v, n);
    return n == 0 ? json_null()
                  : json_pack("{s:f, s:f, s:f, s:f}", "mean", stats_mean(v, n), "p50",
                              stats_percentile(v, n, 0.5), "p99", stats_percentile(v, n, 0.99),
                              "max", v[n - 1]);
}

/* Shares of the time up to the last event: what a stage computes, and what it does not while there is
 * work. */
static json_t *stages_json(const struct planner *p, const struct step *s)
{
    json_t *all = json_array();
    for (int r = 0; r < p->c->target.replicas; r++) {
        const struct virtual_result *v = &s->replicas[r];
        double whole = v->t_end_ns > 0 ? (double)v->t_end_ns : 1;
        for (int k = 0; k < p->cfg.n_stages; k++) {
            double busy = v->stages[k].busy_ns / whole;
            json_array_append_new(all, json_pack("{s:i, s:i, s:i, s:f, s:f}", "replica", r, "stage",
                                                 k, "layers", p->first[k + 1] - p->first[k], "busy",
                                                 busy, "bubble", v->held_ns / whole - busy));
        }
    }
    return all;
}

static json_t *replicas_json(const struct planner *p, const struct step *s)
{
    double running = 0, kv = 0, waiting = 0;
    for (int r = 0; r < p->c->target.replicas; r++) {
        const struct virtual_result *v = &s->replicas[r];
        running += v->mean_running;
        kv = v->most_kv > kv ? v->most_kv : kv;
        waiting = v->most_waiting > waiting ? v->most_waiting : waiting;
    }
    return json_pack("{s:f, s:f, s:f}", "running_mean", running, "waiting_max", waiting, "kv_max",
                     kv);
}

static json_t *step_json(const struct planner *p, const struct step *s)
{
    const double hi = (double)p->c->load.step_ns, lo = hi * p->c->load.warmup;
    struct sums m = {
        .ttft = xcalloc(s->n + 1, sizeof(double)),
        .tpot = xcalloc(s->n + 1, sizeof(double)),
        .e2e = xcalloc(s->n + 1, sizeof(double)),
    };
    size_t n_sent = 0, n_ok = 0, n_rejected = 0;
    for (size_t i = 0; i < s->n; i++) {
        const struct virtual_request *q = &s->requests[i];
        add_request(&m, q, lo, hi);
        n_sent += q->t_due_ns != VIRTUAL_NEVER;
        n_ok += q->t_last_ns != VIRTUAL_NEVER;
        n_rejected += q->rejected;
    }
    double seconds = (hi - lo) / (double)NS_PER_S;
    json_t *o = json_pack(
        "{s:f, s:i, s:I, s:I, s:I, s:f, s:f, s:f, s:o, s:o, s:o, s:o, s:o}", "rate_rps",
        s->rate_rps, "users", (int)s->users, "requests", (json_int_t)n_sent, "ok", (json_int_t)n_ok,
        "rejected", (json_int_t)n_rejected, "offered_rps", (double)m.n_due / seconds,
        "input_tokens_per_s", m.tokens_in / seconds, "output_tokens_per_s", m.tokens_out / seconds,
        "ttft_ms", spread(m.ttft, m.n_ttft), "tpot_ms", spread(m.tpot, m.n_tpot), "e2e_ms",
        spread(m.e2e, m.n_e2e), "stages", stages_json(p, s), "queue", replicas_json(p, s));
    free(m.ttft);
    free(m.tpot);
    free(m.e2e);
    return o;
}

/* --- the ladder ------------------------------------------------------------------------------------- */

static int run_step(struct planner *p, double rate_rps, uint32_t users, struct err *e)
{
    struct step s = {.rate_rps = rate_rps, .users = users};
    int rc = play(p, &s, (uint32_t)json_array_size(p->steps), e);
    if (rc == 0) {
        json_array_append_new(p->steps, step_json(p, &s));
    }
    free_step(&s);
    return rc;
}

/* What a closed loop of as many users as may run gets done, requests/s. */
static int probe(struct planner *p, double *rps, struct err *e)
{
    const struct load_config *l = &p->c->load;
    struct step s = {.users = (uint32_t)(p->c->target.replicas * p->c->target.max_running)};
    int rc = play(p, &s, 0, e);
    if (rc == 0) {
        json_t *o = step_json(p, &s);
        *rps = json_number_value(json_object_get(o, "offered_rps"));
        json_decref(o);
        if (!(*rps > 0)) {
            rc = err_set(e, ERR_INPUT,
                         "load.step: no request ends within %.1f s of a closed loop; longer steps, "
                         "or load.rates as a list",
                         (double)l->step_ns / (double)NS_PER_S);
        }
    }
    free_step(&s);
    return rc;
}

static int climb(struct planner *p, struct err *e)
{
    const struct load_config *l = &p->c->load;
    double most_rps, rate_rps = load_start_rps(l);
    if (probe(p, &most_rps, e)) {
        return -1;
    }
    rate_rps = rate_rps > 0 ? rate_rps : START_SHARE * most_rps;
    for (int64_t k = 0; k < l->rates_max_steps; k++, rate_rps *= l->rates_factor) {
        if (run_step(p, rate_rps, 0, e)) {
            return -1;
        }
        if (rate_rps > LAST_SHARE * most_rps) {
            break;
        }
    }
    return 0;
}

static int run_ladder(struct planner *p, struct err *e)
{
    const struct load_config *l = &p->c->load;
    const struct opt_numbers *users = &l->concurrency_list, *rates = &l->rates_list;
    int rc = 0;
    if (l->arrival == LOAD_CLOSED && users->n == 0) {
        return run_step(p, 0, (uint32_t)(l->users > 0 ? l->users : p->c->target.max_running), e);
    }
    for (size_t i = 0; i < users->n && rc == 0; i++) {
        rc = run_step(p, 0, (uint32_t)users->v[i], e);
    }
    for (size_t i = 0; i < rates->n && users->n == 0 && rc == 0; i++) {
        rc = run_step(p, rates->v[i], 0, e);
    }
    if (users->n > 0 || rates->n > 0 || rc) {
        return rc;
    }
    return l->arrival == LOAD_TRACE ? run_step(p, 0, 0, e) : climb(p, e);
}

/* --- printing --------------------------------------------------------------------------------------- */

static double number(const json_t *o, const char *key, const char *inner)
{
    const json_t *v = json_object_get(o, key);
    return json_number_value(inner ? json_object_get(v, inner) : v);
}

/* The busiest stage, and all stages' mean bubble. */
static void stage_shares(const json_t *step, double *busiest, double *bubble)
{
    const json_t *stages = json_object_get(step, "stages");
    size_t i, n = json_array_size(stages);
    json_t *s;
    *busiest = *bubble = 0;
    json_array_foreach(stages, i, s)
    {
        double busy = number(s, "busy", NULL);
        *busiest = busy > *busiest ? busy : *busiest;
        *bubble += number(s, "bubble", NULL) / (double)n;
    }
}

static void print_head(const struct planner *p)
{
    const struct target_config *t = &p->c->target;
    printf("%s on %s, simulated: %lld replica%s x %lld stage%s (layers", t->model, p->costs.source,
           (long long)t->replicas, t->replicas > 1 ? "s" : "", (long long)t->pipeline,
           t->pipeline > 1 ? "s" : "");
    for (int s = 0; s < t->pipeline; s++) {
        printf("%s%d", s > 0 ? "," : " ", p->first[s + 1] - p->first[s]);
    }
    printf("), %d lanes; steps of %.0f s\n", target_lanes(t),
           (double)p->c->load.step_ns / (double)NS_PER_S);
    printf("%10s %10s %11s %9s %9s %9s %9s %8s %7s %7s %7s\n", "load", "ok/sent", "out tok/s",
           "TTFT p50", "p99 ms", "TPOT p50", "p99 ms", "running", "KV max", "busy", "bubble");
}

static void print_step(const json_t *o)
{
    char load[32], done[32];
    double users = number(o, "users", NULL), busiest, bubble;
    snprintf(load, sizeof load, users > 0 ? "%.0f users" : "%.4g/s",
             users > 0 ? users : number(o, "rate_rps", NULL));
    snprintf(done, sizeof done, "%.0f/%.0f", number(o, "ok", NULL), number(o, "requests", NULL));
    stage_shares(o, &busiest, &bubble);
    printf("%10s %10s %11.1f %9.1f %9.1f %9.2f %9.2f %8.1f %6.1f%% %6.1f%% %6.1f%%\n", load, done,
           number(o, "output_tokens_per_s", NULL), number(o, "ttft_ms", "p50"),
           number(o, "ttft_ms", "p99"), number(o, "tpot_ms", "p50"), number(o, "tpot_ms", "p99"),
           number(o, "queue", "running_mean"), 100 * number(o, "queue", "kv_max"), 100 * busiest,
           100 * bubble);
}

static void print_text(const struct planner *p)
{
    size_t i;
    json_t *o;
    print_head(p);
    json_array_foreach(p->steps, i, o)
    {
        print_step(o);
    }
    printf(
        "busy: of the busiest stage; bubble: mean of all stages, of the time up to the last event\n");
}

static void print_json(const struct planner *p)
{
    const struct target_config *t = &p->c->target;
    json_t *layers = json_array();
    for (int s = 0; s < t->pipeline; s++) {
        json_array_append_new(layers, json_integer(p->first[s + 1] - p->first[s]));
    }
    json_t *root =
        json_pack("{s:s, s:s, s:s, s:I, s:I, s:i, s:o, s:f, s:O}", "schema", "tidemark.plan/1",
                  "model", t->model, "costs", p->costs.source, "replicas", (json_int_t)t->replicas,
                  "pipeline", (json_int_t)t->pipeline, "lanes", target_lanes(t), "layers", layers,
                  "step_s", (double)p->c->load.step_ns / (double)NS_PER_S, "steps", p->steps);
    json_dumpf(root, stdout, JSON_INDENT(1) | JSON_REAL_PRECISION(17));
    printf("\n");
    json_decref(root);
}

int plan_traffic_print(const struct run_config *c, bool json, struct err *e)
{
    static struct planner p;
    p = (struct planner){.c = c};
    int rc = open_planner(&p, e) || run_ladder(&p, e) ? -1 : 0;
    if (rc == 0) {
        (json ? print_json : print_text)(&p);
    }
    close_planner(&p);
    return rc;
}
