#include "core/cores.h"

#include "core/mem.h"
#include "core/quota.h"

#include <hwloc.h>
#include <math.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_NODES     64
#define KEEPERS_SHARE 4 // ranks that keep time keep CPUs while they are at most one in so many

static int compare(const void *a, const void *b)
{
    const struct cores_cpu *x = a, *y = b;
    const int by[] = {x->thread - y->thread, x->node - y->node, x->core - y->core, x->os - y->os};
    for (int i = 0; i < 4; i++) {
        if (by[i]) {
            return by[i];
        }
    }
    return 0;
}

void cores_order(struct cores_cpu *cpus, int n)
{
    qsort(cpus, (size_t)n, sizeof *cpus, compare);
}

/* Which hardware thread of its core a CPU is, among those that we may use. */
static int thread_in_core(const struct cores_cpu *cpus, int n, int core)
{
    int before = 0;
    for (int i = 0; i < n; i++) {
        before += cpus[i].core == core;
    }
    return before;
}

static int node_of(hwloc_obj_t pu)
{
    return pu->nodeset ? hwloc_bitmap_first(pu->nodeset) : 0;
}

/* All CPUs that this process may use; returns how many. */
static int read_cpus(hwloc_topology_t t, struct cores_cpu *cpus)
{
    hwloc_bitmap_t mine = hwloc_bitmap_alloc();
    const bool known = mine && hwloc_get_cpubind(t, mine, HWLOC_CPUBIND_PROCESS) == 0;
    int n = 0;
    for (hwloc_obj_t pu = NULL; (pu = hwloc_get_next_obj_by_type(t, HWLOC_OBJ_PU, pu)) != NULL;) {
        if (known && !hwloc_bitmap_isset(mine, pu->os_index)) {
            continue;
        }
        hwloc_obj_t core = hwloc_get_ancestor_obj_by_type(t, HWLOC_OBJ_CORE, pu);
        const int index = (int)(core ? core : pu)->logical_index;
        cpus[n] = (struct cores_cpu){(int)pu->os_index, node_of(pu), index,
                                     thread_in_core(cpus, n, index)};
        n++;
    }
    hwloc_bitmap_free(mine);
    return n;
}

int cores_plan(int *cpus, int first, int n, int total, bool *pinned, struct err *e)
{
    CHECK(first >= 0 && n >= 0 && first + n <= total);
    hwloc_topology_t t;
    if (hwloc_topology_init(&t) || hwloc_topology_load(t)) {
        return err_set(e, ERR_ENV, "the topology of this host cannot be read (hwloc)");
    }
    const int most = hwloc_get_nbobjs_by_type(t, HWLOC_OBJ_PU);
    struct cores_cpu *all = xcalloc((size_t)(most > 0 ? most : 1), sizeof *all);
    const int n_cpus = read_cpus(t, all);
    hwloc_topology_destroy(t);
    cores_order(all, n_cpus);
    *pinned = n_cpus >= total;
    for (int i = 0; i < n; i++) {
        cpus[i] = *pinned ? all[first + i].os : -1;
    }
    free(all);
    return 0;
}

/* --- several ranks on one host ------------------------------------------------------------------ */

int cores_count(const struct cores_set *s)
{
    int n = 0;
    for (size_t i = 0; i < sizeof s->words / sizeof *s->words; i++) {
        n += __builtin_popcountll(s->words[i]);
    }
    return n;
}

static struct cores_set own_set(void)
{
    cpu_set_t mine;
    struct cores_set s = {0};
    if (sched_getaffinity(0, sizeof mine, &mine)) {
        s.words[0] = 1;
        return s;
    }
    for (int cpu = 0; cpu < CORES_MAX_CPUS && cpu < CPU_SETSIZE; cpu++) {
        s.words[cpu / 64] |= (uint64_t)(CPU_ISSET(cpu, &mine) != 0) << cpu % 64;
    }
    return s;
}

struct cores_rank cores_self(bool computes)
{
    struct cores_rank r = {.set = own_set(), .computes = computes};
    r.n_cpus = (int32_t)fmax(1, fmin(cores_count(&r.set), floor(quota_cpus())));
    return r;
}

const char *cores_placement_text(enum cores_placement p)
{
    static const char *const texts[] = {
        [CORES_PINNED] = "pinned",
        [CORES_OFF] = "not asked for",
        [CORES_CROWDED] = "threads share CPUs",
        [CORES_QUOTA] = "a quota, not CPUs of its own",
        [CORES_OVERLAP] = "ranks with partly the same CPUs",
    };
    return texts[p];
}

static bool is_same(const struct cores_set *a, const struct cores_set *b)
{
    return memcmp(a, b, sizeof *a) == 0;
}

static bool meets(const struct cores_set *a, const struct cores_set *b)
{
    uint64_t both = 0;
    for (size_t i = 0; i < sizeof a->words / sizeof *a->words; i++) {
        both |= a->words[i] & b->words[i];
    }
    return both != 0;
}

