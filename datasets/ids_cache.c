#include "datasets/ids_cache.h"

#include "core/clock.h"
#include "core/mem.h"
#include "core/str.h"
#include "datasets/prompt_text.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

/* "TIDIDS02": another number wherever texts are counted otherwise. */
#define MAGIC           0x3230534449444954ULL
#define MIN_FILE_BYTES  ((size_t)4 << 20) // of text: below, tokenising takes no time
#define MAX_TOTAL_BYTES ((uint64_t)8 << 30)
#define LOCK_WAIT_NS    (600 * NS_PER_S)
#define LOCK_POLL_US    20000
#define NAME_PREFIX     "ids-"

struct header {
    uint64_t magic, hash; // hash: of all bytes behind it
    struct ids_cache_key key;
    uint64_t n, n_messages, n_turns, n_ids; // then the arrays, in this order
    uint64_t n_source, n_turns_cut, filtered[ENTRIES_N_REASONS];
};

/* --- bytes ------------------------------------------------------------------------------------ */

static uint64_t hash_of(const void *bytes, size_t len)
{
    size_t from = offsetof(struct header, key);
    return XXH64((const char *)bytes + from, len - from, 0);
}

enum {
    N_PIECES = 5
};

struct piece {
    const void *bytes;
    size_t len;
};

/* What a file is made of; *h is filled and is the first piece. */
static void make_pieces(struct piece pieces[N_PIECES], struct header *h, const struct entries *s,
                        const struct ids_cache_key *key)
{
    *h = (struct header){
        .magic = MAGIC,
        .key = *key,
        .n = s->n,
        .n_messages = s->n_messages,
        .n_turns = s->n_turns,
        .n_ids = s->ids.n,
        .n_source = s->n_source,
        .n_turns_cut = s->n_turns_cut,
    };
    memcpy(h->filtered, s->filtered, sizeof h->filtered);
    pieces[0] = (struct piece){h, sizeof *h};
    pieces[1] = (struct piece){s->v, s->n * sizeof *s->v};
    pieces[2] = (struct piece){s->messages, s->n_messages * sizeof *s->messages};
    pieces[3] = (struct piece){s->turns, s->n_turns * sizeof *s->turns};
    pieces[4] = (struct piece){s->ids.v, s->ids.n * sizeof *s->ids.v};
    size_t from = offsetof(struct header, key);
    XXH64_state_t *state = XXH64_createState();
    CHECK(state != NULL && XXH64_reset(state, 0) == XXH_OK);
    XXH64_update(state, (const char *)h + from, sizeof *h - from);
    for (int i = 1; i < N_PIECES; i++) {
        XXH64_update(state, pieces[i].bytes, pieces[i].len);
    }
    h->hash = XXH64_digest(state);
    XXH64_freeState(state);
}

void ids_cache_write(const struct entries *s, const struct ids_cache_key *key, struct str *out)
{
    struct header h;
    struct piece pieces[N_PIECES];
    make_pieces(pieces, &h, s, key);
    for (int i = 0; i < N_PIECES; i++) {
        str_append(out, pieces[i].bytes, pieces[i].len);
    }
}

/* Take the next array, if the bytes are there. */
static bool take_array(const char **at, size_t *left, uint64_t n, size_t each, void *array)
{
    if (n > *left / each) {
        return false;
    }
    memcpy(array, at, sizeof *at);
    *at += n * each;
    *left -= n * each;
    return true;
}

static bool take_arrays(struct entries *s, const struct header *h, const char *at, size_t left)
{
    s->n = h->n;
    s->n_messages = h->n_messages;
    s->n_turns = h->n_turns;
    s->ids.n = h->n_ids;
    return take_array(&at, &left, h->n, sizeof *s->v, &s->v) &&
           take_array(&at, &left, h->n_messages, sizeof *s->messages, &s->messages) &&
           take_array(&at, &left, h->n_turns, sizeof *s->turns, &s->turns) &&
           take_array(&at, &left, h->n_ids, sizeof *s->ids.v, &s->ids.v) && left == 0;
}

static bool check_turns(const struct entries *s, const struct entry *x, uint32_t context)
{
    for (uint32_t k = 0; k < x->n_turns; k++) {
        const struct turn *t = &s->turns[x->turn_at + k];
        uint64_t sum = (uint64_t)t->n_in + t->n_out;
        if (t->n_in == 0 || t->n_in > x->n_data || (t->n_out > 0 && sum > context) ||
            t->n_messages == 0 || t->n_messages > s->n_messages - x->message_at) {
            return false;
        }
    }
    return true;
}

