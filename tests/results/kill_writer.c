/*
 * kill_writer DIR KILLS: a child writes steps as fast as it can and is killed with SIGKILL at a random
 * moment, KILLS times. Every file must then open, hold at least the steps whose end the child had
 * announced, and pass the check against the schema. The files stay, for tests/results/killed.py.
 */
#include "core/clock.h"
#include "core/mem.h"
#include "core/rng.h"
#include "tests/support/run_files.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define SEED        3
#define N_RECORDS   200
#define MAX_LIFE_NS (150 * NS_PER_MS)

static _Noreturn void write_steps(const char *path, int announce)
{
    struct err e;
    struct store *s = run_files_create(path);
    for (uint32_t step = 0;; step++) {
        if (run_files_step(s, path, step, N_RECORDS, &e) != 0) {
            fprintf(stderr, "kill_writer: %s\n", e.msg);
            _exit(1);
        }
        if (write(announce, "x", 1) != 1) {
            _exit(1);
        }
    }
}

/* Number of steps that were announced before the kill; -1 when the child ended by itself. */
static int write_and_kill(const char *path, int k)
{
    int ends[2], status;
    CHECK(pipe(ends) == 0);
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        close(ends[0]);
        write_steps(path, ends[1]);
    }
    close(ends[1]);
    char byte;
    int n = read(ends[0], &byte, 1) == 1 ? 1 : 0;
    uint64_t life_ns = rng_below(MAX_LIFE_NS, SEED, RNG_SHUFFLE, (uint64_t)k, 0);
    clock_sleep_until_ns(clock_local_ns() + (int64_t)life_ns);
    kill(child, SIGKILL);
    waitpid(child, &status, 0);
    while (read(ends[0], &byte, 1) == 1) {
        n++;
    }
    close(ends[0]);
    return WIFSIGNALED(status) ? n : -1;
}

static void print_line(void *arg, const char *text)
{
    (void)arg;
    fprintf(stderr, "kill_writer: %s\n", text);
}

static bool survived(const char *path, int n_announced)
{
    struct err e;
    struct store *s;
    int n_findings;
    if (store_validate(path, print_line, NULL, &n_findings, &e) != 0 ||
        store_open(&s, path, false, &e) != 0) {
        print_line(NULL, e.msg);
        return false;
    }
    int n = (int)store_n_steps(s);
    store_close(s);
    if (n < n_announced) {
        fprintf(stderr, "kill_writer: %s: %d steps of %d\n", path, n, n_announced);
    }
    return n >= n_announced && n_findings == 0;
}

int main(int argc, char **argv)
{
    int n_kills = argc == 3 ? atoi(argv[2]) : 0;
    if (n_kills <= 0) {
        fprintf(stderr, "kill_writer DIR KILLS\n");
        return 2;
    }
    int n_bad = 0, n_steps = 0;
    mkdir(argv[1], 0777);
    for (int k = 0; k < n_kills; k++) {
        char *path = xasprintf("%s/killed_%03d.h5", argv[1], k);
        int n = write_and_kill(path, k);
        n_bad += n < 0 || !survived(path, n);
        n_steps += n > 0 ? n : 0;
        free(path);
    }
    printf("%d kills, %d steps announced, %d files damaged\n", n_kills, n_steps, n_bad);
    return n_bad == 0 ? 0 : 1;
}
