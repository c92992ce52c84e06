#include "analysis/energy.h"

#include "core/clock.h"
#include "core/mem.h"

#include <math.h>
#include <stdlib.h>

#define SLACK_S 0.5 // that samples may begin late or end early
#define GAP_S   1.0 // that power may be integrated over

/* Energy that a device has taken by each of its samples, from any zero. */
struct track {
    double *t_s; // (n) rising
    double *j;   // (n)
    size_t n;
    bool from_counter;
    double longest_s; // between two samples
};

static double seconds(int64_t ns)
{
    return (double)ns / (double)NS_PER_S;
}

static void track_add(struct track *t, double t_s, double j)
{
    double gap_s = t->n > 0 ? t_s - t->t_s[t->n - 1] : 0;
    if (t->n > 0 && !(gap_s > 0)) {
        return;
    }
    t->longest_s = fmax(t->longest_s, gap_s);
    t->t_s[t->n] = t_s;
    t->j[t->n++] = j;
}

static void track_reset(struct track *t, bool from_counter)
{
    t->n = 0;
    t->longest_s = 0;
    t->from_counter = from_counter;
}

/* False: the device has no counter, or one that stands still or began anew. */
static bool follow_counter(struct track *t, const struct step_data *d, uint16_t device)
{
    bool rises = true;
    track_reset(t, true);
    for (size_t i = 0; i < d->n_gpus; i++) {
        const struct gpus_sample *s = &d->gpus[i];
        if (s->device == device && isfinite(s->energy_j)) {
            rises &= t->n == 0 || s->energy_j >= t->j[t->n - 1];
            track_add(t, seconds(s->t_ns), s->energy_j);
        }
    }
    return rises && t->n > 1 && t->j[t->n - 1] > t->j[0];
}

static void integrate_power(struct track *t, const struct step_data *d, uint16_t device)
{
    double before_w = 0;
    track_reset(t, false);
    for (size_t i = 0; i < d->n_gpus; i++) {
        const struct gpus_sample *s = &d->gpus[i];
        if (s->device == device && isfinite(s->power_w)) {
            double t_s = seconds(s->t_ns), w = (double)s->power_w;
            double j =
                t->n > 0 ? t->j[t->n - 1] + 0.5 * (w + before_w) * (t_s - t->t_s[t->n - 1]) : 0;
            track_add(t, t_s, j);
            before_w = w;
        }
    }
}

/* Linear between samples, and beyond their ends for as long as SLACK_S; else STATS_NONE. */
static double track_at(const struct track *t, double t_s)
{
    if (t->n < 2 || t_s < t->t_s[0] - SLACK_S || t_s > t->t_s[t->n - 1] + SLACK_S) {
        return STATS_NONE;
    }
    size_t k = 1;
    while (k + 1 < t->n && t->t_s[k] < t_s) {
        k++;
    }
    double w = (t->j[k] - t->j[k - 1]) / (t->t_s[k] - t->t_s[k - 1]);
    return t->j[k - 1] + w * (t_s - t->t_s[k - 1]);
}

/* --- a device ------------------------------------------------------------------------------------- */

static void follow(struct track *t, const struct step_data *d, uint16_t device)
{
    *t = (struct track){.t_s = xcalloc(d->n_gpus + 1, sizeof *t->t_s),
                        .j = xcalloc(d->n_gpus + 1, sizeof *t->j)};
    if (!follow_counter(t, d, device)) {
        integrate_power(t, d, device);
        if (t->longest_s > GAP_S) {
            t->n = 0;
        }
    }
}

/* Its energy in each batch of the window, added to batches (LATENCY_BATCHES). */
static void add_energy(const struct measure *m, const struct step_data *d, uint16_t device,
                       struct energy_use *u, double *batches)
{
    struct track t;
    follow(&t, d, device);
    double warm_s = seconds(d->info.t_warm_ns), at[LATENCY_BATCHES + 1];
    for (int b = 0; b <= LATENCY_BATCHES; b++) {
        at[b] = track_at(&t, warm_s + m->window_s * b / LATENCY_BATCHES);
    }
    for (int b = 0; b < LATENCY_BATCHES; b++) {
        batches[b] += at[b + 1] - at[b];
    }
    u->energy_j = at[LATENCY_BATCHES] - at[0];
    u->power_w = m->window_s > 0 ? u->energy_j / m->window_s : STATS_NONE;
    u->from_counter = t.from_counter && !isnan(u->energy_j);
    u->from_power = !t.from_counter && !isnan(u->energy_j);
    free(t.t_s);
    free(t.j);
}

/* Mean or most of what samples tell. */
struct tally {
    double sum, n, most;
};

