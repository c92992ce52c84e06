/*
 * A stage's weights on the device, read back and compared value by value with the tensors of workers/weights:
 * every family, as stored and in 16, 8 and 4 bits, whole and in the parts of stages and tensor-parallel ranks.
 */
extern "C" {
#include "model/arch.h"
}

#include "tests/cuda/device_rows.h"

extern "C" {
#include "core/mem.h"
#include "tests/support/gguf_writer.h"
#include "workers/cpu/packed.h"
#include "workers/cuda/device_weights.h"
#include "workers/weights/bf16.h"
#include "workers/weights/formats.h"
#include "workers/weights/maker.h"
}

#include <fcntl.h>
#include <unistd.h>

typedef std::vector<float> values;

static char *golden(const char *name)
{
    const char *source = getenv("TIDEMARK_SOURCE");
    return xasprintf("%s/tests/golden/%s", source ? source : ".", name);
}

/* --- what there should be ------------------------------------------------------------------------- */

/* A model, and which part of it in which form is loaded. */
struct wanted {
    struct arch a = {};
    struct weights *from = nullptr;
    struct layers_part part = {};
    struct shard shard = {};
    int bits = 0;
    int64_t n_weights = 0;
    struct tally kept = {}, stored = {};
    int64_t vector_bytes = 0;

    explicit wanted(const char *model)
    {
        struct err e = {};
        if (arch_open(model, &a, &e) || weights_open(&from, model, &a, &e)) {
            fail_msg("%s", e.msg);
        }
        whole();
    }
    wanted(const wanted &) = delete;
    ~wanted()
    {
        weights_close(from);
    }

    void whole()
    {
        part.first_layer = 0, part.n_layers = a.n_layers, part.has_embed = part.has_head = true;
        split(0, 1);
        bits = 0;
    }

    bool split(int rank, int size)
    {
        struct err e = {};
        return shard_init(&shard, &a, rank, size, &e) == 0;
    }
};

/* A tensor's rows as float32, in the order in which its file has them. */
struct tensor {
    struct weights_tensor t;
    values all;

    tensor(struct wanted *w, enum weights_id id, int layer, int expert = -1)
    {
        struct err e = {};
        if (weights_find(w->from, id, layer, expert, &t, &e)) {
            fail_msg("%s", e.msg);
        }
        all.resize((size_t)(t.n_rows * t.n_cols));
        tally_add(&w->stored, t.stored, weights_stored_bytes(&t));
        t.dtype = ARCH_F32;
        const void *rows = weights_rows(&t, 0, t.n_rows, all.data());
        memmove(all.data(), rows, all.size() * sizeof(float));
    }

    values row(int i, int first_col = 0, int n_cols = 0) const
    {
        const auto at = all.begin() + (long)i * t.n_cols + first_col;
        return values(at, at + (n_cols ? n_cols : t.n_cols - first_col));
    }
};

/* The row of a head that belongs at place i, where pairs (2j, 2j + 1) of its last rope_dim become (j, j + half). */
static int rotated(const struct arch *a, int i, int head)
{
    const int plain = head - a->rope_dim, j = i % head - plain;
    if (!a->rope_interleaved || j < 0) {
        return i;
    }
    return i - i % head + plain + (j < a->rope_dim / 2 ? 2 * j : 2 * j - a->rope_dim + 1);
}

/* Rows that are stacked, in float32. */
struct rows {
    std::vector<values> all;

    void add(const tensor &t, int first, int n, int first_col = 0, int n_cols = 0)
    {
        for (int i = 0; i < n; i++) {
            all.push_back(t.row(first + i, first_col, n_cols));
        }
    }
    void add_heads(const struct arch *a, const tensor &t, struct shard_span heads, int dim)
    {
        for (int i = 0; i < heads.n * dim; i++) {
            all.push_back(t.row(heads.first * dim + rotated(a, i, dim)));
        }
    }
};

static enum arch_dtype in_layer(const struct wanted *w, enum arch_dtype stored)
{
    return w->bits == 16  ? ARCH_BF16
           : w->bits == 8 ? ARCH_INT8
           : w->bits == 4 ? ARCH_INT4
           : stored == ARCH_F16 ? ARCH_F32
                                : stored;
}

