#include "cli/make_model.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/clock.h"
#include "core/mem.h"
#include "core/str.h"
#include "model/arch.h"
#include "workers/weights/maker.h"

#define SHARD_BYTES ((int64_t)5000000000)
#define DRAW_NS     (200 * NS_PER_MS)

/* --- which ----------------------------------------------------------------------------------------- */

static int family_of(const char *preset, struct arch *a, struct err *e)
{
    char *model = xasprintf("preset:%s", preset);
    int rc = arch_open(model, a, e);
    free(model);
    return rc;
}

/* "tiny" of gpt_oss is the preset tiny-gpt-oss; NULL when there is none. Caller frees. */
static char *preset_of(const char *preset, const char *family)
{
    static struct arch a;
    struct err unread = {0};
    char short_name[32];
    snprintf(short_name, sizeof short_name, "%s",
             strcmp(family, "deepseek_v3") == 0 ? "deepseek" : family);
    for (char *c = short_name; *c; c++) {
        *c = *c == '_' ? '-' : *c;
    }
    char *names[] = {xstrdup(preset), xasprintf("%s-%s", preset, short_name)};
    char *found = NULL;
    for (int i = 0; i < 2; i++) {
        if (!found && family_of(names[i], &a, &unread) == 0 && strcmp(a.family, family) == 0) {
            found = names[i];
        } else {
            free(names[i]);
        }
    }
    return found;
}

static int choose_preset(const struct make_model_options *o, char **out, struct err *e)
{
    static struct arch a;
    if (o->family) {
        *out = preset_of(o->preset, o->family);
        if (*out) {
            return 0;
        }
    }
    if (family_of(o->preset, &a, e)) {
        return err_wrap(e, "--preset");
    }
    if (o->family) {
        return err_set(e, ERR_INPUT, "--arch %.40s: preset %s is of %s", o->family, o->preset,
                       a.family);
    }
    *out = xstrdup(o->preset);
    return 0;
}

/* --- progress --------------------------------------------------------------------------------------- */

struct drawing {
    bool is_terminal;
    int64_t t_begin_ns, t_drawn_ns;
};

static void draw(void *arg, int64_t n_done, int64_t n_bytes)
{
    struct drawing *d = arg;
    int64_t now_ns = clock_local_ns();
    if (!d->is_terminal || (n_done < n_bytes && now_ns - d->t_drawn_ns < DRAW_NS)) {
        return;
    }
    d->t_drawn_ns = now_ns;
    double seconds = (double)(now_ns - d->t_begin_ns + 1) / (double)NS_PER_S;
    fprintf(stderr, "\r%5.1f %%  %.2f of %.2f GB  %.0f MB/s \033[K%s",
            100.0 * (double)n_done / (double)n_bytes, (double)n_done / 1e9, (double)n_bytes / 1e9,
            (double)n_done / 1e6 / seconds, n_done == n_bytes ? "\n" : "");
}

int make_model_write(const struct make_model_options *o, struct err *e)
{
    struct drawing d = {.is_terminal = isatty(STDERR_FILENO) == 1, .t_begin_ns = clock_local_ns()};
    char *preset;
    if (choose_preset(o, &preset, e)) {
        return -1;
    }
    const struct maker_config cfg = {
        .preset = preset,
        .folder = o->folder,
        .seed = o->seed,
        .shard_bytes = SHARD_BYTES,
        .progress = draw,
        .arg = &d,
    };
    int rc = maker_write(&cfg, e);
    if (rc == 0) {
        printf("%s: preset:%s%s\n", o->folder, preset, o->seed ? ", another seed" : "");
    }
    free(preset);
    return rc;
}
