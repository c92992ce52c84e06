#include "results/store.h"

#include "core/mem.h"
#include "core/str.h"
#include "results/journal.h"
#include "tests/support/run_files.h"

#include <hdf5.h>
#include <jansson.h>

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>

#include <cmocka.h>

#include <inttypes.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

struct fixture {
    char *folder, *path, *journals;
};

static int set_up(void **state)
{
    struct fixture *f = xcalloc(1, sizeof *f);
    f->folder = run_files_folder("store");
    f->path = xasprintf("%s/run.h5", f->folder);
    f->journals = store_journal_dir(f->path);
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;
    unlink(f->path);
    for (uint32_t step = 0; step < 10; step++) {
        journal_remove(f->journals, step);
    }
    assert_int_equal(rmdir(f->folder), 0);
    free(f->folder);
    free(f->path);
    free(f->journals);
    free(f);
    return 0;
}

static void ok(int status, const struct err *e)
{
    if (status != 0) {
        fail_msg("%s", e->msg);
    }
}

static void refused(int status, const struct err *e, enum err_code code, const char *says)
{
    assert_int_equal(status, -1);
    assert_int_equal(e->code, code);
    if (strstr(e->msg, says) == NULL) {
        fail_msg("\"%s\" does not say \"%s\"", e->msg, says);
    }
}

static void count_findings(void *arg, const char *text)
{
    struct str *all = arg;
    str_printf(all, "%s\n", text);
}

/* All findings as lines; caller frees. */
static char *findings(const char *path, int wanted)
{
    struct err e;
    struct str all = {0};
    int n;
    ok(store_validate(path, count_findings, &all, &n, &e), &e);
    if (n != wanted) {
        fail_msg("%d findings: %s", n, all.data != NULL ? all.data : "");
    }
    return all.data;
}

static int64_t since_t0(int64_t t_ns)
{
    return t_ns == RECORD_NONE ? t_ns : t_ns - RUN_FILES_T0_NS;
}

static void make_relative(struct record *r)
{
    int64_t *t = &r->t_sched_ns;
    for (size_t i = 0; i < 11; i++) { // the times stand in a row
        t[i] = since_t0(t[i]);
    }
}

static void check_requests(const struct step_data *d, uint32_t step)
{
    for (uint64_t id = 0; id < d->n; id++) {
        struct record r;
        uint32_t stage_us[2 * RUN_FILES_STAGES], dt_us[64];
        run_files_record(step, id, &r, stage_us, dt_us);
        make_relative(&r);
        assert_memory_equal(&r, &d->records[id], sizeof r);
        for (unsigned k = 0; d->n_stages > 0 && k < 2 * RUN_FILES_STAGES; k++) {
            uint32_t got =
                d->stage_us[k / RUN_FILES_STAGES][id * RUN_FILES_STAGES + k % RUN_FILES_STAGES];
            assert_int_equal(got, r.n_stages > 0 ? stage_us[k] : UINT32_MAX);
        }
    }
}

static void check_tokens(struct store *s, size_t index, uint32_t step, size_t first, size_t n)
{
    struct err e;
    uint64_t *offsets;
    uint32_t *got;
    ok(store_read_tokens(s, index, first, n, &offsets, &got, &e), &e);
    assert_int_equal(offsets[0], 0);
    for (size_t i = 0; i < n; i++) {
        struct record r;
        uint32_t stage_us[2 * RUN_FILES_STAGES], dt_us[64];
        run_files_record(step, first + i, &r, stage_us, dt_us);
        assert_int_equal(offsets[i + 1] - offsets[i], r.n_out);
        if (r.n_out > 0) {
            assert_memory_equal(got + offsets[i], dt_us, r.n_out * sizeof *dt_us);
        }
    }
    free(offsets);
    free(got);
}

/* By time, with what was missing. */
static void check_gpus(const struct step_data *d, uint64_t n)
{
    assert_int_equal(d->n_gpus, n);
    for (size_t k = 0; k < n; k++) {
        const struct gpus_sample *s = &d->gpus[k];
        uint64_t i = n - 1 - k;
        assert_int_equal(s->t_ns, k + 1);
        assert_int_equal(s->device, i % 2);
        assert_true(s->energy_j == (double)i);
        assert_true(i % 3 ? s->power_w == 100.5f : isnan(s->power_w) != 0);
        assert_int_equal(s->throttle, i % 2 ? 4 : UINT32_MAX);
    }
}