/* Likewise with columns of which a rank has some, from `first` on. */
static enum arch_dtype in_columns(const struct wanted *w, enum arch_dtype stored, int first, int n, int all)
{
    const enum arch_dtype d = in_layer(w, stored);
    const int unit = d == ARCH_FP8 ? 128 : d == ARCH_MXFP4 ? 32 : 1;
    return first % unit || (n % unit && first + n != all) ? ARCH_BF16 : d;
}

/* --- comparing ------------------------------------------------------------------------------------ */

/* Weights that were loaded, and all of their memory read back. */
struct loaded {
    struct gpu *g = nullptr;
    struct device_weights w = {};
    std::vector<uint8_t> bytes;
    const uint8_t *base = nullptr; // on the device

    loaded(const char *model, const struct wanted *want, struct pool *pool)
    {
        struct err e = {};
        if (gpu_open(&g, 0, 0, &e) || load(model, want, pool, &e)) {
            fail_msg("%s", e.msg);
        }
        read_back(&e);
    }
    loaded(const loaded &) = delete;
    ~loaded()
    {
        device_weights_free(&w);
        gpu_close(g);
    }

    int load(const char *model, const struct wanted *want, struct pool *pool, struct err *e)
    {
        struct device_weights_config cfg = {};
        cfg.model = model, cfg.arch = &want->a, cfg.part = want->part, cfg.shard = want->shard;
        cfg.weight_bits = want->bits, cfg.pool = pool;
        return device_weights_load(&w, g, &cfg, e);
    }

    void read_back(struct err *e)
    {
        const struct device_layer *first = &w.layers[0];
        base = (const uint8_t *)(first->qkv.data ? first->qkv.data : first->latent.down.data);
        assert_int_equal(gpu_taken_bytes(g), w.n_bytes); // one piece, which begins with the first matrix
        bytes.resize((size_t)w.n_bytes);
        void *host;
        if (gpu_take_host(g, bytes.size(), "a test", &host, e) ||
            gpu_copy_out(g, host, base, bytes.size(), e) || gpu_wait(g, INT64_MAX, e)) {
            fail_msg("%s", e->msg);
        }
        memcpy(bytes.data(), host, bytes.size());
    }

    const uint8_t *at(const void *device, size_t n) const
    {
        const size_t i = (size_t)((const uint8_t *)device - base);
        assert_true(i + n <= bytes.size());
        return &bytes[i];
    }
};

/* What becomes of numbers in a form: nothing, but in BF16 and in integers that were something else before. */
static values kept_as(enum arch_dtype dtype, enum arch_dtype stored, const values &v)
{
    values out(v);
    for (size_t first = 0; first < v.size() && dtype != stored; first += 32) {
        float group[32] = {0};
        uint8_t block[FORMATS_Q8_0_BYTES];
        const size_t n = v.size() - first < 32 ? v.size() - first : 32;
        memcpy(group, &v[first], n * sizeof *group);
        if (dtype == ARCH_INT8) {
            formats_to_q8_0(group, block);
            formats_q8_0(block, 32, group);
        } else if (dtype == ARCH_INT4) {
            formats_to_q4_0(group, block);
            formats_q4_0(block, 32, group);
        }
        for (size_t i = 0; i < n; i++) {
            out[first + i] = dtype == ARCH_BF16 ? bf16_to_f32(bf16_from_f32(group[i])) : group[i];
        }
    }
    return out;
}

static void check_row(const device_row &got, const values &want, const char *what, size_t row)
{
    for (size_t i = 0; i < want.size(); i++) {
        if ((float)got.value((int)i) != want[i]) {
            fail_msg("%s: (%zu, %zu) is %.9g, not %.9g", what, row, i, got.value((int)i), (double)want[i]);
        }
    }
    got.check_padding();
}

