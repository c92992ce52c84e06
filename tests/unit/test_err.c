/* Errors are one line whatever goes in; CHECK ends the process and says where; log lines. */
#include "core/err.h"
#include "core/log.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static void test_set_and_wrap(void **state)
{
    (void)state;
    struct err e = {0};
    assert_int_equal(err_set(&e, ERR_INPUT, "%s: %d is too many", "ranks", 7), -1);
    assert_int_equal(e.code, ERR_INPUT);
    assert_string_equal(e.msg, "ranks: 7 is too many");
    assert_int_equal(err_wrap(&e, "config %s", "a.yaml"), -1);
    assert_int_equal(e.code, ERR_INPUT);
    assert_string_equal(e.msg, "config a.yaml: ranks: 7 is too many");
}

static void test_message_may_quote_itself(void **state)
{
    (void)state;
    struct err e = {0};
    err_set(&e, ERR_ENV, "disk full");
    err_set(&e, ERR_ENV, "journal: %s", e.msg);
    assert_string_equal(e.msg, "journal: disk full");
}

/* What goes to stderr: text (cap). */
static void said_once(struct err *e, char *text, size_t cap)
{
    int ends[2];
    fflush(stderr);
    const int before = dup(STDERR_FILENO);
    assert_int_equal(pipe(ends), 0);
    dup2(ends[1], STDERR_FILENO);
    close(ends[1]);
    err_say_once(e);
    fflush(stderr);
    dup2(before, STDERR_FILENO);
    close(before);
    const ssize_t n = read(ends[0], text, cap - 1);
    text[n > 0 ? n : 0] = '\0';
    close(ends[0]);
}

static void test_is_said_once(void **state)
{
    (void)state;
    struct err e = {0};
    char text[128];
    said_once(&e, text, sizeof text);
    assert_string_equal(text, "");
    err_set(&e, ERR_INPUT, "disk full");
    said_once(&e, text, sizeof text);
    assert_string_equal(text, "tidemark: disk full\n");
    assert_int_equal(e.code, ERR_INPUT);
    said_once(&e, text, sizeof text);
    assert_string_equal(text, "");
}

static void test_one_line_whatever_goes_in(void **state)
{
    (void)state;
    struct err e = {0};
    err_set(&e, ERR_INPUT, "key '%s'", "a\nb\r\tc\x1b[31m\x7f");
    assert_string_equal(e.msg, "key 'a b  c [31m '");
    err_wrap(&e, "x\ny");
    assert_string_equal(e.msg, "x y: key 'a b  c [31m '");
}

static void test_long_messages_are_cut(void **state)
{
    (void)state;
    struct err e = {0};
    char text[2000];
    memset(text, 'x', sizeof text - 1);
    text[sizeof text - 1] = '\0';
    err_set(&e, ERR_INPUT, "%s", text);
    assert_int_equal(strlen(e.msg), sizeof e.msg - 1);
    err_wrap(&e, "short");
    assert_int_equal(strlen(e.msg), sizeof e.msg - 1);
    assert_memory_equal(e.msg, "short: xxx", 10);
    err_wrap(&e, "%s", text);
    assert_int_equal(strlen(e.msg), sizeof e.msg - 1);
    assert_int_equal(e.code, ERR_INPUT);
}

/* What fn writes to stderr in a child process, and how the child ends. */
static int run_child(void (*fn)(void), char *out, size_t cap)
{
    int fds[2];
    assert_int_equal(pipe(fds), 0);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        dup2(fds[1], STDERR_FILENO);
        close(fds[0]);
        close(fds[1]);
        signal(SIGABRT, SIG_DFL); // cmocka catches it
        fn();
        _exit(0);
    }
    close(fds[1]);
    size_t n = 0;
    ssize_t got;
    while (n < cap - 1 && (got = read(fds[0], out + n, cap - 1 - n)) > 0) {
        n += (size_t)got;
    }
    out[n] = '\0';
    close(fds[0]);
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return status;
}

static void fail_a_check(void)
{
    int n_lanes = 0;
    CHECK(n_lanes > 0);
}

static void test_check_aborts_and_says_where(void **state)
{
    (void)state;
    char out[4096];
    int status = run_child(fail_a_check, out, sizeof out);
    assert_true(WIFSIGNALED(status));
    assert_int_equal(WTERMSIG(status), SIGABRT);
    assert_non_null(strstr(out, "test_err.c:"));
    assert_non_null(strstr(out, "CHECK(n_lanes > 0) failed\n"));
}

static void log_as_rank_zero(void)
{
    log_set_level(LOG_INFO);
    log_debug("stage", "dropped");
    log_info("stage", "no rank yet");
    log_set_rank(0);
    log_info("stage", "layers %d to %d", 0, 3);
    log_warn("stage", "two\nlines");
}

static void log_as_rank_two(void)
{
    log_set_level(LOG_INFO);
    log_set_rank(2);
    log_info("stage", "dropped: info is for rank 0");
    log_warn("stage", "slow");
    log_set_level(LOG_ERROR);
    log_warn("stage", "dropped");
    log_error("stage", "gone");
}

/* The lines without their time stamps, whose shape is checked here. */
static void strip_stamps(char *text)
{
    char *to = text;
    for (char *line = text; *line != '\0';) {
        int h, m, s, ms, n = 0;
        assert_int_equal(sscanf(line, "%2d:%2d:%2d.%3d %n", &h, &m, &s, &ms, &n), 4);
        assert_int_equal(n, 13);
        size_t len = strcspn(line + n, "\n") + 1;
        memmove(to, line + n, len);
        to += len;
        line += (size_t)n + len;
    }
    *to = '\0';
}

static void test_log_lines(void **state)
{
    (void)state;
    char out[4096];
    assert_int_equal(run_child(log_as_rank_zero, out, sizeof out), 0);
    strip_stamps(out);
    assert_string_equal(out, "stage: no rank yet\n"
                             "rank 0 stage: layers 0 to 3\n"
                             "rank 0 stage: two lines\n");
    assert_int_equal(run_child(log_as_rank_two, out, sizeof out), 0);
    strip_stamps(out);
    assert_string_equal(out, "rank 2 stage: slow\nrank 2 stage: gone\n");
}

static void log_by_environment(void)
{
    setenv("TIDEMARK_LOG", "debug", 1);
    log_debug("stage", "%0*d", 5000, 1);
}

static void test_log_level_from_environment_and_long_line(void **state)
{
    (void)state;
    char out[8192];
    assert_int_equal(run_child(log_by_environment, out, sizeof out), 0);
    size_t n = strlen(out);
    assert_int_equal(n, 2048 - 1);
    assert_int_equal(out[n - 1], '\n');
    assert_null(memchr(out, '\n', n - 1));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_set_and_wrap),
        cmocka_unit_test(test_message_may_quote_itself),
        cmocka_unit_test(test_is_said_once),
        cmocka_unit_test(test_one_line_whatever_goes_in),
        cmocka_unit_test(test_long_messages_are_cut),
        cmocka_unit_test(test_check_aborts_and_says_where),
        cmocka_unit_test(test_log_lines),
        cmocka_unit_test(test_log_level_from_environment_and_long_line),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
