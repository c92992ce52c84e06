#include "loadgen/overload.h"

#include <math.h>

#define ALLOWED_TTFTS 3.0
#define Z             4.0
#define MIN_SHARE     0.1 // of what was offered so far
#define LOOKS         4

void overload_begin(struct overload *o, double rate_rps, double cv, double ttft_s,
                    int64_t t_begin_ns, int64_t duration_ns)
{
    int64_t wait_ns = duration_ns / 3 < OVERLOAD_MIN_NS ? duration_ns / 3 : OVERLOAD_MIN_NS;
    *o = (struct overload){
        .rate_rps = rate_rps,
        .ttft_s = ttft_s,
        .variance = 1.0 + cv * cv,
        .t_begin_ns = t_begin_ns,
        .t_next_ns = t_begin_ns + wait_ns,
    };
}

bool overload_is_due(const struct overload *o, int64_t now_ns)
{
    return o->ttft_s > 0.0 && o->rate_rps > 0.0 && now_ns >= o->t_next_ns;
}

bool overload_look(struct overload *o, int64_t now_ns, uint64_t n_waiting)
{
    double offered = o->rate_rps * (double)(now_ns - o->t_begin_ns) * 1e-9;
    double allowed = ALLOWED_TTFTS * o->rate_rps * o->ttft_s + Z * sqrt(o->variance * offered);
    bool is_over = (double)n_waiting > allowed && (double)n_waiting > MIN_SHARE * offered;
    o->n_over = is_over ? o->n_over + 1 : 0;
    o->t_next_ns = now_ns + OVERLOAD_PERIOD_NS;
    return o->n_over >= LOOKS;
}
