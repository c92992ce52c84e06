/*
 * --help, made from the commands' own tables: options from their flags, config keys from the option
 * tables.
 */
#pragma once

#include <stdio.h>

#include "cli/command.h"

/* `tidemark --help` */
void help_all(FILE *out, const struct command *const *commands, int n);

/* `tidemark NAME --help` */
void help_command(FILE *out, const struct command *c);
