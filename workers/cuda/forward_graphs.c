/* Batches of single tokens as CUDA graphs: sizes by steps, so that at most a quarter of the rows fill up. */
#include "workers/cuda/forward_impl.h"

static const uint32_t sizes[FORWARD_GRAPHS] = {1,  2,  4,   8,   16,  24,  32, 48,
                                               64, 96, 128, 160, 192, 224, 256};

/* Of the graph for n rows; -1: there is none. */
static int graph_of(const struct forward *f, uint32_t n)
{
    for (int i = 0; i < FORWARD_GRAPHS; i++) {
        if (sizes[i] >= n) {
            return sizes[i] <= f->single.max_tokens ? i : -1;
        }
    }
    return -1;
}

uint32_t forward_graphs_rows(const struct forward *f, uint32_t n)
{
    const int i = graph_of(f, n);
    return i < 0 || !f->graphs[i] ? 0 : sizes[i];
}

static int record_one(struct forward *f, int i, struct err *e)
{
    f->n = (int)sizes[i];
    f->slate = &f->single;
    forward_slate_pad(f);
    if (gpu_graph_record(f->gpu, e)) {
        return -1;
    }
    f->e = e;
    layers_forward(&forward_ops, f, f->arch, &f->cfg.part);
    if (f->failed) {
        gpu_graph_abandon(f->gpu);
        return -1;
    }
    return gpu_graph_recorded(f->gpu, "a graph of single tokens", &f->graphs[i], e);
}

int forward_graphs_record(struct forward *f, struct err *e)
{
    for (int i = 0; i < FORWARD_GRAPHS && sizes[i] <= f->single.max_tokens; i++) {
        if (record_one(f, i, e)) {
            return -1;
        }
    }
    return 0;
}

int forward_graphs_queue(struct forward *f, struct err *e)
{
    return gpu_graph_queue(f->gpu, f->graphs[graph_of(f, (uint32_t)f->n)], e);
}

void forward_graphs_free(struct forward *f)
{
    for (int i = 0; i < FORWARD_GRAPHS; i++) {
        gpu_graph_free(f->graphs[i]);
        f->graphs[i] = NULL;
    }
}
