#include "cli/bench_quality.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/bench_report.h"
#include "cli/status_line.h"
#include "core/json_out.h"
#include "core/mem.h"
#include "model/sizes.h"

/* --- the baseline's logits -------------------------------------------------------------------- */

struct logits_file {
    int fd;
    size_t row_bytes; // of one position
    float *rows;      // (BENCH_TEXT_ROWS, vocab) read back
};

static void close_record(struct logits_file *r)
{
    if (r->fd >= 0) {
        close(r->fd);
    }
    free(r->rows);
}

/* A file that nobody else sees, with room for n positions. */
static int open_record(struct logits_file *r, int vocab, size_t n, struct err *e)
{
    const char *tmp = getenv("TMPDIR");
    const char *folder = tmp && tmp[0] ? tmp : "/tmp";
    char *path = xasprintf("%s/tidemark-logits-XXXXXX", folder);
    r->row_bytes = (size_t)vocab * sizeof(float);
    r->rows = malloc(BENCH_TEXT_ROWS * r->row_bytes);
    r->fd = mkostemp(path, O_CLOEXEC);
    int failed = r->fd < 0 ? errno : 0;
    if (r->fd >= 0) {
        unlink(path);
        failed = r->rows ? posix_fallocate(r->fd, 0, (off_t)(n * r->row_bytes)) : ENOMEM;
    }
    free(path);
    return failed ? err_set(e, ERR_ENV,
                            "%s: %.2f GB for the baseline's logits of %zu positions: %s; fewer "
                            "--chunks need less, TMPDIR names another place",
                            folder, (double)n * (double)r->row_bytes / 1e9, n, strerror(failed))
                  : 0;
}

/* n rows of logits from position `at` on, one way or the other. */
static int put(const struct logits_file *r, const float *logits, size_t at, size_t n, struct err *e)
{
    const char *from = (const char *)logits;
    for (size_t done = 0, all = n * r->row_bytes; done < all;) {
        const ssize_t k = pwrite(r->fd, from + done, all - done, (off_t)(at * r->row_bytes + done));
        if (k <= 0) {
            return err_set(e, ERR_ENV, "the baseline's logits: cannot write: %s", strerror(errno));
        }
        done += (size_t)k;
    }
    return 0;
}

static int get(const struct logits_file *r, size_t at, size_t n, struct err *e)
{
    char *to = (char *)r->rows;
    for (size_t done = 0, all = n * r->row_bytes; done < all;) {
        const ssize_t k = pread(r->fd, to + done, all - done, (off_t)(at * r->row_bytes + done));
        if (k <= 0) {
            return err_set(e, ERR_ENV, "the baseline's logits: cannot read back: %s",
                           k < 0 ? strerror(errno) : "the file ends early");
        }
        done += (size_t)k;
    }
    return 0;
}

/* --- reading the text ------------------------------------------------------------------------- */

struct reading {
    const struct bench_quality *q;
    struct logits_file record;
    struct quality_position *positions; // (all judged); NULL: the baseline's logits are put down
    int vocab;
    const char *whose; // for the terminal
};

/* Logits of n judged positions, from number `at` of all on; next[i] follows position i. */
static int take(struct reading *r, const float *logits, size_t at, uint32_t n, const int32_t *next,
                struct err *e)
{
    if (!r->positions) {
        return put(&r->record, logits, at, n, e);
    }
    if (get(&r->record, at, n, e)) {
        return -1;
    }
    for (uint32_t i = 0; i < n; i++) {
        const size_t row = i * (size_t)r->vocab;
        r->positions[at + i] =
            quality_compare(r->record.rows + row, logits + row, r->vocab, next[i]);
    }
    return 0;
}

static int read_chunk(struct reading *r, struct bench *b, uint32_t chunk, struct err *e)
{
    const struct bench_text *t = &r->q->text;
    const int32_t *ids = t->ids.v + (size_t)chunk * t->context;
    const uint32_t end = t->context - 1; // what follows the last token is not known
    const size_t first = (size_t)chunk * bench_text_judged(t);
    if (bench_read(b, ids, 0, t->first, e)) {
        return -1;
    }
    for (uint32_t pos = t->first, n; pos < end; pos += n) {
        const float *logits;
        n = end - pos < BENCH_TEXT_ROWS ? end - pos : BENCH_TEXT_ROWS;
        if (bench_logits(b, ids, pos, n, &logits, e) ||
            take(r, logits, first + (pos - t->first), n, ids + pos + 1, e)) {
            return -1;
        }
    }
    return 0;
}

static int read_text(struct reading *r, struct bench *b, struct err *e)
{
    const uint32_t n = r->q->text.n_chunks;
    for (uint32_t i = 0; i < n; i++) {
        status_line_show("%schunk %u of %u", r->whose, i + 1, n);
        if (read_chunk(r, b, i, e)) {
            return -1;
        }
    }
    return 0;
}

/* --- one form --------------------------------------------------------------------------------- */

