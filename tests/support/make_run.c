/*
 * make_run OUT.h5 [--capacity TOKENS_PER_S] [--rates A,B,C] [--step S] [--warmup SHARE] [--drain S]
 *          [--seed N] [--stages P] [--gpus N]
 *
 * A finished result file with known statistics: a simulated continuous batcher serves Poisson
 * arrivals at each rate, and what happened goes through the journal and the fold as in a real run.
 *
 * The server: at most 64 requests run; one iteration prefills what was just admitted (30 us per
 * prompt token) and gives each running request a token (20 ms + 0.3 ms * B), so 64 / 39.2 ms =
 * 1632.65 tokens/s decode; --capacity scales its clock. Prints the rate at which it really saturates.
 * GPUs draw a power that swings, whatever is served; those with an odd number have no counter of energy.
 */
#include "core/clock.h"
#include "core/mem.h"
#include "core/rng.h"
#include "results/journal.h"
#include "results/provenance.h"
#include "results/store.h"

#include <jansson.h>

#include <getopt.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_BATCH     64
#define DECODE_BASE_S 0.020
#define DECODE_EACH_S 0.0003
#define PREFILL_S     30e-6
#define NOMINAL_TOK_S (MAX_BATCH / (DECODE_BASE_S + DECODE_EACH_S * MAX_BATCH))
#define MAX_RATES     64
#define T0_NS         (1000 * NS_PER_S)
#define CREATED_NS    1790000000000000000LL
#define HOP_US        50u
#define WIRE_NS       60000 // leader or last stage to load rank
#define FLUSH_BYTES   ((size_t)1 << 16)

struct options {
    const char *path;
    double capacity, step_s, warmup, drain_s;
    double rates[MAX_RATES];
    size_t n_rates;
    uint64_t seed;
    unsigned n_stages, n_gpus;
};

struct live {
    struct record r;
    uint32_t *dt_us; // (n_out_req)
    uint32_t stage_us[2][RECORD_MAX_STAGES];
    int64_t t_last_ns; // arrival of the latest token
    uint32_t n_batches;
};

struct sim {
    const struct options *o;
    double scale; // seconds of the server per second of the nominal one
    struct step_info info;
    struct journal *journal;
    struct str_buf {
        uint8_t *data; // (cap)
        size_t len, cap;
    } out;
    struct live *live; // (n) every request of the step
    size_t n, n_arrived, n_admitted;
    size_t running[MAX_BATCH];
    size_t n_running;
    uint64_t batch_seq;
    int64_t t_sample_ns;
    double e2e_sum_ms, n_ok;
};

static void die_on(int status, const struct err *e)
{
    if (status != 0) {
        fprintf(stderr, "make_run: %s\n", e->msg);
        exit(e->code);
    }
}

/* --- the schedule --------------------------------------------------------------------------------- */

static double normal(uint64_t seed, enum rng_stream stream, uint64_t i)
{
    double u = rng_uniform(seed, stream, i, 0), v = rng_uniform(seed, stream, i, 1);
    return sqrt(-2 * log(u)) * cos(2 * 3.14159265358979323846 * v); // Box and Muller 1958
}

/* Lognormal with ShareGPT's median and mean, clipped to lo..1024. */
static uint32_t length(double median, double mean, uint32_t lo, double z)
{
    double x = median * exp(sqrt(2 * log(mean / median)) * z);
    return x < lo ? lo : x > 1024 ? 1024 : (uint32_t)x;
}

static double mean_length(double median, double mean, uint32_t lo, enum rng_stream stream)
{
    double sum = 0;
    for (uint64_t i = 0; i < 100000; i++) {
        sum += length(median, mean, lo, normal(1, stream, i));
    }
    return sum / 100000;
}

