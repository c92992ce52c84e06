/* Logits of the tokens that are sampled, the largest of each row, and what jobs draw from them. */
#include "workers/cuda/forward_impl.h"

#include <string.h>

#include "core/mem.h"
#include "workers/cuda/norm.h"

static int least(int a, int b)
{
    return a < b ? a : b;
}

/* --- in ------------------------------------------------------------------------------------------- */

/* Which tokens are sampled, and where in the batch's rows: both ascending. */
static int look(struct forward *f)
{
    const struct batch *b = f->io->batch;
    int n = 0;
    for (uint32_t i = 0; i < b->n_rows; i++) {
        if (b->rows[i].flags & BATCH_SAMPLE) {
            f->staged.sampled[n++] = b->rows[i].first + b->rows[i].n_tokens - 1;
        }
    }
    return n;
}

/* The sample that a row of the batch is. */
static uint32_t sample_of(const struct batch *b, uint32_t row)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < row; i++) {
        n += (b->rows[i].flags & BATCH_SAMPLE) != 0;
    }
    return n;
}

/* Jobs as the device takes them; `row` is among the rows of logits that are there at once. */
static void fill_jobs(struct forward *f)
{
    const struct sampler_jobs *jobs = f->io->jobs;
    for (uint32_t i = 0; i < f->n_jobs; i++) {
        const struct sampler_job *j = &jobs->v[i];
        const uint32_t first = i * FORWARD_BANNED;
        CHECK(j->n_banned <= FORWARD_BANNED);
        if (j->n_banned > 0) {
            memcpy(f->staged.banned + first, j->banned, j->n_banned * sizeof *j->banned);
        }
        f->staged.jobs[i] = (struct sample_job){
            .seed = j->how->seed,
            .temperature = j->how->temperature,
            .top_p = j->how->top_p,
            .min_p = j->how->min_p,
            .top_k = j->how->top_k,
            .logprobs = j->how->logprobs,
            .row = sample_of(f->io->batch, j->row) % FORWARD_HEAD_ROWS,
            .index = j->index,
            .first_banned = first,
            .n_banned = j->n_banned,
        };
    }
}

static int copy_in(struct forward *f, struct err *e)
{
    const struct forward_room *r = &f->room;
    const struct forward_staged *s = &f->staged;
    const size_t n = f->n_jobs;
    if (gpu_copy_in(f->gpu, r->sampled, s->sampled, (size_t)f->n_sampled * sizeof *s->sampled, e)) {
        return -1;
    }
    if (n == 0) {
        return 0;
    }
    fill_jobs(f);
    return gpu_copy_in(f->gpu, r->jobs, s->jobs, n * sizeof *s->jobs, e) ||
                   gpu_copy_in(f->gpu, r->banned, s->banned, n * FORWARD_BANNED * sizeof *s->banned,
                               e)
               ? -1
               : 0;
}

/* --- rows of logits ------------------------------------------------------------------------------- */

static void queue_logits(struct forward *f, int first, int n)
{
    struct CUstream_st *stream = gpu_stream(f->gpu);
    const struct device_weights *w = f->cfg.weights;
    const struct norm_rows norm = {
        .hidden = f->arch->hidden,
        .eps = f->arch->rms_eps,
        .rounds = f->arch->norm_rounds,
        .x = f->room.x,
        .rounds_x = arch_carried(f->arch) != ARCH_F32,
        .rows = f->room.sampled + first,
        .n_out = n,
        .norm = w->norm,
        .out = f->room.head_in,
        .wide = forward_is_wide(&w->head),
    };
    norm_queue(&norm, stream);
    forward_ops_check(f, "the last norm");
    float *logits = forward_is_shared(f) ? f->room.part_logits : f->room.logits;
    forward_ops_product(f, &w->head, n, f->room.head_in, logits, false, NULL);
    const struct head_rows rows = {
        .n = n,
        .vocab = f->shard.vocab.n,
        .first = f->shard.vocab.first,
        .softcap = f->arch->logit_softcap,
        .logits = logits,
        .capped = f->arch->logit_softcap > 0 ? logits : NULL,
        .parts = f->room.parts,
        .found = f->room.found + first,
    };
    head_queue(&rows, stream);
    forward_ops_check(f, "the largest logits");
    if (forward_is_shared(f) && (f->n_jobs > 0 || f->io->logits)) {
        forward_group_logits(f, n);
    }
}

