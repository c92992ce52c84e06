/*
 * The inside of a JSON string, as it stands in a file: checked, turned into plain UTF-8 for the
 * tokenizer, or cut where no escape and no character is split.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "core/json_scan.h"
#include "core/str.h"

/*
 * The text without escapes: `t` itself where it has none, else put into *plain. False: it is not
 * UTF-8, or has half a surrogate pair. (Escapes are well-formed: json_scan has seen them.)
 */
bool json_text_plain(struct json_text t, struct str *plain, struct json_text *out);

/* The length of the longest beginning of at most max bytes that is the inside of a string, too. */
size_t json_text_cut(const char *text, size_t len, size_t max);
