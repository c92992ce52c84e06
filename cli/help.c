#include "cli/help.h"

#include <stdlib.h>
#include <string.h>

#include "cli/run_config.h"
#include "core/str.h"

static const struct command_flag help_flag = {"--help", "-h", NULL, NULL, "show this text", 0};

void help_all(FILE *out, const struct command *const *commands, int n)
{
    fputs("tidemark: batch benchmarking and load generation for LLM serving\n\n"
          "usage: tidemark COMMAND [ARGUMENTS]\n"
          "       tidemark COMMAND --help\n"
          "       tidemark --help | --version\n\n"
          "commands:\n",
          out);
    for (int i = 0; i < n; i++) {
        fprintf(out, "  %-10s %s\n", commands[i]->name, commands[i]->summary);
    }
    fputs("\noptions:\n"
          "  -h, --help     show this text, or that of the command\n"
          "      --version  show the version, and those of the libraries and of the file's schema\n"
          "\nexit codes:\n"
          "  0  done\n"
          "  1  the environment failed\n"
          "  2  the input is wrong; one line says what, where and what is allowed\n"
          "  3  with --strict: the run is invalid by its own checks\n"
          "\nexamples:\n",
          out);
    for (int i = 0; i < n; i++) {
        fprintf(out, "  tidemark %.*s\n", (int)strcspn(commands[i]->example, "\n"),
                commands[i]->example);
    }
}

/* Each line of `text`, indented, `before` in front; a line that begins with a space goes on. */
static void put_lines(FILE *out, const char *before, const char *text)
{
    while (*text) {
        size_t n = strcspn(text, "\n");
        if (n > 0) {
            fprintf(out, "  %s%.*s", *text == ' ' ? "    " : before, (int)n, text);
        }
        fputs("\n", out);
        text += n + (text[n] == '\n');
    }
}

/* "-o, --output FILE.h5"; returns its width. */
static int flag_form(const struct command_flag *f, char *buf, size_t cap)
{
    return snprintf(buf, cap, "%s%s%s%s%s", f->alias ? f->alias : "  ", f->alias ? ", " : "  ",
                    f->name, f->value ? " " : "", f->value ? f->value : "");
}

static void put_flag(FILE *out, const struct command_flag *f, int width)
{
    char form[64];
    flag_form(f, form, sizeof form);
    fprintf(out, "  %-*s  %s", width, form, f->help);
    fprintf(out, f->def ? " (default %s)\n" : "\n", f->def);
}

static void put_flags(FILE *out, const struct command *c)
{
    char form[64];
    int width = flag_form(&help_flag, form, sizeof form);
    for (size_t i = 0; i < c->n_flags; i++) {
        int n = flag_form(&c->flags[i], form, sizeof form);
        width = n > width ? n : width;
    }
    fputs("\noptions:\n", out);
    for (size_t i = 0; i < c->n_flags; i++) {
        put_flag(out, &c->flags[i], width);
    }
    put_flag(out, &help_flag, width);
}

static void put_keys(FILE *out, char *keys)
{
    put_lines(out, "", keys);
    free(keys);
}

static void put_config_keys(FILE *out, const struct command *c)
{
    if (!c->config_parts && !c->config) {
        return;
    }
    fputs("\nconfig keys (key, type and bounds, default, meaning):\n", out);
    if (c->config) {
        put_keys(out, opt_help(*c->config));
    }
    if (c->config && c->config_parts) {
        fputs("\n  and as `tidemark run` has them:\n", out);
    }
    if (c->config_parts) {
        put_keys(out, run_config_help(c->config_parts));
    }
    fputs("  A time has a unit (500ms, 12s, 5m, 2h); a share is 0.2 or 20%; a list is 2,4,8.\n"
          "  A short key is one value for its whole group, and sets what it is named beside.\n",
          out);
}

void help_command(FILE *out, const struct command *c)
{
    fprintf(out, "tidemark %s: %s\n\nusage:\n", c->name, c->summary);
    put_lines(out, "tidemark ", c->usage);
    fprintf(out, "\n%s", c->details);
    put_flags(out, c);
    put_config_keys(out, c);
    fputs("\nexit codes:\n"
          "  0  done\n"
          "  1  the environment failed\n"
          "  2  the input is wrong; one line says what, where and what is allowed\n",
          out);
    put_lines(out, "", c->exit_codes ? c->exit_codes : "");
    fputs("\nexample:\n", out);
    put_lines(out, "tidemark ", c->example);
}
