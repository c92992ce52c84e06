/*
 * Any bytes as a GGUF file with a tokenizer, and as a text to encode. Whatever tokenizer comes through
 * gives ids of its vocabulary only, and text that is UTF-8.
 */
#include "core/str.h"
#include "model/gguf_tokenizer.h"
#include "model/tokenizer.h"
#include "tests/fuzz/tokenizer_text.h"

#include <stdint.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

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
        tokenizer_text_check(t, (const char *)data, size); // its own tokens are among it
        tokenizer_close(t);
    }
    gguf_close(g);
    return 0;
}
