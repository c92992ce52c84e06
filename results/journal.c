#include "results/journal.h"

#include "core/mem.h"

#include <xxhash.h>

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#define MAGIC       ((uint32_t)0x314c4a54) // "TJL1"
#define ALIGN_BYTES 8u
#define MAX_PAYLOAD ((size_t)1 << 30)

struct head {
    uint32_t magic;
    uint32_t kind;
    uint32_t n_bytes; // of the payload, without the padding after it
    uint32_t check;   // xxh32 of the payload, seeded with the kind
};

static size_t padding(size_t n_bytes)
{
    return (ALIGN_BYTES - n_bytes % ALIGN_BYTES) % ALIGN_BYTES;
}

/* --- writing -------------------------------------------------------------------------------------- */

struct journal {
    int fd;
    char *path;
    uint64_t end; // after the last whole entry
};

char *journal_path(const char *dir, uint32_t step)
{
    return xasprintf("%s/step_%04" PRIu32 ".journal", dir, step);
}

int journal_create(struct journal **out, const char *dir, uint32_t step, struct err *e)
{
    if (mkdir(dir, 0777) != 0 && errno != EEXIST) {
        return err_set(e, ERR_ENV, "%s: cannot make the journal folder: %s", dir, strerror(errno));
    }
    char *path = journal_path(dir, step);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (fd < 0) {
        err_set(e, ERR_ENV, "%s: cannot be written: %s", path, strerror(errno));
        free(path);
        return -1;
    }
    struct journal *j = xmalloc(sizeof *j);
    *j = (struct journal){.fd = fd, .path = path};
    *out = j;
    return 0;
}

/* Drop the first n bytes of the list; returns how many vectors are used up. */
static int advance(struct iovec *v, int n_vecs, size_t n)
{
    int i = 0;
    while (i < n_vecs && n >= v[i].iov_len) {
        n -= v[i].iov_len;
        i++;
    }
    if (i < n_vecs) {
        v[i].iov_base = (uint8_t *)v[i].iov_base + n;
        v[i].iov_len -= n;
    }
    return i;
}

static int write_all(int fd, struct iovec *v, int n_vecs)
{
    while (n_vecs > 0) {
        ssize_t n = writev(fd, v, n_vecs);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0) {
            return -1;
        }
        int used = advance(v, n_vecs, (size_t)n);
        v += used;
        n_vecs -= used;
    }
    return 0;
}

int journal_append(struct journal *j, enum journal_kind kind, const void *payload, size_t n_bytes,
                   struct err *e)
{
    CHECK(n_bytes <= MAX_PAYLOAD);
    static const uint8_t zeros[ALIGN_BYTES];
    struct head head = {
        .magic = MAGIC,
        .kind = kind,
        .n_bytes = (uint32_t)n_bytes,
        .check = XXH32(payload, n_bytes, kind),
    };
    union { // writev takes pointers to non-const
        const void *in;
        void *out;
    } bytes = {.in = payload}, pad = {.in = zeros};
    struct iovec v[3] = {
        {.iov_base = &head, .iov_len = sizeof head},
        {.iov_base = bytes.out, .iov_len = n_bytes},
        {.iov_base = pad.out, .iov_len = padding(n_bytes)},
    };
    if (write_all(j->fd, v, 3) != 0) {
        int why = errno;
        // Half an entry would hide whatever is appended later.
        if (ftruncate(j->fd, (off_t)j->end) == 0) {
            lseek(j->fd, (off_t)j->end, SEEK_SET);
        }
        return err_set(e, ERR_ENV, "%s: cannot be written: %s", j->path, strerror(why));
    }
    j->end += sizeof head + n_bytes + padding(n_bytes);
    return 0;
}

int journal_sync(struct journal *j, struct err *e)
{
    if (fsync(j->fd) != 0) {
        return err_set(e, ERR_ENV, "%s: cannot be written to disk: %s", j->path, strerror(errno));
    }
    return 0;
}

void journal_close(struct journal *j)
{
    if (j != NULL) {
        close(j->fd);
        free(j->path);
        free(j);
    }
}

void journal_remove(const char *dir, uint32_t step)
{
    char *path = journal_path(dir, step);
    unlink(path);
    free(path);
    rmdir(dir); // fails, as it should, while other steps are there
}

/* --- reading -------------------------------------------------------------------------------------- */

struct journal_reader {
    int fd;
    char *path;
    uint64_t size; // of the file when opened
    uint64_t at;
    bool torn;
    uint8_t *buf; // (cap)
    size_t cap;
};

