#include "workers/send_log.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/mem.h"

#define BLOCK_ROWS (1 << 15) // 1 MiB
#define BLOCK_IDS  (1 << 12)

/* Blocks, so that growing never copies. */
struct send_log {
    FILE *file;
    char *path;
    struct send_log_row **blocks;
    size_t n_rows;
    char (**ids)[SEND_LOG_ID_BYTES];
    uint32_t n_ids;
};

int send_log_open(struct send_log **out, const char *path, struct err *e)
{
    FILE *f = fopen(path, "we");
    if (!f) {
        return err_set(e, ERR_INPUT, "serve.log: %s: cannot write: %s", path, strerror(errno));
    }
    struct send_log *log = xcalloc(1, sizeof *log);
    log->file = f;
    log->path = xstrdup(path);
    *out = log;
    return 0;
}

uint32_t send_log_request(struct send_log *log, const char *id)
{
    if (log->n_ids % BLOCK_IDS == 0) {
        size_t n = log->n_ids / BLOCK_IDS;
        log->ids = xrealloc(log->ids, (n + 1) * sizeof *log->ids);
        log->ids[n] = xmalloc(BLOCK_IDS * sizeof *log->ids[n]);
    }
    char *to = log->ids[log->n_ids / BLOCK_IDS][log->n_ids % BLOCK_IDS];
    snprintf(to, SEND_LOG_ID_BYTES, "%s", id);
    return log->n_ids++;
}

void send_log_add(struct send_log *log, const struct send_log_row *row)
{
    if (log->n_rows % BLOCK_ROWS == 0) {
        size_t n = log->n_rows / BLOCK_ROWS;
        log->blocks = xrealloc(log->blocks, (n + 1) * sizeof(struct send_log_row *));
        log->blocks[n] = xmalloc(BLOCK_ROWS * sizeof *log->blocks[n]);
    }
    log->blocks[log->n_rows / BLOCK_ROWS][log->n_rows % BLOCK_ROWS] = *row;
    log->n_rows++;
}

static void write_rows(const struct send_log *log)
{
    fprintf(log->file, "request,token,tokens,law_ns,before_ns,after_ns\n");
    for (size_t i = 0; i < log->n_rows; i++) {
        const struct send_log_row *r = &log->blocks[i / BLOCK_ROWS][i % BLOCK_ROWS];
        fprintf(log->file, "%s,%d,%d,%lld,%lld,%lld\n",
                log->ids[r->request / BLOCK_IDS][r->request % BLOCK_IDS], r->token, r->n_tokens,
                (long long)r->law_ns, (long long)r->before_ns,
                (long long)(r->before_ns + r->after_ns));
    }
}

int send_log_close(struct send_log *log, struct err *e)
{
    int rc = 0;
    if (!log) {
        return 0;
    }
    write_rows(log);
    if (ferror(log->file) | fclose(log->file)) {
        rc = err_set(e, ERR_ENV, "serve.log: %s: %s", log->path, strerror(errno));
    }
    for (size_t i = 0; i * BLOCK_ROWS < log->n_rows; i++) {
        free(log->blocks[i]);
    }
    for (size_t i = 0; i * BLOCK_IDS < log->n_ids; i++) {
        free(log->ids[i]);
    }
    free(log->blocks);
    free(log->ids);
    free(log->path);
    free(log);
    return rc;
}