static void make_schedule(struct sim *s, double rate_rps)
{
    int64_t t = s->info.t_begin_ns;
    size_t cap = (size_t)(rate_rps * s->o->step_s * 2) + 100;
    uint64_t seed = s->info.seed;
    s->live = xcalloc(cap, sizeof *s->live);
    for (s->n = 0; s->n < cap; s->n++) {
        uint64_t i = s->n;
        t += (int64_t)(-log(rng_uniform(seed, RNG_ARRIVAL, i, 0)) / rate_rps * 1e9);
        if (t >= s->info.t_end_ns) {
            break;
        }
        struct record *r = &s->live[i].r;
        record_init(r);
        r->id = i;
        r->t_sched_ns = t;
        r->t_send_ns = t + 20000 + (int64_t)rng_below(60000, seed, RNG_SHUFFLE, i, 0);
        r->n_in = length(108, 226, 4, normal(seed, RNG_INPUT_LENGTH, i));
        r->n_out_req = length(132, 195, 1, normal(seed, RNG_OUTPUT_LENGTH, i));
        r->n_stages = (uint8_t)s->o->n_stages;
        r->outcome = OUTCOME_CANCELLED;
        s->live[i].dt_us = xcalloc(r->n_out_req, sizeof(uint32_t));
    }
    s->info.n_scheduled = s->n;
}

/* --- the journal ---------------------------------------------------------------------------------- */

static void flush_records(struct sim *s)
{
    struct err e;
    if (s->out.len > 0) {
        die_on(journal_append(s->journal, JOURNAL_RECORDS, s->out.data, s->out.len, &e), &e);
    }
    s->out.len = 0;
}

static void finish_record(struct sim *s, struct live *l)
{
    size_t n = record_encoded_bytes(&l->r);
    if (s->out.len + n > s->out.cap) {
        s->out.cap = s->out.len + n + FLUSH_BYTES;
        s->out.data = xrealloc(s->out.data, s->out.cap);
    }
    uint32_t stage_us[2 * RECORD_MAX_STAGES];
    for (unsigned k = 0; k < 2u * l->r.n_stages; k++) {
        stage_us[k] = l->stage_us[k / l->r.n_stages][k % l->r.n_stages];
    }
    record_encode(&l->r, stage_us, l->dt_us, s->out.data + s->out.len);
    s->out.len += n;
    if (s->out.len >= FLUSH_BYTES) {
        flush_records(s);
    }
}

/* Each stage takes its share of the batch, one after the other, then sends. */
static void write_spans(struct sim *s, int64_t t_ns, int64_t dur_ns, uint32_t n_tokens,
                        bool prefill)
{
    struct err e;
    struct span spans[3 * RECORD_MAX_STAGES];
    unsigned p = s->o->n_stages, n = 0;
    int64_t each_ns = dur_ns / (int64_t)p;
    for (unsigned k = 0; k < p; k++) {
        struct span span = {.batch_seq = s->batch_seq,
                            .n_tokens = n_tokens,
                            .rank = (uint16_t)(1 + k),
                            .n_rows = (uint16_t)s->n_running};
        int64_t begin_ns = t_ns + k * each_ns;
        span.op = SPAN_WAIT_RECV;
        span.t_begin_ns = begin_ns - (dur_ns - each_ns);
        span.dur_ns = (uint32_t)(dur_ns - each_ns);
        spans[n++] = span;
        span.op = prefill ? SPAN_MIXED : SPAN_DECODE;
        span.t_begin_ns = begin_ns;
        span.dur_ns = (uint32_t)(each_ns - HOP_US * 1000);
        spans[n++] = span;
        span.op = SPAN_SEND;
        span.t_begin_ns = begin_ns + span.dur_ns;
        span.dur_ns = HOP_US * 1000;
        span.n_bytes = n_tokens * 2048;
        spans[n++] = span;
    }
    die_on(journal_append(s->journal, JOURNAL_SPANS, spans, n * sizeof spans[0], &e), &e);
}

static void write_samples(struct sim *s, int64_t until_ns)
{
    struct err e;
    for (; s->t_sample_ns <= until_ns; s->t_sample_ns += NS_PER_S / 10) {
        struct series_point p = {
            .t_ns = s->t_sample_ns,
            .waiting = (uint32_t)(s->n_arrived - s->n_admitted),
            .running = (uint32_t)s->n_running,
            .kv_used = (float)s->n_running / MAX_BATCH,
        };
        p.in_flight = p.waiting + p.running;
        die_on(journal_append(s->journal, JOURNAL_SERIES, &p, sizeof p, &e), &e);
    }
}

