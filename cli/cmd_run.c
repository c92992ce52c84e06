/*
 * tidemark run: the main job. Started alone it checks the input, then starts its ranks through
 * mpirun; started by mpirun or srun it takes its role from the layout (model/layout.h):
 * rank 0 is the first load rank and coordinates (coordinate.h), other load ranks offer their share of
 * each step, worker ranks serve.
 */
#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "analysis/prices.h"
#include "cli/command.h"
#include "cli/coordinate.h"
#include "cli/keeper.h"
#include "cli/launch.h"
#include "cli/text_model.h"
#include "cli/world.h"
#include "core/log.h"
#include "core/mem.h"

struct run_args {
    struct command_args rest; // CONFIG, key=value ...
    const char *output, *hostfile;
    bool resume, force, dry_run, strict, quiet, np_only, insecure;
};

static int parse_args(int argc, char **argv, struct run_args *a, struct err *e)
{
    memset(a, 0, sizeof *a);
    if (command_parse(&cmd_run, argc, argv, a, &a->rest, e)) {
        return -1;
    }
    if (a->resume && a->force) {
        command_args_free(&a->rest);
        return err_set(e, ERR_INPUT, "--resume and --force exclude each other");
    }
    return 0;
}

/* The run's answers need the price: better known missing before the run than after it. */
static int check_price(const struct cost_config *c, struct err *e)
{
    struct prices table;
    const struct price *row;
    if (!c->instance) {
        return 0;
    }
    if (prices_pick(&table, c, &row, e)) {
        return -1;
    }
    prices_free(&table);
    return 0;
}

/* CONFIG is the first argument without '='; what options set comes last, so that they win. */
static int make_config(const struct run_args *a, struct run_config *c, struct err *e)
{
    const char **set = xcalloc((size_t)a->rest.n + 2, sizeof *set);
    const char *path = NULL;
    char *output = a->output ? run_config_assign("results", a->output) : NULL;
    int n = 0, rc = 0;
    for (int i = 0; i < a->rest.n && rc == 0; i++) {
        const char *arg = a->rest.positional[i];
        if (strchr(arg, '=')) {
            set[n++] = arg;
        } else if (!path) {
            path = arg;
        } else {
            rc = err_set(e, ERR_INPUT, "%s: one config file only; settings have the form key=value",
                         arg);
        }
    }
    if (rc == 0 && !path && n == 0) {
        rc = err_set(e, ERR_INPUT,
                     "run: needs a config file (for example configs/quickstart.yaml) "
                     "or settings of the form key=value");
    }
    if (output) {
        set[n++] = output;
    }
    if (a->insecure) {
        set[n++] = "target.insecure=true";
    }
    if (rc == 0) {
        rc = run_config_load(c, path, set, n, e);
        if (rc == 0 && !a->resume && check_price(&c->cost, e)) { // a resumed file has its price
            run_config_free(c);
            rc = -1;
        }
    }
    free(output);
    free(set);
    return rc;
}

/* What can be known before any rank starts, so that wrong input costs no launch. */
static int preflight(const struct run_config *c, const struct run_args *a, struct err *e)
{
    struct arch arch;
    if (text_model_open(c, &arch, e)) {
        return -1;
    }
    if (c->target.kind == TARGET_STAGES && target_check(&c->target, &arch, e)) {
        return -1;
    }
    if (a->hostfile && access(a->hostfile, R_OK)) {
        return err_set(e, ERR_INPUT, "--hostfile: %s: %s", a->hostfile, strerror(errno));
    }
    if (store_check_path(c->results, a->force || a->dry_run, a->resume, e)) {
        return -1;
    }
    return a->resume ? keeper_check_resume(c, e) : 0;
}

/* --- in the world -------------------------------------------------------------------------------- */

static int play_role(struct world *w, struct coordinator *c, struct err *e)
{
    if (!w->is_load) {
        return worker_serve(w->worker, w->comm, e);
    }
    return w->rank == 0 ? coordinate_lead(c, e) : coordinate_follow(c, e);
}

static int run_in_world(struct run_config *config, int rc, const struct run_args *a, int argc,
                        char **argv, struct err *e)
{
    struct world w;
    struct coordinator *c = NULL;
    const struct coordinate_options o = {
        .force = a->force,
        .resume = a->resume,
        .dry_run = a->dry_run,
        .quiet = a->quiet,
    };
    bool valid = true;
    if (world_open(&w, config, rc, e) || world_load(&w, true, e) ||
        coordinate_open(&c, &w, &o, argc, argv, e) || play_role(&w, c, e) ||
        coordinate_finish(c, &valid, e)) {
        coordinate_abandon(c);
        if (w.agreed) {
            coordinate_destroy(c);
        }
        return world_fail(&w, e);
    }
    coordinate_destroy(c);
    world_close(&w);
    return a->strict && !valid ? COMMAND_EXIT_INVALID : 0;
}

