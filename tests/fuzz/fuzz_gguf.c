/* Any bytes as a GGUF file: what is accepted must lie inside the bytes, and be a model or say why not. */
#include "model/gguf.h"
#include "model/gguf_arch.h"

#include <stdint.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_tensors(const struct gguf *g, const uint8_t *data, size_t size)
{
    unsigned sum = 0;
    size_t covered = 0;
    for (size_t i = 0; i < gguf_count(g); i++) {
        const struct gguf_tensor *t = gguf_at(g, i);
        const uint8_t *bytes = t->data;
        CHECK(bytes >= data && t->n_bytes <= size && bytes + t->n_bytes <= data + size);
        CHECK(gguf_find(g, t->name) == t && t->n_dims >= 1 && t->n_dims <= GGUF_MAX_DIMS);
        for (size_t j = 0; j < t->n_bytes; j++) {
            sum += bytes[j];
        }
        covered += t->n_bytes;
    }
    CHECK(covered <= size && (covered > 0 || sum == 0));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct err e = {0};
    struct gguf *g = NULL;
    if (gguf_parse(&g, data, size, "input", &e)) {
        CHECK(g == NULL && e.code == ERR_INPUT && strncmp(e.msg, "input: ", 7) == 0);
        return 0;
    }
    check_tensors(g, data, size);
    struct arch a;
    if (gguf_arch_read(g, &a, &e)) {
        CHECK(e.code == ERR_INPUT && strncmp(e.msg, "input: ", 7) == 0);
    } else {
        CHECK(a.n_layers >= 1 && a.head_dim >= 2 && a.n_heads % a.n_kv_heads == 0 && a.vocab >= 1);
    }
    gguf_close(g);
    return 0;
}
