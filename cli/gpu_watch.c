#include "cli/gpu_watch.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/log.h"
#include "core/mem.h"
#include "core/str.h"
#include "workers/visible_gpus.h"

/* What a rank says of the GPUs that it has a part in. */
struct wish {
    bool has_any;       // that are the target's, if there are any here
    bool is_sure;       // that there are
    bool is_restricted; // CUDA_VISIBLE_DEVICES is set
    char pci[16];       // of the one it computes with; empty: any that is visible
    char visible[2000];
};

/* What a rank that looks at them found. */
struct found {
    int32_t n;
    char why[200];
    struct gpus_device gpus[GPU_WATCH_MOST]; // (n)
};

/* --- whose they are ------------------------------------------------------------------------------- */

static bool is_local(const char *url, const char *host)
{
    const char *at = strstr(url, "://");
    at = at ? at + 3 : url;
    size_t n = at[0] == '[' ? strcspn(at, "]") + 1 : strcspn(at, ":/");
    const char *const names[] = {"localhost", "[::1]", host};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        if (strlen(names[i]) == n && strncasecmp(at, names[i], n) == 0) {
            return true;
        }
    }
    return strncmp(at, "127.", 4) == 0;
}

static bool endpoint_is_here(const struct world *w)
{
    const struct opt_strings *urls = &w->config.endpoint.urls;
    size_t n = 0;
    for (size_t i = 0; i < urls->n; i++) {
        n += is_local(urls->v[i], comm_host(w->comm, w->rank));
    }
    return n > 0 && n == urls->n;
}

static struct wish own_wish(const struct world *w)
{
    const struct target_config *t = &w->config.target;
    bool on = t->telemetry == TARGET_TELEMETRY_ON;
    const char *visible = getenv("CUDA_VISIBLE_DEVICES");
    struct wish mine = {.is_restricted = visible != NULL};
    snprintf(mine.visible, sizeof mine.visible, "%s", visible ? visible : "");
    if (w->worker) {
        struct engine engine;
        worker_about(w->worker, &engine);
        memcpy(mine.pci, engine.pci, sizeof mine.pci);
        mine.has_any = mine.is_sure = on || strcmp(engine.backend, "cuda") == 0;
    } else if (t->kind != TARGET_STAGES) {
        mine.has_any = on || (t->kind == TARGET_OPENAI && endpoint_is_here(w));
        mine.is_sure = on;
    }
    return mine;
}

/* Of every rank, at every rank: (comm_size), caller frees. */
static int share_wishes(const struct world *w, struct wish **out, struct err *e)
{
    size_t n = (size_t)comm_size(w->comm);
    const struct wish mine = own_wish(w);
    struct wish *all = xcalloc(n, sizeof *all);
    if (comm_gather(w->comm, &mine, sizeof mine, w->rank == 0 ? all : NULL, e) ||
        comm_bcast(w->comm, all, n * sizeof *all, 0, e)) {
        free(all);
        return -1;
    }
    *out = all;
    return 0;
}

static bool is_of_host(const struct world *w, int rank)
{
    return strcmp(comm_host(w->comm, rank), comm_host(w->comm, w->rank)) == 0;
}

/* The lowest rank of this host that has any; -1: none has. */
static int looker(const struct world *w, const struct wish *wishes)
{
    for (int r = 0; r < comm_size(w->comm); r++) {
        if (wishes[r].has_any && is_of_host(w, r)) {
            return r;
        }
    }
    return -1;
}

/* --- looking them up, in the helper --------------------------------------------------------------- */

struct look_job {
    struct world *w;
    struct gpu_watch *watch;
    const struct wish *wishes; // (comm_size)
    struct found *found;
};

static bool is_meant(const struct look_job *job, int index, const char *uuid)
{
    const struct world *w = job->w;
    const struct nvml *n = job->watch->nvml;
    for (int r = 0; r < comm_size(w->comm); r++) {
        const struct wish *x = &job->wishes[r];
        if (!x->has_any || !is_of_host(w, r)) {
            continue;
        }
        if (x->pci[0] != '\0' ? nvml_find(n, x->pci) == index
                              : visible_gpus_has(x->is_restricted ? x->visible : NULL,
                                                 nvml_count(n), index, uuid)) {
            return true;
        }
    }
    return false;
}

/* What is not known to have GPUs is not said to lack them. */
static void forget_why(const struct look_job *job)
{
    bool is_sure = false;
    for (int r = 0; r < comm_size(job->w->comm); r++) {
        is_sure |= job->wishes[r].is_sure && is_of_host(job->w, r);
    }
    if (!is_sure) {
        job->found->why[0] = '\0';
    }
}

static void look_job_run(void *arg)
{
    struct look_job *job = arg;
    struct gpu_watch *g = job->watch;
    struct found *f = job->found;
    g->nvml = nvml_open(f->why, sizeof f->why);
    for (int i = 0; g->nvml && i < nvml_count(g->nvml); i++) {
        struct gpus_device d;
        nvml_describe(g->nvml, i, &d);
        if (nvml_is_divided(g->nvml, i) || !is_meant(job, i, d.uuid)) {
            continue;
        }
        if (f->n == GPU_WATCH_MOST) {
            snprintf(f->why, sizeof f->why, "a host has more than %d", GPU_WATCH_MOST);
            break;
        }
        d.rank = job->w->rank;
        snprintf(d.host, sizeof d.host, "%s", comm_host(job->w->comm, job->w->rank));
        g->devices[f->n].index = i;
        f->gpus[f->n++] = d;
    }
    g->n_devices = (size_t)f->n;
    if (g->nvml && f->n == 0) {
        snprintf(f->why, sizeof f->why,
                 "none of the target's is visible as a whole (CUDA_VISIBLE_DEVICES, MIG)");
    }
    forget_why(job);
}

