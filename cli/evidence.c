#include "cli/evidence.h"

#include "analysis/slo_decision.h"
#include "core/err.h"
#include "core/mem.h"

#include <stdlib.h>

_Static_assert((int)SLO_UNDECIDED == (int)SEARCH_UNDECIDED && (int)SLO_MET == (int)SEARCH_MET &&
                   (int)SLO_MISSED == (int)SEARCH_MISSED,
               "what analysis decides is what the search takes");

struct evidence_step {
    struct step_info info;
    struct slo_sample sample;
};

void evidence_add(struct evidence *ev, const struct step_info *info,
                  const struct slo_sample *sample)
{
    if (ev->n == ev->n_allocated) {
        ev->n_allocated = ev->n_allocated ? 2 * ev->n_allocated : 32;
        ev->steps = xrealloc(ev->steps, ev->n_allocated * sizeof *ev->steps);
    }
    ev->steps[ev->n++] = (struct evidence_step){.info = *info, .sample = *sample};
}

static bool is_same_load(const struct step_info *a, const struct step_info *b)
{
    return a->rate_rps == b->rate_rps && a->users == b->users && a->repeat == b->repeat;
}

static struct slo_decision decide(const struct evidence *ev, double quantile)
{
    const struct step_info *last = &ev->steps[ev->n - 1].info;
    struct slo_sample *same = xcalloc(ev->n, sizeof *same);
    struct slo_decision d;
    size_t n = 0;
    for (size_t i = 0; i < ev->n; i++) {
        if (is_same_load(&ev->steps[i].info, last)) {
            same[n++] = ev->steps[i].sample;
        }
    }
    slo_decision(same, n, quantile, &d);
    free(same);
    return d;
}

struct search_result evidence_result(const struct evidence *ev, double quantile)
{
    CHECK(ev->n > 0);
    const struct step_info *i = &ev->steps[ev->n - 1].info;
    struct slo_decision d = decide(ev, quantile);
    return (struct search_result){
        .verdict = i->verdict,
        .output_tokens_per_s = i->served_output_tokens_per_s,
        .offered_output_tokens_per_s = i->offered_output_tokens_per_s,
        .output_tokens_per_request =
            i->achieved_rps > 0 ? i->offered_output_tokens_per_s / i->achieved_rps : 0,
        .slo = (enum search_slo)d.holds,
        .meets = d.meets,
    };
}

double evidence_ttft_s(const struct evidence *ev)
{
    for (size_t i = ev->n; i-- > 0;) {
        enum verdict v = ev->steps[i].info.verdict;
        double ttft_ms = ev->steps[i].sample.ttft_ms;
        if ((v == VERDICT_STABLE || v == VERDICT_TOO_SHORT) && ttft_ms > 0) {
            return ttft_ms * 1e-3;
        }
    }
    return 0;
}

void evidence_free(struct evidence *ev)
{
    free(ev->steps);
    *ev = (struct evidence){0};
}
