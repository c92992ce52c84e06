/*
 * What tidemark's tokenizer makes of a corpus, for comparison with other libraries, and how fast.
 *
 * usage: encode_corpus TOKENIZER.json VOCAB CORPUS OUT     ids and decoded texts of every text
 *        encode_corpus TOKENIZER.json VOCAB CORPUS SECONDS --speed
 *        encode_corpus MODEL.gguf ...                      the same with the file's tokenizer
 *
 * CORPUS: a uint32 of bytes and the bytes, for each text. OUT, for each: a uint32 count and int32
 * ids without and with special tokens, a uint32 of bytes and the bytes of the latter decoded. Ids
 * one by one must give the same text. --speed: CPU seconds of one thread per pass over the corpus,
 * the best of passes that take SECONDS in all.
 */
#include "core/err.h"
#include "core/str.h"
#include "model/arch.h"
#include "model/tokenizer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define MAX_BYTES ((size_t)1 << 31)

static void fail(const char *what)
{
    fprintf(stderr, "encode_corpus: %s\n", what);
    exit(1);
}

static void read_file(struct str *s, const char *path)
{
    struct err e = {0};
    if (str_read_file(s, path, MAX_BYTES, &e) != 0) {
        fail(e.msg);
    }
}

static struct tokenizer *open_tokenizer(const char *path, int vocab)
{
    struct str json = {0};
    struct err e = {0};
    struct tokenizer *t;
    if (!arch_is_gguf(path)) {
        read_file(&json, path);
    }
    if (arch_is_gguf(path) ? tokenizer_open(&t, path, vocab, &e)
                           : tokenizer_parse(&t, json.data, json.len, path, vocab, &e)) {
        fail(e.msg);
    }
    str_free(&json);
    return t;
}

/* The text at *at in the corpus; false at the end. */
static bool next_text(const struct str *corpus, size_t *at, const char **text, uint32_t *len)
{
    if (*at == corpus->len) {
        return false;
    }
    memcpy(len, corpus->data + *at, sizeof *len);
    *text = corpus->data + *at + sizeof *len;
    *at += sizeof *len + *len;
    return true;
}

static void write_counted(FILE *out, const void *v, size_t n, size_t each)
{
    uint32_t count = (uint32_t)n;
    if (fwrite(&count, sizeof count, 1, out) != 1 || (n > 0 && fwrite(v, each, n, out) != n)) {
        fail("cannot write");
    }
}

static void check_stream(const struct tokenizer *t, const struct token_ids *ids,
                         const struct str *whole)
{
    struct tokenizer_stream *s = tokenizer_stream_new(t, false);
    struct str text = {0};
    for (size_t i = 0; i < ids->n; i++) {
        tokenizer_stream_push(s, &ids->v[i], 1, &text);
    }
    tokenizer_stream_finish(s, &text);
    if (text.len != whole->len || (text.len > 0 && memcmp(text.data, whole->data, text.len) != 0)) {
        fail("ids one by one decode to another text");
    }
    tokenizer_stream_free(s);
    str_free(&text);
}

static void write_all(const struct tokenizer *t, const struct str *corpus, FILE *out)
{
    struct tokenizer_encoder *e = tokenizer_encoder_new(t);
    struct token_ids ids = {0};
    struct str decoded = {0};
    const char *text;
    uint32_t len;
    for (size_t at = 0; next_text(corpus, &at, &text, &len);) {
        for (int special = 0; special < 2; special++) {
            ids.n = 0;
            tokenizer_encoder_add(e, text, len, special != 0, &ids);
            write_counted(out, ids.v, ids.n, sizeof *ids.v);
        }
        str_clear(&decoded);
        tokenizer_decode(t, ids.v, ids.n, false, &decoded);
        write_counted(out, decoded.data, decoded.len, 1);
        check_stream(t, &ids, &decoded);
    }
    tokenizer_encoder_free(e);
    token_ids_free(&ids);
    str_free(&decoded);
}

static double cpu_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static double pass(struct tokenizer_encoder *e, const struct str *corpus, struct token_ids *ids)
{
    const char *text;
    uint32_t len;
    double begin = cpu_s();
    ids->n = 0;
    for (size_t at = 0; next_text(corpus, &at, &text, &len);) {
        tokenizer_encoder_add(e, text, len, false, ids);
    }
    return cpu_s() - begin;
}

static void print_speed(const struct tokenizer *t, const struct str *corpus, double seconds)
{
    struct token_ids ids = {0};
    double best = 1e30, begin = cpu_s();
    do { // what words became is forgotten between passes, the memory of ids is not
        struct tokenizer_encoder *e = tokenizer_encoder_new(t);
        double took = pass(e, corpus, &ids);
        best = took < best ? took : best;
        tokenizer_encoder_free(e);
    } while (cpu_s() - begin < seconds);
    printf("%.6f %zu\n", best, ids.n);
    token_ids_free(&ids);
}

int main(int argc, char **argv)
{
    struct str corpus = {0};
    struct tokenizer *t;
    if (argc < 5) {
        fail("usage: encode_corpus TOKENIZER.json VOCAB CORPUS OUT|SECONDS [--speed]");
    }
    t = open_tokenizer(argv[1], atoi(argv[2]));
    read_file(&corpus, argv[3]);
    if (argc > 5) {
        print_speed(t, &corpus, atof(argv[4]));
    } else {
        FILE *out = fopen(argv[4], "wb");
        if (out == NULL) {
            fail("cannot write");
        }
        write_all(t, &corpus, out);
        if (fclose(out) != 0) {
            fail("cannot write");
        }
    }
    tokenizer_close(t);
    str_free(&corpus);
    return 0;
}
