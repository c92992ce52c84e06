/*
 * Any bytes as a tokenizer.json, up to the first NUL, and as a text to encode, after it. Whatever
 * tokenizer comes through gives ids of its vocabulary only, and text that is UTF-8.
 */
#include "core/err.h"
#include "core/str.h"
#include "model/tokenizer.h"
#include "model/utf8.h"

#include <stdint.h>
#include <string.h>

#define VOCAB 600

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_text(const struct tokenizer *t, const char *text, size_t len)
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

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *json = (const char *)data;
    const char *nul = memchr(json, '\0', size);
    size_t n_json = nul != NULL ? (size_t)(nul - json) : size;
    struct tokenizer *t = NULL;
    struct err e = {0};
    if (tokenizer_parse(&t, json, n_json, "fuzz", VOCAB, &e) != 0) {
        CHECK(e.code == ERR_INPUT && e.msg[0] != '\0' && strchr(e.msg, '\n') == NULL);
        return 0;
    }
    CHECK(tokenizer_vocab(t) <= VOCAB);
    check_text(t, json, n_json); // its own text is one that it has tokens for
    if (nul != NULL) {
        check_text(t, nul + 1, size - n_json - 1);
    }
    tokenizer_close(t);
    return 0;
}
