#include "workers/visible_gpus.h"

#include <stdlib.h>
#include <string.h>

#define UUID_PREFIX "GPU-"

/* One word of the list: whether it names the GPU; *ends: it names none, and neither do those after it. */
static bool names(const char *word, size_t len, int n, int index, const char *uuid, bool *ends)
{
    char *end;
    if (len > strlen(UUID_PREFIX) && strncmp(word, UUID_PREFIX, strlen(UUID_PREFIX)) == 0) {
        return strncmp(word, uuid, len) == 0;
    }
    if (len > 4 && strncmp(word, "MIG-", 4) == 0) {
        return false;
    }
    long number = strtol(word, &end, 10);
    *ends = len == 0 || end != word + len || number < 0 || number >= n;
    return !*ends && number == index;
}

bool visible_gpus_has(const char *text, int n, int index, const char *uuid)
{
    if (!text) {
        return true;
    }
    for (bool ends = false; !ends;) {
        text += strspn(text, " ");
        size_t len = strcspn(text, ",");
        size_t word = len;
        while (word > 0 && text[word - 1] == ' ') {
            word--;
        }
        if (names(text, word, n, index, uuid, &ends)) {
            return true;
        }
        ends = ends || text[len] == '\0';
        text += len + 1;
    }
    return false;
}
