#include "results/store.h"

#include "core/mem.h"
#include "core/str.h"
#include "results/journal.h"
#include "results/provenance.h"
#include "results/store_columns.h"
#include "results/store_write.h"

#include "version.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define TIME_BASE "ns since t0_ns, rank 0's CLOCK_MONOTONIC"

/* --- paths ---------------------------------------------------------------------------------------- */

char *store_journal_dir(const char *path)
{
    return xasprintf("%s.journal", path);
}

static char *folder_of(const char *path)
{
    const char *slash = strrchr(path, '/');
    if (slash == NULL) {
        return xstrdup(".");
    }
    size_t n = slash == path ? 1 : (size_t)(slash - path);
    char *folder = xmalloc(n + 1);
    memcpy(folder, path, n);
    folder[n] = '\0';
    return folder;
}

static int check_folder(const char *path, struct err *e)
{
    char *folder = folder_of(path);
    struct stat st;
    int status = 0;
    if (stat(folder, &st) != 0 || !S_ISDIR(st.st_mode)) {
        status = err_set(e, ERR_INPUT, "%s: the folder %s does not exist", path, folder);
    } else if (access(folder, W_OK | X_OK) != 0) {
        status = err_set(e, ERR_INPUT, "%s: the folder %s cannot be written: %s", path, folder,
                         strerror(errno));
    }
    free(folder);
    return status;
}

static int check_file(const char *path, bool force, bool resume, struct err *e)
{
    struct stat st;
    if (stat(path, &st) != 0) {
        return errno == ENOENT
                   ? 0
                   : err_set(e, ERR_INPUT, "%s: cannot be used: %s", path, strerror(errno));
    }
    if (!S_ISREG(st.st_mode)) {
        return err_set(e, ERR_INPUT, "%s: is not a regular file", path);
    }
    if (!force && !resume) {
        return err_set(e, ERR_INPUT,
                       "%s: exists already; choose another path, --resume the run or --force to "
                       "overwrite it",
                       path);
    }
    if (access(path, W_OK) != 0) {
        return err_set(e, ERR_INPUT, "%s: cannot be written: %s", path, strerror(errno));
    }
    return 0;
}

/* Journals without their file: somebody's measurements still. */
static int check_journals(const char *path, bool force, bool resume, struct err *e)
{
    char *dir = store_journal_dir(path);
    uint32_t *steps = NULL;
    size_t n = 0;
    int status = 0;
    if (!force && !resume) {
        status = journal_list(dir, &steps, &n, e);
    }
    if (n > 0) {
        status =
            err_set(e, ERR_INPUT,
                    "%s: holds %zu steps of a run whose file is gone; move it away, or --force "
                    "to delete it",
                    dir, n);
    }
    free(steps);
    free(dir);
    return status;
}

int store_check_path(const char *path, bool force, bool resume, struct err *e)
{
    if (path[0] == '\0') {
        return err_set(e, ERR_INPUT, "results: the path of the result file is empty");
    }
    if (check_folder(path, e) != 0 || check_file(path, force, resume, e) != 0) {
        return -1;
    }
    return check_journals(path, force, resume, e);
}

static int remove_journals(const char *path, struct err *e)
{
    char *dir = store_journal_dir(path);
    uint32_t *steps = NULL;
    size_t n = 0;
    int status = journal_list(dir, &steps, &n, e);
    for (size_t i = 0; i < n; i++) {
        journal_remove(dir, steps[i]);
    }
    free(steps);
    free(dir);
    return status;
}

/* --- creating ------------------------------------------------------------------------------------- */

static struct store *new_store(const char *path, bool writable)
{
    struct store *s = xmalloc(sizeof *s);
    *s = (struct store){.file = -1, .path = xstrdup(path), .writable = writable, .pending = -1};
    return s;
}

