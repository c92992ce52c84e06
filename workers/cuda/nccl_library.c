#include "workers/cuda/nccl_library.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FILE_NAME "libnccl.so.2"

/* A function's address: C has no cast for it. */
static void find(void *object, void *call, const char *name, const char **missing)
{
    void *address = dlsym(object, name);
    memcpy(call, &address, sizeof address);
    if (!address && !*missing) {
        *missing = name;
    }
}

/* The first call that it does not have, or NULL. */
static const char *find_all(struct nccl_library *n, void *object)
{
    const char *missing = NULL, *may_be_missing = "";
    find(object, &n->get_version, "ncclGetVersion", &missing);
    find(object, &n->error_string, "ncclGetErrorString", &missing);
    find(object, &n->last_error, "ncclGetLastError", &may_be_missing);
    find(object, &n->make_id, "ncclGetUniqueId", &missing);
    find(object, &n->init, "ncclCommInitRankConfig", &missing);
    find(object, &n->async_error, "ncclCommGetAsyncError", &missing);
    find(object, &n->finalize, "ncclCommFinalize", &missing);
    find(object, &n->destroy, "ncclCommDestroy", &missing);
    find(object, &n->abort, "ncclCommAbort", &missing);
    find(object, &n->group_start, "ncclGroupStart", &missing);
    find(object, &n->group_end, "ncclGroupEnd", &missing);
    find(object, &n->send, "ncclSend", &missing);
    find(object, &n->recv, "ncclRecv", &missing);
    find(object, &n->all_reduce, "ncclAllReduce", &missing);
    find(object, &n->all_gather, "ncclAllGather", &missing);
    return missing;
}

static int ask_version(struct nccl_library *n, struct err *e)
{
    int v = 0;
    const int rc = n->get_version(&v);
    if (rc != NCCL_LIBRARY_DONE || v < 10000) { // before 2.9 they were numbered otherwise
        return err_set(e, ERR_INPUT, "NCCL: %s does not say a version that is known here (%d)",
                       n->path, v);
    }
    n->version = v;
    snprintf(n->numbers, sizeof n->numbers, "%d.%d.%d", v / 10000 % 1000, v / 100 % 100, v % 100);
    return 0;
}

int nccl_library_open(struct nccl_library *out, struct err *e)
{
    struct nccl_library n = {.version = 0};
    const char *told = getenv("TIDEMARK_NCCL");
    snprintf(n.path, sizeof n.path, "%s", told && told[0] ? told : FILE_NAME);
    void *object = dlopen(n.path, RTLD_NOW | RTLD_LOCAL);
    if (!object) {
        const char *text = dlerror();
        return err_set(e, ERR_INPUT, "NCCL: %s", text ? text : n.path);
    }
    const char *missing = find_all(&n, object);
    if (missing) {
        return err_set(e, ERR_INPUT, "NCCL: %s has no %s, as NCCL has from 2.14 on", n.path,
                       missing);
    }
    if (ask_version(&n, e)) {
        return -1;
    }
    *out = n;
    return 0;
}
