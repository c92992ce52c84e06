#include "cli/run_config.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "core/config.h"
#include "core/mem.h"
#include "core/str.h"

static const struct opt run_rows[] = {
    {.key = "name",
     .type = OPT_STRING,
     .def = "run",
     .help = "name of the run, shown in reports",
     .offset = offsetof(struct run_config, name)},
    {.key = "results",
     .type = OPT_STRING,
     .def = "results/runs/run.h5",
     .help = "path of the result file (-o overrides it)",
     .offset = offsetof(struct run_config, results)},
    {.key = "deadline.silence",
     .type = OPT_DURATION,
     .def = "5s",
     .lo = 0.5e9,
     .hi = 600e9,
     .help = "a rank not heard of for this long ends the run, by name",
     .offset = offsetof(struct run_config, deadline.silence_ns)},
    {.key = "deadline.start",
     .type = OPT_DURATION,
     .def = "10m",
     .lo = 1e9,
     .hi = 86400e9,
     .help = "time for loading weights and datasets",
     .offset = offsetof(struct run_config, deadline.start_ns)},
    {.key = "deadline.batch",
     .type = OPT_DURATION,
     .def = "30s",
     .lo = 0.1e9,
     .hi = 86400e9,
     .help =
         "a micro-batch not computed, sent on or returned within this (or 20 x the median, if that is "
         "longer; 4 x this for the first of a size) ends the run",
     .offset = offsetof(struct run_config, deadline.batch_ns)},
};

/* The tables of all parts, each over its place in `c`, in the order of the RUN_CONFIG_ bits. */
enum {
    N_SETS = 7
};

static void run_config_sets(struct run_config *c, struct opt_set sets[N_SETS])
{
    const struct opt_table own = {run_rows, sizeof run_rows / sizeof run_rows[0]};
    const struct opt_set all[N_SETS] = {
        {own, c},
        {target_options, &c->target},
        {load_options, &c->load},
        {dataset_options, &c->dataset},
        {slo_options, &c->slo},
        {cost_options, &c->cost},
        {endpoint_options, &c->endpoint},
    };
    memcpy(sets, all, sizeof all);
}

char *run_config_help(unsigned parts)
{
    struct run_config c;
    struct opt_set sets[N_SETS];
    struct str text = {0};
    run_config_sets(&c, sets);
    for (int i = 0; i < N_SETS; i++) {
        if (parts & 1U << i) {
            char *part = opt_help(sets[i].table);
            str_printf(&text, "%s%s", text.len ? "\n" : "", part);
            free(part);
        }
    }
    return text.data;
}

/* The null target computes nothing, but prompts need a vocabulary and a context to be drawn for. */
static int default_model(struct target_config *t, struct err *e)
{
    if (t->model && t->model[0]) {
        return 0;
    }
    if (t->kind == TARGET_OPENAI) {
        return err_set(e, ERR_INPUT,
                       "target.model: missing (the name by which the endpoint knows it)");
    }
    if (t->kind != TARGET_NULL) {
        return err_set(e, ERR_INPUT,
                       "target.model: missing (a folder in Hugging Face layout, or "
                       "preset:tiny, preset:small)");
    }
    free(t->model);
    t->model = xstrdup("preset:tiny");
    return 0;
}

char *run_config_assign(const char *key, const char *text)
{
    struct str s = {0};
    str_printf(&s, "%s='", key);
    for (; *text; text++) {
        str_append(&s, "''", *text == '\'' ? 2 : 0);
        str_append(&s, text, *text == '\'' ? 0 : 1);
    }
    str_puts(&s, "'");
    return s.data;
}

/* What a search by objectives asks of another section. */
static int check_objectives(const struct run_config *c, struct err *e)
{
    const struct slo_config *s = &c->slo;
    bool any = s->ttft_ns || s->itl_ns || s->tpot_ns || s->ntpot_ns || s->e2e_ns;
    return c->load.rates_slo && !any
               ? err_set(e, ERR_INPUT,
                         "load.rates.slo: true without an objective (slo.ttft, slo.itl, slo.tpot, "
                         "slo.ntpot or slo.e2e)")
               : 0;
}

