#include "model/layout.h"

#include <stdio.h>
#include <string.h>

int layout_size(const struct layout *l)
{
    return l->load_ranks + l->replicas * l->pipeline * l->tensor;
}

bool layout_is_load(const struct layout *l, int rank)
{
    return rank >= 0 && rank < l->load_ranks;
}

struct layout_worker layout_worker(const struct layout *l, int rank)
{
    CHECK(rank >= l->load_ranks && rank < layout_size(l));
    int i = rank - l->load_ranks;
    return (struct layout_worker){
        .replica = i / (l->pipeline * l->tensor),
        .stage = i / l->tensor % l->pipeline,
        .tensor = i % l->tensor,
    };
}

int layout_rank(const struct layout *l, int replica, int stage, int tensor)
{
    CHECK(replica >= 0 && replica < l->replicas && stage >= 0 && stage < l->pipeline &&
          tensor >= 0 && tensor < l->tensor);
    return l->load_ranks + (replica * l->pipeline + stage) * l->tensor + tensor;
}

int layout_leader(const struct layout *l, int replica)
{
    return layout_rank(l, replica, 0, 0);
}

const char *layout_label(const struct layout *l, int rank, char *buf, size_t cap)
{
    if (layout_is_load(l, rank)) {
        snprintf(buf, cap, "rank %d (load rank)", rank);
    } else {
        struct layout_worker p = layout_worker(l, rank);
        snprintf(buf, cap, "rank %d (replica %d, stage %d, tensor %d)", rank, p.replica, p.stage,
                 p.tensor);
    }
    return buf;
}

static const char *host_of(const struct layout *l, const char *const *hosts, int replica, int stage)
{
    return hosts[layout_rank(l, replica, stage, 0)];
}

int layout_check_hosts(const struct layout *l, const char *const *hosts, struct err *e)
{
    for (int rank = l->load_ranks; rank < layout_size(l); rank++) {
        const struct layout_worker p = layout_worker(l, rank);
        const int first = rank - p.tensor;
        if (strcmp(hosts[rank], hosts[first]) != 0) {
            return err_set(
                e, ERR_INPUT,
                "target.tensor %d: stage %d of replica %d is on two hosts, rank %d on %s and "
                "rank %d on %s; the tensor ranks of a stage must share one: give each host whole "
                "stages, in order (mpirun --map-by slot, with slots in the hostfile a multiple of "
                "%d, and those of %d load rank(s) more on the first host)",
                l->tensor, p.stage, p.replica, first, hosts[first], rank, hosts[rank], l->tensor,
                l->load_ranks);
        }
    }
    return 0;
}

int layout_crossings(const struct layout *l, const char *const *hosts, int replica)
{
    int n = 0;
    for (int s = 1; s < l->pipeline; s++) {
        n += strcmp(host_of(l, hosts, replica, s - 1), host_of(l, hosts, replica, s)) != 0;
    }
    return n;
}

int layout_least_crossings(const struct layout *l, const char *const *hosts, int replica)
{
    int n_hosts = 0;
    for (int s = 0; s < l->pipeline; s++) {
        bool is_new = true;
        for (int k = 0; k < s; k++) {
            is_new &= strcmp(host_of(l, hosts, replica, k), host_of(l, hosts, replica, s)) != 0;
        }
        n_hosts += is_new;
    }
    return n_hosts - 1;
}

int layout_check(const struct layout *l, int world, struct err *e)
{
    if (l->load_ranks < 1 || l->replicas < 0 || l->pipeline < 1 || l->tensor < 1) {
        return err_set(e, ERR_INPUT,
                       "layout of %d load ranks, %d replicas, pipeline %d, tensor %d: load ranks, "
                       "pipeline and tensor must be at least 1",
                       l->load_ranks, l->replicas, l->pipeline, l->tensor);
    }
    // In long long: the sum is shown even where it would not fit an int.
    long long need = l->load_ranks + (long long)l->replicas * l->pipeline * l->tensor;
    if (need != world) {
        return err_set(e, ERR_INPUT,
                       "this world has %d ranks, but the config needs %lld = %d load + %d replicas "
                       "x %d pipeline x %d tensor",
                       world, need, l->load_ranks, l->replicas, l->pipeline, l->tensor);
    }
    return 0;
}
