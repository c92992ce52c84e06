/* Any bytes as a list of token ids: what is accepted is in the vocabulary and reads back as written. */
#include "model/token_ids.h"

#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "core/str.h"

#define VOCAB 97

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_again(const struct token_ids *ids)
{
    struct str text = {0};
    struct token_ids again = {0};
    struct err e = {0};
    for (size_t i = 0; i < ids->n; i++) {
        CHECK(ids->v[i] >= 0 && ids->v[i] < VOCAB);
        str_printf(&text, "%d\n", ids->v[i]);
    }
    CHECK(token_ids_parse(&again, text.len > 0 ? text.data : "", text.len, "again", VOCAB, &e) ==
          0);
    CHECK(again.n == ids->n &&
          (ids->n == 0 || memcmp(again.v, ids->v, ids->n * sizeof *ids->v) == 0));
    token_ids_free(&again);
    str_free(&text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct token_ids ids = {0};
    struct err e = {0};
    if (token_ids_parse(&ids, (const char *)data, size, "input", VOCAB, &e)) {
        CHECK(e.code == ERR_INPUT && strncmp(e.msg, "input: line ", 12) == 0);
        CHECK(!strchr(e.msg, '\n'));
    }
    check_again(&ids);
    token_ids_free(&ids);
    return 0;
}
