/*
 * Any payloads in a journal whose checksums hold: the fold takes what is valid, and the file that it
 * writes reads back. Input: entries of {kind u8, n_bytes u16, payload}.
 */
#include "core/err.h"
#include "core/log.h"
#include "core/mem.h"
#include "results/journal.h"
#include "results/store.h"

#include <jansson.h>

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void write_journal(const char *dir, const uint8_t *data, size_t size)
{
    struct err e;
    struct journal *j;
    CHECK(journal_create(&j, dir, 0, &e) == 0);
    for (size_t at = 0; size - at >= 3;) {
        enum journal_kind kind = (enum journal_kind)(data[at] % (JOURNAL_KIND_END - 1) + 1);
        size_t n = data[at + 1] | (size_t)data[at + 2] << 8, room = size - at - 3;
        n = n < room ? n : room;
        CHECK(journal_append(j, kind, data + at + 3, n, &e) == 0);
        at += 3 + n;
    }
    journal_close(j);
}

static struct store *create(const char *path)
{
    struct err e;
    struct store *s;
    json_t *empty = json_object();
    struct store_run run = {
        .config = empty, .provenance = empty, .dataset = empty, .target = empty};
    CHECK(store_create(&s, path, true, &run, &e) == 0);
    json_decref(empty);
    return s;
}

static void read_back(struct store *s)
{
    struct err e;
    struct step_data d;
    uint64_t *offsets;
    uint32_t *dt_us;
    CHECK(store_read_step(s, 0, &d, &e) == 0);
    CHECK(store_read_tokens(s, 0, 0, d.n, &offsets, &dt_us, &e) == 0);
    for (size_t i = 0; i < d.n; i++) {
        CHECK(offsets[i + 1] - offsets[i] == d.records[i].n_out);
    }
    free(offsets);
    free(dt_us);
    step_data_free(&d);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct err e;
    struct step_info info = {.index = 0};
    struct store_scheduled expected[2] = {{.id = 0}, {.id = 7}};
    log_set_level(LOG_ERROR);
    char *path = xasprintf("fuzz_fold_%d.h5", (int)getpid());
    char *dir = store_journal_dir(path);
    char *file = journal_path(dir, 0);
    struct store *s = create(path);
    write_journal(dir, data, size);
    CHECK(store_fold_step(s, file, &info, 12345, expected, 2, &e) == 0);
    read_back(s);
    store_close(s);
    journal_remove(dir, 0);
    unlink(path);
    free(file);
    free(dir);
    free(path);
    return 0;
}
