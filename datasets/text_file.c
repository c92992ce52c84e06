#include "datasets/text_file.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

void text_file_release(const char *bytes, size_t len)
{
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    uintptr_t begin = ((uintptr_t)bytes + page - 1) / page * page;
    uintptr_t end = ((uintptr_t)bytes + len) / page * page;
    if (begin < end) {
        madvise((void *)begin, end - begin,
                MADV_DONTNEED); // read again from the file when asked for
    }
}

static int map(struct text_file *f, int fd, const char *path, struct err *e)
{
    struct stat st;
    if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode)) {
        return err_set(e, ERR_INPUT, "%s: not a regular file", path);
    }
    if (st.st_size == 0) {
        return err_set(e, ERR_INPUT, "%s: empty", path);
    }
    f->len = (size_t)st.st_size;
    void *data = mmap(NULL, f->len, PROT_READ, MAP_PRIVATE, fd, 0);
    if (data == MAP_FAILED) {
        return err_set(e, ERR_ENV, "%s: %s", path, strerror(errno));
    }
    f->data = f->map = data;
    f->hash = XXH64(f->data, f->len, 0);
    text_file_release(f->data, f->len);
    return 0;
}

int text_file_open(struct text_file *f, const char *path, struct err *e)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); // a FIFO must not block us
    if (fd < 0) {
        return err_set(e, ERR_INPUT, "%s: %s", path, strerror(errno));
    }
    *f = (struct text_file){0};
    int rc = map(f, fd, path, e);
    close(fd);
    return rc;
}

void text_file_close(struct text_file *f)
{
    if (f->map != NULL) {
        munmap(f->map, f->len);
    }
    *f = (struct text_file){0};
}
