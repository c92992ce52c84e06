/*
 * The management library's calls, against the scripted one of tests/support/fake_nvml.c: what devices tell
 * arrives in its units, what they do not tell is missing, and a library that is none says why.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/clock.h"
#include "workers/nvml.h"
#include "workers/visible_gpus.h"

static char library[512]; // the scripted one

static int use_script(void **state)
{
    (void)state;
    setenv("TIDEMARK_NVML", library, 1);
    unsetenv("FAKE_NVML");
    return 0;
}

static struct nvml *open_with(const char *script)
{
    char why[200] = "";
    setenv("FAKE_NVML", script, 1);
    struct nvml *n = nvml_open(why, sizeof why);
    if (!n) {
        print_error("%s\n", why);
    }
    assert_non_null(n);
    return n;
}

static void near(double got, double want, double within)
{
    if (!(fabs(got - want) <= within)) {
        print_error("%.9g, not %.9g\n", got, want);
    }
    assert_true(fabs(got - want) <= within);
}

static void devices_say_who_they_are(void **state)
{
    (void)state;
    struct gpus_device d;
    struct nvml *n = open_with("devices=3 mig=2");
    assert_int_equal(nvml_count(n), 3);
    nvml_describe(n, 1, &d);
    assert_int_equal(d.index, 1);
    assert_string_equal(d.name, "Scripted GPU");
    assert_string_equal(d.uuid, "GPU-000000a1-0000-4000-8000-000000000000");
    assert_string_equal(d.pci, "00000000:02:00.0");
    assert_string_equal(d.driver, "580.00");
    near(d.memory_bytes, 137438953472.0, 0);
    near(d.power_limit_w, 700, 1e-9);
    assert_int_equal(nvml_find(n, "0000:03:00.0"), 2); // as CUDA writes it
    assert_int_equal(nvml_find(n, "0000:04:00.0"), -1);
    assert_int_equal(nvml_find(n, "nonsense"), -1);
    assert_false(nvml_is_divided(n, 0));
    assert_true(nvml_is_divided(n, 2));
    assert_false(nvml_is_divided(n, 3));
    nvml_close(n);
}

static void samples_are_in_their_units(void **state)
{
    (void)state;
    struct gpus_sample a, b;
    struct nvml *n = open_with("devices=2 power=300 throttle=68:0:99");
    int64_t before_ns = clock_now_ns();
    nvml_sample(n, 1, &a);
    assert_in_range(a.t_ns, before_ns, clock_now_ns());
    near((double)a.power_w, 310, 1e-3);
    near((double)a.sm_mhz, 1980, 0);
    near((double)a.memory_mhz, 3201, 0);
    near((double)a.gpu_util, 0.80, 1e-6);
    near((double)a.memory_util, 0.25, 1e-6);
    near(a.memory_used_bytes, 34359738368.0, 0);
    near((double)a.temperature_c, 55, 0);
    assert_int_equal(a.throttle, 1U << GPUS_POWER_CAP | 1U << GPUS_HW_THERMAL);
    clock_sleep_until_ns(clock_local_ns() + 200 * NS_PER_MS);
    nvml_sample(n, 1, &b);
    near((b.energy_j - a.energy_j) / ((double)(b.t_ns - a.t_ns) * 1e-9), 310, 3); // J/s
    nvml_close(n);
}

static void what_is_not_told_is_missing(void **state)
{
    (void)state;
    struct gpus_sample s;
    struct gpus_device d;
    struct nvml *n = open_with(
        "without=power_limit+power+energy+clock+utilisation+memory+throttle+temperature devices=1");
    nvml_describe(n, 0, &d);
    assert_true(isnan(d.power_limit_w) && isnan(d.memory_bytes));
    nvml_sample(n, 0, &s);
    assert_true(isnan(s.power_w) && isnan(s.energy_j) && isnan(s.sm_mhz) && isnan(s.memory_mhz));
    assert_true(isnan(s.gpu_util) && isnan(s.memory_util) && isnan(s.memory_used_bytes));
    assert_true(isnan(s.temperature_c));
    assert_int_equal(s.throttle, UINT32_MAX);
    nvml_sample(n, 7, &s); // gone
    assert_true(isnan(s.power_w) && s.throttle == UINT32_MAX);
    nvml_describe(n, 7, &d);
    assert_string_equal(d.uuid, "");
    nvml_close(n);
}

static void only_what_a_library_lacks_is_missing(void **state)
{
    (void)state;
    struct gpus_sample s;
    struct nvml *n = open_with("without=energy+temperature");
    nvml_sample(n, 0, &s);
    assert_true(isnan(s.energy_j) && isnan(s.temperature_c));
    near((double)s.power_w, 100, 1e-3);
    assert_int_equal(s.throttle, 0);
    nvml_close(n);
}

static void no_library_says_why(void **state)
{
    (void)state;
    static const struct {
        const char *path, *script, *word;
    } cases[] = {
        {"/nowhere/libnvidia-ml.so.1", "", "/nowhere/libnvidia-ml.so.1"},
        {"libm.so.6", "", "libm.so.6: not NVIDIA's management library"},
        {library, "init=9", "cannot start: Driver Not Loaded"},
        {library, "devices=0", "finds no GPU"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char why[200] = "";
        setenv("TIDEMARK_NVML", cases[i].path, 1);
        setenv("FAKE_NVML", cases[i].script, 1);
        assert_null(nvml_open(why, sizeof why));
        assert_non_null(strstr(why, cases[i].word));
        assert_null(strchr(why, '\n'));
    }
    char cut[8];
    setenv("TIDEMARK_NVML", "/nowhere/at/all", 1);
    assert_null(nvml_open(cut, sizeof cut));
    assert_int_equal(strlen(cut), 7);
}

/* --- CUDA_VISIBLE_DEVICES ------------------------------------------------------------------------- */