/* n matrices under each other. */
static void check_matrix(struct wanted *w, const loaded &l, const struct device_matrix &m, int n,
                         enum arch_dtype dtype, enum arch_dtype stored, const rows &want, const char *what)
{
    const size_t row_bytes = device_matrix_row_bytes(dtype, m.n_cols);
    const size_t factor_bytes = device_matrix_factor_bytes(dtype, m.n_cols);
    const size_t each = dtype == ARCH_FP8 ? (size_t)m.factor_rows : 1, all = want.all.size();
    if (m.dtype != dtype) {
        fail_msg("%s is in %s, not %s", what, arch_dtype_name(m.dtype), arch_dtype_name(dtype));
    }
    assert_int_equal((size_t)m.n_rows * (size_t)n, all);
    assert_int_equal(m.n_cols, want.all[0].size());
    assert_true((uintptr_t)m.data % 256 == 0 && (uintptr_t)m.factors % 256 == 0);
    assert_true((dtype == ARCH_FP8) == (m.factor_rows > 0) && (factor_bytes > 0) == (m.factors != nullptr));
    for (size_t i = 0; i < all; i++) {
        const uint8_t *factors = factor_bytes ? (const uint8_t *)m.factors + i / each * factor_bytes : nullptr;
        const device_row got(dtype, m.n_cols, l.at((const uint8_t *)m.data + i * row_bytes, row_bytes),
                             factors ? l.at(factors, factor_bytes) : nullptr);
        check_row(got, kept_as(dtype, stored, want.all[i]), what, i);
    }
    w->n_weights += (int64_t)all * m.n_cols;
    tally_add(&w->kept, dtype, (int64_t)(all * row_bytes + (all + each - 1) / each * factor_bytes));
}

static void check_vector(struct wanted *w, const loaded &l, const float *device, const values &want, float plus,
                         const char *what)
{
    assert_true((uintptr_t)device % 256 == 0 && device != nullptr);
    const uint8_t *got = l.at(device, want.size() * sizeof(float));
    for (size_t i = 0; i < want.size(); i++) {
        float v;
        memcpy(&v, got + i * sizeof v, sizeof v);
        if (v != (plus != 0 ? want[i] + plus : want[i])) {
            fail_msg("%s: value %zu is %.9g, not %.9g", what, i, (double)v, (double)(want[i] + plus));
        }
    }
    w->n_weights += (int64_t)want.size();
    w->vector_bytes += (int64_t)((want.size() * sizeof(float) + 255) / 256 * 256);
}

static values vector_of(struct wanted *w, enum weights_id id, int layer, int first = 0, int n = 0)
{
    const struct tally before = w->stored;
    const tensor t(w, id, layer);
    w->stored = before; // of matrices only
    return t.row(0, first, n);
}

/* --- a layer -------------------------------------------------------------------------------------- */

static void check_qkv(struct wanted *w, const loaded &l, int layer, const struct device_layer *d)
{
    const struct arch *a = &w->a;
    const struct shard *s = &w->shard;
    const tensor q(w, WEIGHTS_Q, layer), k(w, WEIGHTS_K, layer), v(w, WEIGHTS_V, layer);
    rows want;
    want.add_heads(a, q, s->heads, a->head_dim);
    want.add_heads(a, k, s->kv_heads, a->head_dim);
    want.add(v, s->kv_heads.first * a->v_dim, s->kv_heads.n * a->v_dim);
    check_matrix(w, l, d->qkv, 1, in_layer(w, a->linear_dtype), q.t.stored, want, "qkv");
    if (!a->qkv_bias) {
        assert_null(d->qkv_bias);
        return;
    }
    values bias;
    const struct {
        enum weights_id id;
        struct shard_span heads;
    } parts[] = {{WEIGHTS_Q_BIAS, s->heads}, {WEIGHTS_K_BIAS, s->kv_heads}, {WEIGHTS_V_BIAS, s->kv_heads}};
    for (const auto &p : parts) {
        const int dim = p.id == WEIGHTS_V_BIAS ? a->v_dim : a->head_dim;
        const values all = vector_of(w, p.id, layer);
        for (int i = 0; i < p.heads.n * dim; i++) {
            const int from = p.id == WEIGHTS_V_BIAS ? i : rotated(a, i, dim);
            bias.push_back(all[(size_t)(p.heads.first * dim + from)]);
        }
    }
    check_vector(w, l, d->qkv_bias, bias, 0, "qkv_bias");
}

static void check_heads_up(struct wanted *w, const loaded &l, int layer, const struct device_latent *d)
{
    const struct arch *a = &w->a;
    const int rank = a->latent.kv_rank, nope = a->latent.nope_dim, both = nope + a->v_dim;
    const tensor kv_b(w, WEIGHTS_KV_B, layer);
    rows keys, up;
    for (int h = w->shard.heads.first; h < w->shard.heads.first + w->shard.heads.n; h++) {
        for (int r = 0; r < rank; r++) {
            values column;
            for (int i = 0; i < nope; i++) {
                column.push_back(kv_b.row(h * both + i)[(size_t)r]);
            }
            keys.all.push_back(column);
        }
        up.add(kv_b, h * both + nope, a->v_dim);
    }
    const bool wide = w->bits != 16 && (a->linear_dtype == ARCH_F32 || a->linear_dtype == ARCH_F16);
    const enum arch_dtype floats = wide ? ARCH_F32 : ARCH_BF16;
    check_matrix(w, l, d->keys_up, 1, floats, kv_b.t.stored, keys, "keys_up");
    check_matrix(w, l, d->values_up, 1, floats, kv_b.t.stored, up, "values_up");
}