static void write_gpus(struct sim *s)
{
    struct err e;
    double begin_s = (double)(s->info.t_begin_ns - T0_NS) / 1e9;
    double end_s = (double)(s->info.t_drain_ns - T0_NS) / 1e9;
    for (unsigned i = 0; i < s->o->n_gpus; i++) {
        for (double t = begin_s - 0.1 + 0.013 * i; t < end_s; t += 0.1) {
            double swing = sin(t / 3);
            struct gpus_sample p = {
                .t_ns = T0_NS + (int64_t)(t * 1e9),
                .energy_j = i % 2 ? (double)NAN : 1e6 + (400 + 10 * i) * t - 600 * cos(t / 3),
                .memory_used_bytes = 1e9 * (1 + i),
                .power_w = (float)(400 + 10 * i + 200 * swing),
                .sm_mhz = swing > 0.5 ? 1200 : 1980,
                .memory_mhz = 3201,
                .gpu_util = (float)(0.5 + 0.5 * swing),
                .memory_util = 0.25f,
                .temperature_c = (float)(60 + 10 * swing),
                .throttle = swing > 0.5 ? 1U << GPUS_POWER_CAP : 0,
                .device = (uint16_t)i,
            };
            die_on(journal_append(s->journal, JOURNAL_GPUS, &p, sizeof p, &e), &e);
        }
    }
}

/* --- the server ----------------------------------------------------------------------------------- */

static void arrivals_until(struct sim *s, int64_t t_ns)
{
    while (s->n_arrived < s->n && s->live[s->n_arrived].r.t_send_ns <= t_ns) {
        s->live[s->n_arrived].r.t_recv_ns = s->live[s->n_arrived].r.t_send_ns + WIRE_NS;
        s->n_arrived++;
    }
}

/* Prompt tokens of what was admitted at t. */
static uint32_t admit(struct sim *s, int64_t t_ns)
{
    uint32_t n_tokens = 0;
    while (s->n_running < MAX_BATCH && s->n_admitted < s->n_arrived) {
        struct record *r = &s->live[s->n_admitted].r;
        int64_t t_admit_ns = t_ns > r->t_recv_ns ? t_ns : r->t_recv_ns;
        r->t_admit_ns = r->t_prefill_ns = t_admit_ns;
        n_tokens += r->n_in;
        s->running[s->n_running++] = s->n_admitted++;
    }
    return n_tokens;
}

static uint32_t us_of(int64_t ns)
{
    return (uint32_t)((ns + 500) / 1000);
}

/* What is neither compute nor hop between admission and the token was waiting. */
static uint32_t bubble_us(const struct live *l, unsigned upto, int64_t t_emit_ns, unsigned n_stages)
{
    int64_t us = (t_emit_ns - l->r.t_admit_ns) / 1000 - l->r.hop_us[upto];
    for (unsigned k = 0; k < n_stages; k++) {
        us -= l->stage_us[upto][k];
    }
    return us > 0 ? (uint32_t)us : 0;
}

static void first_token(struct live *l, int64_t t_emit_ns, unsigned n_stages)
{
    struct record *r = &l->r;
    r->t_emit_first_ns = t_emit_ns;
    r->t_byte_ns = r->t_first_ns = r->t_content_ns = l->t_last_ns;
    r->hop_us[0] = HOP_US * n_stages * l->n_batches;
    memcpy(l->stage_us[0], l->stage_us[1], sizeof l->stage_us[0]);
    r->bubble_us[0] = bubble_us(l, 0, t_emit_ns, n_stages);
}