static void check_step(struct store *s, size_t index, uint32_t step, uint64_t n)
{
    struct err e;
    struct step_data d;
    struct step_info info = run_files_info(step, n);
    ok(store_read_step(s, index, &d, &e), &e);
    assert_memory_equal(&d.info, &info, offsetof(struct step_info, recovered));
    assert_int_equal(d.info.verdict, info.verdict);
    assert_string_equal(d.info.reason, info.reason);
    assert_true(d.info.achieved_rps == info.achieved_rps);
    assert_int_equal(d.n, n);
    check_requests(&d, step);
    assert_int_equal(d.n_spans, n);
    assert_int_equal(d.n_series, n);
    for (size_t i = 1; i < n; i++) { // by rank, then time; by time
        const struct span *a = &d.spans[i - 1], *b = &d.spans[i];
        assert_true(a->rank < b->rank || (a->rank == b->rank && a->t_begin_ns < b->t_begin_ns));
        assert_int_equal(d.series[i].t_ns, i + 1);
    }
    check_gpus(&d, n);
    check_tokens(s, index, step, 0, n);
    if (n > 10) {
        check_tokens(s, index, step, n / 2, n / 4);
    }
    step_data_free(&d);
}

static void what_is_folded_is_read(void **state)
{
    struct fixture *f = *state;
    struct err e;
    static const uint64_t n[] = {100, 0, 1, 40};
    struct store *s = run_files_create(f->path);
    for (uint32_t step = 0; step < 4; step++) {
        ok(run_files_step(s, f->path, step, n[step], &e), &e);
        assert_int_equal(store_n_steps(s), step + 1);
        check_step(s, step, step, n[step]); // while it is being written
    }
    store_close(s);
    ok(store_open(&s, f->path, false, &e), &e);
    assert_int_equal(store_n_steps(s), 4);
    for (uint32_t step = 0; step < 4; step++) {
        check_step(s, step, step, n[step]);
    }
    store_close(s);
    free(findings(f->path, 0));
}

/* More than a chunk of requests and of tokens, so that blocks meet. */
static void long_columns_are_whole(void **state)
{
    struct fixture *f = *state;
    struct err e;
    struct store *s = run_files_create(f->path);
    ok(run_files_step(s, f->path, 0, 40000, &e), &e);
    check_step(s, 0, 0, 40000);
    check_tokens(s, 0, 0, 16380, 10);
    store_close(s);
}

static void the_run_says_what_it_was(void **state)
{
    struct fixture *f = *state;
    struct err e;
    struct store_meta m;
    struct store_rank after[2] = {{.rank = 0, .replica = -1, .stage = -1, .tensor = -1},
                                  {.rank = 1, .role = 1, .clock_offset_ns = 77}};
    struct store *s = run_files_create(f->path);
    ok(run_files_step(s, f->path, 0, 5, &e), &e);
    ok(store_read_meta(s, &m, &e), &e);
    assert_false(m.complete);
    assert_null(m.ranks_after);
    assert_string_equal(m.name, "test");
    assert_string_equal(m.uuid, "6ba7b810-9dad-41d1-80b4-00c04fd430c8");
    assert_string_equal(m.created_utc, "2026-09-21T14:13:20Z");
    assert_string_equal(m.schema_version, STORE_SCHEMA_VERSION);
    assert_int_equal(m.t0_ns, RUN_FILES_T0_NS);
    assert_string_equal(
        json_string_value(json_object_get(json_object_get(m.config, "target"), "kind")), "null");
    assert_string_equal(
        json_string_value(json_object_get(json_object_get(m.config, "target"), "url")),
        "http://***@host/v1");
    assert_int_equal(m.n_ranks, 2);
    assert_int_equal(m.ranks[0].stage, -1);
    assert_string_equal(m.ranks[1].host, "h1");
    assert_int_equal(m.ranks[1].clock_offset_ns, -5);
    assert_string_equal(m.ranks[0].kernels, "");
    assert_string_equal(m.ranks[1].kernels, "avx2");
    assert_int_equal(m.n_engines, 1);
    assert_int_equal(m.engines[0].rank, 1);
    assert_string_equal(m.engines[0].weights, "int8+f32");
    assert_true(m.engines[0].bytes_per_weight == 1.0625 && m.engines[0].moe_zipf == 1.2);
    assert_int_equal(m.engines[0].numa, 1);
    assert_int_equal(m.n_gpus, 2);
    assert_string_equal(m.gpus[0].uuid, "GPU-1");
    assert_true(m.gpus[0].power_limit_w == 700 && isnan(m.gpus[1].power_limit_w));
    assert_int_equal(m.gpus[1].index, 1);
    store_meta_free(&m);
    for (int i = 0; i < 2; i++) { // an end that was cut short can be written again
        ok(store_finish(s, after, 2, &e), &e);
    }
    store_close(s);
    ok(store_open(&s, f->path, false, &e), &e);
    ok(store_read_meta(s, &m, &e), &e);
    assert_true(m.complete);
    assert_int_equal(m.ranks_after[1].clock_offset_ns, 77);
    store_meta_free(&m);
    store_close(s);
    free(findings(f->path, 0));
}

