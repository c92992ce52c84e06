#include "cli/bench_edges.h"

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/bench_cases.h"
#include "cli/bench_edges_report.h"
#include "cli/launch.h"
#include "cli/signals.h"
#include "cli/status_line.h"
#include "core/clock.h"
#include "core/comm.h"
#include "core/mem.h"
#include "core/str.h"
#include "core/units.h"
#include "results/provenance.h"
#include "workers/backend.h"
#include "workers/edges_measure.h"

#define SILENCE_NS  (10 * NS_PER_S) // at most; a quarter of a short budget, from 2 s on
#define MAX_SECONDS 600
#define MIN_SIZE    ((int64_t)1 << 10)
#define MAX_SIZE    ((int64_t)1 << 30)

/* What is asked for, checked. */
struct edges_job {
    const struct bench_edges_ask *ask;
    uint32_t n_ranks; // 0: as there are
    int64_t budget_ns, max_bytes;
    struct arch arch;
    struct costs costs;
    struct bench_cases *cases; // owned; NULL: of no model
    bool json;
    struct backend *gpu; // of this rank; NULL: of the hosts' memory only
};

/* --- what is asked for -------------------------------------------------------------------------- */

static int check_place(const char *flag, const char *path, struct err *e)
{
    char *folder = path ? xstrdup(path) : NULL;
    char *slash = folder ? strrchr(folder, '/') : NULL;
    int rc = 0;
    if (slash) {
        *(slash == folder ? slash + 1 : slash) = '\0';
    }
    if (path && access(path, F_OK) == 0 ? access(path, W_OK)
                                        : path && access(slash ? folder : ".", W_OK)) {
        rc = err_set(e, ERR_INPUT, "%s: cannot write %s: %s", flag, path, strerror(errno));
    }
    free(folder);
    return rc;
}

static int read_model(struct edges_job *j, struct err *e)
{
    const struct bench_edges_ask *a = j->ask;
    const struct bench_cases_ask cases = {a->prompt, "1", a->batch, "0", "1"};
    if (!a->model) {
        return a->costs ? err_set(e, ERR_INPUT, "--costs: of which model? --model is missing") : 0;
    }
    j->cases = xcalloc(1, sizeof *j->cases);
    return bench_cases_parse(j->cases, &cases, e) || arch_open(a->model, &j->arch, e) ||
                   (a->costs && (costs_read(a->costs, &j->arch, &j->costs, e) ||
                                 costs_check_whole(&j->costs, e)))
               ? -1
               : 0;
}

static int read_numbers(struct edges_job *j, struct err *e)
{
    const struct bench_edges_ask *a = j->ask;
    uint32_t seconds;
    if (bench_cases_number("--seconds", a->seconds, 1, MAX_SECONDS, &seconds, e) ||
        (a->ranks && bench_cases_number("--ranks", a->ranks, EDGES_PLAN_MIN_RANKS,
                                        EDGES_PLAN_MAX_RANKS, &j->n_ranks, e))) {
        return -1;
    }
    j->budget_ns = seconds * NS_PER_S;
    if (units_parse_bytes(a->max_size, &j->max_bytes, e)) {
        return err_wrap(e, "--max-size");
    }
    return j->max_bytes >= MIN_SIZE && j->max_bytes <= MAX_SIZE
               ? 0
               : err_set(e, ERR_INPUT, "--max-size: '%.40s' is not from 1KiB to 1GiB", a->max_size);
}

/* Files are those of rank 0's host. */
static int check(struct edges_job *j, struct err *e)
{
    const struct bench_edges_ask *a = j->ask;
    if (str_choice("cpu|cuda|auto", a->backend) < 0) {
        return err_set(e, ERR_INPUT, "--backend: '%.40s' is not one of cpu, cuda, auto",
                       a->backend);
    }
    if (read_numbers(j, e)) {
        return -1;
    }
    j->json = strcmp(a->format, "json") == 0;
    if (comm_launched_rank() > 0) {
        return 0;
    }
    if (a->hostfile && access(a->hostfile, R_OK)) {
        return err_set(e, ERR_INPUT, "--hostfile: %s: %s", a->hostfile, strerror(errno));
    }
    return check_place("--output", a->output, e) || check_place("--heatmap", a->heatmap, e) ||
                   read_model(j, e)
               ? -1
               : 0;
}