/* Jobs first .. whose rows are among the n that are there; returns the next. */
static uint32_t queue_jobs(struct forward *f, uint32_t job, int first, int n)
{
    uint32_t end = job;
    while (end < f->n_jobs &&
           sample_of(f->io->batch, f->io->jobs->v[end].row) < (uint32_t)(first + n)) {
        end++;
    }
    const struct sample_rows s = {
        .n = (int)(end - job),
        .vocab = f->arch->vocab,
        .logits = f->room.logits,
        .jobs = f->room.jobs + job,
        .banned = f->room.banned,
        .weights = f->room.job_weights,
        .found = f->room.job_found + job,
    };
    if (end > job) {
        sample_queue(&s, gpu_stream(f->gpu));
        forward_ops_check(f, "sampling");
    }
    return end;
}

/* Rows of logits to whoever wants to see them: the next overwrite them. */
static int copy_logits(struct forward *f, int first, int n, struct err *e)
{
    const size_t row = (size_t)f->arch->vocab, bytes = (size_t)n * row * sizeof(float);
    if (forward_room_take_logits(f, e) ||
        gpu_copy_out(f->gpu, f->staged.logits, f->room.logits, bytes, e) ||
        gpu_wait(f->gpu, clock_local_ns() + FORWARD_SETUP_NS, e)) {
        return -1;
    }
    memcpy(f->io->logits + (size_t)first * row, f->staged.logits, bytes);
    return 0;
}

int forward_head_queue(struct forward *f, struct err *e)
{
    f->n_sampled = look(f);
    f->n_jobs = f->io->jobs ? f->io->jobs->n : 0;
    if (copy_in(f, e)) {
        return -1;
    }
    uint32_t job = 0;
    for (int i = 0; i < f->n_sampled && !f->failed; i += FORWARD_HEAD_ROWS) {
        const int n = least(FORWARD_HEAD_ROWS, f->n_sampled - i);
        queue_logits(f, i, n);
        if (f->io->logits && !f->failed && copy_logits(f, i, n, e)) {
            return -1;
        }
        job = queue_jobs(f, job, i, n);
    }
    if (forward_is_shared(f)) {
        forward_group_found(f);
    }
    if (f->failed) {
        return -1;
    }
    const struct forward_room *r = &f->room;
    const size_t n_found = (size_t)f->n_sampled * (size_t)f->shard.size;
    return gpu_copy_out(f->gpu, f->staged.found, forward_is_shared(f) ? r->all_found : r->found,
                        n_found * sizeof *r->found, e) ||
                   gpu_copy_out(f->gpu, f->staged.job_found, r->job_found,
                                f->n_jobs * sizeof *r->job_found, e)
               ? -1
               : 0;
}

/* --- out ------------------------------------------------------------------------------------------ */

/* The best that any rank found; parts of the vocabulary ascend, so the first of equals is the lowest id. */
static int32_t best_of_ranks(const struct forward *f, uint32_t sample)
{
    const struct head_found *best = &f->staged.found[sample];
    for (int r = 1; r < f->shard.size; r++) {
        const struct head_found *found = &f->staged.found[(uint32_t)(r * f->n_sampled) + sample];
        best = found->value > best->value ? found : best;
    }
    return best->id;
}

void forward_head_finish(struct forward *f)
{
    const struct batch *b = f->io->batch;
    int32_t *ids = f->io->ids;
    uint32_t sample = 0;
    for (uint32_t i = 0; i < b->n_rows; i++) {
        ids[i] = b->rows[i].flags & BATCH_SAMPLE ? best_of_ranks(f, sample++) : -1;
    }
    for (uint32_t i = 0; i < f->n_jobs; i++) {
        struct sampler_job *j = &f->io->jobs->v[i];
        const struct sample_found *found = &f->staged.job_found[i];
        j->id = found->id;
        j->logprob = found->logprob;
        j->n_top = found->n_top;
        memcpy(j->top, found->top, found->n_top * sizeof *j->top);
        if (ids[j->row] != BATCH_NOT_FINITE) {
            ids[j->row] = j->id;
        }
    }
}
