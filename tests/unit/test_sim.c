/* The backend that computes nothing: what its parts cost, how long it takes, and its ids. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>

#include <cmocka.h>

#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/clock.h"
#include "core/mem.h"
#include "model/sizes.h"
#include "workers/backend.h"
#include "workers/kv.h"
#include "workers/sampler.h"
#include "workers/sim/backend.h"
#include "workers/sim/costs.h"

static const struct costs_shares shares = {0.8, 0.6, 5000};

static struct arch llama(int n_layers)
{
    return (struct arch){
        .n_layers = n_layers,
        .hidden = 4096,
        .intermediate = 14336,
        .n_heads = 32,
        .n_kv_heads = 8,
        .head_dim = 128,
        .v_dim = 128,
        .vocab = 128256,
        .max_context = 8192,
        .dtype = ARCH_BF16,
        .linear_dtype = ARCH_BF16,
        .expert_dtype = ARCH_BF16,
    };
}

static bool near(double a, double b)
{
    return fabs(a - b) <= 1e-9 * fabs(b);
}

/* --- costs --------------------------------------------------------------------------------------- */

static void a_roofline_by_hand(void **state)
{
    (void)state;
    static struct arch a;
    a = llama(32);
    struct hardware h;
    struct err e;
    struct costs c;
    assert_int_equal(hardware_find("h100-sxm", &h, &e), 0);
    costs_of_hardware(&h, &shares, 1, &a, &c);
    // One layer: 218,112,000 parameters; one row behind 999 tokens reads 1,000 x 4 KiB of cache.
    struct costs_load one = costs_load_decode(&a, 1, 999);
    double bytes = 2 * 218112000.0 + 1000 * 4096;
    assert_true(near(costs_layer_ns(&c, &a, 0, &one), 5000 + bytes / (0.8 * 3350)));
    // 8,192 tokens of prompt are bound by arithmetic: 2 x parameters, and 4 x 4096 a pair.
    struct costs_load prompt = costs_load_prompt(&a, 8192);
    double flops = 2 * 218112000.0 * 8192 + 4 * 4096.0 * 8192 * 8193 / 2;
    assert_true(near(costs_layer_ns(&c, &a, 0, &prompt), 5000 + flops / (0.6 * 989500)));
    assert_true(near(costs_head_ns(&c, &one), 5000 + 2.0 * 128257 * 4096 / (0.8 * 3350)));
    double all = 0;
    for (int i = 0; i < 32; i++) {
        all += costs_layer_ns(&c, &a, i, &one);
    }
    all += costs_embed_ns(&c, &one) + costs_head_ns(&c, &one);
    assert_true(near(costs_stage_ns(&c, &a, 0, 32, true, true, &one), all));
    // Two devices: half of what is read, and two all-reduces of a row of 8 KiB.
    struct costs two;
    costs_of_hardware(&h, &shares, 2, &a, &two);
    double half = bytes / 2 / (0.8 * 3350) + 2 * 8192 / 450.0;
    assert_true(near(costs_layer_ns(&two, &a, 0, &one), 5000 + 20000 + half));
    assert_string_equal(two.source, "h100-sxm x2");
    costs_scale(&two, 3);
    assert_true(near(costs_layer_ns(&two, &a, 0, &one), 3 * (25000 + half)));
}

static void windows_bound_what_is_read(void **state)
{
    (void)state;
    static struct arch a;
    a = llama(2);
    a.window = 128;
    a.sliding[0] = true;
    struct costs_load l = costs_load_decode(&a, 4, 999);
    assert_true(l.n_cached[0] == 4000 && l.n_seen[0] == 4000);
    assert_true(l.n_seen[1] == 4 * 128);
    struct costs_load p = costs_load_prompt(&a, 200);
    assert_true(p.n_seen[0] == 200 * 201 / 2);
    assert_true(p.n_seen[1] == 128 * 129 / 2 + 72 * 128);
    assert_int_equal(costs_kind_of(&a, 0), COSTS_DENSE_SLIDING);
    assert_int_equal(costs_kind_of(&a, 1), COSTS_DENSE);
    struct costs c = {.kinds[COSTS_DENSE] = {.kv_ns = 1},
                      .kinds[COSTS_DENSE_SLIDING] = {.pair_ns = 1}};
    assert_true(costs_layer_ns(&c, &a, 1, &l) == 4000);
    assert_true(costs_layer_ns(&c, &a, 0, &l) == 512);
}

