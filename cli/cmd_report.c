/*
 * tidemark report: the answers of a result file as text, JSON or one self-contained HTML page.
 */
#include <errno.h>
#include <jansson.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "analysis/report.h"
#include "cli/command.h"
#include "cli/result_file.h"

struct report_args {
    const char *format, *output;
    struct command_args files; // FILE.h5 ... and key=value
};

static int terminal_columns(void)
{
    struct winsize w;
    return isatty(STDOUT_FILENO) && ioctl(STDOUT_FILENO, TIOCGWINSZ, &w) == 0 && w.ws_col > 40
               ? w.ws_col
               : 120;
}

/* A price is asked for, not only how it is split. */
static bool asks_price(const struct command_args *args)
{
    bool asked = false;
    for (int i = 1; i < args->n; i++) {
        const char *arg = args->positional[i];
        asked |= strncmp(arg, "cost", 4) == 0 && strchr(".=", arg[4]) &&
                 strncmp(arg, "cost.output_to_input_ratio", 26) != 0;
    }
    return asked;
}

static int render(struct store *s, const json_t *report, const char *format, struct str *out,
                  struct err *e)
{
    if (strcmp(format, "html") == 0) {
        return report_html(s, report, out, e);
    }
    if (strcmp(format, "text") == 0) {
        report_text(report, terminal_columns(), out);
        return 0;
    }
    char *text = json_dumps(report, JSON_INDENT(1) | JSON_REAL_PRECISION(17));
    if (!text) {
        return err_set(e, ERR_ENV, "out of memory writing the report");
    }
    str_puts(out, text);
    str_puts(out, "\n");
    free(text);
    return 0;
}

static int write_out(const struct str *text, const char *path, struct err *e)
{
    FILE *f = path ? fopen(path, "we") : stdout;
    if (!f) {
        return err_set(e, ERR_INPUT, "%s: cannot write: %s", path, strerror(errno));
    }
    int failed = fwrite(text->data, 1, text->len, f) != text->len || fflush(f);
    if (path) {
        failed |= fclose(f);
    }
    return failed ? err_set(e, ERR_ENV, "%s: %s", path ? path : "stdout", strerror(errno)) : 0;
}

static int report_file(const struct report_args *a, struct err *e)
{
    struct store *s;
    struct run_config c = {0};
    json_t *report = NULL;
    struct str out = {0};
    if (result_file_open(&s, a->files.positional[0], e)) {
        return -1;
    }
    int rc = result_file_config(s, &c, &a->files.positional[1], a->files.n - 1, e);
    if (rc == 0) {
        const struct report_config rcfg = {
            .slo = c.slo, .cost = c.cost, .reprice = asks_price(&a->files)};
        rc = report_build(s, &rcfg, &report, e);
    }
    if (rc == 0) {
        rc = render(s, report, a->format, &out, e) || write_out(&out, a->output, e) ? -1 : 0;
    }
    json_decref(report);
    run_config_free(&c);
    str_free(&out);
    store_close(s);
    return rc;
}

static int run(int argc, char **argv, struct err *e)
{
    struct report_args a = {0};
    if (command_parse(&cmd_report, argc, argv, &a, &a.files, e)) {
        return e->code;
    }
    int rc = a.files.n < 1 ? err_set(e, ERR_INPUT, "report: needs a result file (FILE.h5)")
                           : report_file(&a, e);
    command_args_free(&a.files);
    return rc ? (int)e->code : 0;
}

static const struct command_flag flags[] = {
    {"--format", "-f", "text|json|html", "text",
     "JSON: schema tidemark.report/1; HTML: one page that needs no network",
     offsetof(struct report_args, format)},
    {"--output", "-o", "FILE", NULL, "write there instead of to stdout",
     offsetof(struct report_args, output)},
};

const struct command cmd_report = {
    .name = "report",
    .summary = "the answers of a result file: steps, saturation, SLO rate, cost",
    .usage = "report FILE.h5 [key=value ...] [--format text|json|html] [-o FILE]",
    .details =
        "Objectives and prices are taken from the file, the price as it was when the run began. Keys\n"
        "given here ask anew; the file stays as it is. docs/measurement.md defines each number.\n"
        "What `vllm bench serve --save-detailed` wrote (FILE.json, FILE.jsonl) is taken as well; see\n"
        "`tidemark import`.\n",
    .flags = flags,
    .n_flags = sizeof flags / sizeof flags[0],
    .config_parts = RUN_CONFIG_SLO | RUN_CONFIG_COST,
    .example = "report a.h5 slo.ttft=200ms cost.instance=example-1gpu\n"
               "report a.h5 --format html -o a.html",
    .run = run,
};