static void a_step_counts_when_it_is_finished(void **state)
{
    struct fixture *f = *state;
    struct err e;
    struct step_data d;
    struct step_info info = run_files_info(0, 30);
    struct store *s = run_files_create(f->path);
    char *file = run_files_journal(f->journals, 0, 30);
    ok(store_fold_step(s, file, &info, RUN_FILES_T0_NS, NULL, 0, &e), &e);
    assert_int_equal(store_n_steps(s), 0);
    check_step(s, 0, 0, 30); // to be judged
    store_close(s);

    ok(store_open(&s, f->path, true, &e), &e); // as `recover` does
    assert_int_equal(store_n_steps(s), 0);
    refused(store_read_step(s, 0, &d, &e), &e, ERR_INPUT, "no step 0");
    info.recovered = true;
    json_t *summary = json_object();
    ok(store_fold_step(s, file, &info, RUN_FILES_T0_NS, NULL, 0, &e), &e);
    ok(store_finish_step(s, &info, summary, &e), &e);
    refused(store_fold_step(s, file, &info, RUN_FILES_T0_NS, NULL, 0, &e), &e, ERR_ENV,
            "/steps/0000");
    ok(store_read_step(s, 0, &d, &e), &e);
    assert_true(d.info.recovered);
    step_data_free(&d);
    store_close(s);
    json_decref(summary);
    free(file);
    free(findings(f->path, 0));
}

static void requests_without_a_record_are_lost(void **state)
{
    struct fixture *f = *state;
    struct err e;
    struct step_data d;
    struct store_scheduled expected[50];
    struct step_info info = run_files_info(0, 50);
    struct store *s = run_files_create(f->path);
    char *file = run_files_journal(f->journals, 0, 30);
    for (uint64_t id = 0; id < 50; id++) {
        expected[id] = (struct store_scheduled){id, (int64_t)id * 10, 7, 8, 2};
    }
    ok(store_fold_step(s, file, &info, RUN_FILES_T0_NS, expected + 2, 48, &e), &e);
    ok(store_read_step(s, 0, &d, &e), &e);
    assert_int_equal(d.n, 50); // ids 0 and 1 were not expected, and are kept
    for (uint64_t id = 0; id < 50; id++) {
        const struct record *r = &d.records[id];
        assert_int_equal(r->id, id);
        assert_int_equal(r->outcome == OUTCOME_LOST, id >= 30);
        if (id >= 30) {
            assert_int_equal(r->t_sched_ns, id * 10);
            assert_int_equal(r->t_send_ns, RECORD_NONE);
            assert_int_equal(r->n_in, 7);
            assert_int_equal(r->n_out_req, 8);
            assert_int_equal(r->n_out, 0);
            assert_int_equal(r->load_rank, 2);
        }
    }
    check_tokens(s, 0, 0, 0, 30);
    step_data_free(&d);
    store_close(s);
    free(file);
}

static void append_record(struct journal *j, uint64_t id, uint32_t n_in)
{
    struct err e;
    struct record r;
    uint8_t bytes[256];
    record_init(&r);
    r.id = id;
    r.n_in = n_in;
    record_encode(&r, NULL, NULL, bytes);
    ok(journal_append(j, JOURNAL_RECORDS, bytes, record_encoded_bytes(&r), &e), &e);
}