static void check_latent(struct wanted *w, const loaded &l, int layer, const struct device_latent *d)
{
    const struct arch *a = &w->a;
    const int q_rank = a->latent.q_rank, n = a->latent.kv_rank + a->rope_dim;
    const enum arch_dtype dtype = in_layer(w, a->linear_dtype);
    rows down, queries;
    if (q_rank > 0) {
        down.add(tensor(w, WEIGHTS_Q_A, layer), 0, q_rank);
        check_vector(w, l, d->q_norm, vector_of(w, WEIGHTS_Q_A_NORM, layer), 0, "q_norm");
    }
    const tensor kv_a(w, WEIGHTS_KV_A, layer), q(w, q_rank > 0 ? WEIGHTS_Q_B : WEIGHTS_Q, layer);
    for (int i = 0; i < n; i++) {
        down.all.push_back(kv_a.row(rotated(a, i, n)));
    }
    check_matrix(w, l, d->down, 1, dtype, kv_a.t.stored, down, "latent down");
    check_vector(w, l, d->kv_norm, vector_of(w, WEIGHTS_KV_A_NORM, layer), 0, "kv_norm");
    queries.add_heads(a, q, w->shard.heads, a->head_dim);
    check_matrix(w, l, d->queries, 1, dtype, q.t.stored, queries, "queries");
    check_heads_up(w, l, layer, d);
}

static void check_attention(struct wanted *w, const loaded &l, int layer, const struct device_layer *d)
{
    const struct arch *a = &w->a;
    const struct shard_span heads = w->shard.heads;
    const int first = heads.first * a->v_dim, n = heads.n * a->v_dim;
    if (arch_is_latent(a)) {
        check_latent(w, l, layer, &d->latent);
    } else {
        check_qkv(w, l, layer, d);
    }
    rows o;
    const tensor t(w, WEIGHTS_O, layer);
    o.add(t, 0, a->hidden, first, n);
    check_matrix(w, l, d->o, 1, in_columns(w, a->linear_dtype, first, n, a->n_heads * a->v_dim), t.t.stored, o, "o");
    if (a->attn_sinks) {
        check_vector(w, l, d->sinks, vector_of(w, WEIGHTS_SINKS, layer, heads.first, heads.n), 0, "sinks");
    }
    if (a->o_bias && w->shard.rank == 0) {
        check_vector(w, l, d->o_bias, vector_of(w, WEIGHTS_O_BIAS, layer), 0, "o_bias");
    }
    assert_true((d->sinks != nullptr) == a->attn_sinks);
    assert_true((d->o_bias != nullptr) == (a->o_bias && w->shard.rank == 0));
}

/* n experts, or one MLP of these tensors where n is 0. */
static void check_mlp(struct wanted *w, const loaded &l, int layer, const enum weights_id ids[3],
                      struct shard_span inner, int n_inner, int n, enum arch_dtype stored,
                      const struct device_matrix &gate_up, const struct device_matrix &down)
{
    rows in, out;
    enum arch_dtype is = stored;
    for (int x = n > 0 ? 0 : -1; x < n; x++) {
        const tensor gate(w, ids[0], layer, x), up(w, ids[1], layer, x), back(w, ids[2], layer, x);
        in.add(gate, inner.first, inner.n);
        in.add(up, inner.first, inner.n);
        out.add(back, 0, w->a.hidden, inner.first, inner.n);
        is = gate.t.stored;
    }
    const int all = n > 0 ? n : 1;
    check_matrix(w, l, gate_up, all, in_layer(w, stored), is, in, "gate_up");
    // integers that are cut within a group are made anew
    const bool cut = inner.first % 32 != 0 || inner.n % 32 != 0;
    check_matrix(w, l, down, all, in_columns(w, stored, inner.first, inner.n, n_inner), cut ? ARCH_F32 : is, out,
                 "down");
}

