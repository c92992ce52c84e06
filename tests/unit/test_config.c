/* Config text to trees: what is read, where it says a mistake is, and overrides. */
#include "core/config.h"
#include "core/str.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <jansson.h>

#include <stdlib.h>
#include <string.h>

static json_t *parse(const char *text)
{
    struct err e = {0};
    json_t *root = NULL;
    if (config_parse(text, strlen(text), "t.yaml", &root, &e) != 0) {
        fail_msg("%s", e.msg);
    }
    return root;
}

static void assert_json(const json_t *v, const char *expected)
{
    char *got = json_dumps(v, JSON_COMPACT | JSON_ENCODE_ANY);
    assert_string_equal(got, expected);
    free(got);
}

static void assert_parses_to(const char *text, const char *expected)
{
    json_t *root = parse(text);
    assert_json(root, expected);
    json_decref(root);
}

static void assert_refused(const char *text, size_t len, const char *message)
{
    struct err e = {0};
    json_t *root = NULL;
    if (config_parse(text, len, "t.yaml", &root, &e) == 0) {
        char *got = json_dumps(root, JSON_COMPACT);
        fail_msg("parsed to %s instead of '%s'", got, message);
    }
    assert_int_equal(e.code, ERR_INPUT);
    assert_string_equal(e.msg, message);
    assert_null(root);
}

static void test_trees(void **state)
{
    (void)state;
    assert_parses_to("", "{}");
    assert_parses_to("# nothing\n---\n", "{}");
    assert_parses_to("name: quick\n", "{\"name\":\"quick\"}");
    assert_parses_to("load: {ranks: 1, rates: [1, 2.5, '3']}\nslo:\n  ttft: 500ms\n",
                     "{\"load\":{\"ranks\":\"1\",\"rates\":[\"1\",\"2.5\",\"3\"]},"
                     "\"slo\":{\"ttft\":\"500ms\"}}");
    assert_parses_to("a:\n- x\n- [y, {z: 1}]\n- b: 2\n",
                     "{\"a\":[\"x\",[\"y\",{\"z\":\"1\"}],{\"b\":\"2\"}]}");
    assert_parses_to("{\"a\": [1, true, null], \"b\": \"x\\ty\"}",
                     "{\"a\":[\"1\",\"true\",null],\"b\":\"x\\ty\"}");
    assert_parses_to("a: caf\xc3\xa9\n", "{\"a\":\"caf\xc3\xa9\"}");
    assert_parses_to("url: http://host:8000/v1 # comment\n", "{\"url\":\"http://host:8000/v1\"}");
    assert_parses_to("{}", "{}");
    assert_parses_to("a: |\n  two\n  lines\n", "{\"a\":\"two\\nlines\\n\"}");
}

static void test_scalars_are_strings_and_null_is_null(void **state)
{
    (void)state;
    assert_parses_to("{a: 1, b: 1.50, c: true, d: no, e: 0x10, f: 2024-01-01}",
                     "{\"a\":\"1\",\"b\":\"1.50\",\"c\":\"true\",\"d\":\"no\",\"e\":\"0x10\","
                     "\"f\":\"2024-01-01\"}");
    assert_parses_to("a:\nb: ~\nc: null\nd: Null\ne: NULL\n",
                     "{\"a\":null,\"b\":null,\"c\":null,\"d\":null,\"e\":null}");
    assert_parses_to("a: ''\nb: \"~\"\nc: 'null'\nd: nil\n",
                     "{\"a\":\"\",\"b\":\"~\",\"c\":\"null\",\"d\":\"nil\"}");
}

static void refuse(const char *text, const char *message)
{
    assert_refused(text, strlen(text), message);
}

static void test_mistakes_are_named_with_their_place(void **state)
{
    (void)state;
    refuse("a: 1\nb: 2\na: 3\n", "t.yaml:3:1: duplicate key 'a'");
    refuse("x: {p: 1, q: 2, p: 3}\n", "t.yaml:1:17: duplicate key 'p'");
    refuse("a: &x 1\n", "t.yaml:1:4: anchors and aliases are not allowed: write the value out");
    refuse("a: 1\nb: *a\n", "t.yaml:2:4: anchors and aliases are not allowed: write the value out");
    refuse("a: &x {b: 1}\n",
           "t.yaml:1:4: anchors and aliases are not allowed: write the value out");
    refuse("a: &x [b]\n", "t.yaml:1:4: anchors and aliases are not allowed: write the value out");
    refuse("*a : 1\n", "t.yaml:1:1: anchors and aliases are not allowed: write the value out");
    refuse("a:\n  <<: {b: 1}\n", "t.yaml:2:3: merge keys are not allowed: write the value out");
    refuse("a: !!int 3\n", "t.yaml:1:4: tags are not allowed: each key has its own type");
    refuse("a: !x {b: 1}\n", "t.yaml:1:4: tags are not allowed: each key has its own type");
    refuse("load.rates: 3\n",
           "t.yaml:1:1: dots are for the command line; nest the key 'load.rates'");
    refuse("[a, b]: 1\n", "t.yaml:1:1: a key must be a plain word");
    refuse("? {a: 1}\n: 2\n", "t.yaml:1:3: a key must be a plain word");
    refuse("'': 1\n", "t.yaml:1:1: a key must have 1 to 127 bytes");
    refuse("[a, b]\n", "t.yaml:1:1: a config must be a mapping (key: value)");
    refuse("just text\n", "t.yaml:1:1: a config must be a mapping (key: value)");
    refuse("a: 1\n---\nb: 2\n", "t.yaml:2:1: a second document begins here; only one is allowed");
    refuse("a: \"x\\0y\"\n", "t.yaml:1:4: a NUL byte is not allowed");
    refuse("a: [1, 2\n", "t.yaml:2:1: did not find expected ',' or ']'");
    refuse("a: 1\n b: 2\n", "t.yaml:2:3: mapping values are not allowed in this context");
    refuse("a:\n\t- 1\n", "t.yaml:2:1: found character that cannot start any token");
    refuse("a: 'x\n", "t.yaml:2:1: found unexpected end of stream");
    refuse("a: 1\nb: x\xff\n", "t.yaml:2:5: invalid leading UTF-8 octet");
}

