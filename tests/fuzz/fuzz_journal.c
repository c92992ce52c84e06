/* Any bytes as a journal file: every entry that is read lies inside and can be read again. */
#include "core/err.h"
#include "results/journal.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void read_entry(struct journal_reader *r, const struct journal_entry *entry, size_t size)
{
    struct err e;
    CHECK(entry->file_offset + entry->n_bytes <= size);
    uint8_t *again = malloc(entry->n_bytes + 1);
    CHECK(again != NULL);
    CHECK(journal_pread(r, entry->file_offset, again, entry->n_bytes, &e) == 0);
    CHECK(entry->n_bytes == 0 || memcmp(again, entry->payload, entry->n_bytes) == 0);
    free(again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct err e;
    struct journal_reader *r;
    struct journal_entry entry;
    char path[32];
    int fd = memfd_create("journal", MFD_CLOEXEC), more;
    CHECK(fd >= 0 && (size == 0 || write(fd, data, size) == (ssize_t)size));
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    CHECK(journal_open(&r, path, &e) == 0);
    while ((more = journal_next(r, &entry, &e)) == 1) {
        read_entry(r, &entry, size);
    }
    CHECK(more == 0);
    journal_reader_close(r);
    close(fd);
    return 0;
}