static void check_expert_biases(struct wanted *w, const loaded &l, int layer, const struct device_experts *d)
{
    const struct shard_span inner = w->shard.expert;
    const struct tally before = w->stored;
    values in, out;
    for (int x = 0; x < w->a.moe.n_experts; x++) {
        for (enum weights_id id : {WEIGHTS_EXPERT_GATE_BIAS, WEIGHTS_EXPERT_UP_BIAS}) {
            const values v = tensor(w, id, layer, x).row(0, inner.first, inner.n);
            in.insert(in.end(), v.begin(), v.end());
        }
        const values v = tensor(w, WEIGHTS_EXPERT_DOWN_BIAS, layer, x).row(0);
        out.insert(out.end(), v.begin(), v.end());
    }
    w->stored = before;
    check_vector(w, l, d->gate_up_bias, in, 0, "gate_up_bias");
    check_vector(w, l, d->router_bias, vector_of(w, WEIGHTS_ROUTER_BIAS, layer), 0, "router_bias");
    if (w->shard.rank == 0) {
        check_vector(w, l, d->down_bias, out, 0, "down_bias");
    } else {
        assert_null(d->down_bias);
    }
}

static void check_feed_forward(struct wanted *w, const loaded &l, int layer, const struct device_layer *d)
{
    const struct arch *a = &w->a;
    static const enum weights_id dense[] = {WEIGHTS_GATE, WEIGHTS_UP, WEIGHTS_DOWN},
                                 shared[] = {WEIGHTS_SHARED_GATE, WEIGHTS_SHARED_UP, WEIGHTS_SHARED_DOWN},
                                 experts[] = {WEIGHTS_EXPERT_GATE, WEIGHTS_EXPERT_UP, WEIGHTS_EXPERT_DOWN};
    if (!arch_is_moe(a, layer)) {
        check_mlp(w, l, layer, dense, w->shard.mlp, a->intermediate, 0, a->linear_dtype, d->gate_up, d->down);
        return;
    }
    if (a->moe.n_shared > 0) {
        check_mlp(w, l, layer, shared, w->shard.shared, a->moe.n_shared * a->moe.intermediate, 0, a->linear_dtype,
                  d->gate_up, d->down);
    } else {
        assert_null(d->gate_up.data);
    }
    const struct device_experts *x = &d->experts;
    rows router;
    router.add(tensor(w, WEIGHTS_ROUTER, layer), 0, a->moe.n_experts);
    check_matrix(w, l, x->router, 1, ARCH_F32, ARCH_F32, router, "router");
    check_mlp(w, l, layer, experts, w->shard.expert, a->moe.intermediate, a->moe.n_experts, a->expert_dtype,
              x->gate_up, x->down);
    if (a->moe.router == ARCH_ROUTER_GROUPS) {
        check_vector(w, l, x->correction_bias, vector_of(w, WEIGHTS_CORRECTION_BIAS, layer), 0, "correction_bias");
    }
    if (a->moe.bias) {
        check_expert_biases(w, l, layer, x);
    }
}

static void check_norms(struct wanted *w, const loaded &l, int layer, const struct device_layer *d)
{
    const float plus = w->a.norm_plus_one ? 1 : 0;
    check_vector(w, l, d->attn_norm, vector_of(w, WEIGHTS_ATTN_NORM, layer), plus, "attn_norm");
    check_vector(w, l, d->mlp_norm, vector_of(w, WEIGHTS_MLP_NORM, layer), plus, "mlp_norm");
    if (w->a.post_norms) {
        check_vector(w, l, d->post_attn_norm, vector_of(w, WEIGHTS_POST_ATTN_NORM, layer), plus, "post_attn_norm");
        check_vector(w, l, d->post_mlp_norm, vector_of(w, WEIGHTS_POST_MLP_NORM, layer), plus, "post_mlp_norm");
    }
}

/* --- a stage -------------------------------------------------------------------------------------- */

static void check_vocab(struct wanted *w, const loaded &l, const struct device_matrix &m, enum weights_id id,
                        bool as_head, const char *what)
{
    const bool integers = as_head && (w->bits == 8 || w->bits == 4);
    const tensor t(w, id, 0);
    rows want;
    want.add(t, w->shard.vocab.first, w->shard.vocab.n);
    const enum arch_dtype kept = w->bits == 16 ? ARCH_BF16 : w->a.dtype == ARCH_F16 ? ARCH_F32 : w->a.dtype;
    check_matrix(w, l, m, 1, integers ? ARCH_INT8 : kept, t.t.stored, want, what);
}

