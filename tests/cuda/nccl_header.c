/* Types and numbers of workers/cuda/nccl_library.h against NCCL's own header, where that is: it compiles. */
#include "workers/cuda/nccl_library.h"

#include <nccl.h>

#include <stddef.h>

#define SAME(a, b) _Static_assert((int)(a) == (int)(b), #a " is " #b)

SAME(NCCL_LIBRARY_DONE, ncclSuccess);
SAME(NCCL_LIBRARY_SYSTEM_ERROR, ncclSystemError);
SAME(NCCL_LIBRARY_INVALID_ARGUMENT, ncclInvalidArgument);
SAME(NCCL_LIBRARY_INVALID_USAGE, ncclInvalidUsage);
SAME(NCCL_LIBRARY_REMOTE_ERROR, ncclRemoteError);
SAME(NCCL_LIBRARY_IN_PROGRESS, ncclInProgress);
SAME(NCCL_LIBRARY_BYTES, ncclUint8);
SAME(NCCL_LIBRARY_FLOAT32, ncclFloat32);
SAME(NCCL_LIBRARY_BFLOAT16, ncclBfloat16);
SAME(NCCL_LIBRARY_SUM, ncclSum);
SAME(NCCL_LIBRARY_SETTINGS, NCCL_VERSION(2, 14, 0));
SAME(sizeof(struct nccl_library_id), sizeof(ncclUniqueId));
SAME(sizeof(ncclResult_t), sizeof(int));
SAME(sizeof(ncclDataType_t), sizeof(int));
SAME(sizeof(ncclRedOp_t), sizeof(int));

/* The settings' beginning, as it was in 2.14; their size says where they end. */
SAME(offsetof(struct nccl_library_settings, n_bytes), offsetof(ncclConfig_t, size));
SAME(offsetof(struct nccl_library_settings, mark), offsetof(ncclConfig_t, magic));
SAME(offsetof(struct nccl_library_settings, version), offsetof(ncclConfig_t, version));
SAME(offsetof(struct nccl_library_settings, blocking), offsetof(ncclConfig_t, blocking));

/* Functions: as many arguments, and of the same kinds. */
ncclResult_t nccl_header_init(ncclComm_t *comm, ncclUniqueId id, ncclConfig_t *config);
ncclResult_t nccl_header_init(ncclComm_t *comm, ncclUniqueId id, ncclConfig_t *config)
{
    *config = (ncclConfig_t)NCCL_CONFIG_INITIALIZER;
    ncclResult_t (*init)(ncclComm_t *, int, ncclUniqueId, int, ncclConfig_t *) =
        ncclCommInitRankConfig;
    ncclResult_t (*send)(const void *, size_t, ncclDataType_t, int, ncclComm_t, cudaStream_t) =
        ncclSend;
    ncclResult_t (*recv)(void *, size_t, ncclDataType_t, int, ncclComm_t, cudaStream_t) = ncclRecv;
    ncclResult_t (*reduce)(const void *, void *, size_t, ncclDataType_t, ncclRedOp_t, ncclComm_t,
                           cudaStream_t) = ncclAllReduce;
    ncclResult_t (*gather)(const void *, void *, size_t, ncclDataType_t, ncclComm_t, cudaStream_t) =
        ncclAllGather;
    ncclResult_t (*calls[])(ncclComm_t) = {ncclCommFinalize, ncclCommDestroy, ncclCommAbort};
    (void)send, (void)recv, (void)reduce, (void)gather, (void)calls;
    return init(comm, 1, id, 0, config);
}
