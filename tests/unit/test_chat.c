#include "model/chat.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <string.h>

static void check(enum chat_form form, const char *want)
{
    struct str out = {0}, held = {0};
    chat_put_message(form, "system", "Be brief.", &held, &out);
    chat_put_message(form, "user", "One?", &held, &out);
    chat_put_message(form, "assistant", "1", &held, &out);
    chat_put_message(form, "user", "Two?", &held, &out);
    chat_put_opening(form, &out);
    assert_string_equal(out.data, want);
    str_free(&out);
    str_free(&held);
}

/* As the models' own templates give them (BOS is the tokenizer's to add). */
static void test_forms(void **state)
{
    (void)state;
    check(CHAT_LINES, "system: Be brief.\nuser: One?\nassistant: 1\nuser: Two?\nassistant:");
    check(CHAT_CHATML, "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nOne?<|im_end|>\n"
                       "<|im_start|>assistant\n1<|im_end|>\n<|im_start|>user\nTwo?<|im_end|>\n"
                       "<|im_start|>assistant\n");
    check(CHAT_LLAMA3, "<|start_header_id|>system<|end_header_id|>\n\nBe brief.<|eot_id|>"
                       "<|start_header_id|>user<|end_header_id|>\n\nOne?<|eot_id|>"
                       "<|start_header_id|>assistant<|end_header_id|>\n\n1<|eot_id|>"
                       "<|start_header_id|>user<|end_header_id|>\n\nTwo?<|eot_id|>"
                       "<|start_header_id|>assistant<|end_header_id|>\n\n");
    check(CHAT_GEMMA,
          "<start_of_turn>user\nBe brief.\n\nOne?<end_of_turn>\n"
          "<start_of_turn>model\n1<end_of_turn>\n<start_of_turn>user\nTwo?<end_of_turn>\n"
          "<start_of_turn>model\n");
}

static enum chat_form form_with(const char *special)
{
    char json[400];
    struct err e = {0};
    struct tokenizer *t;
    snprintf(
        json, sizeof json,
        "{\"added_tokens\":[{\"id\":2,\"content\":\"%s\",\"special\":true,\"normalized\":false,"
        "\"single_word\":false,\"lstrip\":false,\"rstrip\":false}],"
        "\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":1},\"merges\":[]}}",
        special);
    if (tokenizer_parse(&t, json, strlen(json), "test", 3, &e)) {
        fail_msg("%s", e.msg);
    }
    enum chat_form form = chat_form_of(t);
    tokenizer_close(t);
    return form;
}

static void test_which_form(void **state)
{
    (void)state;
    assert_int_equal(chat_form_of(NULL), CHAT_LINES);
    assert_int_equal(form_with("<|im_start|>"), CHAT_CHATML);
    assert_int_equal(form_with("<|start_header_id|>"), CHAT_LLAMA3);
    assert_int_equal(form_with("<start_of_turn>"), CHAT_GEMMA);
    assert_int_equal(form_with("<s>"), CHAT_LINES);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_forms),
        cmocka_unit_test(test_which_form),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
