/*
 * tidemark import: other tools' per-request results as a result file.
 */
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "cli/command.h"
#include "cli/import.h"

struct import_args {
    const char *output;
    bool force;
    struct command_args files; // TOOL FILE...
};

static int import(const struct import_args *a, struct err *e)
{
    const char *const *args = a->files.positional;
    struct store *s;
    if (a->files.n < 2) {
        return err_set(e, ERR_INPUT, "import: needs a tool and its files: vllm FILE.json ...");
    }
    if (strcmp(args[0], "vllm") != 0) {
        return err_set(e, ERR_INPUT, "import: '%.80s' is not one of vllm", args[0]);
    }
    if (!a->output) {
        return err_set(e, ERR_INPUT, "import: needs -o FILE.h5");
    }
    if (import_vllm(&s, args + 1, a->files.n - 1, a->output, a->force, e)) {
        return -1;
    }
    printf("%s: %zu steps\n", a->output, store_n_steps(s));
    store_close(s);
    return 0;
}

static int run(int argc, char **argv, struct err *e)
{
    struct import_args a = {0};
    if (command_parse(&cmd_import, argc, argv, &a, &a.files, e)) {
        return e->code;
    }
    int rc = import(&a, e);
    command_args_free(&a.files);
    return rc ? (int)e->code : 0;
}

static const struct command_flag flags[] = {
    {"--output", "-o", "FILE.h5", NULL, "the result file to write",
     offsetof(struct import_args, output)},
    {"--force", NULL, NULL, NULL, "replace it if it is there", offsetof(struct import_args, force)},
};

const struct command cmd_import = {
    .name = "import",
    .summary = "other tools' per-request results as a result file",
    .usage = "import vllm FILE.json|FILE.jsonl ... -o FILE.h5 [--force]",
    .details =
        "Takes what `vllm bench serve --save-result --save-detailed` writes; --append-result and several\n"
        "files at once are fine. Every run becomes a step: of --request-rate, or, where that is inf, of a\n"
        "closed loop with --max-concurrency users. `report`, `compare` and `export` take such files as\n"
        "they are, too.\n"
        "\n"
        "vLLM keeps no schedule: a request counts from its arrival at vLLM's client, so that response\n"
        "latency is service latency and the wait at --max-concurrency, and no verdict can say whether the\n"
        "client kept up. It has no warm-up either: the window is the whole run.\n",
    .flags = flags,
    .n_flags = sizeof flags / sizeof flags[0],
    .example = "import vllm qps2.json qps4.json qps8.json -o vllm.h5\n"
               "report vllm.h5 slo.ttft=200ms",
    .run = run,
};