static const char *describe(void *arg, int rank, char *buf, size_t cap)
{
    return world_describe_rank(arg, rank, buf, cap);
}

static int launch(const struct run_config *c, const struct run_args *a, char **argv, struct err *e)
{
    struct layout layout = run_config_layout(c);
    const struct launch l = {
        .n_ranks = layout_size(&layout),
        .hostfile = a->hostfile,
        .quiet = a->quiet,
        .argv = argv,
        .describe_rank = describe,
        .arg = &layout,
    };
    int code = launch_world(&l, e);
    return code < 0 ? (int)e->code : code;
}

/* rc: what came of the arguments. In a launched world it is not said here: all ranks must part. */
static int run_with(struct run_args *a, int rc, int argc, char **argv, struct err *e)
{
    struct run_config config = {0};
    rc = rc ? rc : make_config(a, &config, e);
    bool np_only = rc == 0 && a->np_only;
    if (comm_launched() && !np_only) {
        return run_in_world(&config, rc, a, argc, argv, e);
    }
    if (rc) {
        return e->code;
    }
    struct layout layout = run_config_layout(&config);
    int code = 0;
    if (np_only) {
        if (comm_launched_rank() == 0) {
            printf("%d\n", layout_size(&layout));
        }
    } else if (preflight(&config, a, e)) {
        code = e->code;
    } else if (layout_size(&layout) == 1) {
        return run_in_world(&config, 0, a, argc, argv, e);
    } else {
        code = launch(&config, a, argv, e);
    }
    run_config_free(&config);
    return code;
}

static int run(int argc, char **argv, struct err *e)
{
    struct run_args a;
    int rc = parse_args(argc, argv, &a, e);
    int code = run_with(&a, rc, argc, argv, e);
    command_args_free(&a.rest);
    return code;
}

static const struct command_flag flags[] = {
    {"--output", "-o", "FILE.h5", NULL, "result file; overrides the key `results`",
     offsetof(struct run_args, output)},
    {"--resume", NULL, NULL, NULL, "go on with the steps that the result file lacks",
     offsetof(struct run_args, resume)},
    {"--force", NULL, NULL, NULL, "replace the result file, which is else never overwritten",
     offsetof(struct run_args, force)},
    {"--dry-run", NULL, NULL, NULL, "check everything, send one request, estimate time and disk",
     offsetof(struct run_args, dry_run)},
    {"--strict", NULL, NULL, NULL, "exit 3 when the run is invalid by its own checks",
     offsetof(struct run_args, strict)},
    {"--hostfile", NULL, "FILE", NULL, "hosts for mpirun, one per line: NAME slots=N",
     offsetof(struct run_args, hostfile)},
    {"--insecure", NULL, NULL, NULL, "any certificate of an endpoint will do: target.insecure=true",
     offsetof(struct run_args, insecure)},
    {"--np-only", NULL, NULL, NULL, "print how many ranks the config needs, and exit",
     offsetof(struct run_args, np_only)},
    {"--quiet", "-q", NULL, NULL, "no progress, no table", offsetof(struct run_args, quiet)},
};

const struct command cmd_run = {
    .name = "run",
    .summary = "the main job: rising traffic until the target saturates, one result file",
    .usage = "run [CONFIG] [key=value ...] [-o FILE.h5] [--resume | --force] [--strict] [--quiet]\n"
             "    [--insecure]\n"
             "run [CONFIG] [key=value ...] --dry-run | --np-only",
    .details =
        "CONFIG is a YAML file; key=value on the command line overrides it. Started alone\n"
        "it starts its own ranks through mpirun; under mpirun or srun it takes its role from the\n"
        "layout: ranks 0..L-1 offer load, then replicas x pipeline x tensor workers.\n\n"
        "SIGUSR1 (or the first Ctrl-C) finishes the step, writes the file and exits; SIGTERM (or the\n"
        "second) writes what there is and exits: `tidemark recover` then closes the file.\n",
    .flags = flags,
    .n_flags = sizeof flags / sizeof flags[0],
    .config_parts = RUN_CONFIG_ALL,
    .exit_codes = "3  with --strict: the run is invalid by its own checks",
    .example = "run configs/quickstart.yaml load.rates=2,4,8 target.pipeline=4 -o a.h5",
    .joins_world = true,
    .run = run,
};
