#include "core/jobs.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "core/err.h"
#include "core/log.h"
#include "core/mem.h"
#include "core/thread.h"

struct job {
    struct job *next;
    void (*fn)(void *arg);
    void *arg;
};

struct jobs {
    pthread_t thread;
    pthread_mutex_t lock; // guards head, tail, ending
    pthread_cond_t more;
    struct job *head, *tail;
    bool ending;
    long n_pushed; // the pushing thread's own
    atomic_long n_done;
};

/* The oldest job, or NULL when the queue is empty and the end has come. */
static struct job *take(struct jobs *j)
{
    pthread_mutex_lock(&j->lock);
    while (!j->head && !j->ending) {
        pthread_cond_wait(&j->more, &j->lock);
    }
    struct job *job = j->head;
    if (job) {
        j->head = job->next;
    }
    pthread_mutex_unlock(&j->lock);
    return job;
}

static void *run(void *arg)
{
    struct jobs *j = arg;
    for (struct job *job = take(j); job; job = take(j)) {
        job->fn(job->arg);
        free(job);
        atomic_fetch_add_explicit(&j->n_done, 1, memory_order_release);
    }
    return NULL;
}

struct jobs *jobs_create(const char *thread_name)
{
    struct jobs *j = xcalloc(1, sizeof *j);
    pthread_mutex_init(&j->lock, NULL);
    pthread_cond_init(&j->more, NULL);
    int rc = thread_start(&j->thread, thread_name, run, j);
    if (rc) {
        log_error("jobs", "cannot start the thread \"%s\": %s", thread_name, strerror(rc));
        exit(ERR_ENV);
    }
    return j;
}

long jobs_push(struct jobs *j, void (*fn)(void *arg), void *arg)
{
    struct job *job = xmalloc(sizeof *job);
    *job = (struct job){.fn = fn, .arg = arg};
    pthread_mutex_lock(&j->lock);
    CHECK(!j->ending);
    if (j->head) {
        j->tail->next = job;
    } else {
        j->head = job;
    }
    j->tail = job;
    pthread_cond_signal(&j->more);
    pthread_mutex_unlock(&j->lock);
    return ++j->n_pushed;
}

bool jobs_done(struct jobs *j, long ticket)
{
    CHECK(ticket >= 1 && ticket <= j->n_pushed);
    return atomic_load_explicit(&j->n_done, memory_order_acquire) >= ticket;
}

void jobs_destroy(struct jobs *j)
{
    if (!j) {
        return;
    }
    pthread_mutex_lock(&j->lock);
    j->ending = true;
    pthread_cond_signal(&j->more);
    pthread_mutex_unlock(&j->lock);
    pthread_join(j->thread, NULL);
    pthread_cond_destroy(&j->more);
    pthread_mutex_destroy(&j->lock);
    free(j);
}
