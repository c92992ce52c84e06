/* What any tokenizer must do with any text, wherever the tokenizer came from: ids of its vocabulary, and valid UTF-8 back. */
#pragma once

#include <stddef.h>

#include "core/err.h"
#include "core/str.h"
#include "model/tokenizer.h"
#include "model/utf8.h"

#define VOCAB 600

static inline void tokenizer_text_check(const struct tokenizer *t, const char *text, size_t len)
{
    struct token_ids ids = {0};
    struct str back = {0};
    tokenizer_encode(t, text, len, true, &ids);
    for (size_t i = 0; i < ids.n; i++) {
        CHECK(ids.v[i] >= 0 && ids.v[i] < VOCAB);
    }
    tokenizer_decode(t, ids.v, ids.n, false, &back);
    CHECK(utf8_valid(back.data, back.len));
    tokenizer_decode(t, ids.v, ids.n / 2, true, &back);
    CHECK(utf8_valid(back.data, back.len));
    str_free(&back);
    token_ids_free(&ids);
}
