#include "workers/null_words.h"

#include <string.h>

/* Some are not ASCII, so that text is not one byte a character. */
static const char words[][NULL_WORDS_MAX_BYTES] = {
    " the",   " tide",  " rises", " over",  " sand", " and",    " stone", " until",
    " a",     " mark",  " shows", " where", " it",   " stood",  " then",  " slowly",
    " water", " turns", " back",  " under", " café", " lights", " while", " boats",
    " wait",  " in",    " line",  " naïve", " 水",   " gulls",  " count", " waves",
};

enum {
    N_WORDS = sizeof words / sizeof words[0]
};

size_t null_words_put(char *to, uint64_t first, int64_t n)
{
    char *at = to;
    for (int64_t i = 0; i < n; i++) {
        const char *w = words[(first + (uint64_t)i) % N_WORDS];
        at = mempcpy(at, w, strlen(w));
    }
    return (size_t)(at - to);
}
