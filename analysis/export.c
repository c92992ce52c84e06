#include "analysis/export.h"

#include "core/clock.h"
#include "core/mem.h"

#include <jansson.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

const struct export_format export_formats[] = {
    {"vllm", export_vllm},         {"inference-perf", export_inference_perf},
    {"guidellm", export_guidellm}, {"br0.2", export_br02},
    {"csv", export_csv},           {"requests-csv", export_csv_requests},
};
const size_t export_n_formats = sizeof export_formats / sizeof export_formats[0];

int export_each_step(const struct export_run *x, export_step *write, void *arg, struct err *e)
{
    int rc = 0;
    for (size_t i = 0; i < store_n_steps(x->store) && rc == 0; i++) {
        struct step_data d;
        if (store_read_step(x->store, i, &d, e)) {
            return -1;
        }
        rc = write(x, &d, arg, e);
        step_data_free(&d);
    }
    return rc;
}

static int make_folder(const char *path, struct err *e)
{
    if (mkdir(path, 0777) != 0 && errno != EEXIST) {
        return err_set(e, ERR_INPUT, "%s: cannot make the folder: %s", path, strerror(errno));
    }
    return 0;
}

int export_create(struct export_file *out, const struct export_run *x, const char *format,
                  const char *name, struct err *e)
{
    char *folder = xasprintf("%s/%s", x->folder, format);
    int rc = make_folder(folder, e);
    *out = (struct export_file){.path = xasprintf("%s/%s", folder, name)};
    free(folder);
    if (rc == 0) {
        out->f = fopen(out->path, "we");
        rc = out->f ? 0 : err_set(e, ERR_INPUT, "%s: cannot write: %s", out->path, strerror(errno));
    }
    if (rc) {
        free(out->path);
        out->path = NULL;
    }
    return rc;
}

int export_close(struct export_file *file, int rc, struct err *e)
{
    int bad = ferror(file->f);
    if ((fclose(file->f) || bad) && rc == 0) {
        rc = err_set(e, ERR_ENV, "%s: could not be written in full", file->path);
    }
    free(file->path);
    return rc;
}

const char *export_target(const struct export_run *x, const char *key, const char *other)
{
    const char *text = json_string_value(json_object_get(x->meta.target, key));
    return text && text[0] ? text : other;
}

bool export_was_sent(const struct record *r)
{
    return r->t_send_ns != RECORD_NONE;
}

bool export_is_ok(const struct record *r)
{
    return r->outcome == OUTCOME_OK && export_was_sent(r) && r->t_first_ns != RECORD_NONE &&
           r->t_last_ns != RECORD_NONE;
}

double export_seconds(int64_t ns)
{
    return (double)ns / (double)NS_PER_S;
}

int64_t export_end_ns(const struct step_info *s, const struct record *r)
{
    if (r->outcome == OUTCOME_CANCELLED) {
        return s->t_drain_ns > r->t_send_ns ? s->t_drain_ns : r->t_send_ns;
    }
    const int64_t known_ns[] = {r->t_byte_ns, r->t_first_ns, r->t_last_ns};
    int64_t end_ns = r->t_send_ns;
    for (int i = 0; i < 3; i++) {
        end_ns = known_ns[i] > end_ns ? known_ns[i] : end_ns; // RECORD_NONE is below all
    }
    return end_ns;
}

const char *export_error(const struct record *r, char *buf, size_t cap)
{
    const char *name =
        r->outcome < OUTCOME_N ? record_outcome_names[r->outcome] : "of an unknown kind";
    if (export_is_ok(r)) {
        return NULL;
    }
    if (r->http_status && r->outcome == OUTCOME_HTTP_STATUS) {
        snprintf(buf, cap, "%s %u", name, r->http_status);
    } else if (r->error) {
        snprintf(buf, cap, "%s: error %d", name, r->error);
    } else {
        snprintf(buf, cap, "%s", r->outcome == OUTCOME_OK ? "no tokens" : name);
    }
    return buf;
}

size_t export_chunk_gaps(const struct record *r, const uint32_t *dt_us, size_t n, uint32_t *gaps)
{
    size_t chunks = r->n_chunks < n ? r->n_chunks : n, k = 0;
    for (size_t i = 1; i < n; i++) {
        if (dt_us[i] > 0) {
            gaps[k++] = dt_us[i];
        }
    }
    while (k + 1 < chunks) {
        gaps[k++] = 0;
    }
    return k;
}
