/* The backend that computes on this host's cores, and what measurements and tests ask beyond backend.h. */
#pragma once

struct backend;

extern const struct backend_ops backend_cpu;

/*
 * From the next batch on, also write the logits of rows with BATCH_SAMPLE, in order: (n, vocab).
 * NULL stops it. Submitting thread only, between batches.
 */
void backend_cpu_logits(struct backend *b, float *logits);
