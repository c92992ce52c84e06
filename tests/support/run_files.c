#include "tests/support/run_files.h"

#include "core/mem.h"
#include "core/rng.h"
#include "results/journal.h"

#include <jansson.h>

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define SEED 11

void run_files_record(uint32_t step, uint64_t id, struct record *r, uint32_t *stage_us,
                      uint32_t *dt_us)
{
    struct rng_bits bits = rng_draw(SEED, RNG_TOKENS, step, id);
    record_init(r);
    r->id = id;
    r->t_sched_ns = RUN_FILES_T0_NS + (int64_t)(step * 1000000000ULL + id * 1000000);
    r->t_send_ns = r->t_sched_ns + bits.v[0] % 1000;
    r->n_in = bits.v[1] % 1000 + 1;
    r->n_out_req = bits.v[2] % 64;
    r->conversation = bits.v[3];
    r->turn = bits.v[3] % 7;
    r->load_rank = (uint16_t)(id % 3);
    r->http_status = 200;
    r->n_stages = id % 5 == 0 ? 0 : RUN_FILES_STAGES;
    r->outcome = id % 7 == 0 ? OUTCOME_TIMEOUT_TOTAL : OUTCOME_OK;
    r->error = id % 7 == 0 ? -110 : 0;
    r->n_out = id % 7 == 0 ? 0 : r->n_out_req;
    r->n_out_usage = id % 2 == 0 ? r->n_out : UINT32_MAX;
    if (r->outcome == OUTCOME_OK) {
        r->t_first_ns = r->t_last_ns = r->t_byte_ns = r->t_content_ns = r->t_send_ns + 5000;
        r->t_recv_ns = r->t_send_ns + 100;
        r->t_admit_ns = r->t_recv_ns + 100;
    }
    for (unsigned i = 0; i < 2u * r->n_stages; i++) {
        stage_us[i] = bits.v[i % 4] % 10000 + i;
    }
    for (uint32_t k = 0; k < r->n_out; k++) {
        dt_us[k] = (uint32_t)(id * 100 + k);
        r->t_last_ns += k > 0 ? dt_us[k] * 1000LL : 0;
    }
    r->hop_us[0] = bits.v[0] % 100;
    r->hop_us[1] = bits.v[1] % 100;
    r->bubble_us[0] = bits.v[2] % 100;
    r->bubble_us[1] = bits.v[3] % 100;
}

struct step_info run_files_info(uint32_t step, uint64_t n)
{
    return (struct step_info){.index = step,
                              .kind = STEP_SWEEP,
                              .rate_rps = 1.5 * (step + 1),
                              .seed = UINT64_MAX - step,
                              .t_begin_ns = step * 1000000000LL,
                              .t_warm_ns = step * 1000000000LL + 1,
                              .t_end_ns = step * 1000000000LL + 2,
                              .t_drain_ns = step * 1000000000LL + 3,
                              .schedule_hash = 0xfedcba9876543210,
                              .n_scheduled = n,
                              .verdict = VERDICT_UNSTABLE,
                              .reason = "because",
                              .achieved_rps = 1.25};
}

char *run_files_folder(const char *name)
{
    char *path = xasprintf("%s_%d", name, (int)getpid());
    CHECK(mkdir(path, 0777) == 0 || errno == EEXIST);
    return path;
}

static const struct gpus_device gpus[2] = {
    {.rank = 1, .host = "h1", .uuid = "GPU-1", .memory_bytes = 1e9, .power_limit_w = 700},
    {.rank = 1, .index = 1, .host = "h1", .uuid = "GPU-2", .power_limit_w = (double)NAN},
};

