/*
 * One helper thread with a queue of jobs, in order. The main thread of a rank owns MPI and must
 * never compute or block: loading a model, writing the file and analysing a step are jobs, and the
 * main thread keeps pumping its comm until they are done.
 *
 * jobs_push is for one thread (the main one); a job may push nothing itself.
 */
#pragma once

#include <stdbool.h>

struct jobs;

struct jobs *jobs_create(const char *thread_name);

/* Run fn(arg) in the helper after all earlier jobs. Returns a ticket. */
long jobs_push(struct jobs *j, void (*fn)(void *arg), void *arg);

/* True when the ticket's job has ended (and its writes are visible to the caller). */
bool jobs_done(struct jobs *j, long ticket);

/* Finish what is queued, then end the thread. */
void jobs_destroy(struct jobs *j);
