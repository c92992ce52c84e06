#include "workers/weights/writer.h"

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/mem.h"
#include "core/str.h"

struct shard {
    size_t first, n; // of tensors
    int64_t n_bytes;
};

struct writer {
    char *folder;
    int64_t shard_bytes;
    struct writer_tensor *tensors; // (n_tensors)
    size_t n_tensors, cap;
    struct shard *shards; // (n_shards)
    size_t n_shards;
    size_t at;       // shard that is being written
    int64_t n_in_at; // bytes of it so far
    FILE *file;      // NULL: not begun
};

struct writer *writer_create(const char *folder, int64_t shard_bytes)
{
    struct writer *w = xcalloc(1, sizeof *w);
    w->folder = xstrdup(folder);
    w->shard_bytes = shard_bytes;
    return w;
}

void writer_destroy(struct writer *w)
{
    if (!w) {
        return;
    }
    if (w->file) {
        fclose(w->file);
    }
    free(w->folder);
    free(w->tensors);
    free(w->shards);
    free(w);
}

void writer_declare(struct writer *w, const struct writer_tensor *t)
{
    CHECK(!w->file && w->at == 0 && t->n_bytes > 0);
    if (w->n_tensors == w->cap) {
        w->cap = w->cap ? 2 * w->cap : 64;
        w->tensors = xrealloc(w->tensors, w->cap * sizeof *w->tensors);
    }
    struct shard *last = w->n_shards > 0 ? &w->shards[w->n_shards - 1] : NULL;
    if (!last || last->n_bytes + t->n_bytes > w->shard_bytes) {
        w->shards = xrealloc(w->shards, (w->n_shards + 1) * sizeof *w->shards);
        last = &w->shards[w->n_shards++];
        *last = (struct shard){.first = w->n_tensors};
    }
    w->tensors[w->n_tensors++] = *t;
    last->n++;
    last->n_bytes += t->n_bytes;
}

int64_t writer_bytes(const struct writer *w)
{
    int64_t n = 0;
    for (size_t i = 0; i < w->n_shards; i++) {
        n += w->shards[i].n_bytes;
    }
    return n;
}

/* --- names and headers ---------------------------------------------------------------------------- */

static char *shard_name(const struct writer *w, size_t i)
{
    return w->n_shards == 1 ? xstrdup("model.safetensors")
                            : xasprintf("model-%05zu-of-%05zu.safetensors", i + 1, w->n_shards);
}

static int fail(const char *path, struct err *e)
{
    return err_set(e, errno == EEXIST ? ERR_INPUT : ERR_ENV, "%s: %s", path, strerror(errno));
}

/* {"__metadata__": .., name: {dtype, shape, data_offsets}, ..}, padded to a multiple of 8. */
static char *shard_header(const struct writer *w, const struct shard *s, size_t *len)
{
    json_t *root = json_pack("{s:{s:s}}", "__metadata__", "format", "pt");
    int64_t offset = 0;
    for (size_t i = s->first; i < s->first + s->n; i++) {
        const struct writer_tensor *t = &w->tensors[i];
        json_t *shape = json_array();
        for (int d = 0; d < t->n_dims; d++) {
            json_array_append_new(shape, json_integer(t->shape[d]));
        }
        json_object_set_new(root, t->name,
                            json_pack("{s:s, s:o, s:[I, I]}", "dtype", t->dtype, "shape", shape,
                                      "data_offsets", (json_int_t)offset,
                                      (json_int_t)(offset + t->n_bytes)));
        offset += t->n_bytes;
    }
    char *text = json_dumps(root, JSON_COMPACT | JSON_PRESERVE_ORDER);
    json_decref(root);
    size_t n = strlen(text), padded = (n + 7) / 8 * 8;
    text = xrealloc(text, padded + 1);
    memset(text + n, ' ', padded - n);
    *len = padded;
    return text;
}

/* --- bytes ---------------------------------------------------------------------------------------- */

static int begin_shard(struct writer *w, struct err *e)
{
    char *name = shard_name(w, w->at), *path = xasprintf("%s/%s", w->folder, name);
    size_t len;
    char *header = shard_header(w, &w->shards[w->at], &len);
    const uint64_t n = len; // little endian, as all machines that this is built for
    w->file = fopen(path, "wbx");
    int rc =
        !w->file || fwrite(&n, sizeof n, 1, w->file) != 1 || fwrite(header, 1, len, w->file) != len
            ? fail(path, e)
            : 0;
    w->n_in_at = 0;
    free(header);
    free(path);
    free(name);
    return rc;
}

static int end_shard(struct writer *w, struct err *e)
{
    FILE *file = w->file;
    w->file = NULL;
    w->at++;
    return fclose(file) ? fail(w->folder, e) : 0;
}

int writer_put(struct writer *w, const void *bytes, size_t n, struct err *e)
{
    const char *from = bytes;
    while (n > 0) {
        CHECK(w->at < w->n_shards);
        if (!w->file && begin_shard(w, e)) {
            return -1;
        }
        size_t left = (size_t)(w->shards[w->at].n_bytes - w->n_in_at), now = n < left ? n : left;
        if (fwrite(from, 1, now, w->file) != now) {
            return fail(w->folder, e);
        }
        from += now;
        n -= now;
        w->n_in_at += (int64_t)now;
        if (w->n_in_at == w->shards[w->at].n_bytes && end_shard(w, e)) {
            return -1;
        }
    }
    return 0;
}

int writer_finish(struct writer *w, struct err *e)
{
    CHECK(w->at == w->n_shards && !w->file);
    if (w->n_shards == 1) {
        return 0;
    }
    json_t *map = json_object();
    for (size_t i = 0; i < w->n_shards; i++) {
        char *name = shard_name(w, i);
        for (size_t k = 0; k < w->shards[i].n; k++) {
            json_object_set_new(map, w->tensors[w->shards[i].first + k].name, json_string(name));
        }
        free(name);
    }
    json_t *root = json_pack("{s:{s:I}, s:o}", "metadata", "total_size",
                             (json_int_t)writer_bytes(w), "weight_map", map);
    char *path = xasprintf("%s/model.safetensors.index.json", w->folder);
    int rc = json_dump_file(root, path, JSON_INDENT(2)) ? fail(path, e) : 0;
    json_decref(root);
    free(path);
    return rc;
}
