#include "cli/signals.h"

#include "core/comm.h"
#include "core/err.h"

#include <signal.h>
#include <unistd.h>

static volatile sig_atomic_t graceful, abort_asked;

static void on_signal(int sig)
{
    if (sig == SIGUSR1) {
        graceful = 1;
    } else {
        abort_asked = 1;
    }
}

/* Without a launcher to count: the first is graceful. */
static void on_signal_alone(int sig)
{
    if (graceful && sig != SIGUSR1) {
        abort_asked = 1;
    }
    graceful = 1;
}

void signals_catch(void)
{
    struct sigaction sa = {.sa_handler = comm_launched() ? on_signal : on_signal_alone};
    sigaction(SIGUSR1, &sa, NULL);
    sigaction(SIGTERM, &sa, NULL);
    sigaction(SIGINT, &sa, NULL);
    signal(SIGPIPE, SIG_IGN);
}

static void leave(int sig)
{
    (void)sig;
    _exit(ERR_ENV);
}

void signals_leave(void)
{
    struct sigaction sa = {.sa_handler = leave};
    sigaction(SIGTERM, &sa, NULL);
    sigaction(SIGINT, &sa, NULL);
}

bool signals_graceful(void)
{
    return graceful;
}

bool signals_abort(void)
{
    return abort_asked;
}
