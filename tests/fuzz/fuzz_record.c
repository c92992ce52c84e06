/* Any bytes as an encoded record: what is taken for one encodes to the same bytes again. */
#include "core/err.h"
#include "results/record.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct record r;
    const uint32_t *stage_us, *dt_us;
    size_t n = record_decode(data, size, &r, &stage_us, &dt_us);
    if (n == 0) {
        return 0;
    }
    CHECK(n <= size && n == record_encoded_bytes(&r));
    uint8_t *again = malloc(n);
    CHECK(again != NULL);
    record_encode(&r, stage_us, dt_us, again);
    size_t padding = n - (8 + sizeof r + (2u * r.n_stages + (size_t)r.n_out) * sizeof(uint32_t));
    CHECK(memcmp(data, again, n - padding) == 0);
    free(again);
    return 0;
}