struct store *run_files_create(const char *path)
{
    struct err e;
    struct store *s;
    json_t *config = json_pack("{s:s, s:{s:s, s:s}}", "name", "test", "target", "kind", "null",
                               "url", "http://me:secret@host/v1");
    struct store_rank ranks[2] = {
        {.rank = 0, .role = 0, .replica = -1, .stage = -1, .tensor = -1, .host = "h0", .pid = 7},
        {.rank = 1,
         .role = 1,
         .host = "h1",
         .cpuset = "0-1",
         .kernels = "avx2",
         .clock_offset_ns = -5},
    };
    const struct engine engine = {
        .rank = 1,
        .n_layers = 6,
        .n_threads = 2,
        .backend = "cpu",
        .device = "a processor",
        .kernels = "avx2",
        .cores = "0,1",
        .weights = "int8+f32",
        .weights_stored = "bf16",
        .weight_bytes = 1062500,
        .n_weights = 1000000,
        .bytes_per_weight = 1.0625,
        .kv_cache = "fp8",
        .kv_bytes_per_token = 1056,
        .kv_blocks = 512,
        .moe_routing = "zipf",
        .moe_zipf = 1.2,
        .transport = "none",
        .numa = 1,
    };
    struct store_run run = {.uuid = "6ba7b810-9dad-41d1-80b4-00c04fd430c8",
                            .name = "test",
                            .created_unix_ns = 1790000000000000000,
                            .t0_ns = RUN_FILES_T0_NS,
                            .config = config,
                            .provenance = config,
                            .dataset = config,
                            .target = config,
                            .ranks = ranks,
                            .n_ranks = 2,
                            .engines = &engine,
                            .n_engines = 1,
                            .gpus = gpus,
                            .n_gpus = 2};
    int status = store_create(&s, path, true, &run, &e);
    json_decref(config);
    if (status != 0) {
        fprintf(stderr, "%s\n", e.msg);
        abort();
    }
    return s;
}

static void append(struct journal *j, enum journal_kind kind, const void *bytes, size_t n)
{
    struct err e;
    CHECK(journal_append(j, kind, bytes, n, &e) == 0);
}

static void append_record(struct journal *j, uint32_t step, uint64_t id)
{
    struct record r;
    uint32_t stage_us[2 * RUN_FILES_STAGES], dt_us[64];
    uint8_t bytes[2048];
    run_files_record(step, id, &r, stage_us, dt_us);
    CHECK(record_encoded_bytes(&r) <= sizeof bytes);
    record_encode(&r, stage_us, dt_us, bytes);
    append(j, JOURNAL_RECORDS, bytes, record_encoded_bytes(&r));
}

char *run_files_journal(const char *dir, uint32_t step, uint64_t n)
{
    struct err e;
    struct journal *j;
    CHECK(journal_create(&j, dir, step, &e) == 0);
    append(j, JOURNAL_STEP, "announced", 9);
    for (uint64_t i = 0; i < n; i++) {
        append_record(j, step, rng_permute(i, n, SEED, RNG_SHUFFLE, step));
        struct span span = {.t_begin_ns = RUN_FILES_T0_NS + (int64_t)(n - i),
                            .rank = (uint16_t)(i % 2),
                            .op = SPAN_DECODE,
                            .batch_seq = i};
        struct series_point point = {.t_ns = RUN_FILES_T0_NS + (int64_t)(n - i), .kv_used = 0.5f};
        append(j, JOURNAL_SPANS, &span, sizeof span);
        struct gpus_sample gpu = {.t_ns = RUN_FILES_T0_NS + (int64_t)(n - i),
                                  .energy_j = (double)i,
                                  .power_w = i % 3 ? 100.5f : NAN,
                                  .throttle = i % 2 ? 4 : UINT32_MAX,
                                  .device = (uint16_t)(i % 2)};
        append(j, JOURNAL_SERIES, &point, sizeof point);
        append(j, JOURNAL_GPUS, &gpu, sizeof gpu);
    }
    journal_close(j);
    return journal_path(dir, step);
}

int run_files_step(struct store *s, const char *path, uint32_t step, uint64_t n, struct err *e)
{
    char *dir = store_journal_dir(path);
    char *file = run_files_journal(dir, step, n);
    struct step_info info = run_files_info(step, n);
    json_t *summary = json_pack("{s:{s:f, s:i}, s:i}", "ttft_ms", "mean", 1.5, "n", (int)n, "x", 1);
    int status = store_fold_step(s, file, &info, RUN_FILES_T0_NS, NULL, 0, e);
    if (status == 0) {
        status = store_finish_step(s, &info, summary, e);
    }
    journal_remove(dir, step);
    json_decref(summary);
    free(file);
    free(dir);
    return status;
}
