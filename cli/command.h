/*
 * Subcommands. Each cmd_*.c owns one: its argument list, its help text and its flow. A command
 * returns the exit code: 0 done, 1 the environment failed, 2 the input is wrong, 3 with --strict a
 * run that is invalid by its own checks. Only main.c prints an error (one line, from `e`).
 */
#pragma once

#include <stddef.h>

#include "core/err.h"

#define COMMAND_EXIT_INVALID 3

struct command {
    const char *name;
    const char *summary; // one line for `tidemark --help`
    const char *usage;   // after "usage: tidemark ", one line per form
    const char *details; // paragraphs below the usage, for `tidemark NAME --help`
    int (*run)(int argc, char **argv, struct err *e); // argv[0] is the subcommand's name
    char *(*options_help)(void); // NULL, or config keys it takes (caller frees)
};

extern const struct command cmd_run, cmd_generate, cmd_report, cmd_validate, cmd_recover,
    cmd_dataset;

/*
 * Flags of a command, in one pass: {"--output", "-o", takes a value, where}. What is no flag is
 * collected in order as positionals. ERR_INPUT for an unknown flag, with the nearest.
 */
struct command_flag {
    const char *name, *alias; // "--format", "-f" or NULL
    const char **value;       // set to the text given; or
    int *present;             // set to 1
};
struct command_args {
    const char **positional; // (n), points into argv; capacity argc
    int n;
};
int command_parse(int argc, char **argv, const struct command_flag *flags, size_t n_flags,
                  struct command_args *args, struct err *e) ERR_CHECKED;
void command_args_free(struct command_args *args);