static void the_first_of_two_records_counts(void **state)
{
    struct fixture *f = *state;
    struct err e;
    struct journal *j;
    struct step_data d;
    struct step_info info = run_files_info(0, 3);
    struct store *s = run_files_create(f->path);
    ok(journal_create(&j, f->journals, 0, &e), &e);
    append_record(j, 9, 1);
    append_record(j, 4, 2);
    append_record(j, 9, 3);
    ok(journal_append(j, JOURNAL_RECORDS, "not a record at all", 19, &e), &e);
    append_record(j, 5, 4);
    journal_close(j);
    char *file = journal_path(f->journals, 0);
    ok(store_fold_step(s, file, &info, 0, NULL, 0, &e), &e);
    ok(store_read_step(s, 0, &d, &e), &e);
    assert_int_equal(d.n, 3);
    assert_int_equal(d.n_stages, 0);
    assert_null(d.stage_us[0]);
    assert_int_equal(d.records[0].n_in, 2);
    assert_int_equal(d.records[1].n_in, 4);
    assert_int_equal(d.records[2].n_in, 1);
    step_data_free(&d);
    store_close(s);
    free(file);
}

static void paths_are_checked(void **state)
{
    struct fixture *f = *state;
    struct err e = {0};
    struct store *s = run_files_create(f->path);
    store_close(s);
    refused(store_check_path(f->path, false, false, &e), &e, ERR_INPUT, "exists already");
    ok(store_check_path(f->path, true, false, &e), &e);
    ok(store_check_path(f->path, false, true, &e), &e);
    refused(store_check_path(f->folder, true, false, &e), &e, ERR_INPUT, "not a regular file");
    refused(store_check_path("nowhere/run.h5", false, false, &e), &e, ERR_INPUT,
            "the folder nowhere does not exist");
    refused(store_check_path("", false, false, &e), &e, ERR_INPUT, "empty");

    free(run_files_journal(f->journals, 4, 1)); // the file is gone, its journal is not
    unlink(f->path);
    refused(store_check_path(f->path, false, false, &e), &e, ERR_INPUT, "holds 1 step");
    s = run_files_create(f->path); // forced
    store_close(s);
    assert_int_not_equal(access(f->journals, F_OK), 0);
}

static void write_text(const char *path, const char *text)
{
    FILE *out = fopen(path, "w");
    fputs(text, out);
    fclose(out);
}

/* Change the root's text attribute. */
static void set_root_text(const char *path, const char *name, const char *text)
{
    char value[32] = "";
    snprintf(value, sizeof value, "%s", text);
    hid_t file = H5Fopen(path, H5F_ACC_RDWR, H5P_DEFAULT);
    hid_t a = H5Aopen(file, name, H5P_DEFAULT), type = H5Tcopy(H5T_C_S1);
    H5Tset_size(type, sizeof value);
    H5Tset_cset(type, H5T_CSET_UTF8);
    assert_true(H5Awrite(a, type, value) >= 0);
    H5Tclose(type);
    H5Aclose(a);
    H5Fclose(file);
}

static void only_our_files_open(void **state)
{
    struct fixture *f = *state;
    struct err e = {0};
    struct store *s;
    refused(store_open(&s, "nowhere.h5", false, &e), &e, ERR_INPUT, "nowhere.h5: no such file");
    refused(store_open(&s, f->folder, false, &e), &e, ERR_INPUT, "not a regular file");
    write_text(f->path, "hello");
    refused(store_open(&s, f->path, false, &e), &e, ERR_INPUT, "is not an HDF5 file");
    H5Fclose(H5Fcreate(f->path, H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT));
    refused(store_open(&s, f->path, false, &e), &e, ERR_INPUT, "not one of tidemark's");
    s = run_files_create(f->path);
    store_close(s);
    set_root_text(f->path, "schema_version", "2.0.0");
    refused(store_open(&s, f->path, false, &e), &e, ERR_INPUT,
            "written with schema 2.0.0; this tidemark reads 1.x: use a newer tidemark");
    set_root_text(f->path, "schema_version", "1.9.0");
    ok(store_open(&s, f->path, false, &e), &e);
    store_close(s);
    set_root_text(f->path, "schema_name", "other.run");
    refused(store_open(&s, f->path, false, &e), &e, ERR_INPUT, "not one of tidemark's");
}

static double answer(const char *path, const char *name)
{
    double x = 0;
    hid_t file = H5Fopen(path, H5F_ACC_RDONLY, H5P_DEFAULT);
    hid_t a = H5Aopen_by_name(file, "analysis", name, H5P_DEFAULT, H5P_DEFAULT);
    assert_true(H5Aread(a, H5T_NATIVE_DOUBLE, &x) >= 0);
    H5Aclose(a);
    H5Fclose(file);
    return x;
}

