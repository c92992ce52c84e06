#include "analysis/step.h"

#include "analysis/measure.h"
#include "analysis/step_json.h"
#include "analysis/step_measure.h"

#include <jansson.h>

#include <stdio.h>

static void fill_info(const struct measure *m, struct step_info *info)
{
    info->verdict = m->verdict.verdict;
    snprintf(info->reason, sizeof info->reason, "%s", m->verdict.reason);
    info->n_late = m->n_late;
    info->achieved_rps = (double)m->n_sends / m->window_s;
    info->offered_output_tokens_per_s = measure_rate(m, m->due_out);
    info->served_output_tokens_per_s = measure_rate(m, m->served_out);
}

int step_judge_data(struct store *s, const struct step_data *d, const struct slo_config *slo,
                    struct step_info *info, json_t **summary, struct slo_sample *sample,
                    struct err *e)
{
    struct measure m;
    struct store_meta meta;
    if (step_measure(s, d, slo, &m, e) || store_read_meta(s, &meta, e)) {
        return -1;
    }
    fill_info(&m, info);
    if (sample) {
        *sample = slo_decision_sample(&m);
    }
    *summary = step_json(&m, d, info, &meta);
    store_meta_free(&meta);
    return 0;
}

int step_judge(struct store *s, size_t index, const struct slo_config *slo, struct step_info *info,
               json_t **summary, struct slo_sample *sample, struct err *e)
{
    struct step_data d;
    if (store_read_step(s, index, &d, e)) {
        return -1;
    }
    *info = d.info;
    int rc = step_judge_data(s, &d, slo, info, summary, sample, e);
    step_data_free(&d);
    return rc;
}
