/*
 * Settings of an endpoint: what is refused and what the line says, secrets that are read, sent and masked,
 * and which requests go where.
 */
#include "core/config.h"
#include "core/mem.h"
#include "loadgen/endpoint.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <jansson.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define N_OF(a) (sizeof(a) / sizeof((a)[0]))
#define URL     "url: \"http://a:8000/v1\""

/* The settings of a config's `target` section, as YAML in braces. */
static int read_config(struct endpoint_config *c, const char *target, struct err *e)
{
    json_t *root = NULL;
    char *text = xasprintf("{target: {%s}}", target);
    *c = (struct endpoint_config){0};
    opt_defaults(endpoint_options, c);
    int rc = config_parse(text, strlen(text), "test", &root, e);
    rc = rc ? rc : opt_apply(endpoint_options, c, root, e);
    rc = rc ? rc : endpoint_check(c, e);
    json_decref(root);
    free(text);
    return rc;
}

static void read_ok(struct endpoint_config *c, const char *target)
{
    struct err e = {0};
    if (read_config(c, target, &e) != 0) {
        fail_msg("%s: %s", target, e.msg);
    }
}

static void assert_refused(const struct err *e, const char *what, const char *says)
{
    assert_int_equal(e->code, ERR_INPUT);
    if (!strstr(e->msg, says) || strstr(e->msg, "hidden") || strchr(e->msg, '\n')) {
        fail_msg("%s: \"%s\" should say %s", what, e->msg, says);
    }
}

static void test_refused_settings(void **state)
{
    (void)state;
    static const struct {
        const char *target, *says;
    } cases[] = {
        {"api: chat", "target.url: missing"},
        {"url: \"a:8000/v1\"", "http://HOST"},
        {"url: \"ftp://a/v1\"", "http://HOST"},
        {"url: \"http:///v1\"", "http://HOST"},
        {"url: \"http://me:hidden@a/v1\"", "target.api_key_env"},
        {"url: \"http://a/v1?key=1\"", "no ?"},
        {"url: [\"http://a/v1\", \"b\"]", "b ("},
        {URL ", url_weights: [1, 2]", "2 for 1"},
        {URL ", prompt: ids", "target.tokenizer"},
        {URL ", prompt: ids, api: completions", "target.tokenizer"},
        {URL ", api_key_env: A, api_key_file: b", "one of them"},
        {URL ", key_file: a", "target.cert_file"},
        {URL ", headers: [\"nothing\"]", "Name: value"},
        {URL ", headers: [\": a\"]", "Name: value"},
        {URL ", headers: [\"A b: c\"]", "Name: value"},
        {URL ", headers: [\"A: b\\nC: d\"]", "Name: value"},
        {URL ", headers: [\"Authorization: hidden\"]", "${VAR}"},
        {URL ", headers: [\"X-Api-Key: hidden\"]", "${VAR}"},
        {URL ", headers: [\"Cookie: hidden\"]", "${VAR}"},
        {URL ", extra_body: \"[1]\"", "object"},
        {URL ", extra_body: \"{\"", "object"},
        {URL ", extra_body: \"{\\\"messages\\\": []}\"", "messages"},
    };
    for (size_t i = 0; i < N_OF(cases); i++) {
        struct endpoint_config c;
        struct err e = {0};
        if (read_config(&c, cases[i].target, &e) == 0) {
            fail_msg("taken: %s", cases[i].target);
        }
        assert_refused(&e, cases[i].target, cases[i].says);
        opt_free(endpoint_options, &c);
    }
}

static void assert_not_open(const char *target, const char *says)
{
    struct endpoint_config c;
    struct endpoint p;
    struct err e = {0};
    read_ok(&c, target);
    assert_int_equal(endpoint_open(&p, &c, &e), -1);
    assert_refused(&e, target, says);
    opt_free(endpoint_options, &c);
}

static char *write_key(const char *text)
{
    char *path = xstrdup("/tmp/tm_endpoint_XXXXXX");
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), strlen(text));
    close(fd);
    return path;
}

