/*
 * A main() for fuzz targets built without libFuzzer: runs the target over every file of the folders
 * (and every file) named as arguments, in the order of their names, and over nothing at all. So a
 * corpus is an ordinary test, and a crash file is reproduced with any compiler.
 */
#include "core/err.h"
#include "core/str.h"

#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define FILE_MAX_BYTES ((size_t)64 << 20)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* The bytes go in as a heap block of exactly their size, so that ASan sees any read beyond. */
static int replay_bytes(const void *bytes, size_t n)
{
    uint8_t *exact = calloc(n != 0 ? n : 1, 1);
    if (exact == NULL) {
        return -1;
    }
    if (n != 0) {
        memcpy(exact, bytes, n);
    }
    int rc = LLVMFuzzerTestOneInput(exact, n);
    free(exact);
    return rc;
}

static int replay_file(const char *path)
{
    struct err e = {0};
    struct str text = {0};
    if (str_read_file(&text, path, FILE_MAX_BYTES, &e) != 0) {
        fprintf(stderr, "%s\n", e.msg);
        return -1;
    }
    fprintf(stderr, "%s (%zu bytes)\n", path, text.len); // before the run, so that a crash is named
    int rc = replay_bytes(text.data, text.len);
    str_free(&text);
    return rc;
}

static int is_visible(const struct dirent *d)
{
    return d->d_name[0] != '.';
}

/* Number of files run, -1 on failure. */
static int replay_folder(const char *path)
{
    struct dirent **names;
    int n = scandir(path, &names, is_visible, alphasort);
    int n_run = 0;
    for (int i = 0; i < n; i++) {
        struct str file = {0};
        str_printf(&file, "%s/%s", path, names[i]->d_name);
        if (n_run >= 0) {
            n_run = replay_file(file.data) == 0 ? n_run + 1 : -1;
        }
        str_free(&file);
        free(names[i]);
    }
    if (n < 0) {
        perror(path);
        return -1;
    }
    free(names);
    return n_run;
}

int main(int argc, char **argv)
{
    int n_run = 0;
    if (replay_bytes("", 0) != 0) {
        return 1;
    }
    for (int i = 1; i < argc; i++) {
        struct stat st;
        int n = 1;
        if (stat(argv[i], &st) == 0 && S_ISDIR(st.st_mode)) {
            n = replay_folder(argv[i]);
        } else if (replay_file(argv[i]) != 0) {
            n = -1;
        }
        if (n < 0) {
            return 1;
        }
        n_run += n;
    }
    fprintf(stderr, "%d inputs replayed\n", n_run);
    return argc > 1 && n_run == 0; // a corpus that is gone is a failure
}