static void test_limits(void **state)
{
    (void)state;
    struct str s = {0};
    str_puts(&s, "a: ");
    for (int i = 0; i < 31; i++) {
        str_puts(&s, "[");
    }
    for (int i = 0; i < 31; i++) {
        str_puts(&s, "]");
    }
    json_decref(parse(s.data)); // 32 with the mapping
    str_clear(&s);
    str_puts(&s, "a: ");
    for (int i = 0; i < 100000; i++) {
        str_puts(&s, "[");
    }
    assert_refused(s.data, s.len, "t.yaml:1:35: nested more than 32 deep");
    str_clear(&s);
    for (int i = 0; i < 40; i++) {
        str_printf(&s, "%*sk:\n", i, "");
    }
    assert_refused(s.data, s.len, "t.yaml:33:33: nested more than 32 deep");
    str_clear(&s);
    str_puts(&s, "a: ");
    while (s.len < ((size_t)1 << 20)) {
        str_puts(&s, "x");
    }
    json_decref(parse(s.data));
    str_puts(&s, "x");
    assert_refused(s.data, s.len, "t.yaml: 1048577 bytes, larger than the 1048576 allowed");
    str_clear(&s);
    for (int i = 0; i < 128; i++) {
        str_puts(&s, "k");
    }
    str_puts(&s, ": 1");
    assert_refused(s.data, s.len, "t.yaml:1:1: a key must have 1 to 127 bytes");
    assert_refused("a: b\0c", 6, "t.yaml:1:5: control characters are not allowed");
    str_free(&s);
}

static void test_load(void **state)
{
    (void)state;
    struct err e = {0};
    json_t *root = NULL;
    assert_int_equal(config_load("/nonexistent/a.yaml", &root, &e), -1);
    assert_int_equal(e.code, ERR_INPUT);
    assert_string_equal(e.msg, "/nonexistent/a.yaml: No such file or directory");
    assert_null(root);
}

static void assert_override(const char *base, const char *assignment, const char *expected)
{
    struct err e = {0};
    json_t *root = parse(base);
    if (config_override(root, assignment, &e) != 0) {
        fail_msg("%s", e.msg);
    }
    assert_json(root, expected);
    json_decref(root);
}

static void test_overrides(void **state)
{
    (void)state;
    assert_override("", "name=quick", "{\"name\":\"quick\"}");
    assert_override("", "a.b.c=1", "{\"a\":{\"b\":{\"c\":\"1\"}}}");
    assert_override("a: {x: 1}", "a.y=2", "{\"a\":{\"x\":\"1\",\"y\":\"2\"}}");
    assert_override("a: {x: 1}", "a.x=2", "{\"a\":{\"x\":\"2\"}}");
    assert_override("", "a=2,4,8", "{\"a\":[\"2\",\"4\",\"8\"]}");
    assert_override("", "a=2, 4 ,8", "{\"a\":[\"2\",\"4\",\"8\"]}");
    assert_override("", "a=5,", "{\"a\":[\"5\"]}");
    assert_override("", "a=[2,4]", "{\"a\":[\"2\",\"4\"]}");
    assert_override("", "a=[2]", "{\"a\":[\"2\"]}");
    assert_override("", "a=[]", "{\"a\":[]}");
    assert_override("", "a=[1,2],[3]", "{\"a\":[[\"1\",\"2\"],[\"3\"]]}");
    assert_override("", "a={kind: gamma, cv: 2}", "{\"a\":{\"kind\":\"gamma\",\"cv\":\"2\"}}");
    assert_override("", "a={}", "{\"a\":{}}");
    assert_override("", "a=", "{\"a\":null}");
    assert_override("", "a=~", "{\"a\":null}");
    assert_override("", "a=''", "{\"a\":\"\"}");
    assert_override("", "a='2,4'", "{\"a\":\"2,4\"}");
    assert_override("", "a=b=c", "{\"a\":\"b=c\"}");
    assert_override("", "url=http://host:8000/v1", "{\"url\":\"http://host:8000/v1\"}");
    assert_override("", "model=preset:tiny", "{\"model\":\"preset:tiny\"}");
    assert_override("rates: {start: auto, factor: 1.5}", "rates=2,4", "{\"rates\":[\"2\",\"4\"]}");
    assert_override("rates: {start: auto}", "rates=7", "{\"rates\":\"7\"}");
    assert_override("rates: {start: auto}", "rates={factor: 2}", "{\"rates\":{\"factor\":\"2\"}}");
    assert_override("arrival: gamma", "arrival.cv=2",
                    "{\"arrival\":{\"\":\"gamma\",\"cv\":\"2\"}}");
    assert_override("rates: [1, 2]", "rates.cv=2", "{\"rates\":{\"\":[\"1\",\"2\"],\"cv\":\"2\"}}");
    assert_override("rates: {\"x\": 1}", "rates=3", "{\"rates\":\"3\"}");
    assert_override("arrival:", "arrival.cv=2", "{\"arrival\":{\"cv\":\"2\"}}");
}