static void test_secrets_that_are_none(void **state)
{
    (void)state;
    unsetenv("TM_TEST_NONE");
    setenv("TM_TEST_EMPTY", "", 1);
    setenv("TM_TEST_LINES", "hidden\r\nX: y", 1);
    assert_not_open(URL ", api_key_env: TM_TEST_NONE", "TM_TEST_NONE");
    assert_not_open(URL ", api_key_env: TM_TEST_EMPTY", "TM_TEST_EMPTY");
    assert_not_open(URL ", headers: [\"A: ${TM_TEST_NONE}\"]", "TM_TEST_NONE");
    assert_not_open(URL ", headers: [\"A: ${TM_TEST_LINES}\"]", "more than one line");
    assert_not_open(URL ", api_key_file: /nowhere/key", "/nowhere/key");
    assert_not_open(URL ", ca_file: /nowhere/ca", "target.ca_file: /nowhere/ca");
    char *path = write_key("\n");
    char *target = xasprintf(URL ", api_key_file: \"%s\"", path);
    assert_not_open(target, "empty");
    unlink(path);
    free(target);
    free(path);
}

static void assert_quoted(const struct endpoint *p, const char *text, size_t max_bytes,
                          const char *wanted)
{
    struct str out = {0};
    endpoint_quote(p, text, strlen(text), max_bytes, &out);
    assert_string_equal(out.data, wanted);
    str_free(&out);
}

static void test_secrets_are_masked(void **state)
{
    (void)state;
    struct endpoint_config c;
    struct endpoint p;
    struct err e = {0};
    char *path = write_key("sk-hidden\r\nnot the key\n");
    char *target = xasprintf(
        URL ", api_key_file: \"%s\", headers: [\"X-A: a ${TM_TEST_LONG}\", \"X-B: ${TM_TEST_B}\"]",
        path);
    setenv("TM_TEST_LONG", "sk-hidden-longer", 1);
    setenv("TM_TEST_B", "b", 1);
    read_ok(&c, target);
    assert_int_equal(endpoint_open(&p, &c, &e), 0);
    assert_string_equal(p.key, "sk-hidden");
    assert_quoted(&p, "key sk-hidden, sk-hidden-longer: bad", 100, "key ***, ***: bad");
    assert_quoted(&p, "sk-hiddesk-hidden", 100, "sk-hidde***");
    assert_quoted(&p, "not the key\r\n\t <b>\x01", 100, "not the key <b> ");
    assert_quoted(&p, "0123456789", 4, "0123");
    endpoint_close(&p);
    opt_free(endpoint_options, &c);
    unlink(path);
    free(target);
    free(path);
}

static void test_urls(void **state)
{
    (void)state;
    struct endpoint_config c;
    struct endpoint p;
    struct err e = {0};
    read_ok(&c, "url: [\"http://a:1/v1/\", \"https://b/x/v1\"], url_weights: [3, 1], "
                "api: completions");
    assert_int_equal(endpoint_open(&p, &c, &e), 0);
    assert_string_equal(p.urls[0], "http://a:1/v1/completions");
    assert_string_equal(p.urls[1], "https://b/x/v1/completions");
    char *models = endpoint_sibling(&p, 1, "/models", false);
    char *metrics = endpoint_sibling(&p, 1, "/metrics", true);
    assert_string_equal(models, "https://b/x/v1/models");
    assert_string_equal(metrics, "https://b/metrics");
    assert_int_equal(endpoint_pick(&p, 0.0), 0);
    assert_int_equal(endpoint_pick(&p, 0.749), 0);
    assert_int_equal(endpoint_pick(&p, 0.75), 1);
    assert_int_equal(endpoint_pick(&p, 0.999999), 1);
    free(models);
    free(metrics);
    endpoint_close(&p);
    opt_free(endpoint_options, &c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_refused_settings),
        cmocka_unit_test(test_secrets_that_are_none),
        cmocka_unit_test(test_secrets_are_masked),
        cmocka_unit_test(test_urls),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
