/*
 * What the programs of a bundle are outside: a static executable beside a folder tree that holds everything
 * else. It starts the program of its own name in bin/ through the bundle's own dynamic loader, with the
 * bundle's libraries before the host's, so that neither the host's C library nor its packages matter.
 *
 *     BUNDLE/tidemark     this, also mpirun and orted in BUNDLE/start/
 *     BUNDLE/bin/          the programs as they were built
 *     BUNDLE/lib/          the loader and all libraries; lib/openmpi3: Open MPI's plugins
 *     BUNDLE/share/        Open MPI's texts
 *
 * The host's folders for CUDA and its driver come last: a GPU's driver is never bundled.
 */
#include <errno.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define HOST_LIBRARIES                                                                             \
    "/usr/local/cuda/lib64:/usr/local/nvidia/lib64:/usr/lib/x86_64-linux-gnu:/usr/lib64:/usr/lib"

static void fail(const char *what)
{
    fprintf(stderr, "tidemark: bundle: %s: %s\n", what, strerror(errno));
    exit(1);
}

static char *join(const char *folder, const char *name)
{
    char *out;
    if (asprintf(&out, "%s/%s", folder, name) < 0) {
        fail("no memory");
    }
    return out;
}

static void put(const char *name, const char *value)
{
    if (setenv(name, value, 1)) {
        fail(name);
    }
}

static void cut_last_name(char *path)
{
    *strrchr(path, '/') = '\0';
}

/* The bundle's folder: the one with a lib/ in it, this program's or the one above. */
static char *find_bundle(const char *self)
{
    char *folder = strdup(self);
    if (!folder) {
        fail("no memory");
    }
    cut_last_name(folder);
    char *lib = join(folder, "lib/ld-linux-x86-64.so.2");
    if (access(lib, R_OK)) {
        cut_last_name(folder);
    }
    free(lib);
    return folder;
}

/* Open MPI finds its parts by these (OPAL_PREFIX and its like, opal/mca/installdirs/env). */
static void point_open_mpi(const char *bundle)
{
    put("OPAL_PREFIX", bundle);
    put("OPAL_LIBDIR", join(bundle, "lib"));
    put("OPAL_PKGLIBDIR", join(bundle, "lib/openmpi3"));
    put("OPAL_PKGDATADIR", join(bundle, "share/openmpi"));
    put("OPAL_SYSCONFDIR", join(bundle, "share/openmpi"));
    put("OMPI_MCA_mca_base_component_path", join(bundle, "lib/openmpi3"));
    put("PMIX_INSTALL_PREFIX", bundle);
    put("PMIX_LIBDIR", join(bundle, "lib"));
    put("PMIX_PKGLIBDIR", join(bundle, "lib/pmix"));
    put("PMIX_PKGDATADIR", join(bundle, "share/pmix"));
}

static bool is_on_path(const char *program)
{
    char *path = strdup(getenv("PATH") ? getenv("PATH") : ""), *rest = path;
    bool found = false;
    for (char *folder; !found && (folder = strsep(&rest, ":")) != NULL;) {
        char *file = join(folder, program);
        found = access(file, X_OK) == 0;
        free(file);
    }
    free(path);
    return found;
}

/* Open MPI refuses to start at all where it looks for ssh and finds none, even on one host. */
static void do_without_ssh(void)
{
    if (!is_on_path("ssh") && !is_on_path("rsh")) {
        put("OMPI_MCA_plm", "^rsh");
    }
}

/* mpirun is found in the bundle first. */
static void extend_path(const char *bundle)
{
    char *start = join(bundle, "start"), *path;
    const char *before = getenv("PATH");
    if (before && strncmp(before, start, strlen(start)) == 0) {
        return;
    }
    if (asprintf(&path, "%s:%s", start, before ? before : "/usr/bin:/bin") < 0) {
        fail("no memory");
    }
    put("PATH", path);
}

int main(int argc, char **argv)
{
    char self[PATH_MAX];
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    if (n <= 0) {
        fail("/proc/self/exe");
    }
    self[n] = '\0';
    const char *bundle = find_bundle(self), *name = strrchr(self, '/') + 1;
    point_open_mpi(bundle);
    extend_path(bundle);
    do_without_ssh();
    put("TIDEMARK_PROGRAM", join(bundle, "tidemark"));
    char *libraries, **args = calloc((size_t)argc + 5, sizeof *args);
    if (!args || asprintf(&libraries, "%s/lib:%s", bundle, HOST_LIBRARIES) < 0) {
        fail("no memory");
    }
    int k = 0;
    args[k++] = join(bundle, "lib/ld-linux-x86-64.so.2");
    args[k++] = "--library-path";
    args[k++] = libraries;
    args[k++] = join(join(bundle, "bin"), name);
    for (int i = 1; i < argc; i++) {
        args[k++] = argv[i];
    }
    execv(args[0], args);
    fail(args[0]);
}