/* The baseline is put down first; then it is one like the others. */
static int judge(struct reading *r, struct bench *b, bool is_baseline,
                 struct quality_position *positions, struct err *e)
{
    r->positions = NULL;
    if (is_baseline && read_text(r, b, e)) {
        return -1;
    }
    r->positions = positions;
    return read_text(r, b, e);
}

static int summarise(const struct bench_quality *q, const struct quality_position *positions,
                     struct bench_quality_row *row, struct err *e)
{
    if (quality_summarise(positions, bench_text_all_judged(&q->text), &row->quality, e)) {
        return -1;
    }
    if (isnan(row->quality.perplexity.value) || isnan(row->quality.kl.value)) {
        return err_set(e, ERR_ENV,
                       "weights %s, cache %s: logits are not finite numbers: the weights or their "
                       "arithmetic (kernels %s) are broken",
                       row->form.weights, row->form.kv, q->engine.kernels);
    }
    return 0;
}

static int measure(struct bench_quality *q, int i, const struct bench_config *cfg,
                   struct reading *r, struct quality_position *positions, struct err *e)
{
    struct bench_quality_row *row = &q->rows[i];
    struct bench_config own = *cfg;
    struct bench *b;
    char whose[64];
    row->form = q->forms.v[i];
    row->speeds = xcalloc((size_t)q->cases->n, sizeof *row->speeds);
    bench_forms_apply(&row->form, &own);
    snprintf(whose, sizeof whose, "%s in %s (%d of %d): ", row->form.weights, row->form.kv, i + 1,
             q->forms.n);
    r->whose = whose;
    status_line_show("%sloading the model", whose);
    if (bench_open(&b, &own, e)) {
        return -1;
    }
    row->weight_bytes = bench_weight_bytes(b);
    row->load_s = bench_load_s(b);
    bench_about(b, &q->engine);
    row->kv_bytes = q->engine.kv_bytes_per_token;
    int rc = judge(r, b, i == 0, positions, e);
    if (rc == 0) {
        rc = summarise(q, positions, row, e);
    }
    if (rc == 0) {
        rc = bench_cases_run(q->cases, b, whose, row->speeds, e);
    }
    bench_close(b);
    return rc;
}

static int measure_all(struct bench_quality *q, const struct bench_config *cfg, int vocab,
                       struct err *e)
{
    const size_t n = bench_text_all_judged(&q->text);
    struct reading r = {.q = q, .vocab = vocab};
    struct quality_position *positions = malloc(n * sizeof *positions);
    int rc = open_record(&r.record, vocab, n, e);
    if (rc == 0 && !positions) {
        rc = err_set(e, ERR_ENV, "no memory for %zu positions of a text", n);
    }
    for (int i = 0; i < q->forms.n && rc == 0; i++) {
        rc = measure(q, i, cfg, &r, positions, e);
    }
    status_line_clear();
    close_record(&r.record);
    free(positions);
    return rc;
}

int bench_quality_run(struct bench_quality *q, const struct bench_quality_ask *ask,
                      const struct bench_config *cfg, const struct bench_cases *cases,
                      struct err *e)
{
    struct arch arch;
    struct bench_config own = *cfg;
    *q = (struct bench_quality){.model = cfg->model, .file = ask->file, .cases = cases};
    if (arch_open(cfg->model, &arch, e) ||
        bench_forms_all(&q->forms, &arch, ask->weights, ask->kv, e) ||
        bench_text_open(&q->text, ask->file, cfg->model, &arch, ask->context, ask->max_chunks, e)) {
        return -1;
    }
    q->params = sizes_params(&arch);
    own.max_text = q->text.context - 1;
    own.cases = cases->v;
    own.n_cases = cases->n;
    if (measure_all(q, &own, arch.vocab, e)) {
        bench_quality_free(q);
        return -1;
    }
    return 0;
}

void bench_quality_free(struct bench_quality *q)
{
    bench_text_free(&q->text);
    for (int i = 0; i < q->forms.n; i++) {
        free(q->rows[i].speeds);
    }
}

/* --- the table -------------------------------------------------------------------------------- */

static void print_head(const struct bench_quality *q)
{
    const struct bench_text *t = &q->text;
    char who[256];
    printf("%s: %.3fG parameters; baseline: weights in bf16, cache in bf16\n", q->model,
           (double)q->params / 1e9);
    printf("%s: %u of %zu whole chunks of %u tokens%s, %zu positions judged (the second halves)\n",
           q->file, t->n_chunks, t->n_tokens / t->context, t->context,
           t->has_bos ? ", each begun with BOS" : "", bench_text_all_judged(t));
    printf("%s; speeds in tokens/s, the mean of %d run%s; KL in nats; "
           "+- is one standard error of positions taken as independent\n\n",
           bench_report_engine(&q->engine, who, sizeof who), q->cases->n_repeats,
           q->cases->n_repeats > 1 ? "s" : "");
}

static void print_estimate(struct quality_estimate x, int decimals, int width)
{
    char text[64];
    snprintf(text, sizeof text, "%.*f +- %.*f", decimals, x.value, decimals, x.se);
    printf(" %*s", width, text);
}