static void analysis_can_be_written_again(void **state)
{
    struct fixture *f = *state;
    struct err e;
    struct store *s = run_files_create(f->path);
    for (int i = 1; i <= 3; i++) {
        json_t *report = json_pack("{s:{s:s, s:f}, s:{s:{s:{s:f}}}}", "saturation", "verdict",
                                   "found", "rate_rps", 2.5 * i, "cost", "at_saturation",
                                   "usd_per_m_input", "value", 0.125);
        ok(store_write_analysis(s, report, &e), &e);
        json_decref(report);
    }
    store_close(s);
    assert_true(answer(f->path, "saturation_rate_rps") == 7.5);
    assert_true(answer(f->path, "usd_per_m_input") == 0.125);
    assert_true(isnan(answer(f->path, "slo_rate_rps")));
    free(findings(f->path, 0));
}

static void validate_names_what_is_wrong(void **state)
{
    struct fixture *f = *state;
    struct err e;
    struct store *s = run_files_create(f->path);
    ok(run_files_step(s, f->path, 0, 20, &e), &e);
    store_close(s);
    hid_t file = H5Fopen(f->path, H5F_ACC_RDWR, H5P_DEFAULT);
    H5Ldelete(file, "steps/0000/summary/p99", H5P_DEFAULT);
    hid_t outcome = H5Dopen2(file, "steps/0000/requests/outcome", H5P_DEFAULT);
    H5Adelete(outcome, "units");
    uint8_t values[20] = {0, 99};
    H5Dwrite(outcome, H5T_STD_U8LE, H5S_ALL, H5S_ALL, H5P_DEFAULT, values);
    H5Dclose(outcome);
    H5Fclose(file);
    char *text = findings(f->path, 3);
    assert_non_null(strstr(text, "/steps/0000/summary/p99: is missing"));
    assert_non_null(strstr(text, "/steps/0000/requests/outcome: has no attribute units"));
    assert_non_null(strstr(text, "/steps/0000/requests/outcome: holds a value"));
    free(text);
}

/* As a file of schema 1.3 is. */
static void files_without_gpus_are_whole(void **state)
{
    struct fixture *f = *state;
    struct err e;
    struct step_data d;
    struct store_meta m;
    struct store *s = run_files_create(f->path);
    ok(run_files_step(s, f->path, 0, 20, &e), &e);
    store_close(s);
    hid_t file = H5Fopen(f->path, H5F_ACC_RDWR, H5P_DEFAULT);
    H5Ldelete(file, "steps/0000/gpus", H5P_DEFAULT);
    H5Ldelete(file, "meta/gpus", H5P_DEFAULT);
    H5Ldelete(file, "meta/engine/pci", H5P_DEFAULT);
    H5Fclose(file);
    char *text = findings(f->path, 2); // of this version they are not
    assert_non_null(strstr(text, "meta/gpus: is missing"));
    assert_non_null(strstr(text, "/steps/0000/gpus: is missing"));
    free(text);
    set_root_text(f->path, "schema_version", "1.3.0");
    free(findings(f->path, 0));
    ok(store_open(&s, f->path, false, &e), &e);
    ok(store_read_meta(s, &m, &e), &e);
    ok(store_read_step(s, 0, &d, &e), &e);
    assert_int_equal(m.n_gpus, 0);
    assert_int_equal(d.n_gpus, 0);
    assert_string_equal(m.engines[0].pci, "");
    step_data_free(&d);
    store_meta_free(&m);
    store_close(s);
}

static void validate_knows_each_sampled_gpu(void **state)
{
    struct fixture *f = *state;
    struct err e;
    uint16_t devices[20] = {0, 1, 2, UINT16_MAX};
    struct store *s = run_files_create(f->path);
    ok(run_files_step(s, f->path, 0, 20, &e), &e);
    store_close(s);
    hid_t file = H5Fopen(f->path, H5F_ACC_RDWR, H5P_DEFAULT);
    hid_t device = H5Dopen2(file, "steps/0000/gpus/device", H5P_DEFAULT);
    H5Dwrite(device, H5T_STD_U16LE, H5S_ALL, H5S_ALL, H5P_DEFAULT, devices);
    H5Dclose(device);
    H5Fclose(file);
    char *text = findings(f->path, 1);
    assert_non_null(strstr(text, "step 0: 2 samples of GPUs that meta/gpus does not have"));
    free(text);
}

