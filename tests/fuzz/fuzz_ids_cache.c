/*
 * Any bytes as a cache file. Magic, key and hash are put right first, so that what is behind them is
 * reached; what is taken then may be walked over from end to end.
 */
#include "core/err.h"
#include "core/str.h"
#include "datasets/ids_cache.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const struct ids_cache_key key = {.file_len = 1 << 20, .vocab = 50, .context = 100};

static void walk(const struct entries *s)
{
    CHECK(s->n > 0);
    for (size_t i = 0; i < s->n; i++) {
        const struct entry *x = &s->v[i];
        for (uint32_t k = 0; k < x->n_turns; k++) {
            const struct turn *t = &s->turns[x->turn_at + k];
            CHECK(t->n_in >= 1 && t->n_messages >= 1);
            for (uint32_t j = 0; j < t->n_in; j++) {
                int32_t id = s->ids.v[x->data_at + j];
                CHECK(id >= 0 && id < (int32_t)key.vocab);
            }
            for (uint32_t j = 0; j < t->n_messages; j++) {
                const struct message *m = &s->messages[x->message_at + j];
                CHECK(m->at + m->len <= key.file_len && m->role <= 2);
            }
        }
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct entries none = {0}, s;
    struct str good = {0};
    ids_cache_write(&none, &key, &good); // magic and key as they should be
    size_t n_fixed = 2 * sizeof(uint64_t) + sizeof key;
    if (size < n_fixed) {
        CHECK(!ids_cache_read(&s, &key, good.data, size));
        str_free(&good);
        return 0;
    }
    char *bytes = malloc(size); // aligned, and of exactly this size
    CHECK(bytes != NULL);
    memcpy(bytes, data, size);
    memcpy(bytes, good.data, n_fixed);
    uint64_t hash = XXH64(bytes + 16, size - 16, 0);
    memcpy(bytes + 8, &hash, sizeof hash);
    if (ids_cache_read(&s, &key, bytes, size)) {
        walk(&s);
    }
    free(bytes);
    str_free(&good);
    return 0;
}
