/* The head: norm, logits and the largest of them; whole rows of logits for the sampler's jobs. */
#include "workers/cpu/phases_impl.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/mem.h"

#define JOB_ROWS 64 // rows of logits held for jobs; with more, the head is computed again

static int least(int a, int b)
{
    return a < b ? a : b;
}

/* --- jobs ------------------------------------------------------------------------------------- */

int phases_head_create(struct phases *p, struct err *e)
{
    struct phases_jobs *j = &p->jobs;
    const size_t rows = p->cfg.max_rows, held = rows < JOB_ROWS ? rows : JOB_ROWS;
    const size_t n_values = held * (size_t)p->cfg.arch->vocab, size = (size_t)p->shard.size;
    const size_t n_part = held * (size_t)shard_most_vocab(p->cfg.arch, p->shard.size);
    j->of_sample = xcalloc(rows, sizeof *j->of_sample);
    j->samplers = xcalloc((size_t)p->cfg.n_members, sizeof *j->samplers);
    j->logits = malloc(n_values * sizeof *j->logits); // becomes memory with the first job
    j->part = size > 1 ? malloc(n_part * sizeof *j->part) : NULL;
    j->all = size > 1 ? malloc(size * n_part * sizeof *j->all) : NULL;
    if (!j->logits || (size > 1 && (!j->part || !j->all))) {
        return err_set(e, ERR_ENV, "no memory: %zu bytes of logits", n_values * sizeof *j->logits);
    }
    for (int i = 0; i < p->cfg.n_members; i++) {
        if (sampler_create(&j->samplers[i], p->cfg.arch->vocab, e)) {
            return -1;
        }
    }
    return 0;
}

void phases_head_free(struct phases *p)
{
    for (int i = 0; p->jobs.samplers && i < p->cfg.n_members; i++) {
        sampler_destroy(p->jobs.samplers[i]);
    }
    free(p->jobs.samplers);
    free(p->jobs.of_sample);
    free(p->jobs.logits);
    free(p->jobs.part);
    free(p->jobs.all);
}

void phases_head_begin(struct phases *p)
{
    const struct sampler_jobs *jobs = p->io.jobs;
    uint32_t n = 0;
    for (int i = 0; i < p->n_samples; i++) {
        bool has_job = jobs && n < jobs->n && jobs->v[n].row == p->sample_rows[i];
        p->jobs.of_sample[i] = has_job ? (int32_t)n++ : -1;
    }
    CHECK(!jobs || n == jobs->n);
}

/* The jobs whose rows of logits are whole, shared out. */
static void run_jobs(const struct phases_walk *w, int first_job, int n_jobs)
{
    struct phases *p = w->p;
    const int end = least(first_job + JOB_ROWS, n_jobs);
    for (int i = first_job + w->member; i < end; i += p->cfg.n_members) {
        float *logits = p->jobs.logits + (size_t)(i - first_job) * (size_t)p->cfg.arch->vocab;
        sampler_run(p->jobs.samplers[w->member], logits, &p->io.jobs->v[i]);
    }
}

/* --- the operation ---------------------------------------------------------------------------- */

/* NaN and the infinities have all bits of the exponent. */
static bool all_finite(const float *v, int n)
{
    const uint32_t exponent = 0x7f800000;
    uint32_t n_bad = 0;
    for (int i = 0; i < n; i++) {
        uint32_t bits;
        memcpy(&bits, v + i, sizeof bits);
        n_bad += (bits & exponent) == exponent;
    }
    return n_bad == 0;
}

/*
 * Look for a value above the best so far; the first of equals stays. Of logits that are not finite,
 * infinity is found, and BATCH_NOT_FINITE in place of an id: nothing comes above that.
 */
static void look(const struct kernels *k, const float *logits, int n, int first_id, float *best,
                 int32_t *id)
{
    if (!all_finite(logits, n)) {
        *best = INFINITY;
        *id = BATCH_NOT_FINITE;
        return;
    }
    float largest = k->max(logits, n);
    if (!(largest > *best)) {
        return;
    }
    int i = 0;
    while (logits[i] != largest && i < n - 1) {
        i++;
    }
    *best = largest;
    *id = first_id + i;
}

/* Where logits of a sample go: the batch's rows, or this rank's part of them; NULL: nowhere. */
static float *logits_row(const struct phases *p, size_t sample)
{
    if (!p->io.logits) {
        return NULL;
    }
    const size_t part = (size_t)shard_most_vocab(p->cfg.arch, p->shard.size);
    return p->shard.size > 1 ? p->part_logits + sample * part
                             : p->io.logits + sample * (size_t)p->cfg.arch->vocab;
}

/* Likewise of a job's row, where it is among those held. */
static float *job_row(const struct phases *p, size_t sample, int first_job)
{
    const int job = p->jobs.of_sample[sample], at = job - first_job;
    if (job < 0 || at < 0 || at >= JOB_ROWS) {
        return NULL;
    }
    const size_t part = (size_t)shard_most_vocab(p->cfg.arch, p->shard.size);
    return p->shard.size > 1 ? p->jobs.part + (size_t)at * part
                             : p->jobs.logits + (size_t)at * (size_t)p->cfg.arch->vocab;
}

