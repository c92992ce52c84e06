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

static void check_turns(const struct entries *s, const struct entry *x,
                        const struct sharegpt_input *in)
{
    uint32_t n_before = 0;
    for (uint32_t k = 0; k < x->n_turns; k++) {
        const struct turn *t = &s->turns[x->turn_at + k];
        bool is_drawn = in->out->is_forced || (in->cfg->filter == DATASET_FILTER_FIRST_TURN &&
                                               in->cfg->turns == DATASET_TURNS_FIRST);
        CHECK(t->n_in > n_before && (t->n_out == 0) == is_drawn && t->n_messages >= 1);
        CHECK(in->in->is_forced || t->n_in + t->n_out <= CONTEXT);
        n_before = t->n_in;
    }
    CHECK(in->tok == NULL ? x->n_data == 0 : x->n_data == n_before);
}

static void check_entries(const struct entries *s, const struct sharegpt_input *in, size_t size)
{
    uint64_t n = s->n;
    size_t ids_at = 0, turn_at = 0, message_at = 0;
    for (int r = 0; r < ENTRIES_N_REASONS; r++) {
        n += s->filtered[r];
    }
    CHECK(n == s->n_source && s->n > 0);
    for (size_t i = 0; i < s->n; i++) {
        const struct entry *x = &s->v[i];
        CHECK(x->data_at == ids_at && x->turn_at == turn_at && x->message_at == message_at);
        CHECK(x->n_turns >= 1 && x->index < s->n_source);
        check_turns(s, x, in);
        ids_at += x->n_data;
        turn_at += x->n_turns;
        message_at += s->turns[turn_at - 1].n_messages;
    }
    CHECK(ids_at == s->ids.n && turn_at == s->n_turns && message_at == s->n_messages);
    for (size_t i = 0; i < s->n_messages; i++) {
        CHECK(s->messages[i].at + s->messages[i].len <= size);
    }
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
    bool is_multi = (data[0] & 32) != 0;
    struct dataset_config c = {
        .filter = data[0] % 3,
        .turns = is_multi ? DATASET_TURNS_MULTI : DATASET_TURNS_FIRST,
        .input.mean = (data[0] & 8) != 0 && !is_multi ? 7 : 0,
        .output.mean = (data[0] & 16) != 0 ? 3 : 0,
    };
    struct lengths in, out;
    CHECK(lengths_init(&in, &c.input, &quantile_sharegpt_input, &e) == 0);
    CHECK(lengths_init(&out, &c.output, &quantile_sharegpt_output, &e) == 0);
    struct sharegpt_input input = {.cfg = &c,
                                   .tok = (data[0] & 64) != 0 ? NULL : tok,
                                   .in = &in,
                                   .out = &out,
                                   .context = CONTEXT,
                                   .n_threads = 1};
    struct entries s = {0};
    if (sharegpt_parse(&s, &input, (const char *)data + 1, size - 1, "fuzz", &e) != 0) {
        CHECK(e.code == ERR_INPUT && strncmp(e.msg, "fuzz:", 5) == 0);
        CHECK(strchr(e.msg, '\n') == NULL && s.v == NULL);
        return 0;
    }
    check_entries(&s, &input, size - 1);
    entries_free(&s);
    return 0;
}