static void check_ends(struct wanted *w, const loaded &l)
{
    const bool tied = w->a.tied_embedding;
    if (w->part.has_embed) {
        check_vocab(w, l, l.w.embed, WEIGHTS_EMBED, tied, "embed");
    } else {
        assert_null(l.w.embed.data);
    }
    if (!w->part.has_head) {
        assert_true(l.w.head.data == nullptr && l.w.norm == nullptr);
        return;
    }
    check_vector(w, l, l.w.norm, vector_of(w, WEIGHTS_NORM, 0), w->a.norm_plus_one ? 1 : 0, "norm");
    if (tied && w->part.has_embed) {
        assert_memory_equal(&l.w.head, &l.w.embed, sizeof l.w.head);
    } else {
        check_vocab(w, l, l.w.head, WEIGHTS_HEAD, true, "head");
    }
}

static void check_sums(const struct wanted *w, const struct device_weights *d)
{
    assert_int_equal(d->n_weights, w->n_weights);
    assert_int_equal(d->vector_bytes, w->vector_bytes);
    assert_memory_equal(&d->kept, &w->kept, sizeof w->kept);
    assert_memory_equal(&d->stored, &w->stored, sizeof w->stored);
    assert_true(d->n_bytes >= tally_bytes(&d->kept) + d->vector_bytes);
}

static void check_stage(const char *model, struct wanted *w, struct pool *pool)
{
    const loaded l(model, w, pool);
    w->n_weights = w->vector_bytes = 0;
    w->kept = w->stored = {};
    for (int i = 0; i < w->part.n_layers; i++) {
        const int layer = w->part.first_layer + i;
        check_norms(w, l, layer, &l.w.layers[i]);
        check_attention(w, l, layer, &l.w.layers[i]);
        check_feed_forward(w, l, layer, &l.w.layers[i]);
    }
    check_ends(w, l);
    check_sums(w, &l.w);
}

/* The CPU's backend counts as many weights. */
static void check_count(const char *model, const struct wanted *w)
{
    struct packed p;
    struct err e = {};
    if (packed_load(&p, model, &w->a, &w->part, &w->shard, w->bits, nullptr, &e)) {
        fail_msg("%s", e.msg);
    }
    assert_int_equal(p.n_weights, w->n_weights);
    assert_int_equal(p.n_weights > 0, 1);
    packed_free(&p);
}

/* Whole, and by two and, of `all`, four ranks; and in stages. */
static void check_model(const char *model, bool all)
{
    struct pool *pool = pool_create(2, nullptr, false);
    struct wanted w(model);
    print_message("%s\n", model);
    for (int bits : {0, 16, 8, 4}) {
        w.whole();
        w.bits = bits;
        check_stage(model, &w, pool);
        check_count(model, &w);
        for (int size = 2; size <= (all ? 4 : 2); size += 2) {
            for (int rank = 0; rank < size && w.split(rank, size); rank++) {
                check_stage(model, &w, pool);
            }
        }
        w.split(0, 1);
        w.part.first_layer = 1, w.part.n_layers = w.a.n_layers - 1, w.part.has_embed = false;
        if (all) {
            check_stage(model, &w, pool);
        }
        w.part.first_layer = 0, w.part.n_layers = 1, w.part.has_embed = true, w.part.has_head = false;
        if (all) {
            check_stage(model, &w, pool);
        }
    }
    pool_destroy(pool);
}

/* --- tests ---------------------------------------------------------------------------------------- */

static void models_of_files(void **state)
{
    (void)state;
    for (const char *name : {"llama_tiny_f32", "llama_tiny_bf16", "qwen2_tiny_f32", "qwen2_tiny_bf16",
                             "gemma2_tiny_f32", "gemma2_tiny_bf16", "gpt_oss_tiny_f32", "gpt_oss_tiny_bf16",
                             "gpt_oss_tiny_mxfp4", "deepseek_v3_tiny_f32", "deepseek_v3_tiny_bf16",
                             "deepseek_v3_tiny_fp8"}) {
        char *folder = golden(name);
        check_model(folder, true);
        free(folder);
    }
}

static void generated_models(void **state)
{
    (void)state;
    for (const char *name : {"preset:tiny-2l", "preset:tiny-qwen2-2l", "preset:tiny-gemma2-2l",
                             "preset:tiny-gpt-oss-2l", "preset:tiny-deepseek-2l"}) {
        check_model(name, false);
    }
}

