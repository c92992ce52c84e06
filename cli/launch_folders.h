/*
 * The two folders that Open MPI fills while a world runs: sessions (under TMPDIR) and shared-memory
 * backing files (under /dev/shm). Both are named after the launcher's pid, so that the next start can
 * sweep those of launchers that are gone.
 */
#pragma once

#include "core/err.h"

struct launch_folders {
    char session[256];
    char shm[256];
};

int launch_folders_create(struct launch_folders *f, struct err *e) ERR_CHECKED;
void launch_folders_remove(const struct launch_folders *f);
