"""Stopping a run: the first request finishes the step and closes the file, the second ends it at
once and leaves the journal for `recover`. Tests run side by side: nothing is judged finer than seconds."""

import math
import pathlib
import signal
import time

import tidemark_cli as cli

RATES = [10.0, 20.0, 30.0, 40.0]


class Stop(cli.TestCase):
    def setUp(self):
        super().setUp()
        self.file = self.folder / "run.h5"
        self.journal = pathlib.Path(f"{self.file}.journal")

    def start(self, step="1500ms", keys=None, **options):
        config = cli.small_run(self.folder, load__rates=RATES, load__step=step, **(keys or {}))
        process = cli.start("run", config, **options)
        self.addCleanup(process.end)
        return process

    def in_step(self, process, index):
        process.wait_until(lambda: cli.journal_bytes(self.journal, index), f"step {index}")

    def check_stopped(self, process, n_steps):
        """Ended by itself, in good order: the step that was under way is whole."""
        result = process.finish()
        self.assertEqual(result.code, 0, str(result))
        steps = cli.read_steps(self.file)
        self.assertEqual(len(steps), n_steps, str(result))
        self.assertEqual(set(steps[-1].outcomes().values()), {"ok"})
        self.assertEqual(int(cli.root_attrs(self.file)["complete"]), 0)
        self.assertFalse(self.journal.exists(), "a journal is left")
        self.good("validate", self.file)
        report = self.good("report", self.file, "--format", "json").json()
        self.assertEqual((report["run"]["complete"], len(report["steps"])), (False, n_steps))
        self.assertEqual(cli.processes(process.mark), {})
        return result

    def check_untold(self, attrs):
        """What load ranks say at the end of a step is missing, not zero, where they never said it."""
        for name in ("poll_gap_p50_ns", "poll_gap_p99_ns", "load_cpu_share"):
            self.assertTrue(math.isnan(attrs[name]), f"{name} = {attrs[name]}")
        report = self.good("report", self.file, "--format", "json").json()
        self.assertEqual(report["steps"][-1]["poll_gap_us"], {"p50": None, "p99": None})
        self.assertIsNone(report["steps"][-1]["load_cpu_share"])

    def check_aborted(self, process, began, n_whole):
        """Gone within 10 s; the journal is there and closes the file."""
        result = process.finish()
        self.assertLess(time.monotonic() - began, 10, str(result))
        self.assertEqual(result.code, 1, str(result))
        self.assertEqual(cli.processes(process.mark), {})
        self.assertTrue(list(self.journal.glob("*")), "the journal is kept")
        self.assertEqual(len(cli.read_steps(self.file)), n_whole)
        recovered = self.good("recover", self.file)
        self.assertIn(f"step {n_whole}", recovered.out)
        steps = cli.read_steps(self.file)
        self.assertEqual(len(steps), n_whole + 1)
        self.assertEqual(int(steps[-1].attrs["recovered"]), 1)
        self.assertIn("lost", set(steps[-1].outcomes().values()))
        self.check_untold(steps[-1].attrs)
        self.assertFalse(self.journal.exists(), "recover folds the journal and removes it")
        self.good("validate", self.file)
        return result

    def test_interrupt_once(self):
        process = self.start()
        self.in_step(process, 1)
        process.signal(signal.SIGINT)
        result = self.check_stopped(process, 2)
        self.assertIn("stopping after this step", result.err)

    def test_terminate_once(self):
        process = self.start()
        self.in_step(process, 0)
        process.signal(signal.SIGTERM)
        self.check_stopped(process, 1)

    def test_interrupt_twice(self):
        process = self.start(step="5s")
        self.in_step(process, 0)
        time.sleep(1.0)
        process.signal(signal.SIGINT)
        time.sleep(0.3)
        began = time.monotonic()
        process.signal(signal.SIGINT)
        self.check_aborted(process, began, 0)

    def test_ctrl_c_on_a_terminal(self):
        """The terminal interrupts its whole foreground group: only the launcher is in it."""
        process = self.start(terminal=True)
        self.in_step(process, 1)
        process.type("\x03")
        self.check_stopped(process, 2)

    def test_ctrl_c_twice_on_a_terminal(self):
        process = self.start(step="5s", terminal=True)
        self.in_step(process, 0)
        time.sleep(1.0)
        process.type("\x03")
        time.sleep(0.3)
        began = time.monotonic()
        process.type("\x03")
        self.check_aborted(process, began, 0)

    def test_sigusr1_through_mpirun_by_hand(self):
        process = self.start(np=3)
        self.in_step(process, 1)
        process.signal(signal.SIGUSR1)
        self.check_stopped(process, 2)

    def test_sigterm_through_mpirun_by_hand(self):
        """What a batch system does to a job that is over its time."""
        process = self.start(step="5s", np=3)
        self.in_step(process, 0)
        time.sleep(1.0)
        began = time.monotonic()
        process.signal(signal.SIGTERM)
        result = process.finish()
        self.assertLess(time.monotonic() - began, 10, str(result))
        self.assertNotEqual(result.code, 0)
        self.good("recover", self.file)
        outcomes = set(cli.read_steps(self.file)[0].outcomes().values())
        self.assertEqual(outcomes, {"ok", "lost"})

    def test_one_rank_without_a_launcher(self):
        process = self.start(keys={"target__kind": "null"})
        self.in_step(process, 1)
        process.signal(signal.SIGINT)
        self.check_stopped(process, 2)

    def test_what_was_cut_short_is_offered_again(self):
        """recover, then --resume: the recovered step answers nothing, and the run is whole and valid (but
        where this machine held up the client in another step)."""
        process = self.start(step="3s", keys={"target__kind": "null"})
        self.in_step(process, 1)
        time.sleep(1.0)
        process.signal(signal.SIGINT)
        time.sleep(0.3)
        began = time.monotonic()
        process.signal(signal.SIGINT)
        self.check_aborted(process, began, 1)
        config = self.folder / "config.yaml"
        resumed = cli.run("run", config, "--resume", "--quiet", "--strict")
        report = self.good("report", self.file, "--format", "json").json()
        was_held_up = "client_limited" in [s["verdict"] for s in report["steps"] if not s["recovered"]]
        self.assertEqual(resumed.code, 3 if was_held_up else 0, str(resumed))
        self.assertTrue(report["run"]["complete"])
        self.assertEqual(report["run"]["valid"], not was_held_up)
        self.assertEqual([s["rate_rps"] for s in report["steps"]], [10, 20, 20, 30, 40])
        self.assertEqual([s["recovered"] for s in report["steps"]],
                         [False, True, False, False, False])
        self.assertEqual([s["poll_gap_us"]["p99"] is None for s in report["steps"]],
                         [False, True, False, False, False])

    def test_interrupt_while_loading(self):
        """Before any step there is nothing to finish: it ends soon, and leaves no mess."""
        process = self.start()
        process.wait_until(process.ranks, "ranks")
        began = time.monotonic()
        process.signal(signal.SIGINT)
        process.signal(signal.SIGUSR1)
        time.sleep(0.2)
        process.signal(signal.SIGINT)
        process.finish()
        self.assertLess(time.monotonic() - began, 10)
        self.assertEqual(cli.processes(process.mark), {})


if __name__ == "__main__":
    cli.main(cli.SideBySide())