static int write_root(const struct store_group *root, const struct store_run *run, struct err *e)
{
    struct store_root r = {
        .schema_name = STORE_SCHEMA_NAME,
        .schema_version = STORE_SCHEMA_VERSION,
        .created_unix_ns = run->created_unix_ns,
        .t0_ns = run->t0_ns,
        .time_base = TIME_BASE,
        .tool_version = TIDEMARK_VERSION,
        .tool_git_sha = TIDEMARK_GIT_SHA,
    };
    snprintf(r.uuid, sizeof r.uuid, "%s", run->uuid);
    snprintf(r.name, sizeof r.name, "%s", run->name != NULL ? run->name : "");
    provenance_utc(run->created_unix_ns, r.created_utc, sizeof r.created_utc);
    bool complete = false;
    if (store_hdf5_write_attributes(root, &store_schema_root, &r, e) != 0) {
        return -1;
    }
    return store_hdf5_write_attribute(root, &store_schema_complete, &complete, e);
}

static int write_meta(const struct store_group *root, const struct store_run *run, struct err *e)
{
    struct store_group meta;
    if (store_hdf5_group_create(root, "meta", &meta, e) != 0) {
        return -1;
    }
    int status = -1;
    if (store_write_json(&meta, "config", run->config, "resolved config, JSON", e) == 0 &&
        store_write_json(&meta, "provenance", run->provenance, "where the run came from, JSON",
                         e) == 0 &&
        store_write_json(&meta, "dataset", run->dataset, "what was replayed, JSON", e) == 0 &&
        store_write_json(&meta, "target", run->target, "what was loaded, JSON", e) == 0) {
        status = store_columns_write(root, &store_schema_ranks, run->ranks, run->n_ranks, e);
    }
    if (status == 0) {
        status = store_columns_write(root, &store_schema_engine, run->engines, run->n_engines, e);
    }
    if (status == 0) {
        status = store_columns_write(root, &store_schema_edges, run->edges, run->n_edges, e);
    }
    if (status == 0) {
        status = store_columns_write(root, &store_schema_gpus, run->gpus, run->n_gpus, e);
    }
    store_hdf5_group_close(&meta);
    return status;
}

static int write_start(struct store *s, const struct store_run *run, struct err *e)
{
    struct store_group root, steps;
    store_hdf5_root(s, &root);
    if (write_root(&root, run, e) != 0 || write_meta(&root, run, e) != 0 ||
        store_hdf5_group_create(&root, "steps", &steps, e) != 0) {
        return -1;
    }
    store_hdf5_group_close(&steps);
    return store_hdf5_flush(s, e);
}

/* A new name in a folder outlives a power cut only when the folder is on disk too. */
static void sync_folder(const char *path)
{
    char *folder = folder_of(path);
    int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd >= 0) {
        fsync(fd);
        close(fd);
    }
    free(folder);
}

int store_create(struct store **out, const char *path, bool force, const struct store_run *run,
                 struct err *e)
{
    if (store_check_path(path, force, false, e) != 0 || (force && remove_journals(path, e) != 0)) {
        return -1;
    }
    struct store *s = new_store(path, true);
    hid_t access = store_hdf5_access(), creation = store_hdf5_creation();
    s->file = H5Fcreate(path, force ? H5F_ACC_TRUNC : H5F_ACC_EXCL, creation, access);
    H5Pclose(creation);
    H5Pclose(access);
    if (s->file < 0) {
        struct store_group root;
        store_hdf5_root(s, &root);
        store_hdf5_fail(e, &root, NULL, "cannot be made");
        e->code = ERR_INPUT;
        store_close(s);
        return -1;
    }
    if (write_start(s, run, e) != 0) {
        store_close(s);
        return -1;
    }
    sync_folder(path);
    *out = s;
    return 0;
}

/* --- opening -------------------------------------------------------------------------------------- */

static int check_schema(const struct store *s, struct err *e)
{
    struct store_root r = {.schema_name = ""};
    struct store_group root;
    store_hdf5_root(s, &root);
    const struct store_table *t = &store_schema_root;
    if (store_hdf5_read_attribute(&root, store_schema_field(t, "schema_name"), &r, e) != 0 ||
        strcmp(r.schema_name, STORE_SCHEMA_NAME) != 0) {
        return err_set(e, ERR_INPUT,
                       "%s: an HDF5 file, but not one of tidemark's (no schema_name %s)", s->path,
                       STORE_SCHEMA_NAME);
    }
    if (store_hdf5_read_attribute(&root, store_schema_field(t, "schema_version"), &r, e) != 0) {
        return -1;
    }
    long theirs = strtol(r.schema_version, NULL, 10), ours = strtol(STORE_SCHEMA_VERSION, NULL, 10);
    if (theirs != ours) {
        return err_set(e, ERR_INPUT,
                       "%s: written with schema %s; this tidemark reads %ld.x: use %s tidemark",
                       s->path, r.schema_version, ours, theirs > ours ? "a newer" : "an older");
    }
    return 0;
}

