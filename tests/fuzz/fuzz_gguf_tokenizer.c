/*
 * Any bytes as a GGUF file with a tokenizer, and as a text to encode. Whatever tokenizer comes through
 * gives ids of its vocabulary only, and text that is UTF-8.
 */
#include "core/str.h"
#include "model/gguf_tokenizer.h"
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
    str_free(&back);
    token_ids_free(&ids);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct err e = {0};
    struct gguf *g;
    struct tokenizer *t = NULL;
    if (gguf_parse(&g, data, size, "input", &e)) {
        return 0;
    }
    if (gguf_tokenizer_read(&t, g, VOCAB, &e)) {
        CHECK(e.code == ERR_INPUT && strncmp(e.msg, "input: ", 7) == 0 && !strchr(e.msg, '\n'));
        CHECK(t == NULL);
    } else {
        CHECK(gguf_tokenizer_is_there(g) && tokenizer_vocab(t) <= VOCAB);
        check_text(t, (const char *)data, size); // its own tokens are among it
        tokenizer_close(t);
    }
    gguf_close(g);
    return 0;
}