static void experts_are_read_once(void **state)
{
    (void)state;
    static struct arch a;
    a = llama(2);
    a.moe.n_experts = 8;
    a.moe.top_k = 2;
    a.moe.intermediate = 64;
    a.moe.first_layer = 1;
    struct costs c = {.kinds[COSTS_MOE] = {.read_ns = 10, .expert_ns = 100}};
    struct costs_load one = costs_load_decode(&a, 1, 0), many = costs_load_decode(&a, 1000, 0);
    assert_true(near(costs_layer_ns(&c, &a, 1, &one), 210));
    assert_true(near(costs_layer_ns(&c, &a, 1, &many), 810));
    assert_true(costs_layer_ns(&c, &a, 0, &one) == 0);
}

static struct costs measured(void)
{
    return (struct costs){
        .tensor = 1,
        .kinds[COSTS_DENSE] = {.kv_ns = 2,
                               .pair_ns = 3,
                               .n_points = 3,
                               .points = {{1, 100}, {8, 170}, {64, 1290}}},
        .head = {.n_points = 1, .points = {{1, 50}}},
    };
}

static void points_are_joined_by_lines(void **state)
{
    (void)state;
    static struct arch a;
    a = llama(2);
    struct costs c = measured();
    const struct costs_part *p = &c.kinds[COSTS_DENSE];
    static const double at[][2] = {{0.5, 100}, {1, 100},   {4.5, 135},  {8, 170},
                                   {36, 730},  {64, 1290}, {128, 2570}, {0, 100}};
    for (size_t i = 0; i < sizeof at / sizeof *at; i++) {
        assert_true(near(costs_at_points(p, at[i][0]), at[i][1]));
    }
    // attention is not hidden behind the products: 4 rows that each see 11 positions
    const struct costs_load l = costs_load_decode(&a, 4, 10);
    assert_true(near(costs_layer_ns(&c, &a, 0, &l), 130 + 44 * (2 + 3)));
    assert_true(near(costs_head_ns(&c, &l), 50));
    // a line that falls is not followed below 0
    c.kinds[COSTS_DENSE].points[2].ns = 0;
    assert_true(costs_at_points(p, 1000) == 0);
}

/* Measured of two ranks: their sums are in it. Of all on one: each does half, and sums come in. */
static void shards_are_taken_as_measured(void **state)
{
    (void)state;
    static struct arch a;
    a = llama(2);
    const struct costs_sums sums = {7, 0};
    struct costs whole = measured(), shard = measured();
    shard.tensor = 2;
    costs_share(&whole, &a, 2, 4, &sums);
    costs_share(&shard, &a, 2, 4, &sums);
    assert_true(near(whole.kinds[COSTS_DENSE].points[1].ns, 85));
    assert_true(near(shard.kinds[COSTS_DENSE].points[1].ns, 170));
    assert_true(near(whole.kinds[COSTS_DENSE].pair_ns, 1.5));
    assert_true(near(shard.kinds[COSTS_DENSE].pair_ns, 3));
    assert_true(near(whole.kinds[COSTS_DENSE].fixed_ns, 14));
    assert_true(near(shard.kinds[COSTS_DENSE].fixed_ns, measured().kinds[COSTS_DENSE].fixed_ns));
    struct err e = {0};
    assert_int_equal(costs_check_whole(&shard, &e), -1);
    assert_non_null(strstr(e.msg, "costs of 2 ranks"));
    costs_scale(&shard, 2);
    assert_true(near(shard.kinds[COSTS_DENSE].points[1].ns, 340));
}

static int parse(const char *json, const struct arch *a, struct costs *c, struct err *e)
{
    *e = (struct err){0};
    return costs_parse(json, strlen(json), "costs.json", a, c, e);
}

static void what_is_written_is_read(void **state)
{
    (void)state;
    static struct arch a;
    a = llama(4);
    a.window = 128;
    a.sliding[0] = a.sliding[2] = true;
    struct hardware h;
    struct err e;
    struct costs c, again;
    assert_int_equal(hardware_find("mi300x", &h, &e), 0);
    costs_of_hardware(&h, &shares, 4, &a, &c);
    c.kinds[COSTS_DENSE] = measured().kinds[COSTS_DENSE];
    json_t *root = costs_json(&c, &a);
    char *text = json_dumps(root, JSON_INDENT(1) | JSON_REAL_PRECISION(17));
    assert_int_equal(parse(text, &a, &again, &e), 0);
    assert_string_equal(again.source, c.source);
    assert_int_equal(again.tensor, 4);
    assert_true(costs_equal(&again, &c));
    again.kinds[COSTS_DENSE].points[2].ns += 1;
    assert_false(costs_equal(&again, &c));
    free(text);
    json_decref(root);
}

