#include "analysis/step_tokens.h"

#include <stdlib.h>

#define RECORDS_AT_A_TIME 4096 // of token times in memory: a few MiB

static int read_piece(struct store *s, const struct step_data *d, size_t first, size_t n,
                      step_tokens_take *take, void *arg, struct err *e)
{
    uint64_t *offsets;
    uint32_t *dt_us;
    if (store_read_tokens(s, d->info.index, first, n, &offsets, &dt_us, e)) {
        return -1;
    }
    for (size_t i = 0; i < n; i++) {
        take(arg, &d->records[first + i], dt_us + offsets[i], offsets[i + 1] - offsets[i]);
    }
    free(offsets);
    free(dt_us);
    return 0;
}

int step_tokens_each(struct store *s, const struct step_data *d, step_tokens_take *take, void *arg,
                     struct err *e)
{
    int rc = 0;
    for (size_t first = 0; rc == 0 && first < d->n; first += RECORDS_AT_A_TIME) {
        size_t n = d->n - first < RECORDS_AT_A_TIME ? d->n - first : RECORDS_AT_A_TIME;
        rc = read_piece(s, d, first, n, take, arg, e);
    }
    return rc ? err_wrap(e, "step %u", d->info.index) : 0;
}
