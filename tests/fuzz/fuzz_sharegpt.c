/*
 * Any bytes as a file of conversations; the first byte chooses filter and forced lengths. What is
 * kept has its ids and fits the context, and every conversation is kept or counted.
 */
#include "core/err.h"
#include "datasets/sharegpt.h"

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#define CONTEXT 64

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char letters[] = "{\"model\":{\"type\":\"BPE\",\"unk_token\":\"?\",\"vocab\":{\"?\":0,"
                              "\"a\":1,\"b\":2,\"ab\":3,\" \":4},\"merges\":[\"a b\"]}}";

static void check_entries(const struct entries *s, const struct dataset_config *c)
{
    uint64_t n = s->n;
    size_t ids_at = 0;
    bool draws = c->filter == DATASET_FILTER_FIRST_TURN && c->output_tokens == 0;
    for (int r = 0; r < ENTRIES_N_REASONS; r++) {
        n += s->filtered[r];
    }
    CHECK(n == s->n_source && s->n > 0);
    for (size_t i = 0; i < s->n; i++) {
        const struct entry *x = &s->v[i];
        CHECK(x->ids_at == ids_at && x->n_in >= 1 && (x->n_out >= 1) != draws);
        CHECK(x->n_in + x->n_out <= CONTEXT && x->index < s->n_source);
        CHECK(c->input_tokens == 0 || x->n_in == c->input_tokens);
        ids_at += x->n_in;
    }
    CHECK(ids_at == s->ids.n);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct tokenizer *tok; // kept: it is the same for every input
    struct err e = {0};
    if (tok == NULL) {
        CHECK(tokenizer_parse(&tok, letters, strlen(letters), "letters", 8, &e) == 0);
    }
    if (size == 0) {
        return 0;
    }
    struct dataset_config c = {
        .filter = data[0] % 3,
        .input_tokens = (data[0] & 8) != 0 ? 7 : 0,
        .output_tokens = (data[0] & 16) != 0 ? 3 : 0,
    };
    struct entries s = {0};
    if (sharegpt_parse(&s, &c, tok, CONTEXT, (const char *)data + 1, size - 1, "fuzz", &e) != 0) {
        CHECK(e.code == ERR_INPUT && strncmp(e.msg, "fuzz:", 5) == 0);
        CHECK(strchr(e.msg, '\n') == NULL && s.v == NULL);
        return 0;
    }
    check_entries(&s, &c);
    entries_free(&s);
    return 0;
}
