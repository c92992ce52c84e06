#include "ipc.h"

#include <atomic>
#include <map>

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

namespace {

constexpr size_t MOST_OPENERS = 64;

/* Behind the memory, in a page of its own: who has it open. */
struct openers {
    std::atomic<int> pids[MOST_OPENERS]; // 0: nobody
};
static_assert(sizeof(openers) <= IPC_PAGE, "one page");

/* What a handle says; the file's number tells it from a later one with the same descriptor. */
struct ticket {
    int pid, fd;
    uint64_t file, n;
    int device;
};
static_assert(sizeof(ticket) <= sizeof(cudaIpcMemHandle_t), "a handle holds it");

struct opened {
    ticket of;
    openers *who;
};
std::map<void *, opened> open_here;

uint64_t file_number(int fd)
{
    struct stat s;
    return fstat(fd, &s) == 0 ? static_cast<uint64_t>(s.st_ino) : 0;
}

openers *map_openers(int fd, size_t n)
{
    void *p = mmap(nullptr, IPC_PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, static_cast<off_t>(n));
    return p == MAP_FAILED ? nullptr : static_cast<openers *>(p);
}

/* One that has ended, but is not waited for yet, does not live. */
bool lives(int pid)
{
    char path[64], state = 'Z';
    snprintf(path, sizeof path, "/proc/%d/stat", pid);
    FILE *f = fopen(path, "r");
    if (f == nullptr) {
        return false;
    }
    const bool told = fscanf(f, "%*d (%*[^)]) %c", &state) == 1;
    fclose(f);
    return told && state != 'Z' && state != 'X';
}

bool write_all(int fd, const void *p, size_t n)
{
    for (size_t at = 0; at < n;) {
        const ssize_t done = pwrite(fd, static_cast<const char *>(p) + at, n - at, static_cast<off_t>(at));
        if (done <= 0 && errno != EINTR) {
            return false;
        }
        at += done > 0 ? static_cast<size_t>(done) : 0;
    }
    return true;
}

} // namespace

int ipc_share(void *p, size_t n)
{
    const int fd = memfd_create("gpu_on_cpu", MFD_CLOEXEC);
    if (fd < 0) {
        return -1;
    }
    if (ftruncate(fd, static_cast<off_t>(n + IPC_PAGE)) != 0 || !write_all(fd, p, n) ||
        mmap(p, n, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, 0) == MAP_FAILED) {
        close(fd);
        return -1;
    }
    return fd;
}

int ipc_unshare(void *p, size_t n, int fd)
{
    int still = 0;
    if (openers *who = map_openers(fd, n)) {
        for (auto &pid : who->pids) {
            still += pid.load() != 0 && lives(pid.load());
        }
        munmap(who, IPC_PAGE);
    }
    mmap(p, n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    close(fd);
    return still;
}

cudaIpcMemHandle_t ipc_handle(int fd, size_t n, int device)
{
    cudaIpcMemHandle_t h = {};
    const ticket t = {getpid(), fd, file_number(fd), n, device};
    memcpy(&h, &t, sizeof t);
    return h;
}

int ipc_device(const cudaIpcMemHandle_t &handle)
{
    ticket t;
    memcpy(&t, &handle, sizeof t);
    return t.device;
}

cudaError_t ipc_open(const cudaIpcMemHandle_t &handle, void **p)
{
    ticket t;
    char path[64];
    memcpy(&t, &handle, sizeof t);
    if (t.pid == getpid()) {
        return cudaErrorInvalidContext;
    }
    for (const auto &o : open_here) {
        if (o.second.of.pid == t.pid && o.second.of.file == t.file) {
            return cudaErrorAlreadyMapped;
        }
    }
    snprintf(path, sizeof path, "/proc/%d/fd/%d", t.pid, t.fd);
    const int fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0 || file_number(fd) != t.file) {
        close(fd);
        return cudaErrorInvalidResourceHandle; // it was freed, or its process has ended
    }
    openers *who = map_openers(fd, t.n);
    void *at = mmap(nullptr, t.n, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (who == nullptr || at == MAP_FAILED) {
        return cudaErrorMemoryAllocation;
    }
    for (auto &pid : who->pids) {
        int nobody = 0;
        if (pid.compare_exchange_strong(nobody, getpid())) {
            open_here[at] = {t, who};
            *p = at;
            return cudaSuccess;
        }
    }
    return cudaErrorMemoryAllocation; // more have it open than any test needs
}

cudaError_t ipc_close(void *p)
{
    const auto it = open_here.find(p);
    if (it == open_here.end()) {
        return cudaErrorInvalidValue;
    }
    openers *who = it->second.who;
    for (auto &pid : who->pids) {
        int me = getpid();
        if (pid.compare_exchange_strong(me, 0)) {
            break;
        }
    }
    munmap(who, IPC_PAGE);
    munmap(p, it->second.of.n);
    open_here.erase(it);
    return cudaSuccess;
}

size_t ipc_opened()
{
    size_t n = 0;
    for (const auto &o : open_here) {
        n += o.second.of.n;
    }
    return n;
}
