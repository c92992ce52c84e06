/*
 * perf_fold DIR [RECORDS] [TOKENS]: what folding one step's journal costs. Inside the timing window:
 * store_fold_step, reading the journal (page cache) to the flushed, fsynced HDF5 group. Outside:
 * writing the journal. Exits 1 when the process ever held 150 MB.
 */
#include "core/clock.h"
#include "core/mem.h"
#include "core/rng.h"
#include "results/journal.h"
#include "results/provenance.h"
#include "results/store.h"

#include <jansson.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#define BATCH_RECORDS 64
#define MAX_RSS_BYTES (150LL * 1000 * 1000)

static void die_on(int status, const struct err *e)
{
    if (status != 0) {
        fprintf(stderr, "perf_fold: %s\n", e->msg);
        exit(1);
    }
}

static void make_record(struct record *r, uint32_t *dt_us, uint64_t id, uint32_t n_tokens)
{
    struct rng_bits bits = rng_draw(1, RNG_TOKENS, id, 0);
    record_init(r);
    r->id = id ^ 15; // ends come a little out of order
    r->t_sched_ns = (int64_t)id * 100000;
    r->t_send_ns = r->t_sched_ns + bits.v[0] % 50000;
    r->t_byte_ns = r->t_first_ns = r->t_content_ns = r->t_send_ns + bits.v[1] % 100000000;
    r->t_last_ns = r->t_first_ns;
    r->n_in = bits.v[2] % 1024;
    r->n_out = r->n_out_req = r->n_chunks = n_tokens;
    for (uint32_t k = 0; k < n_tokens; k++) {
        dt_us[k] = 28500 + rng_draw(1, RNG_TOKENS, id, k / 4 + 1).v[k % 4] % 3000; // 30 ms +- 1.5
        r->t_last_ns += dt_us[k] * 1000LL;
    }
}

static void write_journal(struct journal *j, uint64_t n, uint32_t n_tokens)
{
    struct err e;
    uint32_t *dt_us = xcalloc(n_tokens + 1, sizeof *dt_us);
    struct record r;
    make_record(&r, dt_us, 0, n_tokens);
    size_t each_bytes = record_encoded_bytes(&r);
    uint8_t *batch = xmalloc(BATCH_RECORDS * each_bytes);
    for (uint64_t id = 0; id < n;) {
        size_t k = 0;
        for (; k < BATCH_RECORDS && id < n; k++, id++) {
            make_record(&r, dt_us, id, n_tokens);
            record_encode(&r, NULL, dt_us, batch + k * each_bytes);
        }
        die_on(journal_append(j, JOURNAL_RECORDS, batch, k * each_bytes, &e), &e);
    }
    free(batch);
    free(dt_us);
}

static struct store *create(const char *path)
{
    struct err e;
    struct store *s;
    json_t *empty = json_object();
    struct store_run run = {.name = "perf_fold",
                            .config = empty,
                            .provenance = empty,
                            .dataset = empty,
                            .target = empty};
    die_on(store_create(&s, path, true, &run, &e), &e);
    json_decref(empty);
    return s;
}

int main(int argc, char **argv)
{
    if (argc < 2) {
        fprintf(stderr, "perf_fold DIR [RECORDS] [TOKENS]\n");
        return 2;
    }
    uint64_t n = argc > 2 ? strtoull(argv[2], NULL, 10) : 1000000;
    uint32_t n_tokens = argc > 3 ? (uint32_t)strtoul(argv[3], NULL, 10) : 20;
    struct err e;
    struct journal *j;
    struct step_info info = {.index = 0, .n_scheduled = n};
    char *path = xasprintf("%s/perf_fold.h5", argv[1]);
    struct store *s = create(path);
    char *dir = store_journal_dir(path);
    char *file = journal_path(dir, 0);
    die_on(journal_create(&j, dir, 0, &e), &e);
    write_journal(j, n, n_tokens);
    journal_close(j);

    int64_t begin_ns = clock_local_ns();
    json_t *summary = json_object();
    die_on(store_fold_step(s, file, &info, 0, NULL, 0, &e), &e);
    die_on(store_finish_step(s, &info, summary, &e), &e);
    double s_taken = (double)(clock_local_ns() - begin_ns) / 1e9;

    struct rusage use;
    struct stat st;
    getrusage(RUSAGE_SELF, &use);
    store_close(s);
    stat(path, &st);
    long long rss_bytes = use.ru_maxrss * 1024LL;
    printf("%llu records, %llu tokens: %.2f s, %.0f records/s, %.2f M tokens/s, %.1f MB resident, "
           "%.1f bytes/record in the file\n",
           (unsigned long long)n, (unsigned long long)(n * n_tokens), s_taken, (double)n / s_taken,
           (double)(n * n_tokens) / s_taken / 1e6, (double)rss_bytes / 1e6,
           (double)st.st_size / (double)n);
    journal_remove(dir, 0);
    unlink(path);
    json_decref(summary);
    free(file);
    free(dir);
    free(path);
    return rss_bytes < MAX_RSS_BYTES ? 0 : 1;
}
