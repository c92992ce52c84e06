/*
 * What the launcher says of a world, from the bytes that mpirun's stderr brings.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cli/launch_filter.h"
#include "cli/signals.h"

#define RULE "--------------------------------------------------------------------------\n"
#define ABORTED                                                                                    \
    RULE "MPI_ABORT was invoked on rank 1 in communicator MPI_COMM_WORLD\nwith errorcode 1.\n" RULE
#define KILLED                                                                                     \
    RULE                                                                                           \
        "mpirun noticed that process rank 2 with PID 0 on node n1 exited on signal 9 (Killed).\n" RULE

static const char *describe(void *arg, int rank, char *buf, size_t cap)
{
    snprintf(buf, cap, "%s %d", (const char *)arg, rank);
    return buf;
}

struct heard {
    char text[4096];
    bool said;
    int n_killed;
};

/* Feed the text in pieces of `piece` bytes; what comes out at the end. */
static struct heard hear(const char *text, size_t piece)
{
    struct heard h = {0};
    struct launch_filter f;
    static char what[] = "worker";
    int fd[2];
    assert_int_equal(pipe(fd), 0);
    launch_filter_init(&f, fd[1], describe, what);
    for (size_t at = 0, len = strlen(text); at < len; at += piece) {
        launch_filter_feed(&f, text + at, len - at < piece ? len - at : piece);
    }
    launch_filter_end(&f);
    h.said = f.said;
    h.n_killed = f.n_killed;
    close(fd[1]);
    ssize_t n = read(fd[0], h.text, sizeof h.text - 1);
    h.text[n > 0 ? n : 0] = '\0';
    close(fd[0]);
    return h;
}

static void hears(const char *text, const char *wanted)
{
    for (size_t piece = 1; piece < 5000; piece *= 7) {
        assert_string_equal(hear(text, piece).text, wanted);
    }
}

static void test_ordinary_lines_pass(void **state)
{
    (void)state;
    hears("10:00:00.000 rank 0 run: step 0: stable\nfree text\n",
          "10:00:00.000 rank 0 run: step 0: stable\nfree text\n");
    hears("no newline at the end", "no newline at the end");
    hears("", "");
}

static void test_killed_rank_is_named_once(void **state)
{
    (void)state;
    const char *line = "tidemark: rank 2 (worker 2) on n1 was killed by signal 9 (Killed)\n";
    hears(ABORTED KILLED "[n1:77] 2 more processes have sent help message x\n", line);
    hears(KILLED KILLED, line);
    assert_int_equal(hear(KILLED KILLED, 100).n_killed, 2);
    assert_true(hear(KILLED, 100).said);
}

static void test_first_last_words_speak_for_all(void **state)
{
    (void)state;
    const char *two = "10:00:01.000 rank 1 comm: rank 0 (pid 7 on n1) has been silent for 2.0 s\n"
                      "10:00:01.001 rank 3 comm: rank 0 (pid 7 on n1) has been silent for 2.1 s\n"
                      "10:00:02.000 rank 3 guard: MPI_Abort does not return; exiting\n";
    hears(two, "tidemark: rank 0 (pid 7 on n1) has been silent for 2.0 s\n");
    assert_true(hear(two, 64).said);
}

static void test_an_echo_gives_way_to_a_cause(void **state)
{
    (void)state;
    hears("10:00:01.000 rank 1 comm: " SIGNALS_ABORTED "\n"
          "10:00:01.000 rank 0 comm: disk full\n"
          "10:00:01.000 rank 2 comm: " SIGNALS_ABORTED "\n",
          "tidemark: disk full\n");
    hears("10:00:01.000 rank 1 comm: " SIGNALS_ABORTED "\n", "tidemark: " SIGNALS_ABORTED "\n");
}

static void test_a_kill_explains_all_last_words(void **state)
{
    (void)state;
    hears("10:00:01.000 rank 1 comm: rank 2 (pid 7 on n1) has been silent for 2.0 s\n" KILLED,
          "tidemark: rank 2 (worker 2) on n1 was killed by signal 9 (Killed)\n");
}

static void test_progress_does_not_hide_a_line(void **state)
{
    (void)state;
    hears("\r\033[Kstep 1 done 3\r\r\033[Kstep 1 done 4\r" KILLED,
          "\033[Kstep 1 done 3\r\033[K\033[Kstep 1 done 4\r"
          "\033[Ktidemark: rank 2 (worker 2) on n1 was killed by signal 9 (Killed)\n");
    hears("\r\033[Kstep 1 done 3\r\r\033[K10:00:00.000 rank 0 run: step 0\n",
          "\033[Kstep 1 done 3\r\033[K\033[K10:00:00.000 rank 0 run: step 0\n");
}

/* As rank 0 clears its line at the end of a step. */
static void test_a_rule_behind_progress_is_one(void **state)
{
    (void)state;
    hears("\033[Kstep 1\r\033[K" KILLED, "\033[Kstep 1\r\033[K"
                                         "tidemark: rank 2 (worker 2) on n1 was killed by signal 9 "
                                         "(Killed)\n");
    hears("\033[Kstep 1" ABORTED KILLED,
          "\033[Kstep 1tidemark: rank 2 (worker 2) on n1 was killed by signal 9 (Killed)\n");
}

static void test_unknown_notices_pass(void **state)
{
    (void)state;
    hears(RULE "There are not enough slots available.\n" RULE,
          "There are not enough slots available.\n");
    assert_false(hear(RULE "Not enough slots.\n" RULE, 100).said);
}

static void test_copies_from_a_dead_rank_are_silent(void **state)
{
    (void)state;
    hears("[warn] Epoll MOD(1) on fd 23 failed. Old events were 6; read change was 0 (none)\n", "");
    hears("[n1:10072] Read -1, expected 17920, errno = 3\n"
          "[n1:10072] Read -1, expected\n",
          "[n1:10072] Read -1, expected\n");
}

static void test_notices_that_mpirun_could_not_read_are_silent(void **state)
{
    (void)state;
    hears("10:00:01.000 rank 0 comm: rank 1 (pid 7 on n1) has been silent for 2.0 s\n"
          "[n1:12063] [[17377,0],0] ORTE_ERROR_LOG: Out of resource in file "
          "../../../orte/util/show_help.c at line 507\n",
          "tidemark: rank 1 (pid 7 on n1) has been silent for 2.0 s\n");
    const char *other = "[n1:12063] [[17377,0],0] ORTE_ERROR_LOG: Not found in file "
                        "../../../orte/mca/ess/hnp/ess_hnp_module.c at line 320\n";
    hears(other, other);
}

static void test_errors_of_ranks_count_as_said(void **state)
{
    (void)state;
    assert_true(hear("tidemark: load.ratse: unknown key\n" ABORTED, 100).said);
    assert_false(hear("something else\n", 100).said);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ordinary_lines_pass),
        cmocka_unit_test(test_killed_rank_is_named_once),
        cmocka_unit_test(test_first_last_words_speak_for_all),
        cmocka_unit_test(test_an_echo_gives_way_to_a_cause),
        cmocka_unit_test(test_a_kill_explains_all_last_words),
        cmocka_unit_test(test_progress_does_not_hide_a_line),
        cmocka_unit_test(test_a_rule_behind_progress_is_one),
        cmocka_unit_test(test_unknown_notices_pass),
        cmocka_unit_test(test_copies_from_a_dead_rank_are_silent),
        cmocka_unit_test(test_notices_that_mpirun_could_not_read_are_silent),
        cmocka_unit_test(test_errors_of_ranks_count_as_said),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
