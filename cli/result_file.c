#include "cli/result_file.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/import.h"
#include "core/mem.h"

static bool ends_with(const char *path, const char *ending)
{
    size_t n = strlen(path), k = strlen(ending);
    return n >= k && strcmp(path + n - k, ending) == 0;
}

/* Into a folder of its own, which is removed at once: an open file needs no name. */
static int open_imported(struct store **out, const char *path, struct err *e)
{
    const char *tmp = getenv("TMPDIR");
    char *folder = xasprintf("%s/tidemark-import-XXXXXX", tmp && tmp[0] ? tmp : "/tmp");
    if (!mkdtemp(folder)) {
        err_set(e, ERR_ENV, "%s: cannot make a folder: %s", folder, strerror(errno));
        free(folder);
        return -1;
    }
    char *file = xasprintf("%s/run.h5", folder);
    int rc = import_vllm(out, &path, 1, file, false, e);
    unlink(file);
    rmdir(folder);
    free(file);
    free(folder);
    return rc;
}

int result_file_open(struct store **out, const char *path, struct err *e)
{
    bool foreign = ends_with(path, ".json") || ends_with(path, ".jsonl");
    return foreign ? open_imported(out, path, e) : store_open(out, path, false, e);
}

int result_file_config(struct store *s, struct run_config *c, const char *const *assignments,
                       int n_assignments, struct err *e)
{
    struct store_meta meta;
    if (store_read_meta(s, &meta, e)) {
        return -1;
    }
    int rc = run_config_override(c, meta.config, assignments, n_assignments, e);
    store_meta_free(&meta);
    return rc;
}
