#include "results/gpus.h"

const char *const gpus_reason_names[GPUS_REASON_N] = {
    [GPUS_IDLE] = "idle",
    [GPUS_APPLICATION_CLOCKS] = "application_clocks",
    [GPUS_POWER_CAP] = "power_cap",
    [GPUS_HW_SLOWDOWN] = "hw_slowdown",
    [GPUS_SYNC_BOOST] = "sync_boost",
    [GPUS_SW_THERMAL] = "sw_thermal",
    [GPUS_HW_THERMAL] = "hw_thermal",
    [GPUS_HW_POWER_BRAKE] = "hw_power_brake",
    [GPUS_DISPLAY_CLOCKS] = "display_clocks",
};

_Static_assert(sizeof(struct gpus_sample) == 56, "journalled as it stands: no padding");
