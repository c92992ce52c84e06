#include "cli/launch.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cli/launch_filter.h"
#include "cli/launch_folders.h"
#include "core/clock.h"
#include "core/log.h"
#include "core/mem.h"

enum {
    MAX_CHILDREN = 256,
    KILL_ROUNDS = 50,    // of 100 ms, for what mpirun left behind
    LAUNCH_MAX_CODE = 3, // of tidemark's own exit codes
};

static volatile sig_atomic_t signals_seen; // asks to stop, counted
static volatile sig_atomic_t usr1_seen;

static void on_signal(int sig)
{
    if (sig == SIGUSR1) {
        usr1_seen = 1;
    } else {
        signals_seen = signals_seen + 1;
    }
}

static void catch_signals(void)
{
    struct sigaction sa = {.sa_handler = on_signal};
    sigaction(SIGINT, &sa, NULL);
    sigaction(SIGTERM, &sa, NULL);
    sigaction(SIGHUP, &sa, NULL);
    sigaction(SIGUSR1, &sa, NULL);
}

/* --- the command line of mpirun ---------------------------------------------------------------- */

struct args {
    char **v; // (n + 1), NULL at [n]
    int n;
};

static void args_add(struct args *a, const char *s)
{
    a->v = xrealloc(a->v, ((size_t)a->n + 2) * sizeof *a->v);
    a->v[a->n++] = xstrdup(s);
    a->v[a->n] = NULL;
}

static void args_mca(struct args *a, const char *key, const char *value)
{
    args_add(a, "--mca");
    args_add(a, key);
    args_add(a, value);
}

/* What starts this program again. In a bundle /proc/self/exe is the dynamic loader (bundle/start.c). */
static int find_program(char *out, size_t cap, struct err *e)
{
    const char *told = getenv("TIDEMARK_PROGRAM");
    if (told && *told) {
        snprintf(out, cap, "%s", told);
        return 0;
    }
    ssize_t len = readlink("/proc/self/exe", out, cap - 1);
    if (len <= 0) {
        return err_set(e, ERR_ENV, "/proc/self/exe: %s", strerror(errno));
    }
    out[len] = '\0';
    return 0;
}

static int args_build(struct args *a, const struct launch *l, const struct launch_folders *f,
                      struct err *e)
{
    char self[4096], np[16];
    if (find_program(self, sizeof self, e)) {
        return -1;
    }
    snprintf(np, sizeof np, "%d", l->n_ranks);
    args_add(a, "mpirun");
    args_add(a, "-np");
    args_add(a, np);
    // tidemark pins itself; ranks that only wait may share cores
    args_add(a, "--oversubscribe");
    args_add(a, "--bind-to");
    args_add(a, "none");
    args_mca(a, "pml", "ob1");
    args_mca(a, "btl", l->hostfile ? "self,vader,tcp" : "self,vader");
    if (l->hostfile) {
        args_add(a, "--hostfile");
        args_add(a, l->hostfile);
    } else { // folders of this host: others do not have them
        args_mca(a, "orte_tmpdir_base", f->session);
        args_mca(a, "btl_vader_backing_directory", f->shm);
    }
    args_add(a, self);
    for (char **p = l->argv; *p; p++) {
        args_add(a, *p);
    }
    return 0;
}

static void args_free(struct args *a)
{
    for (int i = 0; i < a->n; i++) {
        free(a->v[i]);
    }
    free(a->v);
}

/* --- children ---------------------------------------------------------------------------------- */

static void set_child_environment(void)
{
    if (geteuid() == 0) {
        setenv("OMPI_ALLOW_RUN_AS_ROOT", "1", 1);
        setenv("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1", 1);
    }
    struct winsize w;
    if (isatty(STDERR_FILENO) && ioctl(STDERR_FILENO, TIOCGWINSZ, &w) == 0) {
        char columns[16];
        snprintf(columns, sizeof columns, "%d", w.ws_col ? w.ws_col : 80);
        setenv("TIDEMARK_TTY", columns, 1);
    }
}

static pid_t spawn(char **argv, int err_fd)
{
    pid_t pid = fork();
    if (pid != 0) {
        return pid;
    }
    setpgid(0, 0);                    // Ctrl-C reaches the launcher alone
    prctl(PR_SET_PDEATHSIG, SIGTERM); // and mpirun never outlives it
    int null_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    set_child_environment(); // looks at the terminal, so before stderr is the pipe
    dup2(null_fd, STDIN_FILENO);
    dup2(err_fd, STDERR_FILENO);
    execvp(argv[0], argv);
    dprintf(STDERR_FILENO, "tidemark: %s: %s (install openmpi-bin)\n", argv[0], strerror(errno));
    _exit(127);
}

/* This process's children, at most MAX_CHILDREN of them. */
static int list_children(pid_t *out)
{
    char path[64], line[4096];
    int n = 0;
    snprintf(path, sizeof path, "/proc/self/task/%d/children", (int)getpid());
    FILE *f = fopen(path, "re");
    if (f && fgets(line, sizeof line, f)) {
        for (char *p = strtok(line, " \n"); p && n < MAX_CHILDREN; p = strtok(NULL, " \n")) {
            out[n++] = (pid_t)atoi(p);
        }
    }
    if (f) {
        fclose(f);
    }
    return n;
}