#define SIZES "\"schema\": \"tidemark.costs/1\", \"hidden\": 4096, \"vocab\": 128256"

#define DENSE(cost) "{" SIZES ", \"layers\": {\"dense\": {" cost "}}}"

static void bad_files_say_what_is_wrong(void **state)
{
    (void)state;
    static const struct {
        const char *json, *says;
    } bad[] = {
        {"{", "costs.json:1: not JSON"},
        {"[]", "schema"},
        {"{\"schema\": \"tidemark.costs/2\"}", "schema"},
        {"{\"schema\": \"tidemark.costs/1\", \"hidden\": 1}", "hidden is not 4096"},
        {"{\"schema\": \"tidemark.costs/1\", \"hidden\": 4096, \"vocab\": 7}", "vocab is not"},
        {"{" SIZES "}", "dense is missing"},
        {"{" SIZES ", \"layers\": {\"moe\": {}}}", "dense is missing"},
        {"{" SIZES ", \"layers\": {\"dense\": 3}}", "dense is missing"},
        {"{" SIZES ", \"layers\": {\"dense\": {\"read\": 3}}}", "no cost 'read'"},
        {"{" SIZES ", \"layers\": {\"dense\": {\"read_ns\": -1}}}", "dense.read_ns must be"},
        {"{" SIZES ", \"layers\": {\"dense\": {\"read_ns\": 1e16}}}", "dense.read_ns must be"},
        {"{" SIZES ", \"layers\": {\"dense\": {\"read_ns\": \"1\"}}}", "dense.read_ns must be"},
        {DENSE("\"points\": 3"), "dense.points must be a list of 1 to 16"},
        {DENSE("\"points\": []"), "dense.points must be a list of 1 to 16"},
        {DENSE("\"points\": [[1, 2], [1, 3]]"), "dense.points[1] must be [tokens, ns]"},
        {DENSE("\"points\": [[1, 2], [2]]"), "dense.points[1] must be [tokens, ns]"},
        {DENSE("\"points\": [[0, 2]]"), "dense.points[0] must be [tokens, ns]"},
        {DENSE("\"points\": [[1, -2]]"), "dense.points must be a number"},
        {DENSE("\"points\": [[1, 2]], \"token_ns\": 3"), "dense has points, which take the place"},
        {"{" SIZES ", \"tensor\": 0}", "tensor must be a whole number from 1 to 64"},
        {"{" SIZES ", \"tensor\": 1.5}", "tensor must be a whole number from 1 to 64"},
        {"{" SIZES ", \"layers\": {\"dense\": {}}}", "embed is missing"},
        {"{" SIZES ", \"layers\": {\"dense\": {}}, \"embed\": {}}", "head is missing"},
        {"{" SIZES ", \"layers\": {\"dense\": {}}, \"embed\": {}, \"head\": {}, \"hop_ns\": null}",
         "hop_ns must be"},
        {"{" SIZES ", \"layers\": {\"dense\": {}}, \"embed\": {}, \"head\": {}, "
         "\"hop_byte_ns\": -1}",
         "hop_byte_ns must be"},
    };
    static struct arch a;
    a = llama(2);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct err e;
        struct costs c;
        assert_int_equal(parse(bad[i].json, &a, &c, &e), -1);
        assert_int_equal(e.code, ERR_INPUT);
        if (!strstr(e.msg, bad[i].says) || strncmp(e.msg, "costs.json:", 11) != 0) {
            fail_msg("'%s' does not say '%s'", e.msg, bad[i].says);
        }
    }
    struct err e;
    struct hardware h;
    assert_int_equal(hardware_find("h1000", &h, &e), -1);
    assert_non_null(strstr(e.msg, "h100-sxm"));
    for (int i = 0; hardware_row(i); i++) {
        assert_int_equal(hardware_find(hardware_row(i)->name, &h, &e), 0);
        assert_true(h.bf16_flops > h.read_bytes_per_s && h.read_bytes_per_s > h.link_bytes_per_s);
    }
}

/* --- the backend --------------------------------------------------------------------------------- */

enum {
    N_SLOTS = 4,
    BLOCKS = 8, // of a slot
    TOKENS = 64,
    LAYERS = 6,
    VOCAB = 1000,
    MAX_STAGES = 3,
};

