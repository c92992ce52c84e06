/*
 * Any bytes as a tokenizer.json, up to the first NUL, and as a text to encode, after it. Whatever
 * tokenizer comes through gives ids of its vocabulary only, and text that is UTF-8.
 */
#include "core/err.h"
#include "core/str.h"
#include "model/tokenizer.h"
#include "tests/fuzz/tokenizer_text.h"

#include <stdint.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

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
    tokenizer_text_check(t, json, n_json); // its own text is one that it has tokens for
    if (nul != NULL) {
        tokenizer_text_check(t, nul + 1, size - n_json - 1);
    }
    tokenizer_close(t);
    return 0;
}
