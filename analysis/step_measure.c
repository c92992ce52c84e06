#include "analysis/step_measure.h"

#include "analysis/step_tokens.h"

static void take(void *measure, const struct record *r, const uint32_t *dt_us, size_t n)
{
    measure_tokens(measure, r, dt_us, n);
}

int step_measure(struct store *s, const struct step_data *d, const struct slo_config *slo,
                 struct measure *m, struct err *e)
{
    measure_begin(m, d, slo);
    int rc = step_tokens_each(s, d, take, m, e);
    measure_end(m); // frees what it gathered, whatever happened
    return rc;
}
