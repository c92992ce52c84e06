#include "cli/machine.h"

#include <sched.h>
#include <stdint.h>
#include <stdlib.h>
#include <unistd.h>

#include "core/clock.h"
#include "core/mem.h"
#include "core/pool.h"

#define READ_BYTES ((size_t)256 << 20) // of each thread, larger than any cache
#define ROUNDS     3

struct probe {
    uint64_t **buffers; // (n_threads)(READ_BYTES / 8)
    volatile uint64_t sink;
};

static void read_all(void *arg, int member, int n_members)
{
    (void)n_members;
    struct probe *p = arg;
    const uint64_t *v = p->buffers[member];
    uint64_t sum[8] = {0};
    for (size_t i = 0; i < READ_BYTES / sizeof *v; i += 8) {
        for (int k = 0; k < 8; k++) {
            sum[k] += v[i + (size_t)k];
        }
    }
    for (int k = 0; k < 8; k++) {
        p->sink += sum[k];
    }
}

/* Best of some rounds, ns for all threads' buffers. */
static int64_t read_ns(struct probe *p, int n_threads)
{
    struct pool *pool = pool_create(n_threads, NULL, false);
    int64_t best_ns = INT64_MAX;
    for (int i = 0; i < ROUNDS; i++) {
        int64_t begin_ns = clock_local_ns();
        pool_submit(pool, read_all, p);
        while (!pool_poll(pool)) {
            clock_sleep_until_ns(clock_local_ns() + 50 * NS_PER_US);
        }
        int64_t ns = clock_local_ns() - begin_ns;
        best_ns = ns < best_ns ? ns : best_ns;
    }
    pool_destroy(pool);
    return best_ns;
}

int machine_cores(void)
{
    cpu_set_t set;
    return sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
}

void machine_measure(struct hardware *out)
{
    int n = machine_cores();
    struct probe p = {.buffers = xcalloc((size_t)n, sizeof *p.buffers)};
    for (int i = 0; i < n; i++) {
        p.buffers[i] = xcalloc(READ_BYTES, 1);
        for (size_t k = 0; k < READ_BYTES / sizeof(uint64_t); k++) {
            p.buffers[i][k] = k;
        }
    }
    double read = (double)n * (double)READ_BYTES * 1e9 / (double)read_ns(&p, n);
    *out = (struct hardware){
        .name = "this machine",
        .memory_bytes = (double)sysconf(_SC_PHYS_PAGES) * (double)sysconf(_SC_PAGESIZE),
        .read_bytes_per_s = read,
        .bf16_flops = 1e12,
        .link_bytes_per_s = read,
    };
    for (int i = 0; i < n; i++) {
        free(p.buffers[i]);
    }
    free(p.buffers);
}
