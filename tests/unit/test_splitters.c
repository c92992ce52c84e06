/*
 * How text is cut into words, by the regular expressions of every family: the places where they
 * differ, and where a regex engine would go back. The same words as the Hugging Face `tokenizers`
 * library gives; tests/tokenizers compares whole texts.
 */
#include "core/err.h"
#include "model/pretokenizer.h"
#include "model/unicode.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <jansson.h>

#include <stdio.h>
#include <string.h>

#define CONTRACTIONS "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
#define LEAD         "[^\\r\\n\\p{L}\\p{N}]?"
#define SPACES       "\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
#define HEAD         "[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]"
#define TAIL         "[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]"
#define OTHER        "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n"

static const char gpt2[] =
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";
static const char llama3[] = CONTRACTIONS "|" LEAD "\\p{L}+|\\p{N}{1,3}" OTHER "]*|" SPACES;
static const char qwen2[] = CONTRACTIONS "|" LEAD "\\p{L}+|\\p{N}" OTHER "]*|" SPACES;
static const char o200k[] = LEAD HEAD "*" TAIL "+" CONTRACTIONS "?|" LEAD HEAD "+" TAIL
                                      "*" CONTRACTIONS "?|\\p{N}{1,3}" OTHER "/]*|" SPACES;
static const char deepseek[] =
    "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\r\n\\p{L}\\p{P}\\p{S}]?"
    "[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+[\r\n]*|\\s*[\r\n]+|\\s+(?!\\S)|\\s+";

/* The words of `text` under one Split, with | between them, are `want`. */
static void check_words(const char *regex, const char *text, const char *want)
{
    struct pretokenizer p;
    struct pretokenizer_words words;
    struct err e = {0};
    struct str got = {0};
    size_t len;
    json_t *json = json_pack("{s:s, s:{s:s}, s:s}", "type", "Split", "pattern", "Regex", regex,
                             "behavior", "Isolated");
    assert_int_equal(pretokenizer_parse(&p, json, &e), 0);
    str_puts(&got, "");
    pretokenizer_begin(&words, &p, text, strlen(text));
    for (const char *word; (word = pretokenizer_next(&words, &len)) != NULL;) {
        str_puts(&got, got.len > 0 ? "|" : "");
        str_append(&got, word, len);
    }
    assert_string_equal(got.data, want);
    str_free(&got);
    pretokenizer_free(&p);
    json_decref(json);
}

static void test_contractions(void **state)
{
    (void)state;
    check_words(gpt2, "I'll don't I'LL 'x", "I|'ll| don|'t| I|'|LL| '|x");
    check_words(llama3, "I'll don'T I'LL 'x", "I|'ll| don|'T| I|'LL| '|x");
    check_words(llama3, "it'\u017Fx 'rE'", "it|'\u017F|x| '|rE|'");
    check_words(o200k, "I'll DON'Tx 'S", "I'll| DON'T|x| '|S");
    check_words(deepseek, "don't", "don|'t");
}

static void test_numbers(void **state)
{
    (void)state;
    check_words(gpt2, "a1234 5678", "a|1234| 5678");
    check_words(llama3, "a1234 5678", "a|123|4| |567|8");
    check_words(qwen2, "a12 \u00BD", "a|1|2| |\u00BD");
    check_words("\\p{N}{1,3}", "ab1234cd", "ab|123|4|cd");
    check_words(deepseek, "12a 3", "1|2a| |3");
}

static void test_spaces(void **state)
{
    (void)state;
    check_words(gpt2, "a  b \n\n c   ", "a| | b| \n\n| c|   ");
    check_words(llama3, "a  b \n\n c   ", "a| | b| \n\n| c|   ");
    check_words(llama3, "\n \n  x\t!", "\n \n| | x|\t|!");
    check_words(llama3, "a \r\n", "a| \r\n");
    check_words(llama3, "\u3000\u3000a", "\u3000|\u3000a");
}

static void test_case(void **state)
{
    (void)state;
    check_words(o200k, "HTTPServer camelCase", "HTTPServer| camel|Case");
    check_words(o200k, "\u65E5\u672CA \u65E5a", "\u65E5\u672C|A| \u65E5a");
    check_words(o200k, "\u0301A \u0301a", "\u0301|A| \u0301a");
    check_words(o200k, "//\n/a", "//\n/|a");
    check_words(llama3, "//\n/a", "//\n|/a");
}

static void test_scripts(void **state)
{
    (void)state;
    static const char cjk[] = "[\u4E00-\u9FA5\u3040-\u309F\u30A0-\u30FF]+";
    check_words(cjk, "a\u4E00\u3042b\u9FA6", "a|\u4E00\u3042|b\u9FA6");
    check_words(llama3, "\u0915\u094D\u0937", "\u0915|\u094D\u0937");
    check_words(deepseek, "\u0915\u094D\u0937 _ab .\n", "\u0915\u094D\u0937| _|ab| .\n");
    check_words(deepseek, "\x01\x02 a\x03", "\x01\x02| a|\x03");
    check_words(llama3, "a\xFF\xC3 b", "a|\xFF\xC3| b"); // stray bytes are symbols
}

static int set_up(void **state)
{
    (void)state;
    unicode_init();
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_contractions), cmocka_unit_test(test_numbers),
        cmocka_unit_test(test_spaces),       cmocka_unit_test(test_case),
        cmocka_unit_test(test_scripts),
    };
    return cmocka_run_group_tests(tests, set_up, NULL);
}