static bool check_entries(const struct entries *s, const struct ids_cache_key *key)
{
    for (size_t i = 0; i < s->n; i++) {
        const struct entry *x = &s->v[i];
        if (x->n_turns == 0 || x->turn_at > s->n_turns || x->n_turns > s->n_turns - x->turn_at ||
            x->message_at > s->n_messages || x->data_at > s->ids.n ||
            x->n_data > s->ids.n - x->data_at || !check_turns(s, x, key->context)) {
            return false;
        }
    }
    return s->n > 0;
}

static bool check_messages(const struct entries *s, const struct ids_cache_key *key)
{
    for (size_t i = 0; i < s->n_messages; i++) {
        const struct message *m = &s->messages[i];
        if (m->at > key->file_len || m->len > key->file_len - m->at || m->role > PROMPT_ASSISTANT) {
            return false;
        }
    }
    return true;
}

static bool check_ids(const struct entries *s, uint32_t vocab)
{
    uint32_t most = 0;
    for (size_t i = 0; i < s->ids.n; i++) {
        uint32_t id = (uint32_t)s->ids.v[i];
        most = id > most ? id : most;
    }
    return s->ids.n > 0 && most < vocab;
}

bool ids_cache_read(struct entries *out, const struct ids_cache_key *key, const void *bytes,
                    size_t len)
{
    struct header h;
    struct entries s = {0};
    if (len < sizeof h) {
        return false;
    }
    memcpy(&h, bytes, sizeof h);
    if (h.magic != MAGIC || memcmp(&h.key, key, sizeof *key) != 0 ||
        h.hash != hash_of(bytes, len) ||
        !take_arrays(&s, &h, (const char *)bytes + sizeof h, len - sizeof h) ||
        !check_entries(&s, key) || !check_messages(&s, key) || !check_ids(&s, key->vocab)) {
        return false;
    }
    s.n_source = h.n_source;
    s.n_turns_cut = h.n_turns_cut;
    memcpy(s.filtered, h.filtered, sizeof s.filtered);
    *out = s;
    return true;
}

/* --- files ------------------------------------------------------------------------------------ */

/* The folder, made where it is missing; NULL: there is none. Caller frees. */
static char *open_folder(void)
{
    const char *own = getenv("TIDEMARK_CACHE"), *xdg = getenv("XDG_CACHE_HOME");
    const char *home = getenv("HOME");
    char *path = NULL;
    if (own != NULL && own[0] != '\0') {
        path = xstrdup(own);
    } else if (xdg != NULL && xdg[0] == '/') {
        mkdir(xdg, 0700);
        path = xasprintf("%s/tidemark", xdg);
    } else if (home != NULL && home[0] == '/') {
        char *above = xasprintf("%s/.cache", home);
        mkdir(above, 0700);
        path = xasprintf("%s/tidemark", above);
        free(above);
    }
    if (path != NULL && mkdir(path, 0700) != 0 && errno != EEXIST) {
        free(path);
        return NULL;
    }
    return path;
}

static bool read_file(struct entries *out, const struct ids_cache_key *key, const char *path)
{
    struct stat st;
    bool is_read = false;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (fd < 0) {
        return false;
    }
    if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_size > 0) {
        size_t len = (size_t)st.st_size;
        void *bytes = mmap(NULL, len, PROT_READ, MAP_PRIVATE, fd, 0);
        is_read = bytes != MAP_FAILED && ids_cache_read(out, key, bytes, len);
        if (is_read) {
            out->mapped = bytes;
            out->n_mapped = len;
        } else if (bytes != MAP_FAILED) {
            munmap(bytes, len);
        }
    }
    close(fd);
    return is_read;
}

/* Whether all bytes went into the file. */
static bool write_all(int fd, const void *bytes, size_t len)
{
    for (const char *at = bytes; len > 0;) {
        ssize_t n = write(fd, at, len < (1U << 30) ? len : 1U << 30);
        if (n < 0 && errno != EINTR) {
            return false;
        }
        at += n > 0 ? n : 0;
        len -= n > 0 ? (size_t)n : 0;
    }
    return true;
}

struct oldest {
    char name[256];
    struct timespec time;
    uint64_t n_bytes_all; // of all of ours
};