int journal_open(struct journal_reader **out, const char *path, struct err *e)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); // a FIFO must not block us
    struct stat st;
    if (fd < 0 || fstat(fd, &st) != 0) {
        int why = errno;
        if (fd >= 0) {
            close(fd);
        }
        return err_set(e, ERR_ENV, "%s: cannot be read: %s", path, strerror(why));
    }
    if (!S_ISREG(st.st_mode)) {
        close(fd);
        return err_set(e, ERR_ENV, "%s: not a regular file", path);
    }
    struct journal_reader *r = xmalloc(sizeof *r);
    *r = (struct journal_reader){.fd = fd, .path = xstrdup(path), .size = (uint64_t)st.st_size};
    *out = r;
    return 0;
}

int journal_pread(struct journal_reader *r, uint64_t file_offset, void *buf, size_t n_bytes,
                  struct err *e)
{
    uint8_t *p = buf;
    if (file_offset > r->size || n_bytes > r->size - file_offset) {
        return err_set(e, ERR_ENV, "%s: no %zu bytes at %" PRIu64, r->path, n_bytes, file_offset);
    }
    while (n_bytes > 0) {
        ssize_t n = pread(r->fd, p, n_bytes, (off_t)file_offset);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            return err_set(e, ERR_ENV, "%s: cannot be read at %" PRIu64 ": %s", r->path,
                           file_offset, n == 0 ? "the file got shorter" : strerror(errno));
        }
        p += n;
        n_bytes -= (size_t)n;
        file_offset += (uint64_t)n;
    }
    return 0;
}

static int reserve(struct journal_reader *r, size_t n_bytes, struct err *e)
{
    if (n_bytes <= r->cap) {
        return 0;
    }
    uint8_t *buf = realloc(r->buf, n_bytes);
    if (buf == NULL) {
        return err_set(e, ERR_ENV, "%s: out of memory for %zu bytes", r->path, n_bytes);
    }
    r->buf = buf;
    r->cap = n_bytes;
    return 0;
}

static bool head_fits(const struct journal_reader *r, const struct head *h)
{
    uint64_t room = r->size - r->at - sizeof *h;
    return h->magic == MAGIC && h->kind >= JOURNAL_STEP && h->kind < JOURNAL_KIND_END &&
           h->n_bytes <= MAX_PAYLOAD && h->n_bytes + padding(h->n_bytes) <= room;
}

/* From the first byte that is no whole entry on, nothing can be trusted: it ends there. */
static int end_torn(struct journal_reader *r)
{
    r->torn = true;
    r->at = r->size;
    return 0;
}

int journal_next(struct journal_reader *r, struct journal_entry *entry, struct err *e)
{
    struct head h;
    if (r->at == r->size) {
        return 0;
    }
    if (r->size - r->at < sizeof h) {
        return end_torn(r);
    }
    if (journal_pread(r, r->at, &h, sizeof h, e) != 0) {
        return -1;
    }
    if (!head_fits(r, &h)) {
        return end_torn(r);
    }
    uint64_t offset = r->at + sizeof h;
    if (reserve(r, h.n_bytes, e) != 0 || journal_pread(r, offset, r->buf, h.n_bytes, e) != 0) {
        return -1;
    }
    if (XXH32(r->buf, h.n_bytes, h.kind) != h.check) {
        return end_torn(r);
    }
    *entry = (struct journal_entry){
        .kind = (enum journal_kind)h.kind,
        .payload = r->buf,
        .n_bytes = h.n_bytes,
        .file_offset = offset,
    };
    r->at = offset + h.n_bytes + padding(h.n_bytes);
    return 1;
}

bool journal_torn(const struct journal_reader *r)
{
    return r->torn;
}

void journal_reader_close(struct journal_reader *r)
{
    if (r != NULL) {
        close(r->fd);
        free(r->path);
        free(r->buf);
        free(r);
    }
}

static int compare_steps(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

/* "step_0003.journal", exactly as journal_path writes it. */
static bool parse_name(const char *name, uint32_t *step)
{
    char back[40];
    if (sscanf(name, "step_%" SCNu32 ".journal", step) != 1) {
        return false;
    }
    snprintf(back, sizeof back, "step_%04" PRIu32 ".journal", *step);
    return strcmp(back, name) == 0;
}

int journal_list(const char *dir, uint32_t **steps, size_t *n_steps, struct err *e)
{
    DIR *d = opendir(dir);
    if (d == NULL && errno != ENOENT) {
        return err_set(e, ERR_ENV, "%s: cannot be read: %s", dir, strerror(errno));
    }
    uint32_t *list = NULL;
    size_t n = 0;
    struct dirent *entry;
    while (d != NULL && (entry = readdir(d)) != NULL) {
        uint32_t step;
        if (parse_name(entry->d_name, &step)) {
            list = xrealloc(list, (n + 1) * sizeof *list);
            list[n++] = step;
        }
    }
    if (d != NULL) {
        closedir(d);
    }
    if (n > 0) {
        qsort(list, n, sizeof *list, compare_steps);
    }
    *steps = list;
    *n_steps = n;
    return 0;
}
