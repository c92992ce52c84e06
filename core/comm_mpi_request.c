#include "core/comm_mpi_request.h"

int comm_mpi_request_fail(int rc, const char *call, struct err *e)
{
    char text[MPI_MAX_ERROR_STRING] = "";
    int len = 0;
    MPI_Error_string(rc, text, &len);
    return err_set(e, ERR_ENV, "%s: %s", call, text);
}

int comm_mpi_request_fail_peer(const struct comm *c, int rc, const char *call, int peer,
                               struct err *e)
{
    char label[128];
    comm_mpi_request_fail(rc, call, e);
    return err_wrap(e, "%s", comm_label(c, peer, label, sizeof label));
}

void comm_mpi_request_drop(MPI_Request *r)
{
    if (*r == MPI_REQUEST_NULL) {
        return;
    }
    int done = 0;
    MPI_Cancel(r);
    MPI_Test(r, &done, MPI_STATUS_IGNORE);
    if (!done) {
        MPI_Request_free(r);
    }
}
