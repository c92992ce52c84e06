/*
 * tidemark compare: two results, figure by figure, with a gate for CI.
 */
#include <jansson.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "analysis/compare.h"
#include "analysis/report.h"
#include "cli/command.h"
#include "cli/result_file.h"
#include "core/mem.h"
#include "core/units.h"

struct compare_args {
    const char *format, *max_regression, *metrics;
    struct command_args files; // A B and key=value
};

/* One of the two, with what it takes to compare it. */
struct side {
    struct compare_run run;
    json_t *report;
    uint64_t *schedule_hashes;
};

static void side_free(struct side *s)
{
    json_decref(s->report);
    free(s->schedule_hashes);
}

static int read_hashes(struct store *s, struct side *out, struct err *e)
{
    size_t n = store_n_steps(s);
    out->schedule_hashes = xcalloc(n + 1, sizeof *out->schedule_hashes);
    for (size_t i = 0; i < n; i++) {
        struct step_data d;
        if (store_read_step(s, i, &d, e)) {
            return -1;
        }
        out->schedule_hashes[i] = d.info.schedule_hash;
        step_data_free(&d);
    }
    return 0;
}

static int read_origin(struct store *s, struct side *out, struct err *e)
{
    struct store_meta meta;
    if (store_read_meta(s, &meta, e)) {
        return -1;
    }
    out->run.imported = json_object_get(meta.provenance, "imported") != NULL;
    store_meta_free(&meta);
    return 0;
}

static int read_side(struct side *out, const struct compare_args *a, int which, struct err *e)
{
    struct store *s;
    struct run_config c = {0};
    const char *path = a->files.positional[which];
    *out = (struct side){.run = {.path = path}};
    if (result_file_open(&s, path, e)) {
        return -1;
    }
    int rc = result_file_config(s, &c, &a->files.positional[2], a->files.n - 2, e);
    if (rc == 0) {
        const struct report_config cfg = {.slo = c.slo, .cost = c.cost};
        rc = report_build(s, &cfg, &out->report, e) || read_hashes(s, out, e) ||
                     read_origin(s, out, e)
                 ? -1
                 : 0;
    }
    run_config_free(&c);
    store_close(s);
    out->run.report = out->report;
    out->run.schedule_hashes = out->schedule_hashes;
    return rc;
}

static int print(const json_t *comparison, const char *format, struct err *e)
{
    struct str out = {0};
    if (strcmp(format, "text") == 0) {
        compare_text(comparison, &out);
    } else {
        char *text = json_dumps(comparison, JSON_INDENT(1) | JSON_REAL_PRECISION(17));
        str_puts(&out, text ? text : "");
        str_puts(&out, "\n");
        free(text);
    }
    int failed = fwrite(out.data, 1, out.len, stdout) != out.len || fflush(stdout);
    str_free(&out);
    return failed ? err_set(e, ERR_ENV, "stdout: could not be written") : 0;
}

static int parse_gate(const struct compare_args *a, struct compare_gate *gate, struct err *e)
{
    *gate = (struct compare_gate){.max_regression = STATS_NONE, .metrics = a->metrics};
    if (a->max_regression && units_parse_share(a->max_regression, &gate->max_regression, e)) {
        return err_wrap(e, "--max-regression");
    }
    return 0;
}

/* *passed: there is no gate, or it holds. */
static int compare(const struct compare_args *a, bool *passed, struct err *e)
{
    struct side sides[2] = {0};
    struct compare_gate gate;
    json_t *comparison = NULL;
    if (a->files.n < 2) {
        return err_set(e, ERR_INPUT, "compare: needs two result files (A.h5 B.h5)");
    }
    int rc = parse_gate(a, &gate, e) || read_side(&sides[0], a, 0, e) ||
                     read_side(&sides[1], a, 1, e) ||
                     compare_build(&sides[0].run, &sides[1].run, &gate, &comparison, e) ||
                     print(comparison, a->format, e)
                 ? -1
                 : 0;
    *passed = rc == 0 && !compare_gate_failed(comparison);
    json_decref(comparison);
    side_free(&sides[0]);
    side_free(&sides[1]);
    return rc;
}

static int run(int argc, char **argv, struct err *e)
{
    struct compare_args a = {0};
    bool passed = false;
    if (command_parse(&cmd_compare, argc, argv, &a, &a.files, e)) {
        return e->code;
    }
    int rc = compare(&a, &passed, e);
    command_args_free(&a.files);
    return rc ? (int)e->code : passed ? 0 : COMMAND_EXIT_INVALID;
}

static const struct command_flag flags[] = {
    {"--format", "-f", "text|json", "text", "JSON: schema tidemark.compare/1",
     offsetof(struct compare_args, format)},
    {"--max-regression", NULL, "SHARE", NULL,
     "gate: exit 3 where B is worse by more than this (5%), the whole 95 % interval beyond it; shares as they stand",
     offsetof(struct compare_args, max_regression)},
    {"--metrics", NULL, "NAMES", COMPARE_DEFAULT_GATE,
     "what the gate looks at, by the names that are printed",
     offsetof(struct compare_args, metrics)},
};

const struct command cmd_compare = {
    .name = "compare",
    .summary = "two results, figure by figure, with intervals; a gate for CI",
    .usage = "compare A.h5 B.h5 [key=value ...] [--format text|json] [--max-regression SHARE]",
    .details =
        "Each step of B is put beside the step of A whose rate is nearest and within 5 % (of a closed\n"
        "loop: with as many users). A change is B/A - 1 with a 95 % interval made from both runs' own; it\n"
        "is called better or worse only where that leaves out 0. Notes say what else differs: other\n"
        "requests, another data set, an invalid run. Requests count as independent where percentiles get\n"
        "their intervals, which near saturation they are not: for a gate take rates well below it.\n"
        "\n"
        "slo.* and cost.* given here are asked of both. Either may be a result of vLLM (FILE.json,\n"
        "FILE.jsonl; see `tidemark import`): then only service latency is compared.\n",
    .flags = flags,
    .n_flags = sizeof flags / sizeof flags[0],
    .config_parts = RUN_CONFIG_SLO | RUN_CONFIG_COST,
    .exit_codes = "3  the gate failed: B is worse than A by more than --max-regression",
    .example = "compare before.h5 after.h5\n"
               "compare before.h5 after.h5 --max-regression 5% --metrics ttft_ms.p50,tpot_ms.p50",
    .run = run,
};
