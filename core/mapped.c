#include "core/mapped.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static int map(struct mapped *m, int fd, const char *path, struct err *e)
{
    struct stat st;
    if (fstat(fd, &st)) {
        return err_set(e, ERR_ENV, "%s: %s", path, strerror(errno));
    }
    if (!S_ISREG(st.st_mode)) {
        return err_set(e, ERR_INPUT, "%s: not a regular file", path);
    }
    struct mapped whole = {0};
    if (st.st_size > 0) {
        void *at = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
        if (at == MAP_FAILED) {
            return err_set(e, ERR_ENV, "%s: cannot map: %s", path, strerror(errno));
        }
        whole = (struct mapped){.bytes = at, .n_bytes = (size_t)st.st_size};
    }
    *m = whole;
    return 0;
}

int mapped_open(struct mapped *m, const char *path, struct err *e)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); // a FIFO must not block us
    if (fd < 0) {
        return err_set(e, errno == ENOMEM || errno == EMFILE ? ERR_ENV : ERR_INPUT, "%s: %s", path,
                       strerror(errno));
    }
    int rc = map(m, fd, path, e);
    close(fd);
    return rc;
}

void mapped_close(struct mapped *m)
{
    if (m->bytes) {
        munmap((void *)(uintptr_t)m->bytes, m->n_bytes);
    }
    *m = (struct mapped){0};
}
