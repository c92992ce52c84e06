#include "cli/launch_filter.h"

#include "cli/signals.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define RULE_DASHES 60       // Open MPI frames its notices with rules of 74 dashes
#define CLEAR_LINE  "\033[K" // begins what progress draws
#define ERROR_LINE  "tidemark: "

void launch_filter_init(struct launch_filter *f, int fd,
                        const char *(*describe_rank)(void *, int, char *, size_t), void *arg)
{
    const char *v = getenv("TIDEMARK_MPIRUN_VERBOSE");
    *f = (struct launch_filter){
        .fd = fd, .verbose = v && v[0] == '1', .describe_rank = describe_rank, .arg = arg};
}

static void put(const struct launch_filter *f, const char *text, size_t n)
{
    while (n > 0) {
        ssize_t w = write(f->fd, text, n);
        if (w <= 0) {
            return; // nobody reads any more
        }
        text += w;
        n -= (size_t)w;
    }
}

void launch_filter_clear_line(struct launch_filter *f)
{
    if (f->drawn) {
        put(f, CLEAR_LINE, strlen(CLEAR_LINE));
    }
    f->drawn = false;
}

/* In verbose mode everything has passed already, as it came. */
static void show(struct launch_filter *f, const char *text, size_t n)
{
    if (f->verbose) {
        return;
    }
    launch_filter_clear_line(f);
    put(f, text, n);
}

/* Where the rule at the end of a line begins; its length when there is none. What rank 0 draws has no newline,
 * so that a rule may stand behind it. */
static size_t rule_at(const char *line, size_t len)
{
    size_t end = len > 0 && (line[len - 1] == '\n' || line[len - 1] == '\r') ? len - 1 : len;
    size_t at = end;
    while (at > 0 && line[at - 1] == '-') {
        at--;
    }
    return end - at >= RULE_DASHES ? at : len;
}

/* "mpirun noticed that process rank 2 with PID 0 on node h exited on signal 9 (Killed)." */
static bool say_killed(struct launch_filter *f, const char *notice)
{
    const char *p = strstr(notice, "process rank ");
    int rank, sig;
    char host[128];
    if (!p || sscanf(p, "process rank %d with PID %*d on node %127s exited on signal %d", &rank,
                     host, &sig) != 3) {
        return false;
    }
    char who[128] = "", line[512];
    if (f->describe_rank) {
        f->describe_rank(f->arg, rank, who, sizeof who);
    }
    int n =
        snprintf(line, sizeof line, "tidemark: rank %d%s%s%s on %s was killed by signal %d (%s)\n",
                 rank, who[0] ? " (" : "", who, who[0] ? ")" : "", host, sig, strsignal(sig));
    if (f->n_killed++ == 0) {
        show(f, line, n < (int)sizeof line ? (size_t)n : sizeof line - 1);
        f->said = true;
    }
    return true;
}

/* Notices about ranks that ended by our own doing say nothing that was not said already. */
static bool is_expected(const char *notice)
{
    static const char *const known[] = {
        "MPI_ABORT was invoked",
        "Primary job  terminated normally, but",
        "detected that one or more processes exited with non-zero status",
        "has exited improperly",
        "process that caused",
    };
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        if (strstr(notice, known[i])) {
            return true;
        }
    }
    return false;
}

static void end_notice(struct launch_filter *f)
{
    if (f->notice.len && !say_killed(f, f->notice.data) && !is_expected(f->notice.data)) {
        show(f, f->notice.data, f->notice.len);
    }
    str_clear(&f->notice);
    f->in_notice = false;
}

/*
 * Of Open MPI's own voice: counts of notices, a copy from the memory of a rank that just died, a
 * notice that mpirun could not read (4.1 garbles some when several ranks abort at once), and its event
 * loop's word on a stream of such a rank.
 */
static bool is_chatter(const char *line)
{
    int n = 0;
    sscanf(line, "[%*[^]]] Read -1, expected %*u, errno = %*d%n", &n);
    if (n) {
        return true;
    }
    if (strstr(line, "ORTE_ERROR_LOG: ") && strstr(line, "/show_help.c at line ")) {
        return true;
    }
    return strncmp(line, "[warn] Epoll ", strlen("[warn] Epoll ")) == 0 ||
           strstr(line, "more process has sent help message") ||
           strstr(line, "more processes have sent help message") ||
           strstr(line, "orte_base_help_aggregate") || strstr(line, "mpirun: Forwarding signal");
}

/* "12:34:56.789 rank 3 comm: ..." is what comm_abort logs; its guard may have a word after that. */
static bool take_last_words(struct launch_filter *f, const char *line)
{
    int n = 0;
    sscanf(line, "%*2d:%*2d:%*2d.%*3d rank %*d comm: %n", &n);
    if (n == 0) {
        return f->last_words.len && strstr(line, " guard: ");
    }
    size_t len = strcspn(line + n, "\r\n");
    bool is_echo = f->last_words.len && strstr(f->last_words.data, SIGNALS_ABORTED);
    if (f->last_words.len == 0 || is_echo) {
        str_clear(&f->last_words);
        str_append(&f->last_words, line + n, len);
    }
    return true;
}

static void take_rank_line(struct launch_filter *f)
{
    const char *line = f->line.data;
    bool cleared = strncmp(line, CLEAR_LINE, strlen(CLEAR_LINE)) == 0;
    const char *text = cleared ? line + strlen(CLEAR_LINE) : line;
    if (is_chatter(text) || take_last_words(f, text)) {
        return;
    }
    if (*text == '\r' || *text == '\0') {
        return; // to the begin of a line, where the cursor is
    }
    show(f, line, f->line.len);
    f->drawn = cleared && line[f->line.len - 1] == '\r';
    f->said |= strncmp(text, ERROR_LINE, strlen(ERROR_LINE)) == 0;
}

static void take_line(struct launch_filter *f)
{
    size_t rule = rule_at(f->line.data, f->line.len);
    if (rule < f->line.len) {
        if (rule > 0) {
            f->line.len = rule;
            f->line.data[rule] = '\0';
            take_rank_line(f);
        }
        if (f->in_notice) {
            end_notice(f);
        } else {
            f->in_notice = true;
        }
    } else if (f->in_notice && !strchr("\r\033", f->line.data[0])) {
        str_append(&f->notice, f->line.data, f->line.len);
    } else {
        take_rank_line(f);
    }
    str_clear(&f->line);
}

static void say_last_words(struct launch_filter *f)
{
    if (f->n_killed == 0 && f->last_words.len) {
        str_append(&f->last_words, "\n", 1);
        show(f, ERROR_LINE, strlen(ERROR_LINE));
        show(f, f->last_words.data, f->last_words.len);
        f->said = true;
    }
}

void launch_filter_feed(struct launch_filter *f, const char *bytes, size_t n)
{
    if (f->verbose) {
        put(f, bytes, n);
    }
    for (size_t i = 0; i < n; i++) {
        str_append(&f->line, &bytes[i], 1);
        if (bytes[i] == '\n' || bytes[i] == '\r') { // progress lines end with \r
            take_line(f);
        }
    }
}

void launch_filter_end(struct launch_filter *f)
{
    if (f->line.len) {
        take_line(f);
    }
    end_notice(f);
    say_last_words(f);
    str_free(&f->last_words);
    str_free(&f->line);
    str_free(&f->notice);
}