static void print_row(const struct bench_quality *q, const struct bench_quality_row *row)
{
    const struct quality_summary *s = &row->quality;
    printf("%-8s %-5s %8.2f %8.0f", row->form.weights, row->form.kv,
           row->weight_bytes / (double)q->params, row->kv_bytes);
    print_estimate(s->perplexity, 4, 20);
    print_estimate(s->ratio, 5, 20);
    printf(" %8.2e +- %5.0e %8.1e", s->kl.value, s->kl.se, s->kl_p99);
    printf("  %6.2f +- %.2f %%", 100 * s->same_top.value, 100 * s->same_top.se);
    char name[64];
    for (int i = 0; i < q->cases->n; i++) {
        const int width = (int)strlen(bench_cases_name(&q->cases->v[i], name, sizeof name));
        printf(" %*.1f", width > 12 ? width : 12, row->speeds[i].mean);
    }
    printf("\n");
}

void bench_quality_table(const struct bench_quality *q)
{
    char name[64];
    print_head(q);
    printf("%-8s %-5s %8s %8s %20s %20s %17s %8s %16s", "weights", "cache", "B/weight", "B/token",
           "perplexity", "over baseline's", "mean KL", "KL p99", "same top token");
    for (int i = 0; i < q->cases->n; i++) {
        printf(" %12s", bench_cases_name(&q->cases->v[i], name, sizeof name));
    }
    printf("\n");
    for (int i = 0; i < q->forms.n; i++) {
        print_row(q, &q->rows[i]);
    }
}

/* --- JSON ------------------------------------------------------------------------------------- */

static void put_form(struct json_out *o, const char *key, const struct bench_form *f)
{
    json_out_open(o, key, '{');
    json_out_text(o, "weights", f->weights);
    json_out_text(o, "kv", f->kv);
    json_out_close(o, '}');
}

static void put_estimate(struct json_out *o, const char *key, struct quality_estimate x)
{
    json_out_open(o, key, '{');
    json_out_number(o, "value", x.value);
    json_out_number(o, "se", x.se);
    json_out_close(o, '}');
}

static void put_kl(struct json_out *o, const struct quality_summary *s)
{
    json_out_open(o, "kl", '{');
    json_out_number(o, "mean", s->kl.value);
    json_out_number(o, "se", s->kl.se);
    json_out_number(o, "p99", s->kl_p99);
    json_out_number(o, "max", s->kl_max);
    json_out_close(o, '}');
}

static void put_row(struct json_out *o, const struct bench_quality *q,
                    const struct bench_quality_row *row)
{
    const struct quality_summary *s = &row->quality;
    json_out_open(o, NULL, '{');
    json_out_text(o, "weights", row->form.weights);
    json_out_text(o, "kv", row->form.kv);
    json_out_number(o, "weight_bytes", row->weight_bytes);
    json_out_number(o, "bytes_per_weight", row->weight_bytes / (double)q->params);
    json_out_number(o, "kv_bytes_per_token", row->kv_bytes);
    put_estimate(o, "perplexity", s->perplexity);
    put_estimate(o, "perplexity_ratio", s->ratio);
    put_kl(o, s);
    put_estimate(o, "same_top", s->same_top);
    json_out_number(o, "load_s", row->load_s);
    json_out_open(o, "results", '[');
    for (int i = 0; i < q->cases->n; i++) {
        json_out_open(o, NULL, '{');
        bench_report_put_speed(o, &q->cases->v[i], &row->speeds[i]);
        json_out_close(o, '}');
    }
    json_out_close(o, ']');
    json_out_close(o, '}');
}

static void put_text(struct json_out *o, const struct bench_quality *q)
{
    const struct bench_text *t = &q->text;
    json_out_open(o, "text", '{');
    json_out_text(o, "file", q->file);
    json_out_whole(o, "tokens", t->n_tokens);
    json_out_whole(o, "context", t->context);
    json_out_whole(o, "chunks", t->n_chunks);
    json_out_whole(o, "whole_chunks", t->n_tokens / t->context);
    json_out_bool(o, "bos", t->has_bos);
    json_out_whole(o, "judged", bench_text_all_judged(t));
    json_out_close(o, '}');
}

void bench_quality_json(const struct bench_quality *q)
{
    struct json_out o = {.f = stdout};
    json_out_open(&o, NULL, '{');
    json_out_text(&o, "schema", BENCH_QUALITY_WIRE);
    json_out_text(&o, "model", q->model);
    bench_report_put_engine(&o, &q->engine);
    json_out_whole(&o, "params", (uint64_t)q->params);
    put_text(&o, q);
    put_form(&o, "baseline", &q->forms.v[0]);
    json_out_open(&o, "forms", '[');
    for (int i = 0; i < q->forms.n; i++) {
        put_row(&o, q, &q->rows[i]);
    }
    json_out_close(&o, ']');
    json_out_close(&o, '}');
    printf("\n");
}
