#include "model/unicode.h"

#include "model/unicode_ranges.h"

#include <pthread.h>
#include <stddef.h>

uint16_t unicode_flags[0x110000];

/* Ranges without any flag stay untouched, so most of the table takes no memory. */
static void fill(void)
{
    for (size_t i = 0; i < unicode_ranges_n; i++) {
        const struct unicode_range *r = &unicode_ranges[i];
        uint32_t end = i + 1 < unicode_ranges_n ? r[1].first : 0x110000;
        for (uint32_t c = r->first; r->flags != 0 && c < end; c++) {
            unicode_flags[c] = r->flags;
        }
    }
}

void unicode_init(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, fill);
}
