/*
 * make_report FILE.h5 PREFIX [key=value ...]: PREFIX.json, PREFIX.html and PREFIX.txt, with slo.* and
 * cost.* as the file has them or as given. What `tidemark report` does, without the command line.
 */
#include "analysis/report.h"
#include "core/config.h"

#include <jansson.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void die_on(int status, const struct err *e)
{
    if (status != 0) {
        fprintf(stderr, "make_report: %s\n", e->msg);
        exit(e->code);
    }
}

static void write_file(const char *prefix, const char *suffix, const char *text, size_t len)
{
    char path[4096];
    snprintf(path, sizeof path, "%s%s", prefix, suffix);
    FILE *f = fopen(path, "w");
    if (!f || fwrite(text, 1, len, f) != len || fclose(f) != 0) {
        perror(path);
        exit(ERR_ENV);
    }
}

static void read_config(struct store *s, int n, char **assignments, struct report_config *cfg)
{
    struct err e;
    struct store_meta meta;
    die_on(store_read_meta(s, &meta, &e), &e);
    json_t *root = json_object();
    json_object_set(root, "slo", json_object_get(meta.config, "slo"));
    json_object_set(root, "cost", json_object_get(meta.config, "cost"));
    for (int i = 0; i < n; i++) {
        die_on(config_override(root, assignments[i], &e), &e);
    }
    opt_defaults(slo_options, &cfg->slo);
    opt_defaults(cost_options, &cfg->cost);
    die_on(opt_apply(slo_options, &cfg->slo, root, &e), &e);
    die_on(opt_apply(cost_options, &cfg->cost, root, &e), &e);
    json_decref(root);
    store_meta_free(&meta);
}

int main(int argc, char **argv)
{
    struct err e;
    struct store *s;
    struct report_config cfg = {0};
    json_t *report;
    struct str html = {0}, text = {0};
    if (argc < 3) {
        fprintf(stderr, "make_report FILE.h5 PREFIX [key=value ...]\n");
        return ERR_INPUT;
    }
    die_on(store_open(&s, argv[1], false, &e), &e);
    read_config(s, argc - 3, argv + 3, &cfg);
    for (int i = 3; i < argc; i++) {
        cfg.reprice |= strncmp(argv[i], "cost.", 5) == 0;
    }
    die_on(report_build(s, &cfg, &report, &e), &e);
    die_on(report_html(s, report, &html, &e), &e);
    report_text(report, 160, &text);
    char *json = json_dumps(report, JSON_INDENT(1) | JSON_REAL_PRECISION(17));
    write_file(argv[2], ".json", json, strlen(json));
    write_file(argv[2], ".html", html.data, html.len);
    write_file(argv[2], ".txt", text.data, text.len);
    free(json);
    str_free(&html);
    str_free(&text);
    json_decref(report);
    opt_free(slo_options, &cfg.slo);
    opt_free(cost_options, &cfg.cost);
    store_close(s);
    return 0;
}