struct cores_part cores_divide(const struct cores_rank *ranks, int n, int mine, int n_threads)
{
    const struct cores_rank *own = &ranks[mine];
    int n_compute = 0, n_keep = 0, before = 0;
    bool overlaps = false;
    CHECK(mine >= 0 && mine < n && own->computes);
    for (int i = 0; i < n; i++) {
        const bool same = is_same(&ranks[i].set, &own->set);
        const bool meet = meets(&ranks[i].set, &own->set);
        before += same && ranks[i].computes && i < mine;
        n_compute += same && ranks[i].computes;
        n_keep += meet && !ranks[i].computes;
        overlaps |= meet && !same && ranks[i].computes;
    }
    const int n_cpus = own->n_cpus, all = cores_count(&own->set);
    const int kept = n_keep * KEEPERS_SHARE <= n_cpus ? n_keep : 0;
    const int share = (n_cpus - kept) / n_compute;
    struct cores_part part = {.n_threads = n_threads > 0 ? n_threads : share > 1 ? share : 1};
    part.first = before * part.n_threads;
    part.total = n_compute * part.n_threads;
    // A pinned thread cannot get out of the way of a rank that keeps time.
    const bool crowded = part.total + n_keep > all;
    part.placement = overlaps       ? CORES_OVERLAP
                     : n_cpus < all ? CORES_QUOTA
                     : crowded      ? CORES_CROWDED
                                    : CORES_PINNED;
    return part;
}

/* --- as text -------------------------------------------------------------------------------------- */

static int ascending(const void *a, const void *b)
{
    return *(const int *)a - *(const int *)b;
}

/* How many of v (n) from the first on are equally far apart; a pair counts only as neighbours. */
static int run_length(const int *v, int n)
{
    int len = n > 1 ? 2 : 1;
    while (len < n && v[len] - v[len - 1] == v[1] - v[0]) {
        len++;
    }
    return len == 2 && v[1] - v[0] != 1 ? 1 : len;
}

static int put_run(char *buf, size_t cap, const int *v, int len)
{
    const int step = len > 1 ? v[1] - v[0] : 0;
    if (step == 0) {
        return snprintf(buf, cap, "%d", v[0]);
    }
    if (step == 1) {
        return snprintf(buf, cap, "%d-%d", v[0], v[len - 1]);
    }
    return snprintf(buf, cap, "%d-%d:%d", v[0], v[len - 1], step);
}

const char *cores_text(const int *cpus, int n, char *buf, size_t cap)
{
    static const char rest[] = "...";
    int *v = xcalloc((size_t)n + 1, sizeof *v);
    size_t len = 0;
    CHECK(cap > sizeof rest);
    buf[0] = '\0';
    for (int i = 0; i < n; i++) {
        v[i] = cpus[i];
    }
    qsort(v, (size_t)n, sizeof *v, ascending);
    for (int i = 0, run; i < n; i += run) {
        char word[48];
        run = run_length(v + i, n - i);
        word[0] = ',';
        put_run(word + 1, sizeof word - 1, v + i, run);
        const char *text = len > 0 ? word : word + 1;
        if (len + strlen(text) + sizeof rest > cap) {
            strcpy(buf + len, rest);
            break;
        }
        len += (size_t)snprintf(buf + len, cap - len, "%s", text);
    }
    free(v);
    return buf;
}

const char *cores_text_self(char *buf, size_t cap)
{
    const struct cores_set s = own_set();
    int cpus[CORES_MAX_CPUS], n = 0;
    for (int cpu = 0; cpu < CORES_MAX_CPUS; cpu++) {
        if (s.words[cpu / 64] >> cpu % 64 & 1) {
            cpus[n++] = cpu;
        }
    }
    return cores_text(cpus, n, buf, cap);
}

bool cores_read(const char *text, struct cores_set *out)
{
    struct cores_set s = {0};
    while (*text != '\0' && *text != '\n') {
        int first, last, step = 1, n = 0;
        if (sscanf(text, "%d%n", &first, &n) != 1 || first < 0) {
            return false;
        }
        text += n;
        last = first;
        if (sscanf(text, "-%d%n", &last, &n) == 1) {
            text += n;
        }
        if (sscanf(text, ":%d%n", &step, &n) == 1) {
            text += n;
        }
        if (step < 1 || (*text != ',' && *text != '\0' && *text != '\n')) {
            return false;
        }
        for (int cpu = first; cpu <= last && cpu < CORES_MAX_CPUS; cpu += step) {
            s.words[cpu / 64] |= (uint64_t)1 << cpu % 64;
        }
        text += *text == ',';
    }
    *out = s;
    return true;
}

/* CPUs of a memory node; none when there is no such node. */
static struct cores_set node_cpus(int node)
{
    char path[64], text[4096] = "";
    struct cores_set s = {0};
    snprintf(path, sizeof path, "/sys/devices/system/node/node%d/cpulist", node);
    FILE *f = fopen(path, "re");
    if (f == NULL) {
        return s;
    }
    if (fgets(text, sizeof text, f) == NULL || !cores_read(text, &s)) {
        s = (struct cores_set){0};
    }
    fclose(f);
    return s;
}

int cores_node(const char *text)
{
    struct cores_set mine;
    if (!cores_read(text, &mine) || cores_count(&mine) == 0) {
        return -1;
    }
    for (int node = 0; node < MAX_NODES; node++) {
        struct cores_set theirs = node_cpus(node);
        int n_shared = 0;
        for (size_t i = 0; i < sizeof mine.words / sizeof *mine.words; i++) {
            n_shared += __builtin_popcountll(mine.words[i] & theirs.words[i]);
        }
        if (n_shared > 0) {
            return n_shared == cores_count(&mine) ? node : -1;
        }
    }
    return -1;
}
