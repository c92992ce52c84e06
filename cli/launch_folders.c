#include "cli/launch_folders.h"

#include <dirent.h>
#include <errno.h>
#include <ftw.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static int remove_entry(const char *path, const struct stat *st, int kind, struct FTW *where)
{
    (void)st;
    (void)kind;
    (void)where;
    remove(path);
    return 0;
}

static void remove_tree(const char *path)
{
    nftw(path, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
}

static const char *temp_root(void)
{
    const char *t = getenv("TMPDIR");
    return t && t[0] == '/' && strlen(t) < 128 ? t : "/tmp";
}

static const char *shm_root(void)
{
    return access("/dev/shm", W_OK) == 0 ? "/dev/shm" : temp_root();
}

/* Remove folders "tidemark-UID-PID" of launchers that no longer run. */
static void sweep(const char *root)
{
    DIR *d = opendir(root);
    if (!d) {
        return;
    }
    char prefix[64];
    snprintf(prefix, sizeof prefix, "tidemark-%u-", (unsigned)geteuid());
    for (struct dirent *entry; (entry = readdir(d));) {
        if (strncmp(entry->d_name, prefix, strlen(prefix)) != 0) {
            continue;
        }
        char *end;
        long pid = strtol(entry->d_name + strlen(prefix), &end, 10);
        if (*end == '\0' && pid > 0 && kill((pid_t)pid, 0) != 0 && errno == ESRCH) {
            char path[512];
            snprintf(path, sizeof path, "%s/%s", root, entry->d_name);
            remove_tree(path);
        }
    }
    closedir(d);
}

static int make_folder(char *path, size_t cap, const char *root, struct err *e)
{
    sweep(root);
    snprintf(path, cap, "%s/tidemark-%u-%d", root, (unsigned)geteuid(), (int)getpid());
    remove_tree(path); // of an earlier process with this pid
    if (mkdir(path, 0700)) {
        return err_set(e, ERR_ENV, "%s: cannot make the session folder: %s", path, strerror(errno));
    }
    return 0;
}

int launch_folders_create(struct launch_folders *f, struct err *e)
{
    if (make_folder(f->session, sizeof f->session, temp_root(), e)) {
        return -1;
    }
    if (strcmp(shm_root(), temp_root()) == 0) {
        memcpy(f->shm, f->session, sizeof f->shm);
        return 0;
    }
    if (make_folder(f->shm, sizeof f->shm, shm_root(), e)) {
        remove_tree(f->session);
        return -1;
    }
    return 0;
}

void launch_folders_remove(const struct launch_folders *f)
{
    remove_tree(f->session);
    remove_tree(f->shm);
}