/* Of a file with these ranks, engines and edges, and nothing else. */
static char *run_findings(const char *path, const struct store_run *part, int wanted)
{
    struct err e;
    struct store *s;
    json_t *none = json_object();
    struct store_run run = *part;
    run.config = run.provenance = run.dataset = run.target = none;
    snprintf(run.uuid, sizeof run.uuid, "6ba7b810-9dad-41d1-80b4-00c04fd430c8");
    ok(store_create(&s, path, true, &run, &e), &e);
    store_close(s);
    json_decref(none);
    return findings(path, wanted);
}

/* A file of one load rank and two stages, with these two rows. */
static char *engine_findings(const char *path, const struct engine *engines, size_t n, int wanted)
{
    const struct store_rank ranks[3] = {
        {.rank = 0, .replica = -1, .stage = -1, .tensor = -1},
        {.rank = 1, .role = 1, .stage = 0},
        {.rank = 2, .role = 1, .stage = 1},
    };
    const struct store_run run = {.ranks = ranks, .n_ranks = 3, .engines = engines, .n_engines = n};
    return run_findings(path, &run, wanted);
}

static void engines_fit_the_ranks(void **state)
{
    struct fixture *f = *state;
    struct engine rows[2];
    for (int i = 0; i < 2; i++) {
        rows[i] = (struct engine){.rank = i + 1,
                                  .first_layer = 3 * i,
                                  .n_layers = 3,
                                  .backend = "cpu",
                                  .weights = "bf16",
                                  .weight_bytes = 200,
                                  .n_weights = 100,
                                  .bytes_per_weight = 2,
                                  .kv_cache = "bf16"};
    }
    free(engine_findings(f->path, rows, 2, 0));
    rows[1].first_layer = 4;
    char *text = engine_findings(f->path, rows, 2, 1);
    assert_non_null(strstr(text, "rank 2 has layers that do not follow"));
    free(text);
    rows[1].first_layer = 3;
    rows[0].bytes_per_weight = 4;
    text = engine_findings(f->path, rows, 2, 1);
    assert_non_null(strstr(text, "rank 1 has bytes_per_weight"));
    free(text);
    text = engine_findings(f->path, rows, 1, 1);
    assert_non_null(strstr(text, "1 rows for 2 worker ranks"));
    free(text);
}

/* A file of one load rank and a 2 x 2 replica on two hosts, with these edges. */
static char *edge_findings(const char *path, const struct edge *edges, size_t n, int wanted)
{
    struct store_rank ranks[5];
    struct engine engines[4];
    for (int i = 0; i < 5; i++) {
        const int k = i - 1;
        ranks[i] = (struct store_rank){.rank = i,
                                       .role = i > 0,
                                       .replica = i > 0 ? 0 : -1,
                                       .stage = i > 0 ? k / 2 : -1,
                                       .tensor = i > 0 ? k % 2 : -1,
                                       .host = "a"};
        ranks[i].host[0] = i > 2 ? 'b' : 'a';
    }
    for (int i = 0; i < 4; i++) {
        engines[i] = (struct engine){.rank = i + 1,
                                     .first_layer = 3 * (i / 2),
                                     .n_layers = 3,
                                     .backend = "cpu",
                                     .weights = "bf16",
                                     .bytes_per_weight = NAN,
                                     .kv_cache = "bf16",
                                     .numa = i - 1};
    }
    const struct store_run run = {.ranks = ranks,
                                  .n_ranks = 5,
                                  .engines = engines,
                                  .n_engines = 4,
                                  .edges = edges,
                                  .n_edges = n};
    return run_findings(path, &run, wanted);
}

