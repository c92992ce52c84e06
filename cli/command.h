/*
 * Subcommands. Each cmd_*.c owns one: its argument list, its help text and its flow. A command
 * returns the exit code: 0 done, 1 the environment failed, 2 the input is wrong, 3 with --strict a
 * run that is invalid by its own checks. Only main.c prints an error (one line, from `e`).
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "core/err.h"
#include "core/opt.h"

#define COMMAND_EXIT_INVALID 3
#define COMMAND_REPEATS      4

/*
 * One option. Parsing, its default and its line of --help all come from this row. `offset` is its
 * place in the command's arguments: a const char *, or a bool where it takes no value. One whose value
 * ends in "..." may be given COMMAND_REPEATS times: its place is an array of as many, NULL where not given.
 */
struct command_flag {
    const char *name, *alias; // "--format", "-f" or NULL
    const char *value;        // in --help: "FILE"; "a|b": must be one of these; NULL: takes none
    const char *def;          // default value; NULL: none
    const char *help;
    size_t offset;
};

struct command {
    const char *name;
    const char *summary;              // one line for `tidemark --help`
    const char *usage;                // after "usage: tidemark ", one line per form
    const char *details;              // paragraphs below the usage, for `tidemark NAME --help`
    const struct command_flag *flags; // (n_flags)
    size_t n_flags;
    unsigned config_parts;          // RUN_CONFIG_... (run_config.h): config keys it takes
    const struct opt_table *config; // keys of its own that no run has, or NULL
    const char *exit_codes;         // lines beyond those that all commands share, or NULL
    const char *example;            // after "tidemark ", one line per command
    bool joins_world;       // its ranks work together; of other commands rank 0 is all there is
    const char *joins_with; // ... where this option is given; NULL: joins_world says it
    int (*run)(int argc, char **argv, struct err *e); // argv[0] is the subcommand's name
};

extern const struct command cmd_run, cmd_generate, cmd_report, cmd_validate, cmd_recover,
    cmd_dataset, cmd_serve, cmd_import, cmd_export, cmd_compare, cmd_model, cmd_bench;

struct command_args {
    const char **positional; // (n), points into argv; capacity argc
    int n;
};

/*
 * Defaults, then flags, into the struct `into` that the offsets of c->flags point into (NULL where
 * there are none). What is no flag is collected in order. ERR_INPUT for an unknown flag, with the
 * nearest.
 */
int command_parse(const struct command *c, int argc, char **argv, void *into,
                  struct command_args *args, struct err *e) ERR_CHECKED;
void command_args_free(struct command_args *args);
