#include "results/provenance.h"

#include "core/config.h"
#include "core/rng.h"
#include "core/str.h"

#include <jansson.h>

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define CANARY "hunter2canary"

static void check_redacted(const char *in, const char *wanted)
{
    struct str out = {0};
    provenance_redact(in, &out);
    assert_string_equal(out.data, wanted);
    str_free(&out);
}

static void secrets_are_cut(void **state)
{
    (void)state;
    check_redacted("target.api_key=abc", "target.api_key=***");
    check_redacted("--token=abc", "--token=***");
    check_redacted("Password: abc", "Password:***");
    check_redacted("target={kind: openai, \"api_key\": abc, url: x}",
                   "target={kind: openai, \"api_key\":***");
    check_redacted("https://me:pw@host/v1?x=1", "https://***@host/v1?x=1");
    check_redacted("a=http://u@h b=http://k:p@g/", "a=http://***@h b=http://***@g/");
    check_redacted("gs://b/o?X-Goog-Signature=ff", "gs://b/o?X-Goog-Signature=***");
}

static void what_is_no_secret_stays(void **state)
{
    (void)state;
    static const char *const kept[] = {"load.output_tokens=128",
                                       "target.api_key_env=MY_VAR",
                                       "load.rates=2,4,8",
                                       "http://host:8000/v1",
                                       "mail@host",
                                       "key",
                                       "configs/quickstart.yaml"};
    for (size_t i = 0; i < sizeof kept / sizeof kept[0]; i++) {
        check_redacted(kept[i], kept[i]);
    }
}

static void no_secret_gets_in(void **state)
{
    (void)state;
    static const char *const names[] = {
        "TIDEMARK_API_KEY", "OPENAI_API_KEY", "HF_TOKEN", "AWS_SECRET_ACCESS_KEY",
        "OMPI_MCA_some_password", "SLURM_JWT", "PGPASSWORD", "MY_VARIABLE",
        // what mpirun gives to its ranks
        "OMPI_MCA_orte_precondition_transports", "OMPI_MCA_orte_hnp_uri",
        "OMPI_MCA_orte_local_daemon_uri", "OMPI_MCA_ess_base_jobid", "PMIX_SERVER_URI2",
        "PMIX_SECURITY_MODE", "NCCL_SOME_TOKEN"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        setenv(names[i], CANARY, 1);
    }
    setenv("OMPI_MCA_btl", "http://user:" CANARY "@host", 1);
    char a0[] = "tidemark", a1[] = "--api-key", a2[] = CANARY, a3[] = "target.token=" CANARY,
         a4[] = "http://" CANARY "@host", a5[] = "-o", a6[] = "x.h5";
    char *argv[] = {a0, a1, a2, a3, a4, a5, a6, NULL};
    json_t *p = provenance_collect(7, argv, "Open MPI");
    char *text = json_dumps(p, 0);
    assert_null(strstr(text, CANARY));
    json_t *list = json_object_get(p, "argv");
    assert_int_equal(json_array_size(list), 7);
    assert_string_equal(json_string_value(json_array_get(list, 2)), "***");
    assert_string_equal(json_string_value(json_array_get(list, 6)), "x.h5");
    free(text);
    json_decref(p);
}

static void the_run_is_described(void **state)
{
    (void)state;
    char a0[] = "tidemark";
    char *argv[] = {a0, NULL};
    setenv("SLURM_JOB_ID", "4711", 1);
    setenv("POD_NAME", "pod-0", 1);
    setenv("OMPI_MCA_pml", "ob1", 1);
    setenv("NCCL_P2P_LEVEL", "NVL", 1);
    setenv("NCCL_", "x", 1);
    setenv("OMPI_MCA_orte_hnp_uri", "1.0;tcp://10.0.0.1:4000", 1);
    json_t *p = provenance_collect(1, argv, "Open MPI 4.1.4");
    const char *const texts[] = {"version", "git_sha", "compiler", "build_flags", "host", "kernel"};
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        assert_true(json_is_string(json_object_get(p, texts[i])));
    }
    assert_true(json_integer_value(json_object_get(p, "n_cpus")) > 0);
    assert_true(json_integer_value(json_object_get(p, "memory_bytes")) > 1 << 20);
    json_t *libraries = json_object_get(p, "libraries");
    assert_memory_equal(json_string_value(json_object_get(libraries, "hdf5")), "HDF5 1.", 7);
    assert_string_equal(json_string_value(json_object_get(libraries, "mpi")), "Open MPI 4.1.4");
    assert_string_equal(json_string_value(json_object_get(libraries, "libyaml")), config_library());
    assert_string_equal(json_string_value(json_object_get(libraries, "random123")), rng_library());
    assert_true(strchr("0123456789", config_library()[0]) != NULL && rng_library()[0] != '\0');
    assert_string_equal(
        json_string_value(json_object_get(json_object_get(p, "slurm"), "SLURM_JOB_ID")), "4711");
    assert_string_equal(json_string_value(json_object_get(json_object_get(p, "pod"), "POD_NAME")),
                        "pod-0");
    assert_string_equal(
        json_string_value(json_object_get(json_object_get(p, "env"), "OMPI_MCA_pml")), "ob1");
    assert_string_equal(
        json_string_value(json_object_get(json_object_get(p, "env"), "NCCL_P2P_LEVEL")), "NVL");
    assert_null(json_object_get(json_object_get(p, "env"), "NCCL_"));
    assert_null(json_object_get(json_object_get(p, "env"), "PATH"));
    assert_null(json_object_get(json_object_get(p, "env"), "OMPI_MCA_orte_hnp_uri"));
    json_decref(p);
}

static void times_are_iso_8601(void **state)
{
    (void)state;
    char buf[32];
    assert_string_equal(provenance_utc(0, buf, sizeof buf), "1970-01-01T00:00:00Z");
    assert_string_equal(provenance_utc(1795218584999999999LL, buf, sizeof buf),
                        "2026-11-20T23:49:44Z");
}

static void uuids_are_version_4_and_differ(void **state)
{
    (void)state;
    char a[37], b[37];
    provenance_uuid(a, sizeof a);
    provenance_uuid(b, sizeof b);
    assert_int_equal(strlen(a), 36);
    assert_int_equal(a[14], '4');
    assert_non_null(strchr("89ab", a[19]));
    assert_true(a[8] == '-' && a[13] == '-' && a[18] == '-' && a[23] == '-');
    assert_string_not_equal(a, b);
}

static void files_are_hashed(void **state)
{
    (void)state;
    struct err e = {0};
    char hash[17], path[64];
    snprintf(path, sizeof path, "provenance_%d.txt", (int)getpid());
    FILE *out = fopen(path, "w");
    fputs("abc", out);
    fclose(out);
    assert_int_equal(provenance_file_hash(path, hash, sizeof hash, &e), 0);
    assert_string_equal(hash, "44bc2cf5ad770999"); // xxHash's own check value
    unlink(path);
    assert_int_equal(provenance_file_hash(path, hash, sizeof hash, &e), -1);
    assert_int_equal(e.code, ERR_INPUT);
    assert_non_null(strstr(e.msg, path));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(secrets_are_cut),    cmocka_unit_test(what_is_no_secret_stays),
        cmocka_unit_test(no_secret_gets_in),  cmocka_unit_test(the_run_is_described),
        cmocka_unit_test(times_are_iso_8601), cmocka_unit_test(uuids_are_version_4_and_differ),
        cmocka_unit_test(files_are_hashed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
