#include "workers/tally.h"

#include <stdio.h>

void tally_add(struct tally *t, enum arch_dtype dtype, int64_t n_bytes)
{
    CHECK(dtype < ARCH_N_DTYPES && n_bytes >= 0);
    t->bytes[dtype] += n_bytes;
}

int64_t tally_bytes(const struct tally *t)
{
    int64_t n = 0;
    for (int i = 0; i < ARCH_N_DTYPES; i++) {
        n += t->bytes[i];
    }
    return n;
}

/* Of what is left, the format with the most bytes; ARCH_N_DTYPES: nothing is. */
static int largest(const struct tally *t)
{
    int best = ARCH_N_DTYPES;
    for (int i = 0; i < ARCH_N_DTYPES; i++) {
        if (t->bytes[i] > (best < ARCH_N_DTYPES ? t->bytes[best] : 0)) {
            best = i;
        }
    }
    return best;
}

const char *tally_text(const struct tally *t, char *buf, size_t cap)
{
    struct tally left = *t;
    size_t len = 0;
    CHECK(cap > 0);
    buf[0] = '\0';
    for (int i; (i = largest(&left)) < ARCH_N_DTYPES; left.bytes[i] = 0) {
        const int n = snprintf(buf + len, cap - len, "%s%s", len > 0 ? "+" : "",
                               arch_dtype_name((enum arch_dtype)i));
        if (n < 0 || (size_t)n >= cap - len) {
            buf[len] = '\0';
            break;
        }
        len += (size_t)n;
    }
    return buf;
}
