#include "cli/bench_report.h"

#include <stdio.h>
#include <string.h>

#include "model/sizes.h"

const char *bench_report_engine(const struct engine *g, char *buf, size_t cap)
{
    if (g->device[0]) {
        snprintf(buf, cap, "%s, %s", g->backend, g->device);
    } else {
        snprintf(buf, cap, "%s, %d thread%s, kernels %s", g->backend, g->n_threads,
                 g->n_threads > 1 ? "s" : "", g->kernels);
    }
    return buf;
}

/* --- the table -------------------------------------------------------------------------------- */

/* "bfloat16_tiles" as people read it. */
static void print_name(const char *name)
{
    for (; *name; name++) {
        putchar(*name == '_' ? ' ' : *name);
    }
}

static void print_ceilings(const struct ceilings *c)
{
    printf("ceilings of %s:", c->of);
    for (int i = 0; i < c->n; i++) {
        const struct ceiling *one = &c->v[i];
        if (one->per_s <= 0) {
            continue;
        }
        printf("\n  ");
        print_name(one->name);
        printf(one->unit == CEILINGS_BYTES ? " %.1f GB/s" : " %.0f GFLOP/s", one->per_s / 1e9);
        if (one->how[0]) {
            printf(" (%s)", one->how);
        }
    }
}

static void print_head(const struct bench_report *r)
{
    const struct bench *b = r->b;
    const struct ceiling *peak = bench_peak(b);
    const double params = (double)sizes_params(bench_arch(b)), bytes = bench_weight_bytes(b);
    const int n_repeats = r->cases->n_repeats;
    struct engine g;
    char who[256];
    bench_about(b, &g);
    printf("%s: %.3fG parameters, %.2f GB, %.2f bytes per weight (%s), cache %s\n", r->model,
           params / 1e9, bytes / 1e9, bytes / params, r->form.weights, r->form.kv);
    printf("%s, loaded in %.1f s\n", bench_report_engine(&g, who, sizeof who), bench_load_s(b));
    print_ceilings(bench_ceilings(b));
    printf("\npeak below: %.0f GFLOP/s, ", peak->per_s / 1e9);
    print_name(peak->name);
    printf(" (%s); shares are of the best of %d run%s\n\n", peak->how, n_repeats,
           n_repeats > 1 ? "s" : "");
}

/* As wide as the longest name. */
static int name_width(const struct bench_cases *c)
{
    size_t most = 16;
    char name[64];
    for (int i = 0; i < c->n; i++) {
        const size_t n = strlen(bench_cases_name(&c->v[i], name, sizeof name));
        most = n > most ? n : most;
    }
    return (int)most;
}

void bench_report_table(const struct bench_report *r)
{
    const int width = name_width(r->cases);
    char name[64], rate[64];
    print_head(r);
    printf("%-*s %22s %10s %8s %6s %9s %6s %9s %6s\n", width, "test", "tokens/s (mean, sd)", "best",
           "GB/s", "share", "GFLOP/s", "share", "roofline", "gap");
    for (int i = 0; i < r->cases->n; i++) {
        const struct bench_result *one = &r->results[i];
        snprintf(rate, sizeof rate, "%.2f +- %.2f", one->mean, one->sd);
        printf("%-*s %22s %10.2f %8.2f %5.0f%% %9.1f %5.0f%% %8.0f%% %5.1f%%\n", width,
               bench_cases_name(&r->cases->v[i], name, sizeof name), rate, one->best,
               one->read_bytes_per_s / 1e9, 100 * one->read_share, one->flops_per_s / 1e9,
               100 * one->peak_share, 100 * one->roofline_share, 100 * one->gap_share);
    }
}

/* --- JSON ------------------------------------------------------------------------------------- */

void bench_report_put_engine(struct json_out *o, const struct engine *g)
{
    json_out_text(o, "backend", g->backend);
    json_out_text(o, "device", g->device[0] ? g->device : NULL);
    json_out_text(o, "kernels", g->kernels);
    json_out_whole(o, "threads", (uint64_t)g->n_threads);
}