struct rig {
    int n_stages;
    struct arch arch;
    struct backend *stages[MAX_STAGES];
    struct kv_tables tables;
    struct batch *batch;
    float *hidden[2]; // (TOKENS, hidden)
    int32_t ids[N_SLOTS];
    uint32_t n_blocks;        // given out, from the end
    struct sampler_jobs jobs; // of the next batch
};

static void rig_open(struct rig *r, int n_stages, const struct costs *costs)
{
    struct err e;
    *r = (struct rig){.n_stages = n_stages, .arch = llama(LAYERS), .n_blocks = N_SLOTS * BLOCKS};
    r->arch.hidden = 8;
    r->arch.vocab = VOCAB;
    for (int s = 0; s < n_stages; s++) {
        const struct backend_config cfg = {
            .backend = "sim",
            .arch = &r->arch,
            .first_layer = s * LAYERS / n_stages,
            .n_layers = LAYERS / n_stages,
            .has_embed = s == 0,
            .has_head = s == n_stages - 1,
            .max_tokens = TOKENS,
            .max_rows = N_SLOTS,
            .n_blocks = N_SLOTS * BLOCKS,
            .timing = costs,
        };
        assert_int_equal(backend_create(&r->stages[s], &cfg, &e), 0);
        assert_string_equal(backend_name(r->stages[s]), "sim");
    }
    const struct batch_limits limits = {N_SLOTS, TOKENS, N_SLOTS * BLOCKS, 1, 0, 0, 0, 0};
    assert_int_equal(kv_tables_init(&r->tables, N_SLOTS, BLOCKS, &e), 0);
    assert_int_equal(batch_create(&r->batch, &limits, &e), 0);
    r->hidden[0] = xcalloc(TOKENS * 8, sizeof(float));
    r->hidden[1] = xcalloc(TOKENS * 8, sizeof(float));
}

static void rig_close(struct rig *r)
{
    for (int s = 0; s < r->n_stages; s++) {
        backend_destroy(r->stages[s]);
    }
    kv_tables_free(&r->tables);
    batch_destroy(r->batch);
    free(r->hidden[0]);
    free(r->hidden[1]);
}

static void add(struct rig *r, uint32_t slot, uint32_t pos, const int32_t *ids, uint32_t n)
{
    struct batch *b = r->batch;
    uint32_t had = pos > 0 ? r->tables.n[slot] : 0;
    uint32_t need = (pos + n + BATCH_KV_BLOCK - 1) / BATCH_KV_BLOCK;
    struct batch_row *row = &b->rows[b->n_rows++];
    *row = (struct batch_row){
        .slot = slot,
        .flags = BATCH_SAMPLE | (pos == 0 ? BATCH_BEGIN : 0u),
        .first = b->n_tokens,
        .n_tokens = n,
        .pos = pos,
        .first_block = b->n_blocks,
        .n_blocks = need > had ? need - had : 0,
    };
    for (uint32_t i = 0; i < row->n_blocks; i++) {
        b->blocks[b->n_blocks++] = --r->n_blocks;
    }
    memcpy(b->tokens + b->n_tokens, ids, n * sizeof *ids);
    b->n_tokens += n;
}

static void compute(struct rig *r)
{
    kv_tables_apply(&r->tables, r->batch);
    for (int s = 0; s < r->n_stages; s++) {
        backend_submit(r->stages[s], r->batch, &r->tables, s > 0 ? r->hidden[(s + 1) % 2] : NULL,
                       r->hidden[s % 2], r->ids, &r->jobs);
        while (!backend_poll(r->stages[s])) {
        }
    }
    r->batch->n_rows = r->batch->n_tokens = r->batch->n_blocks = 0;
}

/* Any cut into chunks, any company, any blocks and any number of stages gives the same ids. */
static void ids_are_the_requests_own(void **state)
{
    (void)state;
    const struct costs nothing = {.hop_ns = 0};
    int32_t prompt[40], other[20];
    for (int32_t i = 0; i < 40; i++) {
        prompt[i] = i * 7 % VOCAB;
        other[i % 20] = i * 13 % VOCAB;
    }
    const int32_t want = backend_sim_next(prompt, 40, LAYERS, VOCAB);
    int32_t longer[41];
    memcpy(longer, prompt, sizeof prompt);
    longer[40] = want;
    const int32_t then = backend_sim_next(longer, 41, LAYERS, VOCAB);
    assert_true(want >= 0 && want < VOCAB && then >= 0 && then < VOCAB && want != then);
    for (int n_stages = 1; n_stages <= MAX_STAGES; n_stages++) {
        struct rig r;
        rig_open(&r, n_stages, &nothing);
        add(&r, 2, 0, prompt, 40);
        compute(&r);
        assert_int_equal(r.ids[0], want);
        add(&r, 2, 40, &want, 1);
        compute(&r);
        assert_int_equal(r.ids[0], then);
        // In chunks, beside another, in a slot whose blocks are others.
        add(&r, 0, 0, prompt, 17);
        add(&r, 3, 0, other, 20);
        compute(&r);
        add(&r, 3, 20, other, 1);
        add(&r, 0, 17, prompt + 17, 23);
        compute(&r);
        assert_int_equal(r.ids[1], want);
        add(&r, 0, 40, &want, 1);
        compute(&r);
        assert_int_equal(r.ids[0], then);
        rig_close(&r);
    }
    // A different past is a different future.
    prompt[0]++;
    assert_int_not_equal(backend_sim_next(prompt, 40, LAYERS, VOCAB), want);
}

