#include "cli/wires.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/cores.h"
#include "core/mem.h"

/* Names by rank (layout_size); the names are the comm's. Caller frees. */
static const char **hosts_of(const struct layout *l, const struct comm *comm)
{
    const int n = layout_size(l);
    const char **hosts = xcalloc((size_t)n, sizeof *hosts);
    for (int r = 0; r < n; r++) {
        hosts[r] = comm_host(comm, r);
    }
    return hosts;
}

int wires_check(const struct layout *layout, const struct comm *comm, struct err *e)
{
    const char **hosts = hosts_of(layout, comm);
    int rc = layout_check_hosts(layout, hosts, e);
    free(hosts);
    return rc;
}

/* --- memory nodes -------------------------------------------------------------------------------- */

/* As the kernel knows the device at this bus address; -1: it does not say. */
static int node_of_device(const char *pci)
{
    char path[96], address[sizeof((struct engine *)0)->pci];
    int node = -1;
    size_t n = 0;
    for (; pci[n] != '\0' && n + 1 < sizeof address; n++) {
        address[n] = (char)tolower((unsigned char)pci[n]);
    }
    address[n] = '\0';
    snprintf(path, sizeof path, "/sys/bus/pci/devices/%s/numa_node", address);
    FILE *f = fopen(path, "re");
    if (f != NULL) {
        if (fscanf(f, "%d", &node) != 1) {
            node = -1;
        }
        fclose(f);
    }
    return node;
}

int wires_node(const struct engine *mine)
{
    char own[64];
    int node = mine->pci[0] != '\0' ? node_of_device(mine->pci) : -1;
    if (node >= 0) {
        return node;
    }
    return cores_node(mine->cores[0] != '\0' ? mine->cores : cores_text_self(own, sizeof own));
}

/* --- edges --------------------------------------------------------------------------------------- */

struct edges {
    struct edge *rows; // (n)
    size_t n;
    const struct comm *comm;
};

static void add(struct edges *to, enum edge_kind kind, int from_rank, int to_rank,
                const char *transport)
{
    struct edge *x = &to->rows[to->n++];
    *x = (struct edge){.from_rank = from_rank, .to_rank = to_rank, .kind = kind};
    x->same_host = strcmp(comm_host(to->comm, from_rank), comm_host(to->comm, to_rank)) == 0;
    snprintf(x->transport, sizeof x->transport, "%s", transport);
}

static void add_edges_of(struct edges *to, const struct layout *l, int rank,
                         const struct engine *mine)
{
    const struct layout_worker p = layout_worker(l, rank);
    if (p.stage + 1 < l->pipeline) {
        add(to, EDGE_HIDDEN, rank, layout_rank(l, p.replica, p.stage + 1, p.tensor), mine->to_next);
    }
    for (int t = p.tensor + 1; t < l->tensor; t++) {
        add(to, EDGE_SUMS, rank, layout_rank(l, p.replica, p.stage, t), mine->in_group);
    }
    if (p.stage > 0 && p.stage + 1 == l->pipeline && p.tensor == 0) {
        add(to, EDGE_IDS, rank, layout_leader(l, p.replica), "mpi");
    }
}

size_t wires_edges(const struct layout *layout, const struct comm *comm,
                   const struct engine *engines, struct edge **out)
{
    const size_t n_workers = (size_t)(layout_size(layout) - layout->load_ranks);
    struct edges edges = {.comm = comm};
    edges.rows = xcalloc(n_workers * ((size_t)layout->tensor + 2) + 1, sizeof *edges.rows);
    for (size_t i = 0; i < n_workers; i++) {
        add_edges_of(&edges, layout, layout->load_ranks + (int)i, &engines[i]);
    }
    *out = edges.rows;
    return edges.n;
}

/* --- as text -------------------------------------------------------------------------------------- */

/* "; hidden states to rank 2 by mpi (another host)", for what goes to another stage from here. */
static void put_edges(struct str *out, int rank, const struct edge *edges, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        const struct edge *x = &edges[i];
        if (x->from_rank == rank && x->kind != EDGE_SUMS) {
            str_printf(out, "; %s to rank %d by %s%s",
                       x->kind == EDGE_HIDDEN ? "hidden states" : "ids", x->to_rank, x->transport,
                       x->same_host ? "" : " (another host)");
        }
    }
}

static void put_rank(struct str *out, const struct layout *l, const struct store_rank *r,
                     const struct engine *mine)
{
    char label[96];
    const bool pinned = mine != NULL && mine->cores[0] != '\0';
    str_printf(out, "  %s on %s, CPUs %s%s", layout_label(l, r->rank, label, sizeof label), r->host,
               pinned ? mine->cores : r->cpuset, pinned ? " (pinned)" : "");
    if (mine != NULL && mine->numa >= 0) {
        str_printf(out, ", memory node %d", mine->numa);
    }
    if (mine != NULL && mine->pci[0] != '\0') {
        str_printf(out, ", %s at %s", mine->device, mine->pci);
    }
    if (mine != NULL && mine->in_group[0] != '\0') {
        str_printf(out, "; sums by %s", mine->in_group);
    }
}

/* Hops from stage to stage of all replicas, by their first tensor ranks. */
static int count_hops(const struct layout *l, const struct edge *edges, size_t n,
                      bool between_hosts)
{
    int found = 0;
    for (size_t i = 0; i < n; i++) {
        const struct edge *x = &edges[i];
        found += x->kind == EDGE_HIDDEN && layout_worker(l, x->from_rank).tensor == 0 &&
                 !(between_hosts && x->same_host);
    }
    return found;
}

void wires_text(const struct layout *layout, const struct store_rank *ranks,
                const struct engine *engines, const struct edge *edges, size_t n_edges,
                struct str *out)
{
    const int n = layout_size(layout);
    int n_hosts = 0;
    for (int r = 0; r < n; r++) {
        bool is_new = true;
        for (int k = 0; k < r; k++) {
            is_new &= strcmp(ranks[k].host, ranks[r].host) != 0;
        }
        n_hosts += is_new;
    }
    str_printf(out, "placement: %d rank(s) on %d host(s)", n, n_hosts);
    if (count_hops(layout, edges, n_edges, false) > 0) {
        str_printf(out, "; %d of %d hop(s) between hosts", count_hops(layout, edges, n_edges, true),
                   count_hops(layout, edges, n_edges, false));
    }
    str_puts(out, "\n");
    for (int r = 0; r < n; r++) {
        put_rank(out, layout, &ranks[r],
                 r < layout->load_ranks ? NULL : &engines[r - layout->load_ranks]);
        put_edges(out, r, edges, n_edges);
        str_puts(out, "\n");
    }
}

bool wires_detour(const struct layout *layout, const struct comm *comm, struct str *out)
{
    const char **hosts = hosts_of(layout, comm);
    bool found = false;
    for (int r = 0; r < layout->replicas && !found; r++) {
        int n = layout_crossings(layout, hosts, r),
            least = layout_least_crossings(layout, hosts, r);
        found = n > least;
        if (found) {
            str_printf(
                out,
                "replica %d goes between hosts %d times from stage to stage, where %d would do: "
                "ranks in the order of the hosts (mpirun --map-by slot)",
                r, n, least);
        }
    }
    free(hosts);
    return found;
}