void bench_report_put_speed(struct json_out *o, const struct bench_case *c,
                            const struct bench_result *r)
{
    json_out_text(o, "test", c->is_prompt ? "prompt" : "gen");
    json_out_whole(o, "tokens", c->n);
    json_out_whole(o, "batch", c->batch);
    json_out_whole(o, "depth", c->depth);
    json_out_open(o, "tokens_per_s", '{');
    json_out_number(o, "mean", r->mean);
    json_out_number(o, "sd", r->sd);
    json_out_number(o, "best", r->best);
    json_out_whole(o, "n", (uint64_t)c->n_repeats);
    json_out_close(o, '}');
    json_out_number(o, "bytes", r->bytes);
    json_out_number(o, "flops", r->flops);
}

static void put_rate(struct json_out *o, const char *key, const struct ceiling *c)
{
    if (c->per_s <= 0) {
        json_out_null(o, key);
        return;
    }
    json_out_open(o, key, '{');
    json_out_number(o, "per_s", c->per_s);
    json_out_text(o, "instruction", c->how);
    json_out_close(o, '}');
}

static void put_peak(struct json_out *o, const struct ceiling *c)
{
    json_out_open(o, "peak", '{');
    json_out_text(o, "name", c->name);
    json_out_number(o, "per_s", c->per_s);
    json_out_text(o, "instruction", c->how);
    json_out_close(o, '}');
}

static void put_ceilings(struct json_out *o, const struct ceilings *c)
{
    char key[64];
    json_out_open(o, "ceilings", '{');
    json_out_text(o, "of", c->of);
    for (int i = 0; i < c->n; i++) {
        const struct ceiling *one = &c->v[i];
        if (one->unit == CEILINGS_BYTES) {
            snprintf(key, sizeof key, "%s_bytes_per_s", one->name);
            json_out_number(o, key, one->per_s);
        } else {
            put_rate(o, one->name, one);
        }
    }
    json_out_close(o, '}');
}

static void put_result(struct json_out *o, const struct bench_case *c, const struct bench_result *r)
{
    json_out_open(o, NULL, '{');
    bench_report_put_speed(o, c, r);
    json_out_number(o, "read_bytes_per_s", r->read_bytes_per_s);
    json_out_number(o, "flops_per_s", r->flops_per_s);
    json_out_number(o, "read_share", r->read_share);
    json_out_number(o, "peak_share", r->peak_share);
    json_out_number(o, "roofline_share", r->roofline_share);
    json_out_number(o, "gap_share", r->gap_share);
    json_out_number(o, "launch_share", r->launch_share);
    json_out_close(o, '}');
}

void bench_report_json(const struct bench_report *r)
{
    const double bytes = bench_weight_bytes(r->b);
    const int64_t params = sizes_params(bench_arch(r->b));
    struct json_out o = {.f = stdout};
    struct engine g;
    bench_about(r->b, &g);
    json_out_open(&o, NULL, '{');
    json_out_text(&o, "schema", BENCH_REPORT_WIRE);
    json_out_text(&o, "model", r->model);
    bench_report_put_engine(&o, &g);
    json_out_text(&o, "weights", r->form.weights);
    json_out_text(&o, "kv", r->form.kv);
    json_out_whole(&o, "params", (uint64_t)params);
    json_out_number(&o, "weight_bytes", bytes);
    json_out_number(&o, "bytes_per_weight", bytes / (double)params);
    json_out_number(&o, "kv_bytes_per_token", g.kv_bytes_per_token);
    json_out_number(&o, "load_s", bench_load_s(r->b));
    put_ceilings(&o, bench_ceilings(r->b));
    put_peak(&o, bench_peak(r->b));
    json_out_open(&o, "results", '[');
    for (int i = 0; i < r->cases->n; i++) {
        put_result(&o, &r->cases->v[i], &r->results[i]);
    }
    json_out_close(&o, ']');
    json_out_close(&o, '}');
    printf("\n");
}