/* Rank 0: all that were found, by rank. */
static void join_found(struct gpu_watch *g, const struct found *all, int n_ranks)
{
    g->gpus = xcalloc((size_t)n_ranks * GPU_WATCH_MOST, sizeof *g->gpus);
    for (int r = 0; r < n_ranks; r++) {
        memcpy(g->gpus + g->n_gpus, all[r].gpus, (size_t)all[r].n * sizeof *g->gpus);
        g->n_gpus += (size_t)all[r].n;
        if (all[r].why[0] != '\0' && g->why[0] == '\0') {
            memcpy(g->why, all[r].why, sizeof g->why);
        }
    }
}

static int look(struct gpu_watch *g, struct world *w, const struct wish *wishes, bool is_looker,
                struct err *e)
{
    struct found mine = {.n = 0};
    struct look_job job = {.w = w, .watch = g, .wishes = wishes, .found = &mine};
    if (is_looker && world_wait(w, look_job_run, &job, e)) {
        return -1;
    }
    size_t n = (size_t)comm_size(w->comm);
    struct found *all = w->rank == 0 ? xcalloc(n, sizeof *all) : NULL;
    int rc = comm_gather(w->comm, &mine, sizeof mine, all, e);
    if (rc == 0 && all) {
        join_found(g, all, comm_size(w->comm));
    }
    free(all);
    return rc;
}

int gpu_watch_find(struct gpu_watch *g, struct world *w, struct err *e)
{
    *g = (struct gpu_watch){.nvml = NULL};
    if (w->config.target.telemetry == TARGET_TELEMETRY_OFF) {
        return 0;
    }
    struct wish *wishes;
    if (share_wishes(w, &wishes, e)) {
        return -1;
    }
    bool any = false;
    for (int r = 0; r < comm_size(w->comm); r++) {
        any |= wishes[r].has_any;
    }
    int rc = any ? look(g, w, wishes, looker(w, wishes) == w->rank, e) : 0;
    free(wishes);
    if (g->why[0] != '\0') {
        log_warn("telemetry", "%sGPUs are not looked at: %s", g->n_gpus > 0 ? "some " : "", g->why);
    }
    return rc;
}

/* --- starting ------------------------------------------------------------------------------------- */

#define NOT_KNOWN UINT16_MAX

static uint16_t number_of(const struct gpus_device *d, const struct gpus_device *known, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (strcmp(known[i].uuid, d->uuid) == 0 && strcmp(known[i].host, d->host) == 0) {
            return (uint16_t)i;
        }
    }
    return NOT_KNOWN;
}

/* Rank 0 numbers what each rank looks at: numbers (n_ranks, GPU_WATCH_MOST). */
static void number_all(const struct gpu_watch *g, const struct gpus_device *known, size_t n_known,
                       uint16_t *numbers)
{
    size_t n_unknown = 0;
    for (size_t i = 0, k = 0; i < g->n_gpus; i++) {
        const struct gpus_device *d = &g->gpus[i];
        k = i > 0 && g->gpus[i - 1].rank == d->rank ? k + 1 : 0;
        uint16_t number = number_of(d, known, n_known);
        numbers[(size_t)d->rank * GPU_WATCH_MOST + k] = number;
        n_unknown += number == NOT_KNOWN;
    }
    if (n_unknown > 0) {
        log_warn("telemetry", "%zu GPUs are not those that the run began with: not looked at",
                 n_unknown);
    }
}

int gpu_watch_start(struct gpu_watch *g, struct world *w, const struct gpus_device *known,
                    size_t n_known, struct err *e)
{
    size_t n_ranks = (size_t)comm_size(w->comm), n_kept = 0;
    if (w->config.target.telemetry == TARGET_TELEMETRY_OFF) {
        return 0;
    }
    uint16_t *numbers = xcalloc(n_ranks * GPU_WATCH_MOST, sizeof *numbers);
    number_all(g, known, n_known, numbers);
    int rc = comm_bcast(w->comm, numbers, n_ranks * GPU_WATCH_MOST * sizeof *numbers, 0, e);
    for (size_t i = 0; rc == 0 && i < g->n_devices; i++) {
        uint16_t number = numbers[(size_t)w->rank * GPU_WATCH_MOST + i];
        g->devices[n_kept].index = g->devices[i].index;
        g->devices[n_kept].number = number;
        n_kept += number != NOT_KNOWN;
    }
    free(numbers);
    if (rc == 0 && n_kept > 0) {
        rc = telemetry_start(&g->telemetry, g->nvml, g->devices, n_kept, e);
    }
    return rc;
}

void gpu_watch_stop(struct gpu_watch *g)
{
    if (telemetry_stop(g->telemetry)) {
        nvml_close(g->nvml);
    }
    free(g->gpus);
    *g = (struct gpu_watch){.nvml = NULL};
}