static char path[] = "/tmp/tidemark-test-XXXXXX.gguf";

static void write_gguf(const char *model, uint32_t type)
{
    const wanted from(model);
    struct gguf_writer w = {};
    gguf_writer_metadata(&w, &from.a);
    gguf_writer_tensors(&w, from.from, &from.a, type);
    gguf_writer_file(&w, path);
    gguf_writer_free(&w);
}

/* Blocks of integers, and rows of heads in the order of llama.cpp. */
static void gguf_files(void **state)
{
    (void)state;
    const int fd = mkstemps(path, 5);
    assert_true(fd >= 0 && close(fd) == 0);
    for (uint32_t type : {GGUF_WRITER_Q8_0, GGUF_WRITER_Q4_0, GGUF_WRITER_F16}) {
        write_gguf("preset:tiny-2l", type);
        check_model(path, false);
    }
    unlink(path);
}

static std::vector<uint8_t> bytes_of(const char *model, struct pool *pool)
{
    const wanted w(model);
    return loaded(model, &w, pool).bytes;
}

/* What the device makes of a preset is what the host makes of its files, in every byte. */
static void generated_as_from_files(void **state)
{
    (void)state;
    struct pool *pool = pool_create(2, nullptr, false);
    for (const char *name : {"tiny-2l", "tiny-qwen2-2l", "tiny-gpt-oss-2l", "tiny-deepseek-2l"}) {
        char folder[] = "/tmp/tidemark-test-XXXXXX";
        assert_non_null(mkdtemp(folder));
        struct maker_config cfg = {};
        struct err e = {};
        cfg.preset = name, cfg.folder = folder, cfg.shard_bytes = INT64_MAX;
        if (maker_write(&cfg, &e)) {
            fail_msg("%s", e.msg);
        }
        char *preset = xasprintf("preset:%s", name);
        assert_true(bytes_of(folder, pool) == bytes_of(preset, pool));
        free(preset);
        char *rm = xasprintf("rm -r %s", folder);
        assert_int_equal(system(rm), 0);
        free(rm);
    }
    pool_destroy(pool);
}

/* A copy of a model in which the first byte of a tensor is another one. */
static void damage(const char *folder, const char *name, const char *tensor, uint8_t byte)
{
    char *from = golden(name);
    char *copy = xasprintf("cp %s/config.json %s/model.safetensors %s", from, from, folder);
    assert_int_equal(system(copy), 0);
    char *file = xasprintf("%s/model.safetensors", folder), header[1 << 16] = {0};
    const int fd = open(file, O_RDWR);
    uint64_t n = 0;
    unsigned long long at = 0;
    assert_true(pread(fd, &n, 8, 0) == 8 && n < sizeof header && pread(fd, header, n, 8) == (ssize_t)n);
    const char *found = strstr(header, tensor), *offsets = found ? strstr(found, "data_offsets") : nullptr;
    assert_true(offsets && sscanf(strchr(offsets, '['), "[%llu", &at) == 1);
    assert_int_equal(pwrite(fd, &byte, 1, (off_t)(8 + n + at)), 1);
    close(fd);
    free(file);
    free(copy);
    free(from);
}

static void codes_that_are_no_numbers(void **state)
{
    (void)state;
    static const struct {
        const char *model, *tensor, *says;
        uint8_t byte;
    } cases[] = {
        {"deepseek_v3_tiny_fp8", "\"model.layers.1.self_attn.o_proj.weight\"", "o_proj.weight: row 0 has", 0x7f},
        {"deepseek_v3_tiny_fp8", "\"model.layers.2.mlp.experts.3.up_proj.weight\"", "experts.3.up_proj", 0xff},
        {"deepseek_v3_tiny_fp8", "\"model.layers.0.self_attn.kv_b_proj.weight\"", "kv_b_proj.weight", 0x7f},
        {"gpt_oss_tiny_mxfp4", "\"model.layers.1.mlp.experts.down_proj_scales\"", "experts.down_proj", 0xff},
    };
    struct pool *pool = pool_create(2, nullptr, false);
    char folder[] = "/tmp/tidemark-test-XXXXXX";
    assert_non_null(mkdtemp(folder));
    for (const auto &c : cases) {
        damage(folder, c.model, c.tensor, c.byte);
        for (int bits : {0, 16, 8}) {
            wanted w(folder);
            w.bits = bits;
            struct gpu *g;
            struct err e = {};
            struct device_weights d;
            assert_int_equal(gpu_open(&g, 0, 0, &e), 0);
            const struct device_weights_config cfg = {folder, &w.a, w.part, w.shard, bits, pool};
            assert_int_equal(device_weights_load(&d, g, &cfg, &e), -1);
            assert_int_equal(e.code, ERR_INPUT);
            if (!strstr(e.msg, c.says) || !strstr(e.msg, "has a weight that is no number") || strchr(e.msg, '\n')) {
                fail_msg("%s", e.msg);
            }
            gpu_close(g);
        }
    }
    char *rm = xasprintf("rm -r %s", folder);
    assert_int_equal(system(rm), 0);
    free(rm);
    pool_destroy(pool);
}