static struct oldest find_oldest(const char *folder)
{
    struct oldest found = {0};
    DIR *dir = opendir(folder);
    for (struct dirent *entry; dir != NULL && (entry = readdir(dir)) != NULL;) {
        struct stat st;
        if (strncmp(entry->d_name, NAME_PREFIX, strlen(NAME_PREFIX)) != 0 ||
            fstatat(dirfd(dir), entry->d_name, &st, AT_SYMLINK_NOFOLLOW) != 0 ||
            !S_ISREG(st.st_mode)) {
            continue;
        }
        found.n_bytes_all += (uint64_t)st.st_size;
        bool older =
            st.st_mtim.tv_sec < found.time.tv_sec ||
            (st.st_mtim.tv_sec == found.time.tv_sec && st.st_mtim.tv_nsec < found.time.tv_nsec);
        if (found.name[0] == '\0' || older) {
            snprintf(found.name, sizeof found.name, "%s", entry->d_name);
            found.time = st.st_mtim;
        }
    }
    if (dir != NULL) {
        closedir(dir);
    }
    return found;
}

static void make_room(const char *folder, uint64_t n_bytes)
{
    struct oldest old = find_oldest(folder);
    while (old.name[0] != '\0' && old.n_bytes_all + n_bytes > MAX_TOTAL_BYTES) {
        char *path = xasprintf("%s/%s", folder, old.name);
        bool is_gone = unlink(path) == 0;
        free(path);
        if (!is_gone) {
            return;
        }
        old = find_oldest(folder);
    }
}

static bool write_pieces(const char *path, const struct piece pieces[N_PIECES])
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0) {
        return false;
    }
    bool is_written = true;
    for (int i = 0; i < N_PIECES && is_written; i++) {
        is_written = write_all(fd, pieces[i].bytes, pieces[i].len);
    }
    return close(fd) == 0 && is_written;
}

/* Under another name first, so that nobody sees half of it. Not having it is no error. */
static void write_file(const struct entries *s, const struct ids_cache_key *key, const char *folder,
                       const char *path)
{
    struct header h;
    struct piece pieces[N_PIECES];
    uint64_t n_bytes = 0;
    make_pieces(pieces, &h, s, key);
    for (int i = 0; i < N_PIECES; i++) {
        n_bytes += pieces[i].len;
    }
    if (n_bytes > MAX_TOTAL_BYTES) {
        return;
    }
    make_room(folder, n_bytes);
    char *unfinished = xasprintf("%s.%d", path, (int)getpid());
    if (!write_pieces(unfinished, pieces) || rename(unfinished, path) != 0) {
        unlink(unfinished);
    }
    free(unfinished);
}

/* The lock's file, or -1: another holds it for too long, or there can be none. */
static int lock_folder(const char *folder)
{
    char *path = xasprintf("%s/lock", folder);
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    free(path);
    int64_t give_up_ns = clock_local_ns() + LOCK_WAIT_NS;
    while (fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) != 0) {
        if ((errno != EWOULDBLOCK && errno != EINTR) || clock_local_ns() > give_up_ns) {
            close(fd);
            return -1;
        }
        usleep(LOCK_POLL_US);
    }
    return fd;
}

/* --- both ------------------------------------------------------------------------------------- */

static int get_locked(struct entries *out, const struct ids_cache_key *key, ids_cache_make make,
                      void *arg, const char *folder, const char *path, bool *was_cached,
                      struct err *e)
{
    int lock = lock_folder(folder);
    *was_cached = read_file(out, key, path); // made by the one who held the lock
    int rc = *was_cached ? 0 : make(arg, out, e);
    if (lock >= 0) {
        if (rc == 0 && !*was_cached) {
            write_file(out, key, folder, path);
        }
        close(lock);
    }
    return rc;
}

int ids_cache_get(struct entries *out, const struct ids_cache_key *key, ids_cache_make make,
                  void *arg, bool *was_cached, struct err *e)
{
    *was_cached = false;
    char *folder = key->file_len >= MIN_FILE_BYTES ? open_folder() : NULL;
    if (folder == NULL) {
        return make(arg, out, e);
    }
    unsigned long long name = XXH64(key, sizeof *key, 0);
    char *path = xasprintf("%s/" NAME_PREFIX "%016llx", folder, name);
    int rc = 0;
    *was_cached = read_file(out, key, path);
    if (!*was_cached) {
        rc = get_locked(out, key, make, arg, folder, path, was_cached, e);
    }
    free(path);
    free(folder);
    return rc;
}
