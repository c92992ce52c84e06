/* The backend that computes on this host's cores. */
#pragma once

struct backend_ops;

extern const struct backend_ops backend_cpu;