static void count(struct tally *t, double x)
{
    if (isfinite(x)) {
        t->most = t->n > 0 ? fmax(t->most, x) : x;
        t->sum += x;
        t->n++;
    }
}

static double mean_of(const struct tally *t)
{
    return t->n > 0 ? t->sum / t->n : STATS_NONE;
}

static double most_of(const struct tally *t)
{
    return t->n > 0 ? t->most : STATS_NONE;
}

/* The samples in the window of one device, of all with UINT16_MAX. */
static void look(const struct step_data *d, uint16_t device, struct energy_use *u)
{
    struct tally gpu = {0}, memory = {0}, sm = {0}, memory_mhz = {0}, heat = {0}, used = {0};
    struct tally throttled = {0}, reasons[GPUS_REASON_N] = {{0}};
    for (size_t i = 0; i < d->n_gpus; i++) {
        const struct gpus_sample *s = &d->gpus[i];
        if ((device != UINT16_MAX && s->device != device) || s->t_ns < d->info.t_warm_ns ||
            s->t_ns >= d->info.t_end_ns) {
            continue;
        }
        count(&gpu, (double)s->gpu_util);
        count(&memory, (double)s->memory_util);
        count(&sm, (double)s->sm_mhz);
        count(&memory_mhz, (double)s->memory_mhz);
        count(&heat, (double)s->temperature_c);
        count(&used, s->memory_used_bytes);
        bool told = s->throttle != UINT32_MAX;
        count(&throttled, told ? (s->throttle & GPUS_THROTTLED) != 0 : STATS_NONE);
        for (int r = 0; r < GPUS_REASON_N; r++) {
            count(&reasons[r], told ? (s->throttle >> r & 1) != 0 : STATS_NONE);
        }
    }
    u->gpu_util = mean_of(&gpu);
    u->memory_util = mean_of(&memory);
    u->sm_mhz = mean_of(&sm);
    u->memory_mhz = mean_of(&memory_mhz);
    u->temperature_c = most_of(&heat);
    u->memory_used_bytes = most_of(&used);
    u->throttled = mean_of(&throttled);
    for (int r = 0; r < GPUS_REASON_N; r++) {
        u->reasons[r] = mean_of(&reasons[r]);
    }
}

/* --- a step --------------------------------------------------------------------------------------- */

/* Bins of the window as batches of it. */
static void batch(const double *bins, double *batches)
{
    for (int i = 0; i < MEASURE_BINS; i++) {
        batches[i / MEASURE_BINS_PER_BATCH] += bins[i];
    }
}

static void set_intervals(const struct measure *m, const double *joules, struct energy *x)
{
    double output[LATENCY_BATCHES] = {0}, all[LATENCY_BATCHES] = {0}, watts[LATENCY_BATCHES];
    const struct stats_interval none = {STATS_NONE, STATS_NONE, STATS_NONE};
    x->power_w = x->j_per_output_token = x->j_per_token = none;
    if (!isfinite(x->all.energy_j) || !(m->window_s > 0)) {
        return;
    }
    batch(m->served_out, output);
    batch(m->served_out, all);
    batch(m->served_in, all);
    for (int b = 0; b < LATENCY_BATCHES; b++) {
        watts[b] = joules[b] * LATENCY_BATCHES / m->window_s;
    }
    x->power_w = stats_batch_means(watts, LATENCY_BATCHES);
    x->power_w.value = x->all.power_w; // the same but for rounding: one number everywhere
    x->j_per_output_token = stats_batch_ratio(joules, output, LATENCY_BATCHES);
    x->j_per_token = stats_batch_ratio(joules, all, LATENCY_BATCHES);
}

void energy_measure(const struct measure *m, const struct step_data *d, size_t n_devices,
                    struct energy *out)
{
    double joules[LATENCY_BATCHES] = {0};
    *out = (struct energy){.n_devices = n_devices};
    out->devices = xcalloc(n_devices + 1, sizeof *out->devices);
    for (size_t i = 0; i < n_devices; i++) {
        struct energy_use *u = &out->devices[i];
        add_energy(m, d, (uint16_t)i, u, joules);
        look(d, (uint16_t)i, u);
        out->all.energy_j += u->energy_j;
        out->all.power_w += u->power_w;
        out->all.from_counter |= u->from_counter;
        out->all.from_power |= u->from_power;
    }
    if (n_devices == 0) {
        out->all.energy_j = out->all.power_w = STATS_NONE;
    }
    look(d, UINT16_MAX, &out->all);
    set_intervals(m, joules, out);
}

void energy_free(struct energy *x)
{
    free(x->devices);
    *x = (struct energy){.devices = NULL};
}
