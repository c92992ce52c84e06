/* Any bytes as a weight file: what is accepted must lie inside the bytes, tensor by tensor. */
#include "workers/weights/safetensors.h"

#include <stdint.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct err e = {0};
    struct safetensors *s = NULL;
    if (safetensors_parse(&s, data, size, "input", &e)) {
        CHECK(s == NULL && e.code == ERR_INPUT && strncmp(e.msg, "input: ", 7) == 0);
        return 0;
    }
    size_t covered = 0;
    unsigned sum = 0;
    for (size_t i = 0; i < safetensors_count(s); i++) {
        const struct safetensors_tensor *t = safetensors_at(s, i);
        const uint8_t *bytes = t->data;
        CHECK(bytes >= data && t->n_bytes <= size && bytes + t->n_bytes <= data + size);
        CHECK(safetensors_find(s, t->name) == t);
        for (size_t j = 0; j < t->n_bytes; j++) {
            sum += bytes[j];
        }
        covered += t->n_bytes;
    }
    CHECK(covered <= size && (covered > 0 || sum == 0));
    safetensors_close(s);
    return 0;
}
