/*
 * tidemark: one binary, one subcommand at a time. The only place that prints an error and exits, but for world_fail,
 * which prints it first.
 */
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "cli/about.h"
#include "cli/command.h"
#include "cli/help.h"
#include "core/comm.h"
#include "core/str.h"

static const struct command *const commands[] = {
    &cmd_run,     &cmd_report,   &cmd_compare, &cmd_export,  &cmd_import, &cmd_validate,
    &cmd_recover, &cmd_generate, &cmd_bench,   &cmd_dataset, &cmd_serve,  &cmd_model,
};
enum {
    N_COMMANDS = sizeof commands / sizeof commands[0]
};

static const struct command *find_command(const char *name, struct err *e)
{
    const struct command *nearest = commands[0];
    for (int i = 0; i < N_COMMANDS; i++) {
        if (strcmp(commands[i]->name, name) == 0) {
            return commands[i];
        }
        if (str_distance(name, commands[i]->name) < str_distance(name, nearest->name)) {
            nearest = commands[i];
        }
    }
    err_set(e, ERR_INPUT, "%s: unknown command; the nearest is %s (tidemark --help lists all)",
            name, nearest->name);
    return NULL;
}

static bool has_option(int argc, char **argv, const char *name)
{
    for (int i = 1; i < argc && strcmp(argv[i], "--") != 0; i++) {
        if (strcmp(argv[i], name) == 0) {
            return true;
        }
    }
    return false;
}

static bool asks_help(int argc, char **argv)
{
    return has_option(argc, argv, "--help") || has_option(argc, argv, "-h");
}

static bool joins_world(const struct command *c, int argc, char **argv)
{
    return (c->joins_world || (c->joins_with && has_option(argc, argv, c->joins_with))) &&
           !asks_help(argc, argv);
}

int main(int argc, char **argv)
{
    struct err e = {0};
    const struct command *c = argc > 1 ? find_command(argv[1], &e) : NULL;
    bool needs_ranks = c && joins_world(c, argc - 1, argv + 1);
    if (!needs_ranks && comm_launched_rank() > 0) {
        return 0; // what one process does is said and done once
    }
    if (argc < 2) {
        help_all(stderr, commands, N_COMMANDS);
        return ERR_INPUT;
    }
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0) {
        help_all(stdout, commands, N_COMMANDS);
        return 0;
    }
    if (strcmp(argv[1], "--version") == 0) {
        about_print(stdout);
        return 0;
    }
    if (c && asks_help(argc - 1, argv + 1)) {
        help_command(stdout, c);
        return 0;
    }
    int code = c ? c->run(argc - 1, argv + 1, &e) : ERR_INPUT;
    err_say_once(&e);
    return code;
}
