#include "core/cores.h"

#include "core/mem.h"

#include <hwloc.h>
#include <stdlib.h>

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
