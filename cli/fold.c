#include "cli/fold.h"

#include <jansson.h>
#include <math.h>
#include <stdlib.h>

#include "results/journal.h"

_Static_assert((int)WIRE_JOURNAL_RECORDS == (int)JOURNAL_RECORDS &&
                   (int)WIRE_JOURNAL_SPANS == (int)JOURNAL_SPANS &&
                   (int)WIRE_JOURNAL_SERIES == (int)JOURNAL_SERIES &&
                   (int)WIRE_JOURNAL_GPUS == (int)JOURNAL_GPUS,
               "what ranks send is what the journal keeps");

int fold_step(struct store *s, const char *journal_dir, struct step_info *info, int64_t t0_ns,
              const struct store_scheduled *expected, size_t n_expected,
              const struct slo_config *slo, struct slo_sample *sample, struct err *e)
{
    char *path = journal_path(journal_dir, info->index);
    struct step_data d = {0};
    json_t *summary = NULL;
    int rc = store_fold_step(s, path, info, t0_ns, expected, n_expected, e);
    if (rc == 0) {
        rc = store_read_step(s, info->index, &d, e);
    }
    if (rc == 0) {
        rc = step_judge_data(s, &d, slo, info, &summary, sample, e);
        step_data_free(&d);
    }
    if (rc == 0) {
        rc = store_finish_step(s, info, summary, e);
        json_decref(summary);
    }
    if (rc == 0) {
        journal_remove(journal_dir, info->index);
    }
    free(path);
    return rc;
}

struct step_info fold_step_info(const struct wire_step *w, int64_t t0_ns)
{
    return (struct step_info){
        .index = w->index,
        .kind = (enum step_kind)w->kind,
        .rate_rps = w->rate_rps,
        .users = w->users,
        .seed = w->seed,
        .t_begin_ns = w->t_begin_ns - t0_ns,
        .t_warm_ns = w->t_warm_ns - t0_ns,
        .t_end_ns = w->t_end_ns - t0_ns,
        .t_drain_ns = w->t_drain_ns - t0_ns,
        .t_planned_ns = w->t_end_ns - t0_ns,
        .repeat = w->repeat,
        .poll_gap_p50_ns = (double)NAN,
        .poll_gap_p99_ns = (double)NAN,
        .stamp_p50_ns = (double)NAN,
        .stamp_p99_ns = (double)NAN,
        .chunk_p50_ns = (double)NAN,
        .chunk_p99_ns = (double)NAN,
        .load_cpu_share = (double)NAN,
    };
}

void fold_take_stop(struct step_info *info, const struct wire_step_stop *stop, int64_t t0_ns)
{
    info->t_warm_ns = stop->t_warm_ns - t0_ns;
    info->t_end_ns = stop->t_end_ns - t0_ns;
    info->t_drain_ns = stop->t_drain_ns - t0_ns;
    info->stopped_early = true;
}

/* The worse of what is known and what a rank tells; 0: it has nothing to tell. */
static void take_worse(double *known, uint64_t told_ns)
{
    *known = told_ns > 0 ? fmax(*known, (double)told_ns) : *known;
}

void fold_take_done(struct step_info *info, const struct wire_step_done *d, bool is_load,
                    int n_load_ranks)
{
    if (!is_load) {
        return;
    }
    double share = info->load_cpu_share;
    info->n_scheduled += d->n_scheduled;
    info->n_filtered += d->n_filtered;
    info->schedule_hash = d->schedule_hash;
    info->poll_gap_p50_ns = fmax(info->poll_gap_p50_ns, (double)d->poll_gap_ns[0]);
    info->poll_gap_p99_ns = fmax(info->poll_gap_p99_ns, (double)d->poll_gap_ns[1]);
    take_worse(&info->stamp_p50_ns, d->stamp_ns[0]);
    take_worse(&info->stamp_p99_ns, d->stamp_ns[1]);
    take_worse(&info->chunk_p50_ns, d->chunk_ns[0]);
    take_worse(&info->chunk_p99_ns, d->chunk_ns[1]);
    if (d->t_wall_ns > 0) {
        info->load_cpu_share = (isnan(share) ? 0 : share) +
                               (double)d->t_cpu_ns / ((double)d->t_wall_ns * n_load_ranks);
    }
}

void fold_forget_done(struct step_info *info)
{
    info->poll_gap_p50_ns = info->poll_gap_p99_ns = info->load_cpu_share = (double)NAN;
    info->stamp_p50_ns = info->stamp_p99_ns = (double)NAN;
    info->chunk_p50_ns = info->chunk_p99_ns = (double)NAN;
}