#ifdef GPU_ON_CPU
/* How a load ends whose call fails; false: it does not fail so often. */
static bool fails(const char *model, const char *call, int skip, cudaError_t with, struct pool *pool)
{
    const wanted w(model);
    struct gpu *g;
    struct err e = {};
    struct device_weights d = {};
    assert_int_equal(gpu_open(&g, 0, 2, &e), 0);
    const struct device_weights_config cfg = {model, &w.a, w.part, w.shard, 8, pool};
    gpu_on_cpu_fail(call, skip, with);
    const int rc = device_weights_load(&d, g, &cfg, &e);
    if (rc != 0 && (e.code != ERR_ENV || !strstr(e.msg, "rank 2, GPU 0 (GPU on CPU): ") || strchr(e.msg, '\n'))) {
        fail_msg("%s", e.msg);
    }
    device_weights_free(&d);
    gpu_close(g);
    gpu_on_cpu_fail(nullptr, 0, cudaSuccess);
    assert_int_equal(gpu_on_cpu_allocated() + gpu_on_cpu_pinned(), 0);
    return rc != 0;
}

static void a_device_that_fails(void **state)
{
    (void)state;
    struct pool *pool = pool_create(1, nullptr, false);
    for (const char *call : {"cudaMalloc", "cudaHostAlloc", "cudaMemcpyAsync", "cudaMemsetAsync", "cudaStreamQuery",
                             "launch"}) {
        for (cudaError_t with : {cudaErrorMemoryAllocation, cudaErrorLaunchFailure}) {
            assert_true(fails("preset:tiny-1l", call, 0, with, pool));
            fails("preset:tiny-1l", call, 1, with, pool);
            fails("preset:tiny-1l", call, 7, with, pool);
        }
    }
    assert_false(fails("preset:tiny-1l", "cudaMalloc", 1, cudaErrorMemoryAllocation, pool)); // there is but one
    pool_destroy(pool);
}

static void more_than_the_device_has(void **state)
{
    (void)state;
    struct pool *pool = pool_create(1, nullptr, false);
    const wanted w("preset:llama-1b"); // 1235746816 weights in two bytes each, 67584 in four
    struct gpu *g;
    struct err e = {};
    struct device_weights d = {};
    setenv("GPU_ON_CPU_BYTES", "1000000000", 1);
    assert_int_equal(gpu_open(&g, 0, 2, &e), 0);
    const struct device_weights_config cfg = {"preset:llama-1b", &w.a, w.part, w.shard, 0, pool};
    assert_int_equal(device_weights_load(&d, g, &cfg, &e), -1);
    assert_string_equal(e.msg, "rank 2, GPU 0 (GPU on CPU): cudaMalloc of 2471763968 bytes for the weights: out of "
                               "memory (1000000000 of the GPU's 1000000000 bytes are free)");
    gpu_close(g);
    unsetenv("GPU_ON_CPU_BYTES");
    pool_destroy(pool);
}
#endif

int main()
{
    const CMUnitTest tests[] = {
        cmocka_unit_test(models_of_files),
        cmocka_unit_test(generated_models),
        cmocka_unit_test(gguf_files),
        cmocka_unit_test(generated_as_from_files),
        cmocka_unit_test(codes_that_are_no_numbers),
#ifdef GPU_ON_CPU
        cmocka_unit_test(a_device_that_fails),
        cmocka_unit_test(more_than_the_device_has),
#endif
    };
#ifdef GPU_ON_CPU
    gpu_on_cpu_defer(1);
#endif
    return device_test_run(tests, nullptr, nullptr);
}
