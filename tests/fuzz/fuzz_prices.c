/* Price tables are files that users edit: any bytes must parse or be refused with a line number. */
#include "analysis/prices.h"
#include "core/err.h"

#include <jansson.h>

#include <stdint.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* What a table may say, a result file can keep. */
static void check_kept(const struct price *row)
{
    struct prices kept;
    struct err e = {0};
    json_t *o = prices_dump(row);
    CHECK(prices_undump(&kept, o, "fuzz", &e) == 0);
    CHECK(strcmp(kept.rows[0].note, row->note) == 0);
    CHECK(kept.rows[0].usd_per_hour == row->usd_per_hour);
    prices_free(&kept);
    json_decref(o);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct prices p;
    struct err e = {0};
    const struct price *row;
    if (size > PRICES_MAX_BYTES) {
        return 0;
    }
    if (prices_parse(&p, (const char *)data, size, "fuzz", &e)) {
        CHECK(e.code == ERR_INPUT && strstr(e.msg, " line "));
        return 0;
    }
    for (size_t i = 0; i < p.n; i++) {
        const struct price *r = &p.rows[i];
        CHECK(r->usd_per_hour > 0 && r->accel_count >= 0);
        CHECK(prices_find(&p, "fuzz", r->instance_type, r->pricing_model, r->region, &row, &e) ==
              0);
        CHECK(row == r);
        check_kept(r);
    }
    CHECK(prices_find(&p, "fuzz", "\n", "on-demand", NULL, &row, &e) == -1);
    prices_free(&p);
    return 0;
}