/* Panels first .. end - 1 of the logits: the largest of each row, and whole rows of jobs from `first_job`. */
static void head_panels(const struct phases_walk *w, const struct kernels_rows *x, int first,
                        int end, int first_job)
{
    struct phases *p = w->p;
    const struct matrix *m = packed_head(p->cfg.weights);
    const struct phases_member *me = &p->members[w->member];
    const size_t ld = PHASES_HEAD_PANELS * MATRIX_PANEL;
    kernels_matmul(p->cfg.kernels, m, first, end, x, p->n_samples, me->logits, ld, KERNELS_SET);
    const int first_id = first * MATRIX_PANEL;
    const int n = least((end - first) * MATRIX_PANEL, m->n_rows - first_id);
    for (size_t i = 0; i < (size_t)p->n_samples; i++) {
        float *logits = me->logits + i * ld;
        if (p->cfg.arch->logit_softcap > 0) {
            p->cfg.kernels->softcap(logits, n, p->cfg.arch->logit_softcap);
        }
        look(p->cfg.kernels, logits, n, p->shard.vocab.first + first_id, &me->best[i], &me->ids[i]);
        float *rows[] = {logits_row(p, i), job_row(p, i, first_job)};
        for (size_t k = 0; k < sizeof rows / sizeof *rows; k++) {
            if (rows[k]) {
                memcpy(rows[k] + first_id, logits, (size_t)n * sizeof *logits);
            }
        }
    }
}

/* The best of all members: they hold ascending ranges of ids, so the first of equals is the lowest. */
static struct phases_found best_of_members(const struct phases *p, int sample)
{
    struct phases_found best = {.value = -FLT_MAX};
    for (int m = 0; m < p->cfg.n_members; m++) {
        const struct phases_member *member = &p->members[m];
        if (member->best[sample] > best.value) {
            best = (struct phases_found){member->best[sample], member->ids[sample]};
        }
    }
    return best;
}

/* Likewise of all ranks. */
static void merge_ranks(const struct phases *p)
{
    const size_t n = (size_t)p->n_samples;
    p->cfg.group.gather(p->cfg.group.ctx, p->mine, n * sizeof *p->mine, p->all);
    for (size_t r = 0; r < (size_t)p->shard.size; r++) {
        for (size_t i = 0; i < n; i++) {
            const struct phases_found *found = &p->all[r * n + i];
            if (r == 0 || found->value > p->mine[i].value) {
                p->mine[i] = *found;
            }
        }
    }
}

/* The ranks' parts (n, most of a part) of n rows of logits, side by side: out (n, vocab). */
static void merge_logits(const struct phases *p, const float *part, size_t n, float *all,
                         float *out)
{
    const struct arch *a = p->cfg.arch;
    const size_t most = (size_t)shard_most_vocab(a, p->shard.size);
    const struct shard_group *g = &p->cfg.group;
    g->gather(g->ctx, part, n * most * sizeof *part, all);
    for (int r = 0; r < p->shard.size; r++) {
        const struct shard_span vocab = shard_vocab(a, r, p->shard.size);
        for (size_t i = 0; i < n; i++) {
            memcpy(out + i * (size_t)a->vocab + vocab.first, all + ((size_t)r * n + i) * most,
                   (size_t)vocab.n * sizeof *out);
        }
    }
}

/* Every rank has whole rows of n jobs and draws from them alike. */
static void merge_jobs(const struct phases_walk *w, int n)
{
    struct phases *p = w->p;
    if (p->shard.size == 1) {
        return;
    }
    if (w->member == 0) {
        merge_logits(p, p->jobs.part, (size_t)n, p->jobs.all, p->jobs.logits);
    }
    phases_impl_meet(w);
}

static void merge(const struct phases *p)
{
    for (uint32_t i = 0; i < p->io.batch->n_rows; i++) {
        p->io.ids[i] = -1;
    }
    for (int i = 0; i < p->n_samples; i++) {
        p->mine[i] = best_of_members(p, i);
    }
    if (p->shard.size > 1 && p->n_samples > 0) {
        merge_ranks(p);
        if (p->io.logits) {
            merge_logits(p, p->part_logits, (size_t)p->n_samples, p->all_logits, p->io.logits);
        }
    }
    for (int i = 0; i < p->n_samples; i++) {
        const int job = p->jobs.of_sample[i], id = p->mine[i].id;
        p->io.ids[p->sample_rows[i]] =
            job >= 0 && id != BATCH_NOT_FINITE ? p->io.jobs->v[job].id : id;
    }
}

void phases_head(void *ctx)
{
    const struct phases_walk *w = ctx;
    struct phases *p = w->p;
    const struct phases_member *me = &p->members[w->member];
    const struct matrix *m = packed_head(p->cfg.weights);
    const float *x = phases_impl_normed(w, p->cfg.weights->norm, p->sample_tokens, p->n_samples);
    const struct kernels_rows rows = phases_impl_input(w, m, x, p->ld.hidden, p->n_samples);
    for (int i = 0; i < p->n_samples; i++) {
        me->best[i] = -FLT_MAX;
        me->ids[i] = 0;
    }
    struct phases_range r = phases_impl_share(w, m->n_panels);
    const int n_jobs = p->io.jobs ? (int)p->io.jobs->n : 0;
    int first_job = 0;
    do {
        for (int panel = r.from; panel < r.to && p->n_samples > 0; panel += PHASES_HEAD_PANELS) {
            head_panels(w, &rows, panel, least(panel + (int)PHASES_HEAD_PANELS, r.to), first_job);
        }
        phases_impl_meet(w);
        if (n_jobs > 0) {
            merge_jobs(w, least(JOB_ROWS, n_jobs - first_job));
            run_jobs(w, first_job, n_jobs);
            phases_impl_meet(w);
        }
        first_job += JOB_ROWS;
    } while (first_job < n_jobs);
    if (w->member == 0) {
        merge(p);
    }
    phases_impl_meet(w);
}
