/*
 * Unicode normalisation forms (UAX #15): the one owner of utf8proc. Agrees with `tokenizers`, whose
 * tables are older: characters that those do not know stay as they are (UNICODE_NEW), and so does
 * a stray byte. Text that is NFC already is recognised in one pass. Needs unicode_init.
 */
#pragma once

#include <stddef.h>

#include "core/str.h"

enum normal_form {
    NORMAL_FORM_NFC,
    NORMAL_FORM_NFD,
    NORMAL_FORM_NFKC,
    NORMAL_FORM_NFKD,
};

/* The form of that name, -1 when there is none. */
int normal_form_find(const char *name);

/* Append the text in that form to out. */
void normal_form_apply(enum normal_form form, const char *text, size_t len, struct str *out);
