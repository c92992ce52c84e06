/*
 * The regular expressions by which model families cut text into words before BPE, each as a
 * hand-written function: there is no regex engine here. They are recognised by their exact text.
 *
 * A stray byte (text that is no UTF-8) counts as the symbol U+FFFD does. Needs unicode_init.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

/* The end of the first piece of s .. end, which is not empty: pieces follow one another. */
typedef const char *splitters_fn(const char *s, const char *end);

struct splitters_rule {
    const char *regex;
    splitters_fn *split; // "Isolated": what lies between matches is a piece too
    bool is_total;       // every character is in a match
};

/* The rule of a regular expression, NULL when it is none of those known. */
const struct splitters_rule *splitters_find(const char *regex);

/* The one of GPT-2, which "ByteLevel" means by "use_regex". */
const char *splitters_gpt2(const char *s, const char *end);

/* Of Llama 3, of Qwen 2 and 3.5, of GPT-4o and of Mistral's Tekken. */
splitters_fn splitters_llama3, splitters_qwen2, splitters_qwen3_5, splitters_o200k,
    splitters_tekken;

/* Of DeepSeek-V3: the three that follow one another. */
splitters_fn splitters_digits3, splitters_cjk, splitters_deepseek;

/* Single numeric characters, and runs of them: "Digits". */
const char *splitters_digit(const char *s, const char *end);
const char *splitters_digits(const char *s, const char *end);
