#include "analysis/definitions.h"

const struct definition definitions[] = {
    {"q, s, f, l, n",
     "when a request was due, was sent, had its first content or reasoning token, its last token; its "
     "output tokens"},
    {"TTFT", "f - q; service: f - s. Waiting that the client itself caused counts (no coordinated "
             "omission)"},
    {"TTFC", "c - q: c is the first content token, past what a model says while it reasons"},
    {"E2E", "l - q; service: l - s"},
    {"TPOT", "(l - f)/(n - 1), n > 1"},
    {"ITL", "gaps between consecutive tokens; a chunk of k tokens gives its gap to the first"},
    {"ICL", "gaps between consecutive chunks: messages or events that carried tokens"},
    {"NTPOT", "(l - q)/n per request; service: (l - s)/n"},
    {"which requests", "latency: those due in the window, whenever they finish; what is unfinished "
                       "when the drain ends is cancelled. Counts of outcomes: the whole step"},
    {"throughput", "tokens (requests) whose event falls into the window, over the window; input "
                   "tokens count at f"},
    {"goodput",
     "requests of all scheduled in the window that met every objective, over the window; "
     "an ITL objective holds for the longest gap"},
    {"achieved rate", "requests sent in the window, over the window; rate error: abs(sent - "
                      "scheduled)/scheduled, of the realised draw"},
    {"send lag",
     "s - q over all requests due in the window that were sent, without the cap wait; late: "
     "above 1 ms"},
    {"cap wait",
     "the part of s - q that a request waited at the cap on concurrency that was asked for; it "
     "is in every response latency, and in none of the service ones"},
    {"poll gap",
     "time between two looks of a load rank at its messages: a stamp may be late by it, but for plain "
     "HTTP, where the kernel stamps"},
    {"arrival to read",
     "of bytes from an endpoint: from their receipt by the kernel until the client read them; over TLS from "
     "finding the socket readable. Handling: the time to deal with what one read brought"},
    {"percentile",
     "exact, over raw records, linear between order statistics; failures are excluded, "
     "and count as infinite in the error-adjusted percentile"},
    {"interval", "95 %: batch means (tenths of the window) for means and throughput, order "
                 "statistics for percentiles, circular block bootstrap for fits; approximate where "
                 "a tenth of the window is shorter than the median E2E"},
    {"verdict",
     "errors (more than 1 % failed); client_limited (sent/scheduled below 0.99 or send lag p99 above "
     "max(1 ms, 1 % of median TTFT); closed loop: or users waited more than 1 % of their time for "
     "late sends); unstable, never in a closed loop (in-flight slope, 95 % lower bound, above 1 % of the "
     "rate, and median TTFT of the last third above 1.5 times that of the first; or more than 5 % "
     "without a first token when the drain ended); too_short (fewer than 30 finished, window under "
     "twice the median E2E, or more than 5 % unfinished); else stable"},
    {"saturation",
     "corner of the broken stick y = min(a x, C) of served on realised offered output "
     "tokens/s: C / (a * mean output tokens); found when the verdicts of the steps "
     "change within one step of the grid of rates from it"},
    {"SLO rate", "isotonic fit of the latency quantile against rate, crossing of the limit"},
    {"cost",
     "US$/s = instances * US$/h / 3600; US$ per output token = US$/s / (input tokens/s / ratio "
     "+ output tokens/s), per input token = that / ratio; so both together pay the machine "
     "exactly"},
    {"utilisation",
     "computing and sending from the spans of the worker; a bubble is time without either "
     "while the replica had requests"},
    {"queue, running", "per replica, from the scheduler, ten samples a second"},
};
const size_t definitions_n = sizeof definitions / sizeof definitions[0];

const struct definition definitions_of_endpoint[] = {
    {"queue, running",
     "of each URL, as its metrics tell, read target.metrics_rate times a second; missing where they "
     "do not tell"},
};
const size_t definitions_of_endpoint_n =
    sizeof definitions_of_endpoint / sizeof definitions_of_endpoint[0];

const struct definition definitions_of_gpus[] = {
    {"joules per token",
     "energy that the target's GPUs took in the window over the output tokens (the input and output "
     "tokens) served in it, with the interval of the ratio over tenths of the window; from their energy "
     "counters, of GPUs without one from power integrated over samples ten times a second. Hosts, fans and "
     "networks are not in it"},
    {"throttled",
     "share of the samples in the window in which a GPU's clocks were held down by power, heat or the "
     "board: power_cap, hw_slowdown, sw_thermal, hw_thermal, hw_power_brake"},
};
const size_t definitions_of_gpus_n = sizeof definitions_of_gpus / sizeof definitions_of_gpus[0];
