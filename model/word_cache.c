#include "model/word_cache.h"

#include "core/err.h"
#include "core/mem.h"

#include <stdlib.h>
#include <string.h>

#define SLOT_BITS 14 // 1 MiB: half of a common second-level cache

_Static_assert(sizeof(struct word_cache_entry) == 64, "one cache line");

void word_cache_init(struct word_cache *c)
{
    c->slots = mem_aligned(sizeof *c->slots << SLOT_BITS);
    CHECK(c->slots != NULL);
}

void word_cache_free(struct word_cache *c)
{
    free(c->slots);
    *c = (struct word_cache){0};
}

/* The text as it stands in an entry. */
static void make_key(uint64_t key[4], const char *text, size_t len, const char *end)
{
    static const uint64_t ones[8] = {UINT64_MAX, UINT64_MAX, UINT64_MAX, UINT64_MAX};
    if (end - text >= 32) {
        uint64_t mask[4];
        memcpy(key, text, 32);
        memcpy(mask, (const char *)ones + 32 - len, 32);
        for (size_t i = 0; i < 4; i++) {
            key[i] &= mask[i];
        }
    } else {
        memset(key, 0, 32);
        memcpy(key, text, len);
    }
    key[3] |= (uint64_t)len << 56;
}

static size_t slot_of(const uint64_t key[4])
{
    uint64_t a = (key[0] ^ key[2] >> 7) * 0x9E3779B97F4A7C15ULL;
    uint64_t b = (key[1] ^ key[3]) * 0xC2B2AE3D27D4EB4FULL;
    uint64_t h = (a ^ b >> 29) * 0x165667B19E3779F9ULL;
    return (size_t)((h ^ b) >> (64 - SLOT_BITS));
}

struct word_cache_entry *word_cache_at(struct word_cache *c, const char *text, size_t len,
                                       const char *end, bool *found)
{
    uint64_t key[4];
    make_key(key, text, len, end);
    struct word_cache_entry *at = &c->slots[slot_of(key)];
    uint64_t differs = (at->text[0] ^ key[0]) | (at->text[1] ^ key[1]) | (at->text[2] ^ key[2]) |
                       (at->text[3] ^ key[3]);
    *found = differs == 0 && at->n_ids > 0;
    if (!*found) {
        memcpy(at->text, key, sizeof key);
    }
    return at;
}
