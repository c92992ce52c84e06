"""Ranks that are killed (or fall silent) in the middle of a step, at random times.

Each time: all other processes are gone within 10 s; the launcher says in one line which rank it
was; nothing is left in the session and shared-memory folders; the steps before are intact; and
after `recover` the step holds the whole schedule of an unbroken run with the same seed, where
nothing that finished more than 1 s before the kill is missing and every other request is `lost`.

What had finished by then is known from two witnesses that share nothing with the journal:

 1. The progress line, read here with this process's clock. It shows the loop's own count of
    finished requests (load rank 0's, times the number of load ranks). A count read more than 1 s
    before the kill was finished then: load rank 0 must have at least so many records. Exact.
 2. The schedule. The load is light (a few percent of what the stages serve), so that a reply takes
    milliseconds in the unbroken run. A request due more than 1 s + `SLACK_S` before the kill, which
    is many times the longest reply ever seen, had finished. It covers all load ranks, by name.

Clocks agree: times in the file are rank 0's CLOCK_MONOTONIC less t0_ns, and the kill is stamped
with the same clock on the same host.
"""

import os
import pathlib
import random
import re
import shutil
import signal
import time

import tidemark_cli as cli

KILLS = int(os.environ.get("TIDEMARK_CRASH_KILLS") or (5 if cli.SANITIZED else 25))
SEED = int(os.environ.get("TIDEMARK_CRASH_SEED") or 1)
GONE_S = 10
FINISHED_S = 1.0
SLACK_S = 2.0 if cli.SANITIZED else 1.0
RATES = [25.0, 30.0]
STEP_S = FINISHED_S + 2 * SLACK_S  # so that a late kill leaves requests due long before it
PIPELINE = 2
PROGRESS = re.compile(r"step (\d+)(?:/\d+)? [^\r\n]*? done (\d+)")
CLEAR_LINE = "\033[K"
SHM = pathlib.Path("/dev/shm")


def config(folder, load_ranks, n_steps):
    return cli.small_run(folder, load__ranks=load_ranks, load__rates=RATES[:n_steps],
                         load__step=f"{STEP_S}s", target__pipeline=PIPELINE,
                         target__threads=1, deadline__silence="2s")


def said(err):
    """What was said on stderr besides progress, the log of finished steps, and what `auto` took."""
    lines = [line.replace(CLEAR_LINE, "") for line in re.split(r"[\r\n]+", err)]
    return [line for line in lines
            if line and not PROGRESS.match(line) and not cli.AS_ROOT.match(line)
            and not re.search(r" run: (step \d+|target.backend): ", line)]


