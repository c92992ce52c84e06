#include "workers/cuda_plugin.h"

#include "core/mem.h"
#include "version.h"

#include <dlfcn.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define FILE_NAME "tidemark-cuda.so"

/* The program's folder, with its slash: where a bundle says it is (bundle/start.c), or the system. */
static void folder(char *out, size_t cap)
{
    const char *said = getenv("TIDEMARK_PROGRAM");
    if (said) {
        snprintf(out, cap, "%s", said);
    } else {
        const ssize_t n = readlink("/proc/self/exe", out, cap - 1);
        out[n > 0 ? n : 0] = '\0';
    }
    char *slash = strrchr(out, '/');
    if (slash) {
        slash[1] = '\0';
    }
}

static bool is_file(const char *path)
{
    return access(path, F_OK) == 0;
}

/* Where it lies; NULL: nowhere. Free it. */
static char *find(void)
{
    const char *said = getenv("TIDEMARK_CUDA_PLUGIN");
    if (said) {
        return xstrdup(said);
    }
    char here[PATH_MAX];
    folder(here, sizeof here);
    static const char *const places[] = {"", "../lib/tidemark/"};
    for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
        char *path = xasprintf("%s%s%s", here, places[i], FILE_NAME);
        if (is_file(path)) {
            return path;
        }
        free(path);
    }
    return NULL;
}

static int load(const char *path, const struct cuda_plugin **out, struct err *e)
{
    void *object = dlopen(path, RTLD_NOW | RTLD_LOCAL); // stays: threads may be in it
    const struct cuda_plugin *p = object ? dlsym(object, "tidemark_cuda_plugin") : NULL;
    if (!p) {
        return err_set(e, ERR_INPUT, "backend cuda: %s", dlerror());
    }
    if (strcmp(p->version, CUDA_PLUGIN_VERSION) != 0) {
        return err_set(e, ERR_INPUT, "backend cuda: %s is of build %s, this program of %s", path,
                       p->version, CUDA_PLUGIN_VERSION);
    }
    *out = p;
    return 0;
}

int cuda_plugin_open(const struct cuda_plugin **out, struct err *e)
{
    static const struct cuda_plugin *opened; // by the thread that loads, before others ask
    char *path = opened ? NULL : find();
    if (!opened && !path) {
        return err_set(e, ERR_INPUT,
                       "backend cuda: there is no %s beside the program: it was built "
                       "without CUDA",
                       FILE_NAME);
    }
    const int rc = opened ? 0 : load(path, &opened, e);
    free(path);
    *out = opened;
    return rc;
}
