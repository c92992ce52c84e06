#include "analysis/gpu_report.h"

#include "analysis/energy.h"
#include "analysis/value.h"

#include <jansson.h>

#include <math.h>

static void set_text(json_t *o, const char *key, const char *text)
{
    json_t *v = text[0] != '\0' ? json_string(text) : NULL; // NULL too where it is no UTF-8
    json_object_set_new(o, key, v ? v : json_null());
}

json_t *gpu_report_devices(const struct store_meta *meta)
{
    json_t *list = json_array();
    for (size_t i = 0; i < meta->n_gpus; i++) {
        const struct gpus_device *d = &meta->gpus[i];
        json_t *o = json_pack("{s:i, s:i}", "rank", d->rank, "index", d->index);
        set_text(o, "host", d->host);
        set_text(o, "name", d->name);
        set_text(o, "uuid", d->uuid);
        set_text(o, "pci", d->pci);
        set_text(o, "driver", d->driver);
        value_set(o, "memory_bytes", d->memory_bytes);
        value_set(o, "power_limit_w", d->power_limit_w);
        json_array_append_new(list, o);
    }
    return list;
}

/* --- a step --------------------------------------------------------------------------------------- */

static void set_use(json_t *o, const struct energy_use *u)
{
    json_t *by = json_object();
    const char *from = u->from_counter && u->from_power ? "both"
                       : u->from_counter                ? "counter"
                       : u->from_power                  ? "power"
                                                        : "";
    set_text(o, "energy_from", from);
    value_set(o, "energy_j", u->energy_j);
    value_set(o, "gpu_util", u->gpu_util);
    value_set(o, "memory_util", u->memory_util);
    value_set(o, "sm_mhz", u->sm_mhz);
    value_set(o, "memory_mhz", u->memory_mhz);
    value_set(o, "temperature_c", u->temperature_c);
    value_set(o, "memory_used_bytes", u->memory_used_bytes);
    value_set(o, "throttled", u->throttled);
    for (int r = 0; r < GPUS_REASON_N; r++) {
        value_set(by, gpus_reason_names[r], u->reasons[r]);
    }
    json_object_set_new(o, "clock_reasons", by);
}

json_t *gpu_report_step(const struct measure *m, const struct step_data *d,
                        const struct store_meta *meta)
{
    struct energy x;
    if (meta->n_gpus == 0 || d->n_gpus == 0) {
        return json_null();
    }
    energy_measure(m, d, meta->n_gpus, &x);
    json_t *o = json_pack("{s:I}", "n", (json_int_t)x.n_devices), *devices = json_array();
    set_use(o, &x.all);
    json_object_set_new(o, "power_w", value_interval(x.power_w));
    json_object_set_new(o, "joules_per_output_token", value_interval(x.j_per_output_token));
    json_object_set_new(o, "joules_per_token", value_interval(x.j_per_token));
    for (size_t i = 0; i < x.n_devices; i++) {
        json_t *row = json_pack("{s:I}", "device", (json_int_t)i);
        set_use(row, &x.devices[i]);
        value_set(row, "power_w", x.devices[i].power_w);
        json_array_append_new(devices, row);
    }
    json_object_set_new(o, "devices", devices);
    energy_free(&x);
    return o;
}

/* --- as text -------------------------------------------------------------------------------------- */

void gpu_report_reasons(const json_t *gpus, struct str *out)
{
    const json_t *by = json_object_get(gpus, "clock_reasons");
    const char *comma = "";
    for (int r = 0; r < GPUS_REASON_N; r++) {
        double share = value_get(by, gpus_reason_names[r]);
        if ((GPUS_THROTTLED >> r & 1) != 0 && share > 0) {
            str_printf(out, "%s%s %.3g %%", comma, gpus_reason_names[r], 100 * share);
            comma = ", ";
        }
    }
}

static void put_interval(struct str *out, const json_t *o, const char *unit)
{
    str_printf(out, "%.3g", value_get(o, "value"));
    if (json_is_number(json_object_get(o, "lo95"))) {
        str_printf(out, " [%.3g, %.3g]", value_get(o, "lo95"), value_get(o, "hi95"));
    }
    str_puts(out, unit);
}

void gpu_report_line(const json_t *gpus, struct str *out)
{
    const json_t *power = json_object_get(gpus, "power_w");
    const json_t *per_output = json_object_get(gpus, "joules_per_output_token");
    if (!json_is_object(gpus)) {
        return;
    }
    double n = value_get(gpus, "n"), throttled = value_get(gpus, "throttled");
    str_printf(out, "%.0f GPU%s", n, n == 1 ? "" : "s");
    if (json_is_number(json_object_get(power, "value"))) {
        str_puts(out, " took ");
        put_interval(out, power, " W");
    } else {
        str_puts(out, " whose power is not known");
    }
    if (json_is_number(json_object_get(per_output, "value"))) {
        str_puts(out, ": ");
        put_interval(out, per_output, " J per output token, ");
        put_interval(out, json_object_get(gpus, "joules_per_token"), " per token in and out");
    }
    if (throttled > 0) {
        str_printf(out, "; throttled %.3g %% of the time: ", 100 * throttled);
        gpu_report_reasons(gpus, out);
    }
}
