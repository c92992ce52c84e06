/*
 * The inside of a JSON string (RFC 8259, section 7): what stands between the quotes, escapes as they are.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <string.h>

#include "core/str.h"

struct json_text { // its escapes are well-formed: json_scan has seen them
    const char *data;
    size_t len;
};

/* Compared as it stands: a word written with escapes is not recognised. Inline, so that the length of
 * a literal is known. */
static inline bool json_text_is(struct json_text t, const char *word)
{
    size_t len = strlen(word);
    return len == t.len && memcmp(t.data, word, len) == 0;
}

/* Append plain UTF-8 as the inside of a string: quotes, backslashes and control characters escaped. */
void json_text_escape(struct str *out, const char *utf8, size_t len);

/*
 * Append what the text says, in UTF-8. Half a surrogate pair that stands alone becomes U+FFFD; false
 * when there was one.
 */
bool json_text_unescape(struct json_text t, struct str *out);

/* The length of the longest beginning of at most max bytes that is the inside of a string, too: no
 * escape, pair of escapes or character is split. The text is UTF-8. */
size_t json_text_cut(const char *text, size_t len, size_t max);