static bool give_token(struct sim *s, struct live *l, int64_t t_ns, int64_t dur_ns)
{
    struct record *r = &l->r;
    unsigned p = s->o->n_stages;
    int64_t t_emit_ns = t_ns + dur_ns, arrival_ns = t_emit_ns + WIRE_NS;
    l->n_batches++;
    for (unsigned k = 0; k < p; k++) {
        l->stage_us[1][k] += us_of(dur_ns / (int64_t)p) - HOP_US;
    }
    uint32_t dt_us = us_of(arrival_ns - (r->n_out == 0 ? r->t_send_ns : l->t_last_ns));
    l->dt_us[r->n_out] = dt_us;
    l->t_last_ns = arrival_ns;
    if (r->n_out == 0) {
        first_token(l, t_emit_ns, p);
    } else if (dt_us > r->itl_max_us) {
        r->itl_max_us = dt_us;
    }
    r->n_out++;
    r->n_chunks++;
    r->t_last_ns = arrival_ns;
    if (r->n_out < r->n_out_req) {
        return false;
    }
    r->outcome = OUTCOME_OK;
    r->t_emit_last_ns = t_emit_ns;
    r->hop_us[1] = HOP_US * p * l->n_batches;
    r->bubble_us[1] = bubble_us(l, 1, t_emit_ns, p);
    s->e2e_sum_ms += (double)(r->t_last_ns - r->t_sched_ns) / 1e6;
    s->n_ok++;
    finish_record(s, l);
    return true;
}

static int64_t iterate(struct sim *s, int64_t t_ns)
{
    uint32_t n_prompt = admit(s, t_ns);
    double dur_s = DECODE_BASE_S + DECODE_EACH_S * (double)s->n_running + PREFILL_S * n_prompt;
    int64_t dur_ns = (int64_t)(dur_s * s->scale * 1e9);
    s->batch_seq++;
    write_spans(s, t_ns, dur_ns, n_prompt + (uint32_t)s->n_running, n_prompt > 0);
    write_samples(s, t_ns);
    size_t kept = 0;
    for (size_t i = 0; i < s->n_running; i++) {
        if (!give_token(s, &s->live[s->running[i]], t_ns, dur_ns)) {
            s->running[kept++] = s->running[i];
        }
    }
    s->n_running = kept;
    return t_ns + dur_ns;
}

static void serve(struct sim *s)
{
    int64_t t_ns = s->t_sample_ns = s->info.t_begin_ns;
    while (t_ns < s->info.t_drain_ns) {
        arrivals_until(s, t_ns);
        if (s->n_running > 0 || s->n_admitted < s->n_arrived) {
            t_ns = iterate(s, t_ns);
        } else if (s->n_arrived < s->n) {
            write_samples(s, t_ns);
            t_ns = s->live[s->n_arrived].r.t_send_ns;
        } else {
            break;
        }
    }
    for (size_t i = 0; i < s->n; i++) { // what the drain cut off
        if (s->live[i].r.outcome == OUTCOME_CANCELLED) {
            finish_record(s, &s->live[i]);
        }
    }
    flush_records(s);
}

/* --- the file ------------------------------------------------------------------------------------- */

static double tokens_in_window(const struct sim *s, bool served)
{
    double n = 0;
    for (size_t i = 0; i < s->n; i++) {
        const struct live *l = &s->live[i];
        if (!served) {
            n += l->r.t_sched_ns >= s->info.t_warm_ns ? l->r.n_out_req : 0;
            continue;
        }
        int64_t t_ns = l->r.t_send_ns;
        for (uint32_t k = 0; k < l->r.n_out; k++) {
            t_ns += l->dt_us[k] * 1000LL;
            n += t_ns >= s->info.t_warm_ns && t_ns < s->info.t_end_ns;
        }
    }
    return n / ((double)(s->info.t_end_ns - s->info.t_warm_ns) / 1e9);
}

static double sent_in_window(const struct sim *s)
{
    double n = 0;
    for (size_t i = 0; i < s->n; i++) {
        n += s->live[i].r.t_send_ns >= s->info.t_warm_ns;
    }
    return n / ((double)(s->info.t_end_ns - s->info.t_warm_ns) / 1e9);
}

