/*
 * tidemark validate: does a result file follow results/schema.md?
 */
#include <stdio.h>

#include "cli/command.h"
#include "results/store.h"

static void print_line(void *arg, const char *text)
{
    (void)arg;
    printf("%s\n", text);
}

static int run(int argc, char **argv, struct err *e)
{
    struct command_args args;
    int n_findings = 0, n_all = 0;
    if (command_parse(&cmd_validate, argc, argv, NULL, &args, e)) {
        return e->code;
    }
    int rc = args.n > 0 ? 0 : err_set(e, ERR_INPUT, "validate: needs a result file (FILE.h5)");
    for (int i = 0; i < args.n && rc == 0; i++) {
        rc = store_validate(args.positional[i], print_line, NULL, &n_findings, e);
        n_all += n_findings;
        if (rc == 0 && n_findings == 0) {
            printf("%s: conforms to %s %s\n", args.positional[i], STORE_SCHEMA_NAME,
                   STORE_SCHEMA_VERSION);
        }
    }
    if (rc == 0 && n_all > 0) {
        rc = err_set(e, ERR_INPUT, "validate: %d finding%s", n_all, n_all == 1 ? "" : "s");
    }
    command_args_free(&args);
    return rc ? (int)e->code : 0;
}

const struct command cmd_validate = {
    .name = "validate",
    .summary = "checks result files against the schema (results/schema.md)",
    .usage = "validate FILE.h5 ...",
    .details = "Prints one line per finding, or that the file conforms.\n",
    .exit_codes = "2  also when a file does not conform",
    .example = "validate a.h5 b.h5",
    .run = run,
};