/* --- what comes out ------------------------------------------------------------------------------- */

static int close_file(FILE *f, const char *path, struct err *e)
{
    const int failed = ferror(f);
    return fclose(f) || failed ? err_set(e, ERR_ENV, "%s: %s", path, strerror(errno)) : 0;
}

static int open_file(FILE **f, const char *path, struct err *e)
{
    *f = fopen(path, "we");
    return *f ? 0 : err_set(e, ERR_ENV, "%s: cannot write: %s", path, strerror(errno));
}

static int write_json(const struct bench_edges_report *r, const json_t *provenance,
                      const char *path, struct err *e)
{
    FILE *f;
    if (open_file(&f, path, e)) {
        return -1;
    }
    bench_edges_report_json(r, provenance, f);
    return close_file(f, path, e);
}

static int write_heatmap(const struct bench_edges_report *r, const char *path, struct err *e)
{
    FILE *f;
    struct str svg = {0};
    if (open_file(&f, path, e)) {
        return -1;
    }
    bench_edges_report_heatmap(r, &svg);
    fwrite(svg.data, 1, svg.len, f);
    str_free(&svg);
    return close_file(f, path, e);
}

static int report(const struct edges_job *j, const struct edges *edges, int argc, char **argv,
                  struct err *e)
{
    const struct bench_edges_ask *a = j->ask;
    struct bench_hops *hops = xcalloc(1, sizeof *hops);
    struct bench_edges_report r = {.edges = edges, .library = comm_library()};
    json_t *provenance = provenance_collect(argc, argv, comm_library());
    if (j->cases) {
        hops->model = a->model;
        hops->arch = &j->arch;
        hops->costs = a->costs ? &j->costs : NULL;
        bench_hops_find(hops, j->cases, edges);
        r.hops = hops;
    }
    if (j->json) {
        bench_edges_report_json(&r, provenance, stdout);
    } else {
        bench_edges_report_table(&r);
    }
    int rc = (a->output && write_json(&r, provenance, a->output, e)) ||
                     (a->heatmap && write_heatmap(&r, a->heatmap, e))
                 ? -1
                 : 0;
    json_decref(provenance);
    free(hops);
    return rc;
}

/* --- in the world --------------------------------------------------------------------------------- */

static bool between_rounds(void *arg, int round, int n_rounds, int64_t left_ns)
{
    (void)arg;
    status_line_show("edges: round %d of %d, %.0f s left", round + 1, n_rounds,
                     (double)left_ns / 1e9);
    return signals_graceful();
}

static int check_world(const struct edges_job *j, struct comm *c, struct err *e)
{
    const int n = comm_size(c);
    if (n < EDGES_PLAN_MIN_RANKS || n > EDGES_PLAN_MAX_RANKS) {
        return err_set(e, ERR_INPUT,
                       "bench --edges: a job of %d rank%s; edges are between %d to %d ranks", n,
                       n > 1 ? "s" : "", EDGES_PLAN_MIN_RANKS, EDGES_PLAN_MAX_RANKS);
    }
    return j->n_ranks == 0 || j->n_ranks == (uint32_t)n
               ? 0
               : err_set(e, ERR_INPUT, "--ranks: %u, but this job has %d", j->n_ranks, n);
}

/* Ranks of a host take its GPUs in order, as workers of a run do. */
static int open_gpu(struct edges_job *j, const struct comm *c, struct err *e)
{
    const char *name = j->ask->backend;
    char why[160];
    if (strcmp(name, "auto") == 0) {
        name = backend_auto(why, sizeof why);
    }
    if (strcmp(name, "cuda") != 0) {
        return 0;
    }
    const struct backend_config cfg = {
        .backend = name,
        .hops_only = true,
        .rank = comm_rank(c),
        .index = comm_index_on_this_host(c),
        .n_neighbours = comm_ranks_on_this_host(c),
    };
    return backend_create(&j->gpu, &cfg, e);
}