class Crash(cli.TestCase):
    @classmethod
    def setUpClass(cls):
        """The unbroken run that all others are measured against."""
        home = pathlib.Path(cli.tempfile.mkdtemp(prefix="tidemark-test-"))
        cls.addClassCleanup(shutil.rmtree, home, ignore_errors=True)
        result = cli.run("run", config(home, 1, 2), "--quiet")
        assert result.code == 0, str(result)
        cls.unbroken = cli.read_steps(home / "run.h5")
        for step in cls.unbroken:
            assert set(step.outcomes().values()) == {"ok"}, step.outcomes()
            r = step.requests
            longest_s = (r["t_last_ns"] - r["t_sched_ns"]).max() / 1e9
            assert longest_s < SLACK_S / 2, f"a reply took {longest_s} s: too busy for witness 2"

    # --- one run ----------------------------------------------------------------------------------

    def start(self, load_ranks, n_steps):
        """A run whose folders for sessions are its own; its progress goes to a pipe."""
        self.home = pathlib.Path(cli.tempfile.mkdtemp(prefix="t", dir=self.folder))
        self.tmp = self.home / "tmp"
        self.tmp.mkdir()
        self.file = self.home / "run.h5"
        self.journal = pathlib.Path(f"{self.file}.journal")
        process = cli.start("run", config(self.home, load_ranks, n_steps),
                            env={"TMPDIR": str(self.tmp), "TIDEMARK_TTY": "200"})
        self.addCleanup(process.end)
        return process

    def into_step(self, process, index, wait_s):
        process.wait_until(lambda: list(self.journal.glob(f"*{index:04d}*")), f"step {index}")
        time.sleep(wait_s)
        self.pids = list(cli.processes(process.mark))

    def strike(self, process, rank, how):
        """Signal a rank; when it was, on this host's monotonic clock."""
        pid = process.ranks()[rank]
        at_ns = time.monotonic_ns()
        os.kill(pid, how)
        return at_ns

    def gone(self, process, since_ns):
        end_ns = since_ns + GONE_S * 1_000_000_000
        while cli.processes(process.mark):
            if time.monotonic_ns() > end_ns:
                left = {pid: env.get("OMPI_COMM_WORLD_RANK", "launcher or mpirun")
                        for pid, env in cli.processes(process.mark).items()}
                process.end()
                self.fail(f"still there after {GONE_S} s: {left}\n{process.stderr()}")
            time.sleep(0.02)
        return process.finish()

    # --- what must hold afterwards ----------------------------------------------------------------

    def check_swept(self):
        self.assertEqual(sorted(os.listdir(self.tmp)), [], "left in the session folder")
        tokens = {str(pid) for pid in self.pids}
        left = [name for name in os.listdir(SHM) if tokens & set(re.split(r"\D+", name))]
        self.assertEqual(left, [], "left in shared memory")

    def check_whole_steps(self, n_whole):
        steps = cli.read_steps(self.file)
        self.assertEqual(len(steps), n_whole)
        for step, unbroken in zip(steps, self.unbroken):
            self.assertEqual(step.schedule(), unbroken.schedule())
            self.assertEqual(set(step.outcomes().values()), {"ok"})
        self.good("validate", self.file)

    def check_recovered(self, n_whole, load_ranks, struck_ns, chunks):
        result = self.good("recover", self.file)
        self.assertIn(f"step {n_whole} ", result.out)
        self.assertFalse(self.journal.exists())
        steps = cli.read_steps(self.file)
        self.assertEqual(len(steps), n_whole + 1)
        step, unbroken = steps[-1], self.unbroken[n_whole]
        self.assertEqual(int(step.attrs["recovered"]), 1)
        self.assertEqual(step.schedule(), unbroken.schedule(), "every request by name")
        outcomes = step.outcomes()
        self.assertLessEqual(set(outcomes.values()), {"ok", "lost"})
        self.check_first_witness(step, n_whole, load_ranks, struck_ns, chunks)
        self.check_second_witness(step, struck_ns)
        for i, outcome in outcomes.items():
            wanted = 8 if outcome == "ok" else 0
            self.assertEqual(int(step.requests["n_out"][i]), wanted, f"request {i}: {outcome}")
        self.good("validate", self.file)
        return sum(o == "ok" for o in outcomes.values()), len(outcomes)

    def check_first_witness(self, step, index, load_ranks, struck_ns, chunks):
        done = 0
        for read_ns, text in chunks:
            if read_ns < struck_ns - int(FINISHED_S * 1e9):
                for number, count in PROGRESS.findall(text):
                    if int(number) == index + 1:
                        done = max(done, int(count) // load_ranks)
        r = step.requests
        have = int(((r["load_rank"] == 0) & (r["outcome"] == 0)).sum())
        self.assertGreaterEqual(have, done, "load rank 0 had shown more as done, > 1 s before")
        self.n_witnessed += done

    def check_second_witness(self, step, struck_ns):
        t0_ns = int(cli.root_attrs(self.file)["t0_ns"])
        by_ns = struck_ns - t0_ns - int((FINISHED_S + SLACK_S) * 1e9)
        r = step.requests
        due = [int(i) for i, due_ns in zip(r["id"], r["t_sched_ns"]) if due_ns < by_ns]
        outcomes = step.outcomes()
        self.assertEqual([i for i in due if outcomes[i] != "ok"], [],
                         "due long before the kill, and not in the file")
        self.n_due += len(due)

    # --- tests ------------------------------------------------------------------------------------

    def one_trial(self, draw, how, rank=None, part=0, parts=1):
        """One run struck at a random time in the given part of its last step's equal parts."""
        load_ranks = draw.choice([1, 2])
        n_steps = draw.choice([1, 1, 1, 1, 2])
        rank = draw.randrange(load_ranks + PIPELINE) if rank is None else rank
        wait_s = 0.2 + (STEP_S - 0.3) * (part + draw.random()) / parts
        process = self.start(load_ranks, n_steps)
        self.into_step(process, n_steps - 1, wait_s)
        struck_ns = self.strike(process, rank, how)
        result = self.gone(process, struck_ns)
        took_s = (time.monotonic_ns() - struck_ns) / 1e9
        self.assertEqual(result.code, 1, str(result))
        lines = said(result.err)
        self.assertEqual(len(lines), 1, f"one line wanted: {lines}")
        self.assertRegex(lines[0], rf"\brank {rank}\b")
        others = set(re.findall(r"\brank (\d+)\b", lines[0])) - {str(rank)}
        self.check_swept()
        self.check_whole_steps(n_steps - 1)
        n_ok, n_all = self.check_recovered(n_steps - 1, load_ranks, struck_ns, process.chunks)
        print(f"  {how.name} of rank {rank} of {load_ranks}+{PIPELINE}, step {n_steps - 1}, "
              f"{wait_s:.2f} s into it: gone after {took_s:.1f} s; {n_ok} of {n_all} requests kept",
              flush=True)
        return lines[0], others

    def test_kills(self):
        draw = random.Random(SEED)
        self.n_witnessed = self.n_due = 0
        for k in draw.sample(range(KILLS), KILLS):  # all over the step, so that some come late
            with self.subTest(kill=k, seed=SEED):
                line, others = self.one_trial(draw, signal.SIGKILL, part=k, parts=KILLS)
                self.assertRegex(line, r"^tidemark: rank \d+ \((load rank|worker, replica 0 "
                                       r"stage \d)\) on \S+ was killed by signal 9 \(Killed\)$")
                self.assertEqual(others, set())
            shutil.rmtree(self.home, ignore_errors=True)
        self.assertGreater(self.n_witnessed, 0, "the progress line witnessed nothing")
        self.assertGreater(self.n_due, 0, "no request was due early enough")

    def test_silent_ranks(self):
        """SIGSTOP: nothing tells the others but its silence, of deadline.silence = 2 s."""
        draw = random.Random(SEED + 1)
        self.n_witnessed = self.n_due = 0
        for rank in (0, 1, 2) if not cli.SANITIZED else (1,):
            with self.subTest(rank=rank, seed=SEED):
                line, _ = self.one_trial(draw, signal.SIGSTOP, rank)
                self.assertRegex(line, rf"\brank {rank} \(pid \d+ on \S+\) has been silent")

    def test_launcher_is_killed(self):
        """Nobody is left to clean up: the ranks end by themselves, the next start sweeps."""
        self.n_witnessed = self.n_due = 0
        process = self.start(1, 1)
        self.into_step(process, 0, 2.0)
        struck_ns = time.monotonic_ns()
        process.signal(signal.SIGKILL)
        self.gone(process, struck_ns)
        self.check_recovered(0, 1, struck_ns, process.chunks)
        again = cli.run("run", config(self.home, 1, 1), "--force", "--quiet", "load.step=300ms",
                        env={"TMPDIR": str(self.tmp)})
        self.assertEqual(again.code, 0, str(again))
        self.check_swept()

    def test_mpirun_is_killed(self):
        self.n_witnessed = self.n_due = 0
        process = self.start(1, 1)
        self.into_step(process, 0, 2.0)
        ranks = set(process.ranks().values())
        mpirun = [pid for pid in cli.processes(process.mark) if pid not in ranks | {process.pid}]
        self.assertEqual(len(mpirun), 1)
        struck_ns = time.monotonic_ns()
        os.kill(mpirun[0], signal.SIGKILL)
        result = self.gone(process, struck_ns)
        self.assertEqual(result.code, 1, str(result))
        self.assertEqual([line for line in said(result.err) if "mpirun" in line], said(result.err))
        self.assertEqual(len(said(result.err)), 1, str(result))
        self.check_swept()
        self.check_recovered(0, 1, struck_ns, process.chunks)


if __name__ == "__main__":
    cli.main()