/* Times of step_info are since t0 from here on. */
static void judge(struct sim *s)
{
    struct step_info *i = &s->info;
    i->offered_output_tokens_per_s = tokens_in_window(s, false);
    i->served_output_tokens_per_s = tokens_in_window(s, true);
    i->achieved_rps = sent_in_window(s);
    double share = i->served_output_tokens_per_s / i->offered_output_tokens_per_s;
    i->verdict = share > 0.97 ? VERDICT_STABLE : VERDICT_UNSTABLE;
    snprintf(i->reason, sizeof i->reason, "served %.3f of what was offered", share);
    i->t_begin_ns -= T0_NS;
    i->t_warm_ns -= T0_NS;
    i->t_end_ns -= T0_NS;
    i->t_drain_ns -= T0_NS;
}

static void run_step(const struct options *o, struct store *store, const char *dir, uint32_t index,
                     int64_t *t_ns)
{
    struct err e;
    struct sim s = {.o = o, .scale = NOMINAL_TOK_S / o->capacity};
    s.info = (struct step_info){
        .index = index,
        .kind = STEP_SWEEP,
        .rate_rps = o->rates[index],
        .seed = rng_u64(o->seed, RNG_STEP, index, 0),
        .t_begin_ns = *t_ns,
        .t_warm_ns = *t_ns + (int64_t)(o->step_s * o->warmup * 1e9),
        .t_end_ns = *t_ns + (int64_t)(o->step_s * 1e9),
        .t_drain_ns = *t_ns + (int64_t)((o->step_s + o->drain_s) * 1e9),
        .poll_gap_p50_ns = 1000,
        .poll_gap_p99_ns = 52000,
        .load_cpu_share = 0.1,
    };
    *t_ns = s.info.t_drain_ns + NS_PER_S / 2;
    make_schedule(&s, o->rates[index]);
    die_on(journal_create(&s.journal, dir, index, &e), &e);
    serve(&s);
    write_gpus(&s);
    die_on(journal_sync(s.journal, &e), &e);
    journal_close(s.journal);
    judge(&s);
    char *path = journal_path(dir, index);
    die_on(store_fold_step(store, path, &s.info, T0_NS, NULL, 0, &e), &e);
    json_t *summary = json_pack("{s:{s:f, s:f}}", "e2e_ms", "n", s.n_ok, "mean",
                                s.n_ok > 0 ? s.e2e_sum_ms / s.n_ok : 0.0);
    die_on(store_finish_step(store, &s.info, summary, &e), &e);
    journal_remove(dir, index);
    json_decref(summary);
    free(path);
    for (size_t i = 0; i < s.n; i++) {
        free(s.live[i].dt_us);
    }
    free(s.live);
    free(s.out.data);
}

/* 4 layers of a made-up model to each stage. */
static struct engine *make_engines(unsigned n_stages)
{
    struct engine *engines = xcalloc(n_stages + 1, sizeof *engines);
    for (unsigned i = 0; i < n_stages; i++) {
        engines[i] = (struct engine){.rank = (int32_t)i + 1,
                                     .first_layer = 4 * (int32_t)i,
                                     .n_layers = 4,
                                     .backend = "sim",
                                     .device = "simulated: make_run",
                                     .kernels = "sim",
                                     .weights = "bf16",
                                     .weights_stored = "bf16",
                                     .weight_bytes = 2000000,
                                     .n_weights = 1000000,
                                     .bytes_per_weight = 2,
                                     .kv_cache = "bf16",
                                     .kv_bytes_per_token = 4096,
                                     .kv_blocks = 1024,
                                     .moe_routing = "none",
                                     .moe_zipf = NAN,
                                     .placement = "none",
                                     .transport = "mpi",
                                     .numa = -1};
    }
    return engines;
}

/* Hidden states from each stage to the next, and ids back; all on one host. */
static struct edge *make_edges(unsigned n_stages, size_t *n)
{
    struct edge *edges = xcalloc(n_stages + 1, sizeof *edges);
    *n = n_stages > 1 ? n_stages : 0;
    for (unsigned i = 0; i < *n; i++) {
        const bool is_last = i + 1 == n_stages;
        edges[i] = (struct edge){.from_rank = (int32_t)i + 1,
                                 .to_rank = is_last ? 1 : (int32_t)i + 2,
                                 .kind = is_last ? EDGE_IDS : EDGE_HIDDEN,
                                 .same_host = true,
                                 .transport = "mpi"};
    }
    return edges;
}

