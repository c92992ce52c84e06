#include "analysis/cost.h"

#include <stddef.h>

static const struct opt rows[] = {
    {.key = "cost.prices",
     .type = OPT_STRING,
     .def = "configs/prices.csv",
     .help = "price table (CSV)",
     .offset = offsetof(struct cost_config, prices)},
    {.key = "cost.instance",
     .type = OPT_STRING,
     .help = "instance_type in the price table that hosts the target; none: no cost",
     .offset = offsetof(struct cost_config, instance)},
    {.key = "cost.pricing_model",
     .type = OPT_STRING,
     .def = "on-demand",
     .help = "pricing_model in the price table",
     .offset = offsetof(struct cost_config, pricing_model)},
    {.key = "cost.region",
     .type = OPT_STRING,
     .help = "region in the price table; none: the only one there is",
     .offset = offsetof(struct cost_config, region)},
    {.key = "cost.output_to_input_ratio",
     .type = OPT_NUMBER,
     .def = "4",
     .lo = 0.01,
     .hi = 1000,
     .help = "price of an output token over that of an input token",
     .offset = offsetof(struct cost_config, output_to_input_ratio)},
};
const struct opt_table cost_options = {rows, sizeof rows / sizeof rows[0]};

int cost_instances(int64_t accelerators, int64_t accel_count, int64_t *instances, struct err *e)
{
    if (accelerators > 0 && accel_count == 0) {
        return err_set(e, ERR_INPUT, "cost.instance has no accelerators, but the target uses %lld",
                       (long long)accelerators);
    }
    *instances = accelerators > 0 ? (accelerators + accel_count - 1) / accel_count : 1;
    return 0;
}

double cost_usd_per_s(int64_t instances, double usd_per_hour)
{
    return (double)instances * usd_per_hour / 3600;
}

struct cost_split cost_split(double usd_per_s, double input_tokens_per_s,
                             double output_tokens_per_s, double output_to_input_ratio)
{
    double weighted = input_tokens_per_s / output_to_input_ratio + output_tokens_per_s;
    double usd_per_output = weighted > 0 ? usd_per_s / weighted : STATS_NONE;
    return (struct cost_split){1e6 * usd_per_output / output_to_input_ratio, 1e6 * usd_per_output};
}

struct cost_split_interval cost_split_interval(double usd_per_s, struct stats_interval input,
                                               struct stats_interval output,
                                               double output_to_input_ratio)
{
    double r = output_to_input_ratio;
    struct cost_split at = cost_split(usd_per_s, input.value, output.value, r);
    struct cost_split high = cost_split(usd_per_s, input.lo, output.lo, r);
    struct cost_split low = cost_split(usd_per_s, input.hi, output.hi, r);
    return (struct cost_split_interval){
        {at.usd_per_m_input, low.usd_per_m_input, high.usd_per_m_input},
        {at.usd_per_m_output, low.usd_per_m_output, high.usd_per_m_output},
    };
}