static int measure(struct edges_job *j, struct comm *c, struct edges *out, struct err *e)
{
    const struct edges_measure m = {
        .gpu = j->gpu,
        .max_bytes = (size_t)j->max_bytes,
        .budget_ns = j->budget_ns,
        .stop = between_rounds,
    };
    int64_t silence_ns = j->budget_ns / 4 < SILENCE_NS ? j->budget_ns / 4 : SILENCE_NS;
    silence_ns = silence_ns > 2 * NS_PER_S ? silence_ns : 2 * NS_PER_S;
    if (comm_start(c, EDGES_MEASURE_MESSAGE_BYTES, e) || comm_watch(c, silence_ns, e)) {
        return -1;
    }
    const int rc = edges_measure(&m, c, out, e);
    if (comm_rank(c) == 0) {
        status_line_clear();
    }
    return rc;
}

/* All ranks end alike; what an error says, rank 0 says. */
static int leave(struct comm *c, bool agreed, struct err *e)
{
    int code = e->code;
    if (code && !agreed && comm_size(c) > 1) {
        comm_abort(c, code, "%s", e->msg);
    }
    if (comm_rank(c) != 0) {
        *e = (struct err){0};
        code = 0;
    }
    comm_close(c);
    return code;
}

static int run_in_world(struct edges_job *j, int argc, char **argv, struct err *e)
{
    struct comm *c;
    struct edges *edges = xcalloc(1, sizeof *edges);
    const struct err mine = *e;
    bool agreed = true;
    *e = (struct err){0};
    signals_catch();
    if (comm_open(&c, e)) {
        free(edges);
        return e->code;
    }
    signals_catch();
    signals_leave();
    *e = mine;
    if (e->code == ERR_NONE && (check_world(j, c, e) || open_gpu(j, c, e))) {
        CHECK(e->code != ERR_NONE);
    }
    if (comm_agree(c, e) == 0) {
        agreed = false;
        if (measure(j, c, edges, e) == 0) {
            const int rc = comm_rank(c) == 0 ? report(j, edges, argc, argv, e) : 0;
            CHECK((rc == 0) == (e->code == ERR_NONE));
            agreed = comm_agree(c, e) != 0;
        }
    }
    edges_free(edges);
    free(edges);
    const int code = leave(c, agreed, e);
    if (j->gpu) {
        backend_destroy(j->gpu);
    }
    return code;
}

static const char *describe(void *arg, int rank, char *buf, size_t cap)
{
    (void)arg;
    snprintf(buf, cap, "rank %d of the edges", rank);
    return buf;
}

static int launch(const struct edges_job *j, char **argv, struct err *e)
{
    const struct launch l = {
        .n_ranks = (int)j->n_ranks,
        .hostfile = j->ask->hostfile,
        .argv = argv,
        .describe_rank = describe,
    };
    const int code = launch_world(&l, e);
    return code < 0 ? (int)e->code : code;
}

int bench_edges_run(const struct bench_edges_ask *ask, int argc, char **argv, struct err *e)
{
    struct edges_job *j = xcalloc(1, sizeof *j);
    int code, rc;
    j->ask = ask;
    rc = check(j, e);
    if (rc == 0 && !comm_launched() && j->n_ranks == 0) {
        rc = err_set(e, ERR_INPUT,
                     "bench --edges: of which ranks? Start it under mpirun, or with --ranks N from "
                     "%d to %d",
                     EDGES_PLAN_MIN_RANKS, EDGES_PLAN_MAX_RANKS);
    }
    if (comm_launched()) {
        code = run_in_world(j, argc, argv, e);
    } else {
        code = rc ? (int)e->code : launch(j, argv, e);
    }
    free(j->cases);
    free(j);
    return code;
}