static bool is_complete(const struct store_group *steps, const char *name)
{
    struct store_group g;
    struct err ignored = {0};
    bool complete = false;
    if (store_hdf5_group_open(steps, name, &g, &ignored) == 0) {
        if (store_hdf5_read_attribute(&g, &store_schema_complete, &complete, &ignored) != 0) {
            complete = false;
        }
        store_hdf5_group_close(&g);
    }
    return complete;
}

struct visit {
    struct store *store;
    const struct store_group *steps;
};

static herr_t visit_step(hid_t group, const char *name, const H5L_info_t *info, void *arg)
{
    const struct visit *v = arg;
    uint32_t number;
    char back[16];
    (void)group;
    if (info->type != H5L_TYPE_HARD || sscanf(name, "%" SCNu32, &number) != 1) {
        return 0;
    }
    snprintf(back, sizeof back, "%04" PRIu32, number);
    if (strcmp(back, name) == 0 && is_complete(v->steps, name)) {
        store_hdf5_add_step(v->store, number);
    }
    return 0;
}

static int find_steps(struct store *s, struct err *e)
{
    struct store_group root, steps;
    store_hdf5_root(s, &root);
    if (store_hdf5_group_open(&root, "steps", &steps, e) != 0) {
        return -1;
    }
    struct visit v = {.store = s, .steps = &steps};
    herr_t status = H5Literate(steps.id, H5_INDEX_NAME, H5_ITER_NATIVE, NULL, visit_step, &v);
    store_hdf5_group_close(&steps);
    return status < 0 ? store_hdf5_fail(e, &root, "steps", "cannot be listed") : 0;
}

static int open_file(struct store *s, struct err *e)
{
    struct stat st;
    hid_t access_list = store_hdf5_access();
    int status = 0;
    if (stat(s->path, &st) != 0) {
        status = err_set(e, ERR_INPUT, "%s: %s", s->path,
                         errno == ENOENT ? "no such file" : strerror(errno));
    } else if (!S_ISREG(st.st_mode)) {
        status = err_set(e, ERR_INPUT, "%s: is not a regular file", s->path);
    } else if (access(s->path, s->writable ? R_OK | W_OK : R_OK) != 0) {
        status = err_set(e, ERR_INPUT, "%s: cannot be %s: %s", s->path,
                         s->writable ? "written" : "read", strerror(errno));
    } else if (H5Fis_hdf5(s->path) == 0) {
        status = err_set(e, ERR_INPUT, "%s: is not an HDF5 file", s->path);
    } else {
        s->file = H5Fopen(s->path, s->writable ? H5F_ACC_RDWR : H5F_ACC_RDONLY, access_list);
        if (s->file < 0) {
            struct store_group root;
            store_hdf5_root(s, &root);
            status = store_hdf5_fail(e, &root, NULL,
                                     "cannot be opened: damaged, or another process is writing it");
        }
    }
    H5Pclose(access_list);
    return status;
}

int store_open(struct store **out, const char *path, bool writable, struct err *e)
{
    struct store *s = new_store(path, writable);
    if (open_file(s, e) != 0 || check_schema(s, e) != 0 || find_steps(s, e) != 0) {
        e->code = ERR_INPUT; // the file is the user's, damaged or not
        store_close(s);
        return -1;
    }
    *out = s;
    return 0;
}

void store_close(struct store *s)
{
    if (s == NULL) {
        return;
    }
    if (s->pending >= 0) {
        H5Gclose(s->pending);
    }
    if (s->file >= 0) {
        H5Fclose(s->file);
    }
    free(s->steps);
    free(s->path);
    free(s);
}

size_t store_n_steps(const struct store *s)
{
    return s->n_steps;
}

const char *store_library(void)
{
    static char text[32];
    unsigned major = 0, minor = 0, release = 0;
    H5get_libversion(&major, &minor, &release);
    snprintf(text, sizeof text, "HDF5 %u.%u.%u", major, minor, release);
    return text;
}
