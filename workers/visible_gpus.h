/*
 * Which of a host's GPUs a process may use, by CUDA_VISIBLE_DEVICES: numbers, or (beginnings of) UUIDs, up
 * to the first that means none. Numbers are taken in the order of bus addresses, as CUDA counts with
 * CUDA_DEVICE_ORDER=PCI_BUS_ID, and else where all GPUs are alike. Parts of a GPU ("MIG-...") are none:
 * power is of the whole one, whoever uses the rest. Pure.
 */
#pragma once

#include <stdbool.h>

/* text NULL: the variable is not set, all are visible. n: GPUs of the host. */
bool visible_gpus_has(const char *text, int n, int index, const char *uuid);