static struct gpus_device *make_gpus(unsigned n)
{
    struct gpus_device *gpus = xcalloc(n + 1, sizeof *gpus);
    for (unsigned i = 0; i < n; i++) {
        gpus[i] = (struct gpus_device){.rank = 1,
                                       .index = (int32_t)i,
                                       .host = "simulated",
                                       .name = "GPU <of make_run>",
                                       .driver = "1.0",
                                       .memory_bytes = 80e9,
                                       .power_limit_w = 700};
        snprintf(gpus[i].uuid, sizeof gpus[i].uuid, "GPU-%u", i);
        snprintf(gpus[i].pci, sizeof gpus[i].pci, "00000000:%02X:00.0", i);
    }
    return gpus;
}

static struct store *create(const struct options *o, struct store_rank *ranks, size_t n_ranks)
{
    struct err e;
    struct store *store;
    json_t *config = json_pack(
        "{s:s, s:{s:s, s:s, s:s, s:i, s:i, s:i}, s:{s:i, s:s, s:s, s:s}, s:{s:s, s:s, s:s},"
        " s:{s:s, s:s, s:s, s:s}}",
        "name", "make_run", "target", "kind", "stages", "model", "preset:tiny", "backend", "sim",
        "replicas", 1, "pipeline", (int)o->n_stages, "tensor", 1, "load", "ranks", 1, "dataset",
        "sharegpt", "arrival", "poisson", "warmup", "25%", "slo", "ttft", "500ms", "ntpot", "100ms",
        "quantile", "0.5", "cost", "prices", "configs/prices.csv", "instance", "example-1gpu",
        "pricing_model", "on-demand", "output_to_input_ratio", "4");
    json_t *dataset = json_pack("{s:s, s:s, s:s, s:i, s:{}, s:{}, s:{}}", "source", "lognormal",
                                "filter", "none", "hash", "0000000000000000", "entries", 0,
                                "filtered", "input_tokens", "output_tokens");
    char *none[] = {NULL};
    json_t *provenance = provenance_collect(0, none, NULL);
    CHECK(config != NULL && dataset != NULL);
    struct engine *engines = make_engines(o->n_stages);
    struct gpus_device *gpus = make_gpus(o->n_gpus);
    size_t n_edges;
    struct edge *edges = make_edges(o->n_stages, &n_edges);
    struct store_run run = {
        .uuid = "00000000-0000-4000-8000-000000000000",
        .name = "make_run",
        .created_unix_ns = CREATED_NS,
        .t0_ns = T0_NS,
        .config = config,
        .provenance = provenance,
        .dataset = dataset,
        .target = json_object_get(config, "target"),
        .ranks = ranks,
        .n_ranks = n_ranks,
        .engines = engines,
        .n_engines = o->n_stages,
        .edges = edges,
        .n_edges = n_edges,
        .gpus = gpus,
        .n_gpus = o->n_gpus,
    };
    die_on(store_create(&store, o->path, true, &run, &e), &e);
    json_decref(config);
    json_decref(dataset);
    json_decref(provenance);
    free(engines);
    free(edges);
    free(gpus);
    return store;
}

static struct store_rank *make_ranks(unsigned n_stages)
{
    struct store_rank *ranks = xcalloc(1 + n_stages, sizeof *ranks);
    for (unsigned i = 0; i <= n_stages; i++) {
        ranks[i] = (struct store_rank){.rank = (int32_t)i,
                                       .role = i > 0,
                                       .replica = i > 0 ? 0 : -1,
                                       .stage = (int32_t)i - 1,
                                       .tensor = i > 0 ? 0 : -1,
                                       .pid = 1000 + (int32_t)i,
                                       .host = "simulated",
                                       .cpuset = "0-1",
                                       .sched_class = "other/idle",
                                       .clock_offset_ns = 100 * (int64_t)i,
                                       .clock_bound_ns = 500};
    }
    for (unsigned i = 1; i <= n_stages; i++) {
        snprintf(ranks[i].kernels, sizeof ranks[i].kernels, "sim");
    }
    return ranks;
}