/* A cache whose block is not the request's shows in its ids. */
static void a_wrong_block_shows(void **state)
{
    (void)state;
    const struct costs nothing = {.hop_ns = 0};
    const int32_t prompt[20] = {1, 2, 3};
    struct rig r;
    rig_open(&r, 1, &nothing);
    add(&r, 0, 0, prompt, 16);
    add(&r, 1, 0, prompt + 4, 16);
    compute(&r);
    r.tables.blocks[0] = r.tables.blocks[BLOCKS]; // slot 0's first is slot 1's
    add(&r, 0, 16, prompt + 16, 4);
    compute(&r);
    assert_int_not_equal(r.ids[0], backend_sim_next(prompt, 20, LAYERS, VOCAB));
    rig_close(&r);
}

static void it_takes_what_the_costs_say(void **state)
{
    (void)state;
    const struct costs costs = {
        .kinds[COSTS_DENSE] = {.fixed_ns = 500e3, .token_ns = 100e3},
        .embed = {.fixed_ns = 1e6},
        .head = {.read_ns = 2e6},
    };
    const int32_t prompt[10] = {1, 2, 3};
    struct rig r;
    rig_open(&r, 2, &costs);
    add(&r, 0, 0, prompt, 10);
    int64_t t_ns = clock_now_ns(), begin_ns, end_ns;
    compute(&r);
    int64_t took_ns = clock_now_ns() - t_ns;
    backend_times(r.stages[0], &begin_ns, &end_ns);
    assert_int_equal(end_ns - begin_ns, 3 * 1500000 + 1000000);
    assert_true(begin_ns >= t_ns);
    backend_times(r.stages[1], &begin_ns, &end_ns);
    assert_int_equal(end_ns - begin_ns, 3 * 1500000 + 2000000);
    assert_true(took_ns >= 12000000);
    rig_close(&r);
}

/* Whatever the temperature, one id can come; where it may not, the next one does. */
static void jobs_are_filled_in(void **state)
{
    (void)state;
    const struct costs nothing = {.hop_ns = 0};
    const struct wire_sampling how = {.temperature = 1, .top_p = 1, .logprobs = 3};
    const int32_t prompt[10] = {1, 2, 3};
    const int32_t want = backend_sim_next(prompt, 10, LAYERS, VOCAB);
    const int32_t banned[] = {(want + 1) % VOCAB, want};
    for (uint32_t n_banned = 0; n_banned <= 2; n_banned += 2) {
        struct sampler_job job = {.how = &how, .banned = banned, .n_banned = n_banned};
        struct rig r;
        rig_open(&r, 2, &nothing);
        r.jobs = (struct sampler_jobs){&job, 1};
        add(&r, 0, 0, prompt, 10);
        compute(&r);
        assert_int_equal(job.id, (want + (int32_t)n_banned) % VOCAB);
        assert_int_equal(r.ids[0], job.id);
        assert_true(job.logprob == 0 && job.n_top == 1 && job.top[0].id == job.id);
        rig_close(&r);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_roofline_by_hand),
        cmocka_unit_test(windows_bound_what_is_read),
        cmocka_unit_test(experts_are_read_once),
        cmocka_unit_test(points_are_joined_by_lines),
        cmocka_unit_test(shards_are_taken_as_measured),
        cmocka_unit_test(what_is_written_is_read),
        cmocka_unit_test(bad_files_say_what_is_wrong),
        cmocka_unit_test(ids_are_the_requests_own),
        cmocka_unit_test(a_wrong_block_shows),
        cmocka_unit_test(it_takes_what_the_costs_say),
        cmocka_unit_test(jobs_are_filled_in),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