static bool is_listed(pid_t pid, const pid_t *list, int n)
{
    for (int i = 0; i < n; i++) {
        if (list[i] == pid) {
            return true;
        }
    }
    return false;
}

/* Whatever mpirun left running has become this process's child (subreaper): end it. `before` were here
 * already: children of a shell that exec'd this program. */
static void kill_leftovers(const pid_t *before, int n_before)
{
    for (int round = 0; round < KILL_ROUNDS; round++) {
        pid_t now[MAX_CHILDREN];
        int n_now = list_children(now), n_killed = 0;
        for (int i = 0; i < n_now; i++) {
            if (!is_listed(now[i], before, n_before)) {
                kill(now[i], SIGKILL);
                waitpid(now[i], NULL, WNOHANG);
                n_killed++;
            }
        }
        if (n_killed == 0) {
            return;
        }
        clock_sleep_until_ns(clock_local_ns() + (round == 0 ? 5 : 100) * NS_PER_MS);
    }
}

/* First ask: graceful. Second: abort. Third: at once. How many asks have been passed on. */
static int forward_signals(pid_t mpirun, int forwarded, struct launch_filter *filter)
{
    if (usr1_seen) {
        usr1_seen = 0;
        kill(mpirun, SIGUSR1);
    }
    while (forwarded < signals_seen) {
        forwarded++;
        launch_filter_clear_line(filter);
        if (forwarded == 1) {
            log_info("launch", "stopping after this step; interrupt again to abort");
        } else if (forwarded == 2) {
            log_info("launch", "aborting; `tidemark recover FILE` closes the file");
        }
        kill(mpirun, forwarded == 1 ? SIGUSR1 : forwarded == 2 ? SIGTERM : SIGKILL);
    }
    return forwarded;
}

/* Feed mpirun's stderr through the filter until mpirun has ended. Its wait status, and whether it
 * was told to abort. */
static int guard(pid_t mpirun, int fd, struct launch_filter *filter, bool *aborted)
{
    int forwarded = 0, status = 0;
    bool open_end = true, running = true;
    while (open_end || running) {
        forwarded = forward_signals(mpirun, forwarded, filter);
        struct pollfd p = {.fd = fd, .events = POLLIN};
        char buf[4096];
        if (open_end && poll(&p, 1, 50) > 0) {
            ssize_t n = read(fd, buf, sizeof buf);
            open_end = n > 0 || (n < 0 && errno == EINTR);
            launch_filter_feed(filter, buf, n > 0 ? (size_t)n : 0);
            continue;
        }
        if (running && waitpid(mpirun, &status, WNOHANG) == mpirun) {
            running = false;
        } else if (!running) {
            break; // a leftover holds the pipe open
        } else if (!open_end) {
            clock_sleep_until_ns(clock_local_ns() + 20 * NS_PER_MS);
        }
    }
    *aborted = forwarded > 1;
    return status;
}

/* The ranks' exit code, or -1 when something went wrong that nobody has named yet. */
static int exit_code(int status, bool aborted, const struct launch_filter *filter, struct err *e)
{
    int code = WIFEXITED(status) ? WEXITSTATUS(status) : ERR_ENV;
    if (filter->n_killed > 0 || code > LAUNCH_MAX_CODE) {
        code = ERR_ENV; // mpirun's own code is 128 + signal, or 127 where it is missing
    }
    if (aborted) {
        return ERR_ENV;
    }
    if (filter->said || code != ERR_ENV) {
        return code;
    }
    if (WIFSIGNALED(status)) {
        return err_set(e, ERR_ENV, "mpirun was killed by signal %d (%s)", WTERMSIG(status),
                       strsignal(WTERMSIG(status)));
    }
    return err_set(e, ERR_ENV, "the ranks ended without a result and named no reason");
}

int launch_world(const struct launch *l, struct err *e)
{
    struct launch_folders folders;
    struct args args = {0};
    int pipe_fd[2], code = -1;
    if (launch_folders_create(&folders, e)) {
        return -1;
    }
    if (args_build(&args, l, &folders, e)) {
        goto remove_folders;
    }
    if (pipe2(pipe_fd, O_CLOEXEC)) {
        err_set(e, ERR_ENV, "pipe: %s", strerror(errno));
        goto remove_folders;
    }
    if (geteuid() == 0 && !l->quiet && isatty(STDERR_FILENO)) {
        log_info("launch", "running as root: Open MPI is told to allow it");
    }
    pid_t before[MAX_CHILDREN];
    int n_before = list_children(before);
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    catch_signals();
    pid_t mpirun = spawn(args.v, pipe_fd[1]);
    close(pipe_fd[1]);
    if (mpirun < 0) {
        err_set(e, ERR_ENV, "fork: %s", strerror(errno));
    } else {
        struct launch_filter filter;
        launch_filter_init(&filter, STDERR_FILENO, l->describe_rank, l->arg);
        bool aborted;
        int status = guard(mpirun, pipe_fd[0], &filter, &aborted);
        kill_leftovers(before, n_before);
        launch_filter_end(&filter);
        code = exit_code(status, aborted, &filter, e);
    }
    close(pipe_fd[0]);
remove_folders:
    args_free(&args);
    launch_folders_remove(&folders);
    return code;
}
