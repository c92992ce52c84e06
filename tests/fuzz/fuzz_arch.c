/* Any bytes as config.json: what is accepted is a model whose sizes and splits make sense. */
#include "model/arch.h"
#include "model/sizes.h"
#include "model/split.h"

#include <stdint.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_arch(const struct arch *a)
{
    CHECK(a->n_layers >= 1 && a->hidden >= 1 && a->intermediate >= 1 && a->vocab >= 1);
    CHECK(a->n_kv_heads >= 1 && a->n_heads % a->n_kv_heads == 0);
    CHECK(a->head_dim >= 2 && a->v_dim >= 1 && a->max_context >= 1);
    CHECK(a->rope_dim >= 2 && a->rope_dim % 2 == 0 && a->rope_dim <= a->head_dim);
    CHECK(a->attn_scale > 0 && a->embed_scale > 0);
    CHECK(a->rms_eps >= 0 && a->rms_eps <= 1 && a->rope_theta > 0);
    CHECK(a->bos_id >= -1 && a->bos_id < a->vocab && a->n_eos >= 0 && a->n_eos <= 8);
    CHECK(sizes_params(a) > 0 && sizes_active_params(a) <= sizes_params(a));
    CHECK(sizes_kv_bytes(a, 2) > 0 && sizes_bytes(a) > 0);
    int first[1025];
    int n_stages = a->n_layers < 4 ? a->n_layers : 4;
    split_by_bytes(a, 1, n_stages, first);
    CHECK(first[0] == 0 && first[n_stages] == a->n_layers);
    for (int s = 0; s < n_stages; s++) {
        CHECK(first[s] < first[s + 1]);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct err e = {0};
    struct arch a;
    if (arch_parse((const char *)data, size, "input", &a, &e)) {
        CHECK(e.code == ERR_INPUT && strncmp(e.msg, "input:", 6) == 0);
    } else {
        check_arch(&a);
    }
    return 0;
}
