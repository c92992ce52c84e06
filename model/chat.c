#include "model/chat.h"

#include <string.h>

static const struct {
    const char *mark; // a special token that only models of this form have
    const char *begin, *middle, *end;
    const char *assistant; // what the form calls it
} forms[] = {
    [CHAT_LINES] = {"", "", ": ", "\n", "assistant"},
    [CHAT_CHATML] = {"<|im_start|>", "<|im_start|>", "\n", "<|im_end|>\n", "assistant"},
    [CHAT_LLAMA3] = {"<|start_header_id|>", "<|start_header_id|>", "<|end_header_id|>\n\n",
                     "<|eot_id|>", "assistant"},
    [CHAT_GEMMA] = {"<start_of_turn>", "<start_of_turn>", "\n", "<end_of_turn>\n", "model"},
};

enum chat_form chat_form_of(const struct tokenizer *t)
{
    for (size_t i = CHAT_CHATML; t && i < sizeof forms / sizeof forms[0]; i++) {
        if (tokenizer_find(t, forms[i].mark) >= 0) {
            return (enum chat_form)i;
        }
    }
    return CHAT_LINES;
}

void chat_put_message(enum chat_form form, const char *role, const char *text, struct str *held,
                      struct str *out)
{
    if (form == CHAT_GEMMA && strcmp(role, "system") == 0) {
        str_printf(held, "%s\n\n", text);
        return;
    }
    str_puts(out, forms[form].begin);
    str_puts(out, strcmp(role, "assistant") == 0 ? forms[form].assistant : role);
    str_puts(out, forms[form].middle);
    str_append(out, held->data ? held->data : "", held->len);
    str_clear(held);
    str_puts(out, text);
    str_puts(out, forms[form].end);
}

void chat_put_opening(enum chat_form form, struct str *out)
{
    str_puts(out, forms[form].begin);
    str_puts(out, forms[form].assistant);
    str_puts(out, form == CHAT_LINES ? ":" : forms[form].middle);
}
