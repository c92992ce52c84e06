/* vLLM's results come from elsewhere: any bytes are refused with a message, or give whole records. */
#include "core/err.h"
#include "core/mem.h"
#include "results/vllm_json.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_run(const struct vllm_json_run *run)
{
    struct step_info s = vllm_json_step(run);
    CHECK(s.t_end_ns > 0 && s.t_drain_ns >= s.t_end_ns);
    CHECK((run->rate_rps > 0) != (run->users > 0));
    for (size_t i = 0; i < run->n; i++) {
        struct record r;
        uint32_t *dt_us = vllm_json_record(run, i, &r);
        CHECK(r.t_sched_ns >= 0 && r.t_send_ns >= r.t_sched_ns);
        CHECK(r.outcome != OUTCOME_OK || (r.n_out > 0 && r.t_last_ns >= r.t_first_ns));
        CHECK(r.outcome == OUTCOME_OK || r.n_out == 0);
        free(dt_us);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct vllm_json v;
    struct err e = {0};
    char *text = xmalloc(size + 1);
    memcpy(text, data, size);
    text[size] = '\0';
    if (vllm_json_parse(&v, text, size, "fuzz", &e)) {
        CHECK(e.code == ERR_INPUT && strncmp(e.msg, "fuzz: ", 6) == 0);
    } else {
        for (size_t i = 0; i < v.n; i++) {
            check_run(&v.runs[i]);
        }
        vllm_json_free(&v);
    }
    free(text);
    return 0;
}
