#include "cli/command.h"

#include <stdlib.h>
#include <string.h>

#include "core/mem.h"
#include "core/str.h"

static const struct command_flag *flag_find(const char *arg, size_t len,
                                            const struct command_flag *flags, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        const char *names[2] = {flags[i].name, flags[i].alias};
        for (int k = 0; k < 2; k++) {
            if (names[k] && strlen(names[k]) == len && strncmp(names[k], arg, len) == 0) {
                return &flags[i];
            }
        }
    }
    return NULL;
}

static int flag_unknown(const char *arg, const struct command_flag *flags, size_t n, struct err *e)
{
    const char *nearest = "--help";
    int best = str_distance(arg, nearest);
    for (size_t i = 0; i < n; i++) {
        int d = str_distance(arg, flags[i].name);
        if (d < best) {
            best = d;
            nearest = flags[i].name;
        }
    }
    return err_set(e, ERR_INPUT, "%s: unknown option; the nearest is %s", arg, nearest);
}

static int flag_take(int argc, char **argv, int *i, const struct command_flag *flags,
                     size_t n_flags, struct err *e)
{
    const char *arg = argv[*i];
    const char *eq = strncmp(arg, "--", 2) == 0 ? strchr(arg, '=') : NULL;
    size_t len = eq ? (size_t)(eq - arg) : strlen(arg);
    const struct command_flag *f = flag_find(arg, len, flags, n_flags);
    if (!f) {
        return flag_unknown(arg, flags, n_flags, e);
    }
    if (!f->value) {
        if (eq) {
            return err_set(e, ERR_INPUT, "%s: takes no value", f->name);
        }
        *f->present = 1;
        return 0;
    }
    if (eq) {
        *f->value = eq + 1;
        return 0;
    }
    if (*i + 1 >= argc) {
        return err_set(e, ERR_INPUT, "%s: needs a value", f->name);
    }
    *f->value = argv[++*i];
    return 0;
}

int command_parse(int argc, char **argv, const struct command_flag *flags, size_t n_flags,
                  struct command_args *args, struct err *e)
{
    args->positional = xcalloc((size_t)argc + 1, sizeof *args->positional);
    args->n = 0;
    int flags_end = 0;
    for (int i = 1; i < argc; i++) {
        if (!flags_end && strcmp(argv[i], "--") == 0) {
            flags_end = 1;
        } else if (!flags_end && argv[i][0] == '-' && argv[i][1]) {
            if (flag_take(argc, argv, &i, flags, n_flags, e)) {
                command_args_free(args);
                return -1;
            }
        } else {
            args->positional[args->n++] = argv[i];
        }
    }
    return 0;
}

void command_args_free(struct command_args *args)
{
    free(args->positional);
    args->positional = NULL;
    args->n = 0;
}
