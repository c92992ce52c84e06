/*
 * From a step's journal to its finished group in the result file: fold, judge, finish, remove the
 * journal. The one path for the normal end of a step and for `recover`.
 */
#pragma once

#include "analysis/step.h"
#include "model/wire.h"
#include "results/store.h"

/*
 * info: as announced (times since t0); its verdict, reason and rates are filled in. `expected` may be
 * NULL (every id has a record), and so may `sample`. Calls belong to the store's thread.
 */
int fold_step(struct store *s, const char *journal_dir, struct step_info *info, int64_t t0_ns,
              const struct store_scheduled *expected, size_t n_expected,
              const struct slo_config *slo, struct slo_sample *sample, struct err *e) ERR_CHECKED;

/* The first entry of a step's journal: what rank 0 announced, and the t0 that its times count from in
 * the file (a resumed run's clock may have another origin than the first one's). */
struct fold_announcement {
    struct wire_step step;
    int64_t t0_ns;
};

/* What rank 0 announced, as the file keeps it; what load ranks tell at the step's end is missing. */
struct step_info fold_step_info(const struct wire_step *w, int64_t t0_ns);

/* The load ends sooner than announced: as WIRE_STEP_STOP says. */
void fold_take_stop(struct step_info *info, const struct wire_step_stop *stop, int64_t t0_ns);

/* Take one rank's account of a finished step into the step's: totals, and the worst poll gap. */
void fold_take_done(struct step_info *info, const struct wire_step_done *d, bool is_load,
                    int n_load_ranks);

/* Not every load rank lived to tell: the worst of them and their sum are not known. */
void fold_forget_done(struct step_info *info);