static const char *const uuids[4] = {"GPU-aa000000-1", "GPU-aa111111-2", "GPU-bb222222-3",
                                     "GPU-cc333333-4"};

/* Bit i: GPU i of four is visible. */
static unsigned visible(const char *text)
{
    unsigned bits = 0;
    for (int i = 0; i < 4; i++) {
        bits |= (unsigned)visible_gpus_has(text, 4, i, uuids[i]) << i;
    }
    return bits;
}

static void visible_devices_are_cudas(void **state)
{
    (void)state;
    assert_int_equal(visible(NULL), 0xf);
    assert_int_equal(visible(""), 0);
    assert_int_equal(visible("0"), 1);
    assert_int_equal(visible("2,0"), 5);
    assert_int_equal(visible(" 1 , 3 "), 0xa);
    assert_int_equal(visible("1,-1,3"), 2); // up to the first that means none
    assert_int_equal(visible("0,4,1"), 1);
    assert_int_equal(visible("NoDevFiles"), 0);
    assert_int_equal(visible("0x1"), 0);
    assert_int_equal(visible("0,,1"), 1);
    assert_int_equal(visible("GPU-bb222222-3"), 4);
    assert_int_equal(visible("GPU-cc,0"), 9);
    assert_int_equal(visible("GPU-ffffffff,GPU-cc"), 8);
    assert_int_equal(visible("MIG-11111111-2222,3"), 8); // a part of one is none
    assert_int_equal(visible("99999999999999999999"), 0);
}

int main(void)
{
    const char *path = getenv("TIDEMARK_NVML");
    if (!path || strlen(path) >= sizeof library) {
        print_error("TIDEMARK_NVML: the path of the scripted library\n");
        return 1;
    }
    memcpy(library, path, strlen(path) + 1);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(devices_say_who_they_are, use_script),
        cmocka_unit_test_setup(samples_are_in_their_units, use_script),
        cmocka_unit_test_setup(what_is_not_told_is_missing, use_script),
        cmocka_unit_test_setup(only_what_a_library_lacks_is_missing, use_script),
        cmocka_unit_test_setup(no_library_says_why, use_script),
        cmocka_unit_test(visible_devices_are_cudas),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