/* --- options -------------------------------------------------------------------------------------- */

static size_t parse_rates(char *text, double *rates)
{
    size_t n = 0;
    for (char *t = strtok(text, ","); t != NULL && n < MAX_RATES; t = strtok(NULL, ",")) {
        rates[n] = strtod(t, NULL);
        CHECK(rates[n] > 0);
        n++;
    }
    return n;
}

static const struct option names[] = {
    {"capacity", required_argument, NULL, 'c'},
    {"rates", required_argument, NULL, 'r'},
    {"step", required_argument, NULL, 't'},
    {"warmup", required_argument, NULL, 'w'},
    {"drain", required_argument, NULL, 'd'},
    {"seed", required_argument, NULL, 's'},
    {"stages", required_argument, NULL, 'p'},
    {"gpus", required_argument, NULL, 'g'},
    {NULL, 0, NULL, 0},
};

static struct options parse(int argc, char **argv)
{
    struct options o = {.capacity = NOMINAL_TOK_S,
                        .step_s = 120,
                        .warmup = 0.25,
                        .drain_s = 30,
                        .rates = {2, 3, 4, 5, 6, 7, 8, 9, 10},
                        .n_rates = 9,
                        .seed = 1,
                        .n_stages = 2};
    int c;
    while ((c = getopt_long(argc, argv, "", names, NULL)) != -1) {
        double x = c == '?' ? 0 : strtod(optarg, NULL);
        switch (c) {
        case 'c':
            o.capacity = x;
            break;
        case 'r':
            o.n_rates = parse_rates(optarg, o.rates);
            break;
        case 't':
            o.step_s = x;
            break;
        case 'w':
            o.warmup = x;
            break;
        case 'd':
            o.drain_s = x;
            break;
        case 's':
            o.seed = (uint64_t)x;
            break;
        case 'p':
            o.n_stages = (unsigned)x;
            break;
        case 'g':
            o.n_gpus = (unsigned)x;
            break;
        default:
            exit(ERR_INPUT);
        }
    }
    o.path = optind + 1 == argc ? argv[optind] : NULL;
    if (o.path == NULL || o.capacity <= 0 || o.n_stages < 1 || o.n_stages > RECORD_MAX_STAGES) {
        fprintf(stderr, "make_run: OUT.h5 [--capacity C] [--rates A,B] [--step S] [--warmup W] "
                        "[--drain S] [--seed N] [--stages P] [--gpus N]\n");
        exit(ERR_INPUT);
    }
    return o;
}

/* Prefill takes its part of the server's time: the rate at which both fill it. */
static void print_truth(const struct options *o)
{
    double n_in = mean_length(108, 226, 4, RNG_INPUT_LENGTH);
    double n_out = mean_length(132, 195, 1, RNG_OUTPUT_LENGTH);
    double each_s = n_out / o->capacity + n_in * PREFILL_S * NOMINAL_TOK_S / o->capacity;
    printf("{\"capacity_output_tokens_per_s\": %.3f, \"saturation_output_tokens_per_s\": %.3f, "
           "\"saturation_rps\": %.4f, \"mean_input_tokens\": %.2f, \"mean_output_tokens\": %.2f}\n",
           o->capacity, n_out / each_s, 1 / each_s, n_in, n_out);
}

int main(int argc, char **argv)
{
    struct options o = parse(argc, argv);
    struct err e;
    struct store_rank *ranks = make_ranks(o.n_stages);
    struct store *store = create(&o, ranks, 1 + o.n_stages);
    char *dir = store_journal_dir(o.path);
    int64_t t_ns = T0_NS + NS_PER_S;
    for (uint32_t i = 0; i < o.n_rates; i++) {
        run_step(&o, store, dir, i, &t_ns);
    }
    die_on(store_finish(store, ranks, 1 + o.n_stages, &e), &e);
    store_close(store);
    print_truth(&o);
    free(dir);
    free(ranks);
    return 0;
}
