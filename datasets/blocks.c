#include "datasets/blocks.h"

/* Sequence k of a prompt of n tokens and how many tokens of it; false: the prompt is complete. */
static bool part_of(const struct source *s, uint64_t seed, uint64_t i, uint32_t k, uint32_t n,
                    struct drawn_sequence *part, uint32_t *n_part)
{
    const struct entry *entry = source_in_order(s, i);
    uint64_t at = (uint64_t)k * BLOCKS_TOKENS;
    if (at >= n || k > entry->n_data) {
        return false;
    }
    uint32_t left = n - (uint32_t)at;
    if (k == entry->n_data) {
        *part = (struct drawn_sequence){seed, RNG_TOKENS, i};
        *n_part = left;
        return true;
    }
    uint64_t name = s->entries.blocks[entry->data_at + k];
    *part = (struct drawn_sequence){s->file.hash, RNG_BLOCK, name};
    *n_part = left < BLOCKS_TOKENS ? left : BLOCKS_TOKENS;
    return true;
}

const int32_t *blocks_ids(const struct source *s, uint64_t seed, uint64_t i, uint32_t turn,
                          uint32_t n, int32_t *scratch)
{
    struct drawn_sequence part;
    uint32_t n_part;
    (void)turn;
    for (uint32_t k = 0; part_of(s, seed, i, k, n, &part, &n_part); k++) {
        drawn_ids(s->drawn, part, n_part, scratch + (size_t)k * BLOCKS_TOKENS);
    }
    return scratch;
}

void blocks_text(const struct source *s, uint64_t seed, uint64_t i, uint32_t turn, uint32_t n,
                 struct prompt_text *out)
{
    struct drawn_sequence part;
    uint32_t n_part;
    (void)turn;
    for (uint32_t k = 0; part_of(s, seed, i, k, n, &part, &n_part); k++) {
        drawn_text(s->drawn, part, n_part, &out->json);
    }
    prompt_text_end(out, PROMPT_USER);
}
