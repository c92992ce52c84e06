/* A file of edges as a prediction reads it, and splits over its ranks by numbers worked out by hand. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/mem.h"
#include "core/str.h"
#include "workers/edges_file.h"
#include "workers/fabric_splits.h"

static struct fabric fabric;

/* --- the file ------------------------------------------------------------------------------------ */

/* Three ranks on two hosts, as measured edges write them. */
static void write_edges(struct str *out)
{
    struct edges e = {.n_ranks = 3, .n_transports = 3, .budget_s = 1};
    static const char *const names[] = {"ipc", "mpi", "messages"};
    char *text = NULL;
    size_t len = 0;
    FILE *f = open_memstream(&text, &len);
    assert_non_null(f);
    for (int r = 0; r < 3; r++) {
        snprintf(e.ranks[r].host, sizeof e.ranks[r].host, r == 1 ? "a \"b\"" : "c");
    }
    e.n_sizes = edges_plan_sizes(1 << 20, e.sizes);
    for (int k = 0; k < 3; k++) {
        struct edges_transport *t = &e.transports[k];
        t->name = names[k];
        t->carries_hidden = k < 2;
        t->n_sizes = edges_plan_sizes(1 << 20, t->sizes);
        t->links = xcalloc(9, sizeof *t->links);
        for (int i = 0; i < 9; i++) {
            const bool has = k == 0 ? i == 2 || i == 6 : i / 3 != i % 3; // 0 and 2 are of one host
            for (int s = 0; has && s < t->n_sizes; s++) {
                // Messages are said to be faster, but carry nothing.
                const double ns =
                    (k < 2 ? 100 * (2 - k) : 1) * (i + 1) + (double)t->sizes[s] * (i + 1) / 64;
                t->links[i].times[s] = (struct edges_times){ns, ns, ns, 5};
            }
        }
    }
    edges_judge(&e);
    for (int k = 0; k < 3; k++) {
        assert_int_equal(e.transports[k].n_left_out, 0); // what no edge has is not missing
    }
    assert_string_equal(edges_carrier(&e, 2, 0)->name, "ipc");
    assert_string_equal(edges_carrier(&e, 2, 1)->name, "mpi");
    assert_null(edges_carrier(&e, 1, 1));
    struct json_out o = {.f = f};
    json_out_open(&o, NULL, '{');
    edges_file_put(&o, &e);
    json_out_close(&o, '}');
    fclose(f);
    str_append(out, text, len);
    free(text);
    edges_free(&e);
}

static void what_is_written_is_read(void **state)
{
    (void)state;
    struct str text = {0};
    struct err e = {0};
    write_edges(&text);
    assert_int_equal(fabric_parse(&fabric, false, text.data, text.len, "x", &e), 0);
    assert_int_equal(fabric.n_ranks, 3);
    assert_int_equal(fabric.n_hosts, 2);
    assert_true(fabric.host[0] == 0 && fabric.host[1] == 1 && fabric.host[2] == 0);
    const struct fabric_edge *edge = &fabric.edges[2][1]; // link 7
    assert_true(fabs(edge->latency_ns - 800) < 1e-6 && fabs(edge->byte_ns - 0.125) < 1e-9);
    assert_true(fabs(fabric_ns(edge, 1000) - 925) < 1e-6);
    assert_true(fabs(fabric.edges[2][0].latency_ns - 1400) < 1e-6); // of ipc, which a run takes
    const int all[] = {0, 1, 2};
    assert_true(fabs(fabric_slowest(&fabric, all, 3).latency_ns - 1400) < 1e-6);
    str_free(&text);
}

#define HEAD  "{\"schema\": \"tidemark.edges/1\", "
#define RANKS "\"ranks\": [{\"rank\": 0, \"host\": \"a\"}, {\"rank\": 1, \"host\": \"a\"}]"
#define LINK(a, b, rest)                                                                           \
    "{\"from\": " #a ", \"to\": " #b ", \"latency_ns\": 1, \"byte_ns\": 0.5" rest "}"
#define LINKS(list) ", \"transports\": [{\"carries_hidden\": true, \"links\": [" list "]}]}"

static void keys_may_come_in_any_order(void **state)
{
    (void)state;
    static const char text[] =
        "{\"transports\": [{\"links\": [{\"from\": 0, \"to\": 1, \"latency_ns\": 9, \"byte_ns\": "
        "0.25}], \"name\": \"ipc\", \"on_device\": true, \"carries_hidden\": true}, {\"carries_hidden\": true, \"links\": "
        "[" LINK(0, 1, "") ", " LINK(1, 0, "") "]}], \"more\": {\"a\": [1]}, " RANKS
                                               ", \"schema\": \"tidemark.edges/1\"}";
    struct err e = {0};
    assert_int_equal(fabric_parse(&fabric, false, text, strlen(text), "x", &e), 0);
    // The first transport that a pair has.
    assert_true(fabric.edges[0][1].latency_ns == 9 && fabric.edges[1][0].latency_ns == 1);
    assert_int_equal(fabric_parse(&fabric, true, text, strlen(text), "x", &e), 0);
    assert_true(fabric.edges[0][1].latency_ns == 1); // ranks on CPUs have no use for GPUs' edges
}

