#include "cli/command.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "core/mem.h"
#include "core/str.h"

static const char **flag_text(const struct command_flag *f, void *into)
{
    return (const char **)((char *)into + f->offset);
}

static bool repeats(const struct command_flag *f)
{
    size_t n = strlen(f->value);
    return n > 3 && strcmp(f->value + n - 3, "...") == 0;
}

static const struct command_flag *flag_find(const struct command *c, const char *arg, size_t len)
{
    for (size_t i = 0; i < c->n_flags; i++) {
        const char *names[2] = {c->flags[i].name, c->flags[i].alias};
        for (int k = 0; k < 2; k++) {
            if (names[k] && strlen(names[k]) == len && strncmp(names[k], arg, len) == 0) {
                return &c->flags[i];
            }
        }
    }
    return NULL;
}

static int flag_unknown(const struct command *c, const char *arg, struct err *e)
{
    const char *nearest = "--help";
    int best = str_distance(arg, nearest);
    for (size_t i = 0; i < c->n_flags; i++) {
        int d = str_distance(arg, c->flags[i].name);
        if (d < best) {
            best = d;
            nearest = c->flags[i].name;
        }
    }
    return err_set(e, ERR_INPUT, "%s: unknown option; the nearest is %s", arg, nearest);
}

static int flag_set(const struct command_flag *f, const char *text, void *into, struct err *e)
{
    if (strchr(f->value, '|') && str_choice(f->value, text) < 0) {
        struct str choices = {0};
        str_put_choices(&choices, f->value);
        err_set(e, ERR_INPUT, "%s: '%.80s' is not one of %s", f->name, text, choices.data);
        str_free(&choices);
        return -1;
    }
    const char **at = flag_text(f, into);
    int n = 0;
    while (repeats(f) && n < COMMAND_REPEATS && at[n]) {
        n++;
    }
    if (n == COMMAND_REPEATS) {
        return err_set(e, ERR_INPUT, "%s: may be given %d times at most", f->name, n);
    }
    at[n] = text;
    return 0;
}

static int flag_take(const struct command *c, int argc, char **argv, int *i, void *into,
                     struct err *e)
{
    const char *arg = argv[*i];
    const char *eq = strncmp(arg, "--", 2) == 0 ? strchr(arg, '=') : NULL;
    const struct command_flag *f = flag_find(c, arg, eq ? (size_t)(eq - arg) : strlen(arg));
    if (!f) {
        return flag_unknown(c, arg, e);
    }
    if (!f->value) {
        if (eq) {
            return err_set(e, ERR_INPUT, "%s: takes no value", f->name);
        }
        *(bool *)((char *)into + f->offset) = true;
        return 0;
    }
    if (eq) {
        return flag_set(f, eq + 1, into, e);
    }
    if (*i + 1 >= argc) {
        return err_set(e, ERR_INPUT, "%s: needs a value", f->name);
    }
    return flag_set(f, argv[++*i], into, e);
}

static void set_defaults(const struct command *c, void *into)
{
    for (size_t i = 0; i < c->n_flags; i++) {
        if (c->flags[i].value) {
            *flag_text(&c->flags[i], into) = c->flags[i].def;
        }
    }
}

int command_parse(const struct command *c, int argc, char **argv, void *into,
                  struct command_args *args, struct err *e)
{
    bool flags_end = false;
    args->positional = xcalloc((size_t)argc + 1, sizeof *args->positional);
    args->n = 0;
    set_defaults(c, into);
    for (int i = 1; i < argc; i++) {
        if (!flags_end && strcmp(argv[i], "--") == 0) {
            flags_end = true;
        } else if (!flags_end && argv[i][0] == '-' && argv[i][1]) {
            if (flag_take(c, argc, argv, &i, into, e)) {
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