static void edges_are_between_workers(void **state)
{
    struct fixture *f = *state;
    struct err e;
    struct store *s;
    struct store_meta m;
    struct edge edges[] = {
        {.from_rank = 1, .to_rank = 3, .kind = EDGE_HIDDEN, .transport = "mpi"},
        {.from_rank = 1, .to_rank = 2, .kind = EDGE_SUMS, .same_host = true, .transport = "ipc"},
        {.from_rank = 2, .to_rank = 4, .kind = EDGE_HIDDEN, .transport = "nccl"},
        {.from_rank = 3, .to_rank = 1, .kind = EDGE_IDS, .transport = "mpi"},
    };
    free(edge_findings(f->path, edges, 4, 0));
    ok(store_open(&s, f->path, false, &e), &e);
    ok(store_read_meta(s, &m, &e), &e);
    assert_int_equal(m.n_edges, 4);
    for (size_t i = 0; i < 4; i++) {
        assert_memory_equal(&m.edges[i].from_rank, &edges[i].from_rank, 2 * sizeof(int32_t));
        assert_int_equal(m.edges[i].kind, edges[i].kind);
        assert_int_equal(m.edges[i].same_host, edges[i].same_host);
        assert_string_equal(m.edges[i].transport, edges[i].transport);
        assert_int_equal(m.engines[i].numa, (int)i - 1);
    }
    store_meta_free(&m);
    store_close(s);
    edges[0].to_rank = 4; // another tensor rank's
    edges[1].same_host = false;
    edges[3].from_rank = 0;
    char *text = edge_findings(f->path, edges, 4, 3);
    assert_non_null(strstr(text, "meta/edges: the one from rank 1 to rank 4 is not between two"));
    assert_non_null(strstr(text, "from rank 1 to rank 2 has a same_host"));
    assert_non_null(strstr(text, "from rank 0 to rank 1 is not between two"));
    free(text);
}

/* As a file of schema 1.4 is. */
static void files_without_edges_are_whole(void **state)
{
    struct fixture *f = *state;
    struct err e;
    struct store_meta m;
    struct store *s = run_files_create(f->path);
    store_close(s);
    hid_t file = H5Fopen(f->path, H5F_ACC_RDWR, H5P_DEFAULT);
    H5Ldelete(file, "meta/edges", H5P_DEFAULT);
    H5Ldelete(file, "meta/engine/numa", H5P_DEFAULT);
    H5Fclose(file);
    char *text = findings(f->path, 1); // of this version it is not
    assert_non_null(strstr(text, "meta/edges: is missing"));
    free(text);
    set_root_text(f->path, "schema_version", "1.4.0");
    free(findings(f->path, 0));
    ok(store_open(&s, f->path, false, &e), &e);
    ok(store_read_meta(s, &m, &e), &e);
    assert_int_equal(m.n_edges, 0);
    assert_int_equal(m.engines[0].numa, -1);
    store_meta_free(&m);
    store_close(s);
}

static void a_full_disk_is_an_error(void **state)
{
    struct fixture *f = *state;
    struct err e = {0};
    struct rlimit limit, old;
    struct stat st;
    struct store *s = run_files_create(f->path);
    struct step_info info = run_files_info(1, 20000);
    ok(run_files_step(s, f->path, 0, 100, &e), &e);
    char *file = run_files_journal(f->journals, 1, 20000);
    signal(SIGXFSZ, SIG_IGN);
    getrlimit(RLIMIT_FSIZE, &old);
    assert_int_equal(stat(f->path, &st), 0);
    limit = (struct rlimit){.rlim_cur = (rlim_t)st.st_size + 4096, .rlim_max = old.rlim_max};
    setrlimit(RLIMIT_FSIZE, &limit);
    int status = store_fold_step(s, file, &info, RUN_FILES_T0_NS, NULL, 0, &e);
    setrlimit(RLIMIT_FSIZE, &old);
    refused(status, &e, ERR_ENV, "cannot be written");
    assert_non_null(strstr(e.msg, "File too large"));
    store_close(s);
    ok(store_open(&s, f->path, false, &e), &e); // what was complete still is
    assert_int_equal(store_n_steps(s), 1);
    check_step(s, 0, 0, 100);
    store_close(s);
    free(file);
}

#define with_file(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        with_file(what_is_folded_is_read),
        with_file(long_columns_are_whole),
        with_file(the_run_says_what_it_was),
        with_file(a_step_counts_when_it_is_finished),
        with_file(requests_without_a_record_are_lost),
        with_file(the_first_of_two_records_counts),
        with_file(paths_are_checked),
        with_file(only_our_files_open),
        with_file(analysis_can_be_written_again),
        with_file(validate_names_what_is_wrong),
        with_file(files_without_gpus_are_whole),
        with_file(validate_knows_each_sampled_gpu),
        with_file(engines_fit_the_ranks),
        with_file(edges_are_between_workers),
        with_file(files_without_edges_are_whole),
        with_file(a_full_disk_is_an_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
