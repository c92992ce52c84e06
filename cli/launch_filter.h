/*
 * mpirun's stderr, made readable: what ranks write passes unchanged and at once, but for the last
 * words of ranks that end the job (comm_abort): many may speak, of the same cause, so they are held
 * back until all have ended. Open MPI's own framed notices are held back too. Of all these one line
 * is said: which rank was killed, or else the first last words. TIDEMARK_MPIRUN_VERBOSE=1 lets
 * everything pass. Pure but for the writing.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "core/str.h"

struct launch_filter {
    int fd; // where the output goes
    bool verbose, in_notice;
    bool drawn; // a progress line stands on the terminal, the cursor at its begin
    bool said;  // an error has been named in one line
    struct str line, notice;
    struct str last_words; // the first of them that name a cause
    int n_killed;          // ranks that died of a signal, as mpirun reported
    const char *(*describe_rank)(void *arg, int rank, char *buf, size_t cap);
    void *arg;
};

void launch_filter_init(struct launch_filter *f, int fd,
                        const char *(*describe_rank)(void *, int, char *, size_t), void *arg);
void launch_filter_clear_line(struct launch_filter *f); // before the launcher itself says something
void launch_filter_feed(struct launch_filter *f, const char *bytes, size_t n);
void launch_filter_end(struct launch_filter *f); // all have ended: flush, say, free
