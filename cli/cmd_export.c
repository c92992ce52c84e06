/*
 * tidemark export: a result file in the formats of other tools.
 */
#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "analysis/export.h"
#include "cli/command.h"
#include "cli/result_file.h"
#include "core/mem.h"
#include "core/str.h"

struct export_args {
    const char *formats, *output;
    struct command_args files; // FILE and key=value
};

static const struct export_format *find_format(const char *name, size_t len)
{
    for (size_t i = 0; i < export_n_formats; i++) {
        if (strlen(export_formats[i].name) == len &&
            strncmp(export_formats[i].name, name, len) == 0) {
            return &export_formats[i];
        }
    }
    return NULL;
}

static int unknown_format(const char *name, size_t len, struct err *e)
{
    struct str all = {0};
    for (size_t i = 0; i < export_n_formats; i++) {
        str_printf(&all, "%s%s", i ? ", " : "", export_formats[i].name);
    }
    err_set(e, ERR_INPUT, "--as: '%.*s' is not one of %s", (int)(len < 40 ? len : 40), name,
            all.data);
    str_free(&all);
    return -1;
}

/* Calls each format of the list; x NULL: only looks whether all are known. */
static int each_format(const char *list, const struct export_run *x, struct err *e)
{
    for (const char *at = list; at;) {
        size_t len = strcspn(at, ",");
        const struct export_format *f = find_format(at, len);
        if (!f) {
            return unknown_format(at, len, e);
        }
        if (x && f->write(x, e)) {
            return -1;
        }
        if (x) {
            printf("%s/%s\n", x->folder, f->name);
        }
        at = at[len] ? at + len + 1 : NULL;
    }
    return 0;
}

/* FILE without its ending, or -o. */
static char *output_folder(const struct export_args *a)
{
    const char *file = a->files.positional[0];
    const char *dot = strrchr(file, '.'), *slash = strrchr(file, '/');
    size_t len = dot && dot != file && (!slash || dot > slash + 1) ? (size_t)(dot - file) : 0;
    if (a->output) {
        return xstrdup(a->output);
    }
    return len ? xasprintf("%.*s", (int)len, file) : xasprintf("%s.export", file);
}

static int write_formats(const struct export_args *a, struct store *s, struct err *e)
{
    struct run_config c = {0};
    struct export_run x = {.store = s};
    char *folder = output_folder(a);
    int rc = result_file_config(s, &c, &a->files.positional[1], a->files.n - 1, e);
    if (rc == 0) {
        rc = store_read_meta(s, &x.meta, e);
    }
    if (rc == 0 && mkdir(folder, 0777) != 0 && errno != EEXIST) {
        rc = err_set(e, ERR_INPUT, "%s: cannot make the folder: %s", folder, strerror(errno));
    }
    if (rc == 0) {
        x.slo = c.slo;
        x.folder = folder;
        rc = each_format(a->formats, &x, e);
    }
    store_meta_free(&x.meta);
    run_config_free(&c);
    free(folder);
    return rc;
}

static int export_file(const struct export_args *a, struct err *e)
{
    struct store *s;
    if (a->files.n < 1) {
        return err_set(e, ERR_INPUT, "export: needs a result file (FILE.h5)");
    }
    if (!a->formats) {
        return err_set(e, ERR_INPUT, "export: needs --as FORMAT[,FORMAT...]");
    }
    if (each_format(a->formats, NULL, e) || result_file_open(&s, a->files.positional[0], e)) {
        return -1;
    }
    int rc = write_formats(a, s, e);
    store_close(s);
    return rc;
}

static int run(int argc, char **argv, struct err *e)
{
    struct export_args a = {0};
    if (command_parse(&cmd_export, argc, argv, &a, &a.files, e)) {
        return e->code;
    }
    int rc = export_file(&a, e);
    command_args_free(&a.files);
    return rc ? (int)e->code : 0;
}

static const struct command_flag flags[] = {
    {"--as", "-a", "FORMATS", NULL, "formats, separated by commas; see above",
     offsetof(struct export_args, formats)},
    {"--output", "-o", "DIR", NULL, "folder for them, made if need be; default: FILE without .h5",
     offsetof(struct export_args, output)},
};

const struct command cmd_export = {
    .name = "export",
    .summary = "a result file in the formats of other tools",
    .usage = "export FILE.h5 --as FORMAT[,FORMAT...] [-o DIR] [slo.KEY=VALUE ...]",
    .details =
        "  vllm            DIR/vllm/stepNNNN.json: vllm bench serve --save-result --save-detailed\n"
        "  inference-perf  DIR/inference-perf/: stage, summary and per-request lifecycle metrics\n"
        "  guidellm        DIR/guidellm/benchmarks.json, one benchmark per step\n"
        "  br0.2           DIR/br0.2/stepNNNN.json: llm-d Benchmark Report v0.2\n"
        "  csv             DIR/csv/steps.csv: tidemark's own figures, one row per step\n"
        "  requests-csv    DIR/requests-csv/requests.csv: stamps and latencies of every request\n"
        "\n"
        "Figures are worked out from the raw records by each tool's own definitions: latency counts from\n"
        "the send, vllm and inference-perf know no warm-up and count the drain, guidellm's time per output\n"
        "token has the first token in it. docs/formats.md lists what differs. Files that are there\n"
        "already are written over.\n",
    .flags = flags,
    .n_flags = sizeof flags / sizeof flags[0],
    .config_parts = RUN_CONFIG_SLO,
    .example = "export a.h5 --as vllm,br0.2\n"
               "export a.h5 --as csv -o tables",
    .run = run,
};