static void bad_files_say_what_is_wrong(void **state)
{
    (void)state;
    static const struct {
        const char *text, *says;
    } bad[] = {
        {"", "not such JSON"},
        {"nonsense", "at byte 0"},
        {HEAD RANKS, "not such JSON"},
        {"{}", "schema is not \"tidemark.edges/1\""},
        {"{\"schema\": \"tidemark.bench/1\"}", "bench --edges --output"},
        {HEAD "\"ranks\": []}", "edges of 0 ranks: at least 2"},
        {HEAD "\"ranks\": [{\"rank\": 0, \"host\": \"a\"}]}", "edges of 1 ranks"},
        {HEAD "\"ranks\": [{\"rank\": 64, \"host\": \"a\"}]}", "from 0 to 63"},
        {HEAD "\"ranks\": [{\"rank\": 0}]}", "a `host`"},
        {HEAD "\"ranks\": [{\"rank\": 0, \"host\": \"a\"}, {\"rank\": 0, \"host\": \"a\"}]}",
         "of its own"},
        {HEAD "\"ranks\": [{\"rank\": 0, \"host\": \"a\"}, {\"rank\": 2, \"host\": \"a\"}]}",
         "none is rank 1"},
        {HEAD "\"ranks\": [{\"rank\": 0, \"host\": \"a\", \"look_ns\": -1}]}", "look_ns must be"},
        {HEAD RANKS "}", "no link from rank 0 to rank 1"},
        {HEAD RANKS LINKS(LINK(0, 1, "")), "no link from rank 1 to rank 0"},
        {HEAD RANKS ", \"transports\": [{\"links\": [" LINK(0, 1, "") ", " LINK(1, 0, "") "]}]}",
         "a transport that carries hidden states"},
        {HEAD RANKS LINKS(LINK(0, 1, "") ", " LINK(0, 1, "")), "no other one joins"},
        {HEAD RANKS LINKS(LINK(0, 0, "")), "no other one joins"},
        {HEAD RANKS LINKS(LINK(0, 77, "")), "no other one joins"},
        {HEAD RANKS LINKS(LINK(0, 1, ", \"byte_ns\": -1")), "byte_ns from 0"},
        {HEAD RANKS LINKS(LINK(0, 1, ", \"latency_ns\": 1e300")), "latency_ns must be from 0"},
        {HEAD RANKS LINKS("{\"from\": 0, \"to\": 1}"), "latency_ns must be from 0"},
        {HEAD RANKS LINKS(LINK(0, 1.5, "")), "not such JSON"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct err e = {0};
        assert_int_equal(
            fabric_parse(&fabric, false, bad[i].text, strlen(bad[i].text), "edges.json", &e), -1);
        assert_int_equal(e.code, ERR_INPUT);
        assert_ptr_equal(strstr(e.msg, "edges.json: "), e.msg);
        if (!strstr(e.msg, bad[i].says)) {
            fail_msg("no '%s' in: %s", bad[i].says, e.msg);
        }
    }
}

/* --- splits -------------------------------------------------------------------------------------- */

/* n ranks, `each` a host: 1 us + 0.01 ns a byte within one, 100 us + 1 ns between. */
static void make_fabric(int n, int each)
{
    memset(&fabric, 0, sizeof fabric);
    fabric.n_ranks = n;
    fabric.n_hosts = (n + each - 1) / each;
    for (int a = 0; a < n; a++) {
        fabric.host[a] = a / each;
        for (int b = 0; b < n; b++) {
            fabric.edges[a][b] = a / each == b / each ? (struct fabric_edge){1e3, 0.01}
                                                      : (struct fabric_edge){1e5, 1};
        }
    }
}

static const struct arch arch = {
    .n_layers = 8,
    .hidden = 1000,
    .intermediate = 4000,
    .n_heads = 8,
    .n_kv_heads = 4,
    .head_dim = 128,
    .v_dim = 128,
    .vocab = 32000,
    .max_context = 4096,
    .dtype = ARCH_BF16,
    .linear_dtype = ARCH_BF16,
    .expert_dtype = ARCH_BF16,
};

static const struct costs costs = {.kinds[COSTS_DENSE] = {.fixed_ns = 1e4, .read_ns = 1e6}};

static struct fabric_splits_ask ask_all(void)
{
    return (struct fabric_splits_ask){
        .arch = &arch,
        .fabric = &fabric,
        .costs = &costs,
        .n_costs = 1,
        .machine = {80e9, 0.9},
        .sum_bytes = 2,
        .kv_bytes = 2,
        .n_in = 100,
        .n_out = 100,
        .n_requests = 64,
    };
}

static const struct fabric_split *find(const struct fabric_split *all, int n, int t, int p)
{
    for (int i = 0; i < n; i++) {
        if (all[i].tensor == t && all[i].pipeline == p) {
            return &all[i];
        }
    }
    return NULL;
}

/* Played out: what comes and goes makes turns a little uneven. */
static bool near(double x, double want)
{
    return fabs(x / want - 1) < 0.02;
}

static void splits_by_hand(void **state)
{
    (void)state;
    static struct fabric_split all[FABRIC_SPLITS_MAX];
    struct fabric_splits_ask ask = ask_all();
    struct err e = {0};
    int n;
    make_fabric(8, 4);
    assert_int_equal(fabric_splits_find(&ask, all, &n, &e), 0);
    // T 1: P 1 to 8; T 2: 1 to 4; T 4: 1 and 2. T 8 would span hosts.
    assert_int_equal(n, 14);
    assert_null(find(all, n, 8, 1));
    // One stage: 8 layers of 1.01 ms a turn for 64 requests, on 8 ranks.
    const struct fabric_split *s = find(all, n, 1, 1);
    assert_true(s->replicas == 8 && s->n_ranks == 8 && s->n_hosts == 2 && s->n_requests == 64);
    assert_true(s->is_played && near(s->tokens_per_s, 8 * 64 / 8.08e-3));
    assert_true(fabs(s->requests_per_s - s->tokens_per_s / 100) < 1e-9);
    assert_true(fabs(s->ttft_ns - 8.08e6) < 1e-3 && s->hop_ns == 0 && s->sum_share == 0);
    // Two stages within a host: lanes of 32, 64 kB a hop, bound by the way: 8.08 ms and two hops.
    s = find(all, n, 1, 2);
    const double hop_ns = 1e3 + 0.01 * 32 * 2000, back_ns = 1e3 + 0.01 * 32 * 4;
    assert_true(s->replicas == 4 && s->first[1] == 4 && fabs(s->hop_ns - hop_ns) < 1e-6);
    assert_true(near(s->tpot_ns, 8.08e6 + hop_ns + back_ns));
    assert_true(fabs(s->ttft_ns - (8.08e6 + 1e3 + 0.01 * 100 * 2000 + 1e3 + 0.04)) < 1e-3);
    // Two that share each layer: half of what is read, two sums of 2 steps, 64 x 2 kB, a half.
    s = find(all, n, 2, 1);
    const double sum_ns = 2 * 1e3 + 0.01 * 64 * 2000;
    const double turn_ns = 8 * (1e4 + 5e5 + 2 * sum_ns) + 1e3;
    assert_true(s->replicas == 4);
    // A share 64 / 100 of turns carries a prompt of 100 tokens, whose sums take longer.
    const double more_ns = 0.64 * 8 * 2 * 0.01 * 100 * 2000;
    assert_true(near(s->tpot_ns, turn_ns + more_ns));
    assert_true(s->sum_share > 0 && s->sum_share < 0.05);
    // A look of 50 us: a turn's end is noticed 25 later. Through memory a sum is one meeting, and reads what the other has.
    fabric.look_ns[0] = 50e3;
    ask.tensor = 2;
    ask.pipeline = 1;
    assert_int_equal(fabric_splits_find(&ask, all, &n, &e), 0);
    assert_true(near(all[0].tpot_ns, turn_ns + more_ns + 25e3));
    ask.sums_in_memory = true;
    assert_int_equal(fabric_splits_find(&ask, all, &n, &e), 0);
    assert_true(near(all[0].tpot_ns, turn_ns + more_ns + 25e3 - (8 * 2 + 0.5) * (2 * 1e3 - 1e3)));
    // Of 4 ranks each sends a quarter to the other host; those there meet once more, and read the other three quarters.
    ask.tensor = 4;
    ask.pipeline = 2;
    assert_int_equal(fabric_splits_find(&ask, all, &n, &e), 0);
    assert_true(n == 1 &&
                fabs(all[0].hop_ns - (1e5 + 1e3 + 32 * 2000 * (1.0 / 4 + 3 * 0.01 / 4))) < 1e-6);
    ask = ask_all();
    make_fabric(8, 4);
    assert_int_equal(fabric_splits_find(&ask, all, &n, &e), 0);
    // The best comes first, and each is not better than the one before.
    for (int i = 1; i < n; i++) {
        assert_true(all[i].tokens_per_s <= all[i - 1].tokens_per_s);
    }
}

static void edges_between_hosts_count(void **state)
{
    (void)state;
    static struct fabric_split all[FABRIC_SPLITS_MAX];
    struct fabric_splits_ask ask = ask_all();
    struct err e = {0};
    int n;
    make_fabric(4, 2);
    ask.tensor = 1;
    ask.pipeline = 4;
    assert_int_equal(fabric_splits_find(&ask, all, &n, &e), 0);
    assert_int_equal(n, 1);
    assert_true(fabs(all[0].hop_ns - (1e5 + 16 * 2000.0)) < 1e-6); // from rank 1 to rank 2
    // Groups do not span hosts: of 3 and 3 ranks, two each.
    make_fabric(6, 3);
    ask.tensor = 2;
    ask.pipeline = 2;
    assert_int_equal(fabric_splits_find(&ask, all, &n, &e), 0);
    assert_true(all[0].replicas == 1 && all[0].n_ranks == 4 && all[0].n_hosts == 2);
    ask.tensor = 3; // no divisor of 8 heads
    assert_int_equal(fabric_splits_find(&ask, all, &n, &e), -1);
    assert_true(e.code == ERR_INPUT && strstr(e.msg, "8 heads over 6 ranks on 2 hosts"));
}

static void memory_bounds_what_is_held(void **state)
{
    (void)state;
    static struct fabric_split all[FABRIC_SPLITS_MAX];
    struct fabric_splits_ask ask = ask_all();
    struct err e = {0};
    int n;
    make_fabric(2, 2);
    // Some 360 MB of weights: one rank of 300 MB does not hold them, two do.
    ask.machine = (struct capacity_machine){300e6, 1};
    assert_int_equal(fabric_splits_find(&ask, all, &n, &e), 0);
    assert_int_equal(n, 3);
    assert_true(all[0].fits && !all[n - 1].fits);
    assert_true(all[n - 1].tensor == 1 && all[n - 1].pipeline == 1);
    const struct fabric_split *s = find(all, n, 1, 2);
    assert_true(s->fits && s->n_requests > 1 && s->n_requests <= 64);
    // Fewer requests than stages: as many lanes as requests.
    ask.machine = (struct capacity_machine){80e9, 1};
    ask.n_requests = 1;
    assert_int_equal(fabric_splits_find(&ask, all, &n, &e), 0);
    s = find(all, n, 1, 2);
    assert_true(s->tpot_ns > 8.08e6 && s->tpot_ns < 8.1e6);
}

/* Of many, the best by the bound are played out, and stand before the others. */
static void the_best_are_played(void **state)
{
    (void)state;
    static struct fabric_split all[FABRIC_SPLITS_MAX];
    static struct arch deep;
    struct fabric_splits_ask ask = ask_all();
    struct err e = {0};
    int n, n_played = 0;
    deep = arch;
    deep.n_layers = 12;
    ask.arch = &deep;
    make_fabric(48, 4);
    assert_int_equal(fabric_splits_find(&ask, all, &n, &e), 0);
    assert_int_equal(n, 36); // P 1 to 12, T 1, 2 and 4
    for (int i = 0; i < n; i++) {
        n_played += all[i].is_played;
        assert_true(i == 0 || all[i].is_played <= all[i - 1].is_played);
        assert_true(i == 0 || all[i].is_played != all[i - 1].is_played ||
                    all[i].tokens_per_s <= all[i - 1].tokens_per_s);
    }
    assert_int_equal(n_played, FABRIC_SPLITS_PLAYED);
}

/* Prompts that come at odd times keep stages waiting, which the bound does not know of. */
static void prompts_cost_a_pipeline_more(void **state)
{
    (void)state;
    static struct fabric_split all[FABRIC_SPLITS_MAX];
    const struct costs prompts = {.kinds[COSTS_DENSE] = {.read_ns = 1e6, .token_ns = 1e5}};
    struct fabric_splits_ask ask = ask_all();
    struct err e = {0};
    int n;
    make_fabric(4, 4);
    ask.costs = &prompts;
    ask.tensor = 1;
    ask.n_requests = 16;
    assert_int_equal(fabric_splits_find(&ask, all, &n, &e), 0);
    const double one = find(all, n, 1, 1)->tokens_per_s, four = find(all, n, 1, 4)->tokens_per_s;
    // One stage: 200 tokens of 0.8 ms for 100 of output, whatever shares their turn.
    assert_true(near(one / 4, 100 / (200 * 0.8e-3)));
    assert_true(four <
                0.95 * one); // four stages of a quarter each would do as much, were turns alike
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_written_is_read),
        cmocka_unit_test(keys_may_come_in_any_order),
        cmocka_unit_test(bad_files_say_what_is_wrong),
        cmocka_unit_test(splits_by_hand),
        cmocka_unit_test(edges_between_hosts_count),
        cmocka_unit_test(memory_bounds_what_is_held),
        cmocka_unit_test(the_best_are_played),
        cmocka_unit_test(prompts_cost_a_pipeline_more),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
