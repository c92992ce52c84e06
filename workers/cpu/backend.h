/* What tests may ask of the CPU backend beyond workers/backend.h. */
#pragma once

struct backend;

/*
 * From the next batch on, also write the logits of rows with BATCH_SAMPLE, in order: (n, vocab).
 * NULL stops it. Submitting thread only, between batches.
 */
void backend_cpu_logits(struct backend *b, float *logits);