int run_config_from_json(struct run_config *c, const struct json_t *root, struct err *e)
{
    struct opt_set sets[N_SETS];
    memset(c, 0, sizeof *c);
    run_config_sets(c, sets);
    for (int i = 0; i < N_SETS; i++) {
        opt_defaults(sets[i].table, sets[i].base);
    }
    if (opt_apply_sets(sets, N_SETS, root, e) || load_check(&c->load, e) ||
        check_objectives(c, e) || default_model(&c->target, e) ||
        (c->target.kind == TARGET_OPENAI && endpoint_check(&c->endpoint, e))) {
        run_config_free(c);
        return -1;
    }
    return 0;
}

int run_config_override(struct run_config *c, const struct json_t *stored,
                        const char *const *assignments, int n_assignments, struct err *e)
{
    json_t *root = json_deep_copy(stored);
    int rc = 0;
    for (int i = 0; i < n_assignments && rc == 0; i++) {
        rc = config_override(root, assignments[i], e);
    }
    if (rc == 0) {
        rc = config_check_sections(root, "name|results|target|load|slo|cost|deadline", e);
    }
    if (rc == 0) {
        rc = run_config_from_json(c, root, e);
    }
    json_decref(root);
    return rc;
}

/* What is asked of a run that is to start, not of one that a file tells of. */
static int build_new(struct run_config *c, const struct json_t *root,
                     const char *const *assignments, int n_assignments, struct err *e)
{
    if (run_config_override(c, root, assignments, n_assignments, e)) {
        return -1;
    }
    if (load_check_rates(&c->load, e) ||
        (c->target.kind == TARGET_OPENAI && endpoint_check_secrets(&c->endpoint, e))) {
        run_config_free(c);
        return -1;
    }
    return 0;
}

/* Say where a wrong setting stands: in the file, or among the assignments. */
static int name_origin(const char *path, const struct json_t *file, struct err *e)
{
    struct run_config c;
    struct err alone = {0};
    if (build_new(&c, file, NULL, 0, &alone) == 0) {
        run_config_free(&c);
    }
    return strcmp(alone.msg, e->msg) == 0 ? err_wrap(e, "%s", path) : err_wrap(e, "command line");
}

int run_config_load(struct run_config *c, const char *path, const char *const *assignments,
                    int n_assignments, struct err *e)
{
    json_t *root = NULL;
    if (path ? config_load(path, &root, e) : config_parse("{}", 2, "defaults", &root, e)) {
        return -1;
    }
    int rc = build_new(c, root, assignments, n_assignments, e);
    if (rc && path) {
        rc = name_origin(path, root, e);
    }
    json_decref(root);
    return rc;
}

struct json_t *run_config_dump(const struct run_config *c)
{
    struct run_config copy = *c; // sets hold plain pointers; opt_dump only reads
    struct opt_set sets[N_SETS];
    json_t *root = json_object();
    run_config_sets(&copy, sets);
    for (int i = 0; i < N_SETS; i++) {
        opt_dump(sets[i].table, sets[i].base, root);
    }
    return root;
}

void run_config_free(struct run_config *c)
{
    struct opt_set sets[N_SETS];
    run_config_sets(c, sets);
    for (int i = 0; i < N_SETS; i++) {
        opt_free(sets[i].table, sets[i].base);
    }
    memset(c, 0, sizeof *c);
}

struct layout run_config_layout(const struct run_config *c)
{
    bool hosted = c->target.kind == TARGET_STAGES;
    return (struct layout){
        .load_ranks = (int)c->load.ranks,
        .replicas = hosted ? (int)c->target.replicas : 0,
        .pipeline = (int)c->target.pipeline,
        .tensor = (int)c->target.tensor,
    };
}