static void refuse_override(const char *assignment, const char *message)
{
    struct err e = {0};
    json_t *root = parse("kept: 1");
    assert_int_equal(config_override(root, assignment, &e), -1);
    assert_int_equal(e.code, ERR_INPUT);
    assert_string_equal(e.msg, message);
    assert_json(root, "{\"kept\":\"1\"}");
    json_decref(root);
}

static void test_bad_overrides(void **state)
{
    (void)state;
    refuse_override("load.rates", "'load.rates' is not an assignment (key.path=value)");
    refuse_override("", "'' is not an assignment (key.path=value)");
    refuse_override("=3", "'=3': '' is not a key (words joined by dots)");
    refuse_override(".a=3", "'.a=3': '.a' is not a key (words joined by dots)");
    refuse_override("a.=3", "'a.=3': 'a.' is not a key (words joined by dots)");
    refuse_override("a..b=3", "'a..b=3': 'a..b' is not a key (words joined by dots)");
    refuse_override("a.b[2].c=3", "'a.b[2].c=3': 'a.b[2].c' is not a key (words joined by dots)");
    refuse_override("a b=3", "'a b=3': 'a b' is not a key (words joined by dots)");
    refuse_override("a=[1", "a=[1: did not find expected ',' or ']'");
    refuse_override("a=b]", "a=b]: did not find expected <document start>");
    refuse_override("a=b], [c", "a=b], [c: did not find expected <document start>");
    refuse_override("a=*x", "a=*x: anchors and aliases are not allowed: write the value out");
    refuse_override("a={'': 1}", "a={'': 1}: a key must have 1 to 127 bytes");
    refuse_override("a={b: 1, b: 2}", "a={b: 1, b: 2}: duplicate key 'b'");
    refuse_override("a='x", "a='x: found unexpected end of stream");
    json_t *listed = parse("load: {dataset: [{source: a}, {source: b}]}");
    struct err why = {0};
    assert_int_equal(config_override(listed, "load.dataset.source=c", &why), -1);
    assert_string_equal(
        why.msg,
        "'load.dataset.source=c': load.dataset is a list of mappings, which have keys of their own");
    assert_int_equal(config_override(listed, "load.dataset=c", &why), 0);
    json_decref(listed);
    struct str deep = {0};
    for (int i = 0; i < 33; i++) {
        str_puts(&deep, i == 0 ? "k" : ".k");
    }
    str_puts(&deep, "=1");
    struct err e = {0};
    json_t *root = parse("");
    assert_int_equal(config_override(root, deep.data, &e), -1);
    assert_int_equal(config_override(root, deep.data + 2, &e), 0);
    json_decref(root);
    str_free(&deep);
}

static void test_sections(void **state)
{
    (void)state;
    struct err e = {0};
    json_t *root = parse("{target: {}, load: {}, name: x}");
    assert_int_equal(config_check_sections(root, "load|name|target|slo", &e), 0);
    assert_int_equal(config_check_sections(root, "load|name|targets|slo", &e), -1);
    assert_int_equal(e.code, ERR_INPUT);
    assert_string_equal(e.msg, "target: unknown key; did you mean targets?");
    assert_int_equal(config_check_sections(root, "loa|name|target", &e), -1);
    assert_string_equal(e.msg, "load: unknown key; did you mean loa?");
    json_decref(root);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_trees),
        cmocka_unit_test(test_scalars_are_strings_and_null_is_null),
        cmocka_unit_test(test_mistakes_are_named_with_their_place),
        cmocka_unit_test(test_limits),
        cmocka_unit_test(test_load),
        cmocka_unit_test(test_overrides),
        cmocka_unit_test(test_bad_overrides),
        cmocka_unit_test(test_sections),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
